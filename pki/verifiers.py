"""Whether a verifier would believe a chain, and why: how those that we meet build and check paths.

A model of each, from what it was seen to do: the tests hold it against the real ones, chain by chain. All check
signatures, validity, CA marks, key usage and unknown critical extensions as RFC 5280 §6 says. They differ in what
`Behaviour` names, and that decides whether a rotation or a foreign authority goes unnoticed or takes a mesh down.

Nothing here is a decision of ours to trust anybody: that is `pki.validate`, which is asked for its own row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from pki.bundle import Bundle, check_bundle
from pki.certificate import authority_key_id, der, extension, readable, signed_by
from pki.errors import InvalidBundle, Untrusted
from pki.spiffe import SCHEME, TrustDomain
from pki.validate import verify_peer


class Verifier(StrEnum):
    """Who verifies. `federation` is the hub's and the agents' own second look, `envoy` Envoy with its SPIFFE validator
    as our gateways have it, `envoy-ca` Envoy with a trusted CA, as other meshes set it up.
    """

    FEDERATION = "federation"
    ENVOY = "envoy"
    ENVOY_CA = "envoy-ca"
    OPENSSL = "openssl"
    GO = "go"
    JAVA = "java"
    PYCA = "pyca"


class Role(StrEnum):
    """As what the leaf presents itself."""

    CLIENT = "client"
    SERVER = "server"


class UriConstraints(StrEnum):
    """What becomes of a chain with a name constraint on URIs."""

    EXACT = "the host must be the one permitted (RFC 5280 §4.2.1.10)"
    SUBDOMAINS = "sub-domains of the host permitted pass as well"
    REFUSED = "such a chain is refused, whatever it permits"


class Eku(StrEnum):
    """Whose extended key usage has to allow the role."""

    CHAIN = "that of the leaf and of every authority that has one"
    LEAF = "that of the leaf"
    NOBODY = "nobody's"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a verifier differs from the others.

    `backtracks`: tries another issuer when the first leads nowhere. `partial`: a path may end at any trusted
    certificate, not only at a self-signed one. `prefers_valid`: of several issuers one that is valid now comes first.
    `judges_anchor`: time, path length and constraints of the anchor count; `judges_anchor_length`: the second of these.
    `needs_key_ids`: a certificate without an authority key identifier is refused. `most_signatures`: it gives up after
    so many. `key_usage`: an authority needs keyCertSign.
    """

    backtracks: bool
    partial: bool
    prefers_valid: bool = True
    judges_anchor: bool = True
    judges_anchor_length: bool = True
    uri_constraints: UriConstraints = UriConstraints.EXACT
    eku: Eku = Eku.CHAIN
    needs_key_ids: bool = False
    most_signatures: int | None = None
    key_usage: bool = True


BEHAVIOURS: Mapping[Verifier, Behaviour] = {
    Verifier.ENVOY: Behaviour(
        backtracks=False, partial=False, prefers_valid=False, judges_anchor_length=False, eku=Eku.NOBODY
    ),
    Verifier.ENVOY_CA: Behaviour(
        backtracks=False, partial=True, prefers_valid=False, judges_anchor_length=False
    ),
    Verifier.OPENSSL: Behaviour(backtracks=False, partial=False),
    Verifier.GO: Behaviour(
        backtracks=True,
        partial=True,
        uri_constraints=UriConstraints.SUBDOMAINS,
        most_signatures=100,
        key_usage=False,
    ),
    Verifier.JAVA: Behaviour(backtracks=True, partial=True, judges_anchor=False, eku=Eku.LEAF),
    Verifier.PYCA: Behaviour(
        backtracks=True, partial=True, uri_constraints=UriConstraints.REFUSED, needs_key_ids=True
    ),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`path` are the subjects from leaf to anchor of the path that decided, as far as there was one."""

    verifier: Verifier
    believed: bool
    reason: str
    path: tuple[str, ...] = ()


def judge(
    verifier: Verifier,
    presented: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    trust_domain: TrustDomain,
    now: datetime,
    role: Role = Role.CLIENT,
) -> Verdict:
    """Whether `verifier`, which holds `anchors` for `trust_domain`, believes `presented` (leaf first)."""
    if not presented:
        return Verdict(verifier, False, "nothing is presented")
    try:
        if verifier is Verifier.FEDERATION:
            return _own(presented, anchors, trust_domain, now)
        if verifier is Verifier.ENVOY and (reason := _spiffe(presented[0], trust_domain)) is not None:
            return Verdict(verifier, False, reason)
        return _Search(verifier, presented, anchors, now, role).verdict()
    except Untrusted as error:
        return Verdict(verifier, False, str(error))


def _own(
    presented: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    trust_domain: TrustDomain,
    now: datetime,
) -> Verdict:
    bundle = Bundle(trust_domain, 1, tuple(anchors))
    try:
        identity = verify_peer(presented, {trust_domain: bundle}, now)
        check_bundle(bundle)
    except Untrusted as error:
        return Verdict(Verifier.FEDERATION, False, str(error))
    except InvalidBundle as error:
        return Verdict(Verifier.FEDERATION, False, f"it never holds these anchors: {error.reason}")
    return Verdict(Verifier.FEDERATION, True, f"it is {identity}")


def _spiffe(leaf: x509.Certificate, trust_domain: TrustDomain) -> str | None:
    """Why Envoy's SPIFFE validator refuses a leaf: it looks at the first URI alone, for the bundle to verify with."""
    uris = _names(leaf, x509.UniformResourceIdentifier)
    if not uris or not uris[0].startswith(SCHEME):
        return "the leaf names no SPIFFE ID, so no bundle is chosen"
    host = _host(uris[0])
    return (
        None
        if host == trust_domain.name
        else f"the leaf's first URI is of {host}, and its bundle is not held"
    )


class _Search:
    """One search for a path. It counts signatures, and keeps the best reason why there is none."""

    def __init__(
        self,
        verifier: Verifier,
        presented: Sequence[x509.Certificate],
        anchors: Sequence[x509.Certificate],
        now: datetime,
        role: Role,
    ) -> None:
        self._verifier = verifier
        self._is = BEHAVIOURS[verifier]
        self._leaf, *above = presented
        self._above = tuple(above)
        self._anchors = tuple(anchors)
        self._now = now
        self._role = role
        self._signatures = 0
        self._failure: tuple[str, tuple[x509.Certificate, ...]] | None = None

    def verdict(self) -> Verdict:
        path = self._from((self._leaf,))
        if path is not None:
            return Verdict(self._verifier, True, _how(path, self._leaf, self._above), _subjects(path))
        reason, path = self._failure or ("no path to an anchor", (self._leaf,))
        return Verdict(self._verifier, False, reason, _subjects(path))

    def _from(self, path: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, ...] | None:
        for issuer, trusted in self._issuers(path):
            longer = (*path, issuer)
            if trusted:
                if (reason := self._wrong(longer)) is None:
                    return longer
            elif _self_signed(issuer):
                reason = "it ends at a self-signed certificate that is not trusted"
            elif self._is.backtracks and (early := self._wrong(longer, anchored=False)) is not None:
                reason = early
            elif (found := self._from(longer)) is not None:
                return found
            else:
                reason = ""
            if reason:
                self._failure = self._failure or (reason, longer)
            if not self._is.backtracks:
                break
        if self._failure is None:
            self._failure = (f"nobody trusted has issued {_subject(path[-1])}", path)
        return None

    def _issuers(self, path: tuple[x509.Certificate, ...]) -> Iterator[tuple[x509.Certificate, bool]]:
        """Candidates with the right name and key identifier, trusted ones first."""
        last = path[-1]
        trusted = [
            one for one in self._anchors if self._fits(one, last) and (self._is.partial or _self_signed(one))
        ]
        untrusted = [one for one in self._above if self._fits(one, last) and one not in path]
        candidates = [*((one, True) for one in trusted), *((one, False) for one in untrusted)]
        if not self._is.backtracks:
            candidates.sort(key=self._late)
        for candidate, is_trusted in candidates:
            if self._is.most_signatures is not None:
                self._signatures += 1
                if self._signatures > self._is.most_signatures:
                    self._failure = (f"it gives up after {self._is.most_signatures} signatures", path)
                    return
            if self._is.backtracks and not signed_by(last, candidate):
                continue
            yield candidate, is_trusted

    def _late(self, candidate: tuple[x509.Certificate, bool]) -> tuple[bool, bool]:
        certificate, is_trusted = candidate
        return not is_trusted, self._is.prefers_valid and not _in_time(certificate, self._now)

    @staticmethod
    def _fits(issuer: x509.Certificate, below: x509.Certificate) -> bool:
        wanted = authority_key_id(below)
        found = extension(issuer, x509.SubjectKeyIdentifier)
        same_key = wanted is None or found is None or found.value.digest == wanted
        return issuer.subject == below.issuer and same_key

    def _wrong(self, path: tuple[x509.Certificate, ...], anchored: bool = True) -> str | None:
        """Why this path, whose last certificate is an anchor if `anchored`, does not hold; None if it does."""
        for place, (below, issuer) in enumerate(pairwise(path)):
            if not signed_by(below, issuer):
                return f"the signature on {_subject(below)} is not by the {_subject(issuer)} that was chosen"
            is_anchor = anchored and place + 2 == len(path)
            if (reason := self._wrong_issuer(issuer, path[: place + 1], is_anchor)) is not None:
                return reason
        for each in path:
            if (reason := self._wrong_form(each, is_anchor=anchored and each is path[-1])) is not None:
                return reason
        return self._wrong_leaf(path)

    def _wrong_issuer(
        self, issuer: x509.Certificate, below: tuple[x509.Certificate, ...], is_anchor: bool
    ) -> str | None:
        basic, usage = extension(issuer, x509.BasicConstraints), extension(issuer, x509.KeyUsage)
        if basic is None or not basic.value.ca:
            return f"{_subject(issuer)} is not an authority"
        if self._is.key_usage and usage is not None and not usage.value.key_cert_sign:
            return f"{_subject(issuer)} may not sign certificates"
        if is_anchor and not self._is.judges_anchor:
            return None
        length = basic.value.path_length
        between = sum(one.subject != one.issuer for one in below[1:])
        counts = self._is.judges_anchor_length or not is_anchor
        if counts and length is not None and between > length:
            return f"{_subject(issuer)} allows {length} authorities below it, and there are {between}"
        constraints = extension(issuer, x509.NameConstraints)
        return None if constraints is None else self._constrained(constraints.value, below)

    def _wrong_form(self, certificate: x509.Certificate, is_anchor: bool) -> str | None:
        if is_anchor and not self._is.judges_anchor:
            return None
        if not _in_time(certificate, self._now):
            early = self._now < certificate.not_valid_before_utc
            return (
                f"{_subject(certificate)} is not valid yet"
                if early
                else f"{_subject(certificate)} has expired"
            )
        unknown = [one.oid for one in certificate.extensions if one.critical and one.oid not in _UNDERSTOOD]
        if unknown:
            return f"{_subject(certificate)} has a critical extension {unknown[0].dotted_string} that nobody knows"
        if self._is.needs_key_ids and not _self_signed(certificate) and authority_key_id(certificate) is None:
            return f"{_subject(certificate)} has no authority key identifier"
        return None

    def _wrong_leaf(self, path: tuple[x509.Certificate, ...]) -> str | None:
        wanted = (
            ExtendedKeyUsageOID.CLIENT_AUTH if self._role is Role.CLIENT else ExtendedKeyUsageOID.SERVER_AUTH
        )
        for each in {Eku.CHAIN: path, Eku.LEAF: path[:1], Eku.NOBODY: ()}[self._is.eku]:
            usage = extension(each, x509.ExtendedKeyUsage)
            if usage is not None and wanted not in usage.value:
                return f"the extended key usage of {_subject(each)} does not allow a TLS {self._role.value}"
        return None

    def _constrained(self, limits: x509.NameConstraints, below: tuple[x509.Certificate, ...]) -> str | None:
        how = self._is.uri_constraints
        permitted = [one.value for one in limits.permitted_subtrees or () if _is_uri(one)]
        excluded = [one.value for one in limits.excluded_subtrees or () if _is_uri(one)]
        if not permitted and not excluded:
            return None
        for each in below:
            for uri in _names(each, x509.UniformResourceIdentifier):
                if how is UriConstraints.REFUSED:
                    return "it refuses every chain with a name constraint on URIs"
                host, loose = _host(uri), how is UriConstraints.SUBDOMAINS
                if permitted and not any(_within(host, limit, loose) for limit in permitted):
                    return f"a name constraint permits {', '.join(permitted)}, and {host} is none of it"
                if any(_within(host, limit, loose) for limit in excluded):
                    return f"a name constraint excludes {host}"
        return None


_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
    }
)


def _how(
    path: tuple[x509.Certificate, ...], leaf: x509.Certificate, above: tuple[x509.Certificate, ...]
) -> str:
    unused = len(above) - sum(der(one) in {der(each) for each in above} for one in path[1:])
    rest = f", {unused} presented certificate{'s' if unused > 1 else ''} not needed" if unused > 0 else ""
    return f"the anchor {_subject(path[-1])} is reached in {len(path) - 1} step{'s' * (len(path) > 2)}{rest}"


def _names(certificate: x509.Certificate, kind: type[x509.UniformResourceIdentifier]) -> list[str]:
    found = extension(certificate, x509.SubjectAlternativeName)
    return [] if found is None else found.value.get_values_for_type(kind)


def _is_uri(name: x509.GeneralName) -> bool:
    return isinstance(name, x509.UniformResourceIdentifier)


def _host(uri: str) -> str:
    return uri.partition("://")[2].partition("/")[0]


def _within(host: str, limit: str, loose: bool) -> bool:
    if limit.startswith("."):
        return host.endswith(limit)
    return host == limit or (loose and host.endswith(f".{limit}"))


def _in_time(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now.replace(microsecond=0) <= certificate.not_valid_after_utc


def _self_signed(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer and signed_by(certificate, certificate)


def _subjects(path: Sequence[x509.Certificate]) -> tuple[str, ...]:
    return tuple(_subject(one) for one in path)


def _subject(certificate: x509.Certificate) -> str:
    """Its subject as people name it: the SPIFFE ID if it has one, else the name and the serial number in it."""
    uris = _names(certificate, x509.UniformResourceIdentifier)
    basic = extension(certificate, x509.BasicConstraints)
    kind = "authority " if basic is not None and basic.value.ca else ""
    return kind + (uris[0] if uris else readable(certificate.subject) or "without a name")
