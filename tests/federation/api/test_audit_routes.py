"""What processes tell of their journals, and of those of others whose heads they keep."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from federation.api.audit_routes import AcceptJournals, AuditRoutes, HeadInfo, parse_heads
from federation.api.routes import Access, ApiProblem, Call, Principal, encode
from federation.app.auditing import ConnectedAgents
from federation.clock import ManualClock
from federation.errors import Unreachable
from federation.heads import JournalHead, Kept
from federation.journals import Journals, of
from federation.model import HUB
from federation.questions import Answer
from pki.journal import Journal, earlier_parts
from pki.keys.file import FileKeyStore
from pki.ledger import Banned, Intent, Released, Unbanned
from pki.lineage import Lineage
from pki.policy import Attestation, Attested, Grant, decide
from pki.root import RootAuthority
from pki.rotation import Phase
from pki.spiffe import SpiffeId, TrustDomain
from tests.pki.world import BASE, NOW

VIEWER = Principal("viewer", Access.VIEWER)


@dataclass
class Process:
    """One with an authority and its journal."""

    name: str
    folder: Path
    authority: Lineage
    clock: ManualClock
    root: RootAuthority | None = None
    keeps: dict[tuple[str, str], Kept] = field(default_factory=dict)
    others: dict[str, Process] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.journals = Journals(self.folder, lambda: of(self.root, self.authority))
        self.routes = AuditRoutes(
            self.name,
            self.journals,
            self.folder,
            lambda: self.keeps,
            self.accept,
            self if self.root else None,
        )

    async def accept(self, owner: str) -> int:
        self.accepted.append(owner)
        return 1 if owner == "west" else 0

    @property
    def connected(self) -> tuple[str, ...]:
        return tuple(self.others)

    async def ask(self, cluster: str, path: str, seconds: float) -> Answer:
        """As over a stream: the other's own routes, by path."""
        other = self.others.get(cluster)
        if other is None:
            raise Unreachable(cluster, "it is not connected")
        asked = urlsplit(path)
        (route,) = (one for one in other.routes.routes() if (one.method, one.path) == ("GET", asked.path))
        return Answer(200, encode(await route.handler(Call(VIEWER, query=dict(parse_qsl(asked.query))))))

    async def issue(self, name: str = "eastwest") -> None:
        identity = SpiffeId.gateway(self.authority.trust_domain, name)
        grant = decide(Attested(identity, Attestation.TOKEN), self.authority.trust_domain)
        assert isinstance(grant, Grant)
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        await self.authority.issue(key, grant, who="gw-0", why="test")

    def keep(self, other: Process) -> None:
        for head in other.journals.heads():
            self.keeps[other.name, head.authority] = Kept(head)

    @property
    def journal(self) -> Path:
        return self.folder / "authority" / "journal"

    def cut(self, lines: int) -> None:
        whole = self.journal.read_bytes().splitlines(keepends=True)
        self.journal.write_bytes(b"".join(whole[:-lines]))


async def process(name: str, folder: Path, domain: TrustDomain, root: bool = False) -> Process:
    clock = ManualClock(NOW)
    folder.mkdir(mode=0o700)
    authority = await Lineage.open(folder / "authority", FileKeyStore(folder / "keys"), domain, clock)
    made = None
    if root:
        made = await RootAuthority.create(folder / "root", FileKeyStore(folder / "root-keys"), BASE, clock)
    return Process(name, folder, authority, clock, made)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Process]:
    """A hub with the agent of east."""
    made = await process(HUB, tmp_path / "hub", TrustDomain.of_hub(BASE), root=True)
    east = await process("east", tmp_path / "east", TrustDomain.of_cluster("east", BASE))
    made.others["east"] = east
    yield made
    for one in (made.root, made.authority, east.authority):
        assert one is not None
        await one.close()


async def test_what_was_signed_is_told_by_time_identity_and_number(hub: Process) -> None:
    east = hub.others["east"]
    await east.issue()
    east.clock.advance(3600)
    await east.issue("ingress")
    told = await hub.routes.audit(Call(VIEWER, query={"from": "east"}))
    assert [(one.profile, one.outcome, one.journal) for one in told] == [
        ("cluster-ca", "released", "authority/journal"),
        ("gateway", "released", "authority/journal"),
        ("gateway", "released", "authority/journal"),
    ]
    assert (told[1].who, told[1].why) == ("gw-0", "test")
    since = {"from": "east", "since": (NOW + timedelta(minutes=1)).isoformat()}
    assert await hub.routes.audit(Call(VIEWER, query=since)) == told[2:]
    ours = {"from": "east", "identity": f"spiffe://east.{BASE}/gateway/eastwest"}
    assert await hub.routes.audit(Call(VIEWER, query=ours)) == told[1:2]
    assert await hub.routes.audit(Call(VIEWER, query={"from": "east", "limit": "1"})) == told[2:]
    own = await hub.routes.audit(Call(VIEWER))
    assert {one.journal for one in own} == {"root/journal", "authority/journal"}


async def test_journals_are_told_line_by_line_with_all_that_is_in_a_line(hub: Process) -> None:
    east = hub.others["east"]
    await east.issue()
    await hub.journals.note(Banned(NOW, "cluster", "west", "stolen"))
    told = await hub.routes.records(Call(VIEWER, query={"from": "east"}))
    assert [(one.line, one.record["type"]) for one in told] == [
        (1, "opened"), (2, "intent"), (3, "released"), (4, "intent"), (5, "released")
    ]  # fmt: skip
    assert (told[3].about, told[3].record["who"]) == (f"spiffe://east.{BASE}/gateway/eastwest", "gw-0")
    written = [line.partition(b" ")[2] for line in east.journal.read_bytes().splitlines()]
    assert [one.record for one in told] == [msgspec.json.decode(line) for line in written]
    assert await hub.routes.records(Call(VIEWER, query={"from": "east", "limit": "2"})) == told[-2:]
    own = await hub.routes.records(Call(VIEWER))
    assert {one.journal for one in own} == {"root/journal", "authority/journal"}
    assert [(one.about, one.says) for one in own if one.record["type"] == "banned"] == [
        ("cluster west", "is banned: stolen")
    ]
    later = {"since": (NOW + timedelta(minutes=1)).isoformat()}
    assert await hub.routes.records(Call(VIEWER, query=later)) == ()


async def test_what_a_later_part_carries_over_is_told_in_numbers(hub: Process) -> None:
    path = hub.journal.parent.parent / "long" / "journal"
    path.parent.mkdir(mode=0o700)
    with_parts(path, 60)
    told = await hub.routes.records(Call(VIEWER, query={"limit": "1000"}))
    carried = [one for one in told if one.record["type"] == "continued"]
    assert len(carried) > 3
    for number, one in enumerate(carried):
        about = {name: one.record[name] for name in ("living", "pending", "revoked", "bans")}
        assert about == {"living": one.record["living"], "pending": 0, "revoked": 0, "bans": 0}
        assert one.says.endswith(f"carries over {one.record['living']} certificates that live, 0 bans")
        assert one.record["living"] > number
        assert one.line == one.record["lines"] + 1


async def test_one_part_of_a_journal_is_in_memory_at_a_time(hub: Process) -> None:
    """What a viewer asks for costs as much for a long journal as for a short one."""
    path = hub.journal.parent.parent / "long" / "journal"
    path.parent.mkdir(mode=0o700)
    with_parts(path, 2000, ended=True)
    size = sum(part.stat().st_size for part in (path, *earlier_parts(path)))
    assert size > 40 * PART
    for route, query in itertools.product((hub.routes.audit, hub.routes.records), ({}, {"limit": "1"})):
        tracemalloc.start()
        found = await route(Call(VIEWER, query=dict(query)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(found) == int(query.get("limit", "100"))
        assert peak < size / 2


PART = 16 * 1024


def with_parts(path: Path, count: int, ended: bool = False) -> None:
    """A journal of certificates in parts of `PART` bytes."""
    life = timedelta(days=-2 if ended else 2)
    journal = Journal(path, "ab" * 32, NOW, begin=True, longest_part=PART)
    for number in range(count):
        intent = Intent(NOW, f"{number:x}", "00", "workload", f"spiffe://a/{number}", f"{number:x}", NOW + life,
                        "tester", "so that a line is as long as one is " * 20, None)  # fmt: skip
        journal.append(intent, Released(NOW, f"{number:x}", "ff"))
    journal.close()


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ({"since": "yesterday"}, 400, "RFC 3339"),
        ({"since": "2026-11-21T12:00:00"}, 400, "RFC 3339"),
        ({"limit": "0"}, 400, "1 to 1000"),
        ({"limit": "many"}, 400, "1 to 1000"),
        ({"from": "west"}, 503, "socket"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_with_what_is_allowed(
    hub: Process, query: Mapping[str, str], status: int, field: str
) -> None:
    with pytest.raises(ApiProblem) as refused:
        await hub.routes.audit(Call(VIEWER, query=query))
    assert refused.value.status == status
    assert field in refused.value.hint
    if "from" not in query:
        with pytest.raises(ApiProblem):
            await hub.others["east"].routes.audit(Call(VIEWER, query={"from": "west"}))


async def test_who_is_no_member_is_told_apart_from_who_does_not_answer(hub: Process) -> None:
    nobody = ConnectedAgents(cast(Any, SimpleNamespace(member=lambda _: None)))
    routes = AuditRoutes(HUB, hub.journals, hub.folder, lambda: hub.keeps, hub.accept, nobody)
    for asked in (routes.audit, routes.records, routes.verify):
        with pytest.raises(ApiProblem, match="there is no cluster 'atlantis'") as refused:
            await asked(Call(VIEWER, query={"from": "atlantis"}))
        assert refused.value.status == 404


async def test_the_hub_vouches_for_a_cluster_and_its_agents_for_the_hub(hub: Process) -> None:
    east = hub.others["east"]
    await east.issue()
    hub.keep(east)
    east.keep(hub)
    await east.issue()
    (found,) = await hub.routes.verify(Call(VIEWER, query={"from": "east"}))
    assert (found.owner, found.problem, found.vouched_by) == ("east", None, ("hub",))
    assert 0 < found.vouched_lines < found.lines
    own = await hub.routes.verify(Call(VIEWER))
    assert [(one.journal, one.problem, one.vouched_by) for one in own] == [
        ("authority/journal", None, ("east",)),
        ("root/journal", None, ("east",)),
    ]


async def test_what_was_cut_is_found_by_whoever_kept_the_head_and_by_nobody_else(hub: Process) -> None:
    east = hub.others["east"]
    await east.issue()
    hub.keep(east)
    await east.authority.close()
    east.cut(2)
    (found,) = await hub.routes.verify(Call(VIEWER, query={"from": "east"}))
    assert "ends here" in (found.problem or "")
    (alone,) = await east.routes.verify(Call(VIEWER))
    assert (alone.problem, alone.vouched_by) == (None, ())


async def test_a_journal_that_is_gone_with_its_folder_is_missed(hub: Process) -> None:
    east = hub.others["east"]
    stranger = JournalHead("cd" * 32, 7, "11" * 32)
    hub.keeps["east", stranger.authority] = Kept(stranger)
    hub.keep(east)
    found = {one.problem for one in await hub.routes.verify(Call(VIEWER, query={"from": "east"}))}
    assert found == {None, f"there is no journal of the authority {stranger.authority}"}


async def test_heads_are_told_with_what_contradicts_them(hub: Process) -> None:
    east = hub.others["east"]
    hub.keep(east)
    ((_, authority),) = hub.keeps
    kept = hub.keeps["east", authority]
    hub.keeps["east", authority] = replace(kept, doubt=JournalHead(authority, 1, "11" * 32))
    told = await hub.routes.heads(Call(VIEWER))
    assert sorted((one.owner, one.kind) for one in told) == [("east", "kept"), ("hub", "own"), ("hub", "own")]
    (problem,) = (one.problem for one in told if one.problem)
    assert "was cut" in problem
    assert msgspec.json.decode(encode(told), type=tuple[HeadInfo, ...]) == told
    with pytest.raises(ApiProblem) as refused:
        await hub.routes.accept(Call(VIEWER, body=AcceptJournals(owner="east")))
    assert refused.value.status == 404
    done = await hub.routes.accept(Call(VIEWER, body=AcceptJournals(owner="west")))
    assert "west" in done.done


@pytest.mark.parametrize("authority", ["ab" * 32, "AB" * 32, ":".join(["AB"] * 32)])
@pytest.mark.parametrize("last", ["11" * 32, ":".join(["11"] * 32)])
def test_a_head_is_understood_however_its_hashes_are_written(authority: str, last: str) -> None:
    assert parse_heads([f"{authority}:7:{last}"]) == (JournalHead("ab" * 32, 7, "11" * 32),)


@pytest.mark.parametrize(
    "text", ["", "x", f"{'ab' * 32}:0:{'11' * 32}", f"{'ab' * 32}:7", f"{'ab' * 32}:7:{'11' * 31}1x"]
)
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ApiProblem, match="is not the head of a journal"):
        parse_heads([text])


async def test_what_cannot_be_written_is_a_problem_of_the_process(
    hub: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    east = hub.others["east"]
    assert east.journals.problems() == ()
    (journal,) = east.authority.journals
    journal.problem = "the disk is full"
    assert east.journals.problems() == ("the disk is full",)
    await east.issue()
    assert east.journals.problems() == ()


async def test_bans_are_noted_in_the_newest_journal_and_the_last_word_of_all_of_them_counts(
    hub: Process,
) -> None:
    first = Banned(NOW, "cluster", "west", "x")
    await hub.journals.note(first)
    assert await hub.journals.bans() == (first,)
    rotation = await hub.authority.begin("ada", "test")
    assert rotation.phase is Phase.PREPARED
    last = Unbanned(NOW + timedelta(seconds=1), "cluster", "west")
    await hub.journals.note(last)
    assert await hub.journals.bans() == (last,)
    old, new = hub.authority.journals
    assert (old.bans(), new.bans()) == ((first,), (last,))
