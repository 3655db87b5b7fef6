"""Who is kept out, and which authorities are revoked: what the hub answers about both, and agents about bans.

A ban counts inside the federation and at once. A revocation counts for those who trust the root, from the next list
that they fetch on. Neither is undone by a restart or a backup; a ban can be taken back, a revocation cannot.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from federation.api.messages import Done, In, Instant, Out
from federation.api.routes import Access, ApiProblem, Call, Route, not_found
from federation.banned import Ban, BanKind
from federation.bans import BanStore
from federation.errors import FederationError, InvalidValue
from federation.model import HUB
from federation.reason import ALLOWED, why_unspeakable
from federation.revocation_list import RevocationList
from pki import revocation
from pki.digest import plain
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
    """`subject` is the name of a cluster, a SPIFFE ID, or the SHA-256 of a public key (SPKI, hex, colons allowed).

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
    """The root-signed authority of a cluster; if several live, by its serial number (hex), or all of them."""

    cluster: str
    serial: str | None = None
    all: bool = False
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
    """`identity` is whose certificate it is, None where that is only in older parts of the journal."""

    serial: str
    identity: str | None
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


def at_an_agent(cluster: str, bans: Callable[[], Mapping[str, Ban]]) -> tuple[Route, ...]:
    """The routes of an agent: it tells which bans it has heard of, and where they, and revocations, are made."""

    async def elsewhere(_: Call) -> Done:
        raise ApiProblem(
            409,
            "at-the-hub",
            f"bans and revocations are made at the hub, and this is the agent of {cluster}",
            "ask the hub: without --hub on its own machine, from elsewhere with a context of it",
        )

    see, do = Access.VIEWER, Access.OPERATOR
    return (
        ban_list(bans),
        Route("POST", "/v1/ca/bans", "Not here, but at the hub", do, elsewhere, Done, NewBan),
        Route("POST", "/v1/ca/bans/end", "Not here, but at the hub", do, elsewhere, Done, EndBan),
        Route("GET", "/v1/ca/crl", "Not here, but at the hub", see, elsewhere, Done),
        Route("POST", "/v1/ca/revocations", "Not here, but at the hub", do, elsewhere, Done, Revoke),
    )


class BanRoutes:
    """The hub's routes about bans and revocations. `keys` says which keys (SPKI hash, hex) the authorities of a cluster
    have that its bundle names, `own_keys` of which the hub consists.
    """

    def __init__(
        self,
        bans: BanStore,
        revocations: RevocationList,
        base: str,
        is_member: Callable[[str], bool],
        keys: Callable[[str], frozenset[str]],
        own_keys: Callable[[], Mapping[str, str]],
    ) -> None:
        self._bans = bans
        self._is_member = is_member
        self._keys = keys
        self._own_keys = own_keys
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
                  told=("cluster", "serial", "all", "reason", "why")),
        )  # fmt: skip

    async def ban(self, call: Call) -> BanInfo:
        body: NewBan = call.body
        subject = _subject(body)
        if body.kind == "key" and (whose := self._own_keys().get(subject)) is not None:
            raise InvalidValue(
                f"this is the key of {whose}: without it nobody would hear of the end of the ban",
                "replace it instead: see `federation ca rotate --help`",
            )
        cluster = self._cluster(body)
        if not (body.unknown or cluster is None or self._is_member(cluster)):
            raise not_found(
                "cluster",
                cluster,
                "see `federation cluster list`; a key is named by 64 hexadecimal digits or its certificate; to keep "
                "a name out that has not joined, add --unknown",
            )
        return _info(await self._bans.ban(BanKind(body.kind), subject, body.reason))

    def _cluster(self, body: NewBan) -> str | None:
        """The name of the cluster that a ban is about; None for a key, and for what `BanStore` refuses anyway."""
        if body.kind == "cluster":
            return body.subject if is_dns_label(body.subject) and body.subject != HUB else None
        try:
            return SpiffeId.parse(body.subject).trust_domain.cluster(self._base)
        except PkiError:
            return None

    async def unban(self, call: Call) -> Done:
        body: EndBan = call.body
        subject = _subject(body)
        if not await self._bans.unban(BanKind(body.kind), subject):
            raise not_found(f"ban of the {body.kind}", subject, "see `federation ca bans`")
        return Done(done=f"the ban of the {body.kind} {subject} is taken back")

    async def crl(self, _: Call) -> ListInfo:
        revoked, whose = self._list.revocations.revoked(), self._list.revocations.whose()
        current = self._list.current
        if current is None or current.next_update_utc is None:
            raise ApiProblem(503, "no-list", self._list.problem or "there is no list yet", "try again")
        return ListInfo(
            number=revocation.number_of(current),
            this_update=current.last_update_utc,
            next_update=current.next_update_utc,
            revoked=tuple(
                RevokedInfo(
                    serial=one.serial,
                    identity=whose.get(one.serial),
                    reason=one.reason,
                    at=one.at,
                    who=one.who,
                    why=one.why,
                )
                for one in revoked
            ),
            crl=base64.b64encode(revocation.der(current)).decode(),
        )

    async def revoke(self, call: Call) -> Done:
        body: Revoke = call.body
        if fault := why_unspeakable(body.why):
            raise InvalidValue(f"why: {fault}", f"allowed: {ALLOWED}")
        try:
            identity = TrustDomain.of_cluster(body.cluster, self._base).uri
        except PkiError as error:
            raise ApiProblem(400, "bad-body", f"cluster: {error}", "see `federation cluster list`") from error
        found = [one for one in self._list.revocations.living() if one.identity == identity]
        serials = _chosen(body, found, self._keys(body.cluster))
        try:
            await self._list.revoke(serials, Reason(body.reason), who=call.principal.name, why=body.why)
        except PkiError as error:
            raise FederationError(str(error), "see `federation ca crl`") from error
        what, verb = ("authority", "is") if len(serials) == 1 else ("authorities", "are")
        named = ", ".join(f"{serial:x}" for serial in serials)
        return Done(
            done=f"{what} {named} of {body.cluster} {verb} revoked for those who trust the root; inside the federation "
            f"nothing changes until the cluster is banned: federation ca ban {body.cluster}"
        )


def _chosen(body: Revoke, living: Sequence[Entry], in_use: frozenset[str]) -> tuple[int, ...]:
    """The serial numbers that are meant. Raises ApiProblem or InvalidValue if that is not clear."""
    if body.all and body.serial is not None:
        raise InvalidValue("all: a serial number is given, too", "give one of them")
    if not living:
        raise not_found("living root-signed authority of", body.cluster, "see `federation ca crl`")
    if body.all or (body.serial is None and len(living) == 1):
        return tuple(one.serial for one in living)
    if body.serial is not None:
        wanted = plain(body.serial).lstrip("0")
        if found := tuple(one.serial for one in living if f"{one.serial:x}" == wanted):
            return found
    raise ApiProblem(
        400,
        "bad-body",
        f"serial: the living root-signed authorities of {body.cluster} are "
        + ", ".join(
            f"{one.serial:x} (epoch {one.epoch}, until {one.not_after:%Y-%m-%d}"
            f"{', in use' if one.spki in in_use else ''})"
            for one in living
        ),
        "say which one: --serial, or revoke every one of them: --all",
    )


def _subject(body: NewBan | EndBan) -> str:
    """As it is stored; a hash may be written as other tools show it."""
    return plain(body.subject) if body.kind == "key" else body.subject


def _info(ban: Ban) -> BanInfo:
    return BanInfo(kind=ban.kind.value, subject=ban.subject, reason=ban.reason, since=ban.since)
