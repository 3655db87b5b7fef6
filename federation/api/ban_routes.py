"""Who is kept out, and which authorities are revoked: what the hub answers about both, and agents about bans.

A ban counts inside the federation and at once. A revocation counts for those who trust the root, from the next list
that they fetch on. Neither is undone by a restart or a backup; a ban can be taken back, a revocation cannot.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from federation.api.messages import Done, In, Instant, Out
from federation.api.routes import Access, ApiProblem, Call, Route, not_found
from federation.banned import Ban, BanKind
from federation.bans import BanStore
from federation.errors import FederationError
from federation.revocation_list import RevocationList
from pki import revocation
from pki.errors import PkiError
from pki.ledger import Entry
from pki.names import is_dns_label
from pki.revocation import Reason
from pki.spiffe import SpiffeId, TrustDomain

TOLD = ("kind", "subject", "reason")


class BanInfo(Out, frozen=True, kw_only=True):
    kind: Literal["cluster", "identity", "key"]
    subject: str
    reason: str
    since: Instant


class NewBan(In, frozen=True, kw_only=True):
    """`subject` is the name of a cluster, a SPIFFE ID, or the SHA-256 of a public key (SPKI, hex).

    A cluster that is not here is banned only with `unknown`: a ban with a slip in it would keep nobody out.
    """

    kind: Literal["cluster", "identity", "key"]
    subject: str
    reason: str
    unknown: bool = False


class EndBan(In, frozen=True, kw_only=True):
    kind: Literal["cluster", "identity", "key"]
    subject: str


class Revoke(In, frozen=True, kw_only=True):
    """The root-signed authority of a cluster; by its serial number (hex) if it has several that live."""

    cluster: str
    serial: str | None = None
    reason: Literal[
        "unspecified",
        "key-compromise",
        "ca-compromise",
        "affiliation-changed",
        "superseded",
        "cessation-of-operation",
        "privilege-withdrawn",
    ]
    why: str = ""


class RevokedInfo(Out, frozen=True, kw_only=True):
    serial: str
    reason: str
    at: Instant
    who: str
    why: str


class ListInfo(Out, frozen=True, kw_only=True):
    """The root's revocation list; `crl` is its DER in base64."""

    number: int
    this_update: Instant
    next_update: Instant
    revoked: tuple[RevokedInfo, ...]
    crl: str


def ban_list(bans: Callable[[], Mapping[str, Ban]]) -> Route:
    """The route by which a process says which bans it knows."""

    async def listed(_: Call) -> tuple[BanInfo, ...]:
        return tuple(_info(ban) for _, ban in sorted(bans().items()))

    return Route("GET", "/v1/ca/bans", "Who is banned", Access.VIEWER, listed, tuple[BanInfo, ...])


class BanRoutes:
    """The hub's routes about bans and revocations."""

    def __init__(
        self, bans: BanStore, revocations: RevocationList, base: str, is_member: Callable[[str], bool]
    ) -> None:
        self._bans = bans
        self._is_member = is_member
        self._list = revocations
        self._base = base

    def routes(self) -> tuple[Route, ...]:
        see, do = Access.VIEWER, Access.OPERATOR
        return (
            ban_list(lambda: self._bans.bans),
            Route("POST", "/v1/ca/bans", "Ban somebody", do, self.ban, BanInfo, NewBan, told=TOLD),
            Route("POST", "/v1/ca/bans/end", "Take a ban back", do, self.unban, Done, EndBan, told=TOLD),
            Route("GET", "/v1/ca/crl", "The root's revocation list", see, self.crl, ListInfo),
            Route("POST", "/v1/ca/revocations", "Revoke the authority of a cluster", do, self.revoke, Done, Revoke,
                  told=("cluster", "serial", "reason", "why")),
        )  # fmt: skip

    async def ban(self, call: Call) -> BanInfo:
        body: NewBan = call.body
        cluster = self._cluster(body)
        if not (body.unknown or cluster is None or self._is_member(cluster)):
            raise not_found(
                "cluster",
                cluster,
                "see `federation cluster list`; a key is named by 64 hexadecimal digits or its certificate; to keep "
                "a name out that has not joined, add --unknown",
            )
        return _info(await self._bans.ban(BanKind(body.kind), body.subject, body.reason))

    def _cluster(self, body: NewBan) -> str | None:
        """The name of the cluster that a ban is about; None for a key, and for what `BanStore` refuses anyway."""
        if body.kind == "cluster":
            return body.subject if is_dns_label(body.subject) else None
        try:
            return SpiffeId.parse(body.subject).trust_domain.cluster(self._base)
        except PkiError:
            return None

    async def unban(self, call: Call) -> Done:
        body: EndBan = call.body
        if not await self._bans.unban(BanKind(body.kind), body.subject):
            raise not_found(f"ban of the {body.kind}", body.subject, "see `federation ca bans`")
        return Done(done=f"the ban of the {body.kind} {body.subject} is taken back")

    async def crl(self, _: Call) -> ListInfo:
        revoked = self._list.revocations.revoked()
        current = self._list.current
        if current is None or current.next_update_utc is None:
            raise ApiProblem(503, "no-list", self._list.problem or "there is no list yet", "try again")
        return ListInfo(
            number=revocation.number_of(current),
            this_update=current.last_update_utc,
            next_update=current.next_update_utc,
            revoked=tuple(
                RevokedInfo(serial=one.serial, reason=one.reason, at=one.at, who=one.who, why=one.why)
                for one in revoked
            ),
            crl=base64.b64encode(revocation.der(current)).decode(),
        )

    async def revoke(self, call: Call) -> Done:
        body: Revoke = call.body
        try:
            identity = TrustDomain.of_cluster(body.cluster, self._base).uri
        except PkiError as error:
            raise ApiProblem(400, "bad-body", f"cluster: {error}", "see `federation cluster list`") from error
        found = [one for one in self._list.revocations.living() if one.identity == identity]
        serial = _chosen(body, found)
        try:
            await self._list.revoke([serial], Reason(body.reason), who=call.principal.name, why=body.why)
        except PkiError as error:
            raise FederationError(str(error), "see `federation ca crl`") from error
        return Done(
            done=f"authority {serial:x} of {body.cluster} is revoked for those who trust the root; inside the "
            f"federation it still counts: see `federation ca ban cluster {body.cluster}`"
        )


def _chosen(body: Revoke, living: Iterable[Entry]) -> int:
    """The serial number that is meant. Raises ApiProblem if that is not clear."""
    serials = [f"{one.serial:x}" for one in living]
    if body.serial is None and len(serials) == 1:
        return int(serials[0], 16)
    if body.serial is not None and body.serial.lower().lstrip("0") in serials:
        return int(body.serial, 16)
    if not serials:
        raise not_found("living root-signed authority of", body.cluster, "see `federation ca crl`")
    raise ApiProblem(
        400,
        "bad-body",
        f"serial: the living root-signed authorities of {body.cluster} are {', '.join(serials)}",
        "say which one: --serial",
    )


def _info(ban: Ban) -> BanInfo:
    return BanInfo(kind=ban.kind.value, subject=ban.subject, reason=ban.reason, since=ban.since)
