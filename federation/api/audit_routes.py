"""What was signed, by whom asked and why; and whether the journals that say so can be believed.

A process alone can only say that its journals agree with themselves. That nothing was cut from their end, and that they
were not rewritten as a whole, is vouched for by others: the hub keeps the heads of the clusters' journals, and every
agent those of the hub's and of the other clusters'. At the hub all of them are asked.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

import msgspec
import structlog
from msgspec.structs import replace

from federation.api.messages import Done, In, Instant, Out
from federation.api.routes import Access, ApiProblem, Call, Problem, Route, not_found
from federation.errors import FederationError
from federation.heads import MOST_HEADS, JournalHead, Kept
from federation.journals import Journals, Verdict
from federation.questions import Answer
from pki.audit import Signed, Told
from pki.digest import plain
from pki.ledger import Continued, Record

USUALLY, MOST_ENTRIES = 100, 1000
"""Entries of one answer."""
PATIENCE = 60.0
"""Seconds that an agent gets to look at its journals."""

_HEX = r"[0-9a-f]{64}|(?:[0-9a-f]{2}:){31}[0-9a-f]{2}"
_HEAD = re.compile(rf"(?P<authority>{_HEX}):(?P<lines>[0-9]{{1,16}}):(?P<hash>{_HEX})")

log = structlog.get_logger()


class AuditEntry(Out, frozen=True, kw_only=True):
    """One certificate. `outcome` is open, released, failed or revoked, and `note` says why in the last two cases;
    `serial`, `spki` and `certificate` (the SHA-256 of what was handed out) are hex."""

    at: Instant
    journal: str
    serial: str
    profile: str
    identity: str
    spki: str
    not_after: Instant
    who: str
    why: str
    replaces: str | None
    outcome: str
    note: str
    certificate: str | None


class RecordInfo(Out, frozen=True, kw_only=True):
    """One line of a journal. `about` and `says` are for people, `record` is all that is there, `type` is its kind. Of
    what the first line of a later part carries over it has the numbers."""

    at: Instant
    journal: str
    line: int
    about: str
    says: str
    record: dict[str, Any]


class HeadInfo(Out, frozen=True, kw_only=True):
    """A head of the journal of `authority` (the hash of its key): its own, or as it is kept of somebody else's."""

    owner: str
    authority: str
    lines: int
    hash: str
    kind: Literal["own", "kept"]
    problem: str | None = None


class VerdictInfo(Out, frozen=True, kw_only=True):
    """One journal. `problem` is None if it can be believed; lines up to `since` are in parts that are not here; the
    first `vouched_lines` of it are kept by `vouched_by`, others by nobody."""

    owner: str
    journal: str
    authority: str | None
    since: int
    lines: int
    problem: str | None
    vouched_by: tuple[str, ...] = ()
    vouched_lines: int = 0


class AcceptJournals(In, frozen=True, kw_only=True):
    """Whose journals are right as they are now: a cluster, or `hub`."""

    owner: str


class Others(Protocol):
    """Who else can be asked: the agents, at the hub."""

    @property
    def connected(self) -> tuple[str, ...]: ...

    async def ask(self, cluster: str, path: str, seconds: float) -> Answer:
        """Raises FederationError, and `ApiProblem` for somebody who is not there at all."""
        ...


class AuditRoutes:
    """The routes about journals of one process, whose facts are those of `owner`.

    `kept` are the heads of others, and `accept` takes for right what contradicts those of one owner.
    """

    def __init__(
        self,
        owner: str,
        journals: Journals,
        directory: Path,
        kept: Callable[[], Mapping[tuple[str, str], Kept]],
        accept: Callable[[str], Awaitable[int]],
        others: Others | None = None,
    ) -> None:
        self._owner = owner
        self._journals = journals
        self._directory = directory
        self._kept = kept
        self._accept = accept
        self._others = others

    def routes(self) -> tuple[Route, ...]:
        see, do = Access.VIEWER, Access.OPERATOR
        return (
            Route("GET", "/v1/ca/audit", "What was signed", see, self.audit, tuple[AuditEntry, ...],
                  query=("since", "identity", "limit", "from")),
            Route("GET", "/v1/ca/audit/records", "The journals line by line", see, self.records,
                  tuple[RecordInfo, ...], query=("since", "limit", "from")),
            Route("GET", "/v1/ca/audit/verify", "Whether the journals can be believed", see, self.verify,
                  tuple[VerdictInfo, ...], query=("heads", "from")),
            Route("GET", "/v1/ca/heads", "How far journals have come", see, self.heads, tuple[HeadInfo, ...]),
            Route("POST", "/v1/ca/heads", "Accept journals as they are", do, self.accept, Done, AcceptJournals,
                  told=("owner",)),
        )  # fmt: skip

    # ---- what was signed ---------------------------------------------------------------------------------------------

    async def audit(self, call: Call) -> tuple[AuditEntry, ...]:
        if (elsewhere := self._elsewhere(call)) is not None:
            path = _passed_on("/v1/ca/audit", call)
            asked: tuple[AuditEntry, ...] = await self._ask(elsewhere, path, tuple[AuditEntry, ...])
            return asked
        limit = _limit(call.query.get("limit"))
        since, identity = _moment(call.query.get("since")), call.query.get("identity")
        found = await self._journals.history(since, identity, limit)
        return tuple(self._entry(path, one) for path, one in found)

    async def records(self, call: Call) -> tuple[RecordInfo, ...]:
        if (elsewhere := self._elsewhere(call)) is not None:
            path = _passed_on("/v1/ca/audit/records", call)
            asked: tuple[RecordInfo, ...] = await self._ask(elsewhere, path, tuple[RecordInfo, ...])
            return asked
        limit = _limit(call.query.get("limit"))
        found = await self._journals.lines(_moment(call.query.get("since")), limit)
        return tuple(record_info(self._name(path), one) for path, one in found)

    def _entry(self, path: Path, one: Signed) -> AuditEntry:
        intent = one.intent
        return AuditEntry(
            at=intent.at,
            journal=self._name(path),
            serial=intent.serial,
            profile=intent.profile,
            identity=intent.identity,
            spki=intent.spki,
            not_after=intent.not_after,
            who=intent.who,
            why=intent.why,
            replaces=intent.replaces,
            outcome=one.outcome.value,
            note=one.note,
            certificate=one.certificate,
        )

    # ---- whether it can be believed ----------------------------------------------------------------------------------

    async def verify(self, call: Call) -> tuple[VerdictInfo, ...]:
        """Without heads in the call the hub asks its agents for theirs; an agent has no others to ask."""
        if (elsewhere := self._elsewhere(call)) is not None:
            held = (kept.head for (owner, _), kept in self._kept().items() if owner == elsewhere)
            heads = sorted(held, key=lambda head: head.lines)[-MOST_HEADS:]
            query = urlencode({"heads": ",".join(f"{head.authority}:{head}" for head in heads)})
            path = f"/v1/ca/audit/verify?{query}" if heads else "/v1/ca/audit/verify"
            asked: tuple[VerdictInfo, ...] = await self._ask(elsewhere, path, tuple[VerdictInfo, ...])
            return tuple(msgspec.structs.replace(one, vouched_by=_renamed(one, self._owner)) for one in asked)
        vouched = _heads(call.query["heads"]) if "heads" in call.query else await self._vouched()
        verdicts = await self._journals.verify(tuple(vouched))
        return tuple(self._verdict(one, vouched) for one in verdicts)

    async def _vouched(self) -> dict[JournalHead, tuple[str, ...]]:
        """Our own heads, as those keep them who can be asked."""
        found: dict[JournalHead, tuple[str, ...]] = {}
        names = () if self._others is None else self._others.connected
        for name, heads in zip(names, await asyncio.gather(*map(self._kept_by, names)), strict=True):
            for head in heads:
                found[head] = (*found.get(head, ()), name)
        return found

    async def _kept_by(self, cluster: str) -> tuple[JournalHead, ...]:
        try:
            heads: tuple[HeadInfo, ...] = await self._ask(cluster, "/v1/ca/heads", tuple[HeadInfo, ...])
        except FederationError as error:
            log.warning("an agent does not say which heads it keeps", cluster=cluster, problem=str(error))
            return ()
        return tuple(
            JournalHead(one.authority, one.lines, one.hash)
            for one in heads
            if one.owner == self._owner and one.kind == "kept"
        )

    def _verdict(self, one: Verdict, vouched: Mapping[JournalHead, tuple[str, ...]]) -> VerdictInfo:
        return VerdictInfo(
            owner=self._owner,
            journal=self._name(one.path),
            authority=one.head.authority if one.head else None,
            since=one.since,
            lines=one.head.lines if one.head else 0,
            problem=one.problem,
            vouched_by=tuple(sorted({name for head in one.kept for name in vouched[head]})),
            vouched_lines=max((head.lines for head in one.kept), default=0),
        )

    # ---- heads -------------------------------------------------------------------------------------------------------

    async def heads(self, _: Call) -> tuple[HeadInfo, ...]:
        own = (_head(self._owner, head, "own") for head in self._journals.heads())
        kept = (
            _head(owner, one.head, "kept", one.problem(owner))
            for (owner, _), one in sorted(self._kept().items())
        )
        return (*own, *kept)

    async def accept(self, call: Call) -> Done:
        body: AcceptJournals = call.body
        accepted = await self._accept(body.owner)
        if not accepted:
            raise not_found("contradiction in the journals of", body.owner, "see `federation ca audit heads`")
        return Done(done=f"{accepted} journals of {body.owner} are taken for right as they are now")

    # ---- shared by the above -----------------------------------------------------------------------------------------

    def _elsewhere(self, call: Call) -> str | None:
        asked = call.query.get("from")
        if asked in (None, self._owner):
            return None
        if self._others is None:
            problem = f"this is the agent of {self._owner}, not of {asked}"
            raise ApiProblem(400, "other-cluster", problem, f"ask {asked}'s agent, or the hub")
        return asked

    async def _ask(self, cluster: str, path: str, shape: Any) -> Any:
        assert self._others is not None
        try:
            answer = await self._others.ask(cluster, path, PATIENCE)
        except ApiProblem:
            raise
        except FederationError as error:
            raise ApiProblem(
                503, "agent", str(error), "ask the agent at its own socket, or try again"
            ) from error
        try:
            if answer.status != 200:
                problem = msgspec.json.decode(answer.body, type=Problem)
                raise ApiProblem(answer.status, problem.code, problem.message, problem.hint)
            return msgspec.json.decode(answer.body, type=shape)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ApiProblem(502, "agent", f"the agent of {cluster} speaks another version") from error

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._directory)) if path != self._directory else "-"


GIVEN = "the heads given"
"""Who vouches where heads come with the question."""


def record_info(journal: str, one: Told) -> RecordInfo:
    """A line as it is told. Instants are text in it, as in the journal itself."""
    return RecordInfo(
        at=one.record.at,
        journal=journal,
        line=one.line,
        about=one.about,
        says=one.says,
        record=_all_of(one.record),
    )


def _all_of(record: Record) -> dict[str, Any]:
    """A record, with numbers for what is carried over: that may be as long as a part of a journal."""
    carried: dict[str, int] = {}
    if isinstance(record, Continued):
        carried = {name: len(getattr(record, name)) for name in ("living", "pending", "revoked", "bans")}
        record = replace(record, **dict.fromkeys(carried, ()))
    return {**msgspec.to_builtins(record), **carried}


def _passed_on(path: str, call: Call) -> str:
    passed = urlencode({name: value for name, value in call.query.items() if name != "from"})
    return f"{path}?{passed}" if passed else path


def _renamed(one: VerdictInfo, owner: str) -> tuple[str, ...]:
    return (owner,) if one.vouched_by else ()


def _head(
    owner: str, head: JournalHead, kind: Literal["own", "kept"], problem: str | None = None
) -> HeadInfo:
    return HeadInfo(
        owner=owner, authority=head.authority, lines=head.lines, hash=head.hash, kind=kind, problem=problem
    )


def _heads(text: str) -> dict[JournalHead, tuple[str, ...]]:
    return dict.fromkeys(parse_heads(text.split(",")), (GIVEN,))


def parse_heads(texts: Iterable[str]) -> tuple[JournalHead, ...]:
    """From `authority:lines:hash`, hashes in whatever way they are written. Raises ApiProblem for what is no head."""
    found = []
    for text in texts:
        parts = _HEAD.fullmatch(text.strip().lower())
        if parts is None:
            raise _no_head(text)
        head = JournalHead(plain(parts["authority"]), int(parts["lines"]), plain(parts["hash"]))
        if not head.is_possible:
            raise _no_head(text)
        found.append(head)
    return tuple(found)


def _no_head(text: str) -> ApiProblem:
    return ApiProblem(
        400,
        "bad-query",
        f"heads: {text[:200]!r} is not the head of a journal",
        "write authority:lines:hash, as `federation ca audit heads -o json` tells them",
    )


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return msgspec.convert(text, Instant)
    except msgspec.ValidationError as error:
        raise ApiProblem(
            400,
            "bad-query",
            f"since: {text[:80]!r} is no instant",
            "write RFC 3339, for example 2026-11-21T12:00:00Z",
        ) from error


def _limit(text: str | None) -> int:
    if text is None:
        return USUALLY
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST_ENTRIES:
        raise ApiProblem(400, "bad-query", f"limit: {text[:80]!r}", f"allowed: 1 to {MOST_ENTRIES}")
    return int(text)
