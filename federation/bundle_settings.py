"""What settings say about bundles of trust domains outside: where ours is served, and whose are fetched from where.

Every parameter comes from here and none from what is fetched (SPIFFE Federation §5.1, §7.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import ClassVar, Literal, Self

from msgspec import Struct

from federation.bundle_url import check_url
from federation.duration import Duration
from federation.written import Bounded, File, Listening
from pki.errors import InvalidSpiffeId
from pki.spiffe import SpiffeId, TrustDomain

Profile = Literal["https_web", "https_spiffe"]


class Domain(str):
    """The name of a trust domain."""

    __slots__ = ()
    allowed: ClassVar[str] = "a trust domain without spiffe://, such as partner.example"

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            return cls(TrustDomain.parse(text).name)
        except InvalidSpiffeId as error:
            raise ValueError(error.reason) from error


class EndpointUrl(str):
    """Where a bundle is fetched (SPIFFE Federation §5.2.1.1)."""

    __slots__ = ()
    allowed: ClassVar[str] = "https://host[:port][/path], without user and password"

    @classmethod
    def parse(cls, text: str) -> Self:
        check_url(text)
        return cls(text)


class Identity(str):
    """A SPIFFE ID."""

    __slots__ = ()
    allowed: ClassVar[str] = "a SPIFFE ID, such as spiffe://partner.example/bundle-server"

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            return cls(SpiffeId.parse(text))
        except InvalidSpiffeId as error:
            raise ValueError(error.reason) from error


class Range(str):
    """Addresses that are not public and may be dialled all the same."""

    __slots__ = ()
    allowed: ClassVar[str] = "a range of addresses, such as 10.2.0.0/16 or fd00:2::/64"

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(ip_network(text))

    @property
    def network(self) -> IPv4Network | IPv6Network:
        return ip_network(self)


class Age(Bounded):
    """How old the last look may be."""

    __slots__ = ()
    shortest = Duration.parse("1m")
    longest = Duration.parse("365d")
    allowed = "1m to 365d, as a whole number with its unit, such as 12h or 7d"


class BundleEndpoint(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where others fetch our bundle. `https_web` shows `certificate`, `https_spiffe` our own SVID."""

    listen: Listening
    profile: Profile = "https_spiffe"
    certificate: File | None = None
    key: File | None = None


class Federated(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A trust domain outside whose bundle is kept.

    `https_spiffe` needs the SPIFFE ID of the endpoint and `first_bundle`, a JWK set of that ID's trust domain by which
    the first look is verified. `ca` takes the place of the machine's public CAs for `https_web`. `allow` names ranges
    that are not public.
    """

    trust_domain: Domain
    url: EndpointUrl
    profile: Profile
    spiffe_id: Identity | None = None
    first_bundle: File | None = None
    ca: File | None = None
    allow: tuple[Range, ...] = ()
    stale_after: Age = Age.parse("24h")


def contradictions(
    endpoint: BundleEndpoint | None, federates: Sequence[Federated]
) -> Iterator[tuple[str, str, str]]:
    """What single fields cannot tell: field, problem, what is allowed."""
    if endpoint is not None:
        web = endpoint.profile == "https_web"
        for name, value in (("certificate", endpoint.certificate), ("key", endpoint.key)):
            if (value is not None) != web:
                problem = "is missing" if web else "is for https_web; https_spiffe shows our own certificate"
                yield (
                    f"bundle_endpoint.{name}",
                    problem,
                    "certificate and key with https_web, neither without",
                )
    names = [one.trust_domain for one in federates]
    for place, one in enumerate(federates):
        where = f"federates.{place}"
        if one.trust_domain in names[:place]:
            yield (
                f"{where}.trust_domain",
                f"{one.trust_domain} is there already",
                "each once: bundles are not merged",
            )
        yield from _of_profile(one, where)


def of_base(federates: Sequence[Federated], base: str) -> Iterator[tuple[str, str, str]]:
    """Trust domains of the federation `base`, as `contradictions`: they prove themselves in another way, and are not
    taken from anywhere else.
    """
    for place, one in enumerate(federates):
        name = one.trust_domain
        if name == base or name.endswith(f".{base}") or base.endswith(f".{name}"):
            yield (
                f"federates.{place}.trust_domain",
                f"{name} is, or contains, a trust domain of this federation",
                f"trust domains that do not lie under {base} or above it",
            )


def _of_profile(one: Federated, where: str) -> Iterator[tuple[str, str, str]]:
    spiffe = one.profile == "https_spiffe"
    for name, value in (("spiffe_id", one.spiffe_id), ("first_bundle", one.first_bundle)):
        if (value is not None) != spiffe:
            problem = "is missing" if spiffe else "is for https_spiffe"
            yield (
                f"{where}.{name}",
                problem,
                "spiffe_id and first_bundle with https_spiffe, neither with https_web",
            )
    if spiffe and one.ca is not None:
        yield f"{where}.ca", "is for https_web", "leave it out: first_bundle says whom to believe"
