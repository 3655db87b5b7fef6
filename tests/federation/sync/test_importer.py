"""What an agent believed once of a name it does not unlearn, whoever leaves, joins anew, or says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.events import BundleChanged, Event
from federation.model import HUB, Member, MemberState, Position
from federation.sync import codec, importer
from federation.sync.feed import Item
from federation.sync.importer import Importer, Taken
from federation.sync.protocol import Batch
from pki.bundle import Accepted, Bundle, Proof, accept, content, sign_content
from pki.spiffe import TrustDomain
from tests.federation.sync.world import Disk
from tests.pki.world import BASE, NOW, Ca, make_ca, make_root

WEST = TrustDomain.of_cluster("west", BASE)
ROOT_KEY, ROOT = make_root()
FIRST, SECOND, THIRD, FOURTH = (make_ca(WEST, ROOT_KEY, ROOT, epoch) for epoch in (1, 2, 3, 4))


def begun(ca: Ca) -> Bundle:
    """The version that begins with this authority."""
    generation = [FIRST, SECOND, THIRD, FOURTH].index(ca) + 1
    return replace(ca.bundle, generation=generation)


def following(held: Bundle, by: Ca, *anchors: Ca) -> Bundle:
    draft = replace(
        held, sequence=held.sequence + 1, anchors=tuple(ca.self_signed for ca in anchors), proof=Proof()
    )
    rooted = tuple(ca.rooted for ca in anchors)
    return replace(draft, proof=Proof(rooted=rooted, signatures=(sign_content(draft, by.key),)))


ROTATED = following(begun(FIRST), FIRST, SECOND)
"""West rotated: its first authority has ended."""


class East:
    """An agent's importer and its disk; what a hub says comes in one batch a word."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.seq = count(1)
        self.start()

    def start(self) -> tuple[Event, ...]:
        self.importer = Importer("east", BASE, lambda held, offered: accept(held, offered, ROOT))
        return self.importer.restore(self.disk.heard.values(), self.disk.cursors, self.disk.believed.values())

    def hears(self, owner: str, key: str, body: bytes | None, seq: int) -> Taken:
        item = Item(key, seq, body or codec.tombstone(key, seq), gone=body is None)
        _, taken = self.importer.apply(Batch(owner, 1, seq, full=False, last=True, items=(item,)), None)
        if taken.believed is not None:
            self.disk.believe(owner, taken.believed)
        for heard in taken.heard:
            self.disk.hear(heard)
        for gone in taken.forgotten:
            self.disk.forget(owner, gone)
        self.disk.reach(owner, taken.cursor)
        return taken

    def joins(self, after: timedelta = timedelta(0)) -> None:
        member = Member("west", WEST, (), (), NOW + after, MemberState.ACTIVE, Position(), b"")
        seq = next(self.seq)
        self.listed(HUB)
        self.hears(HUB, "member/west", codec.encode("member/west", seq, member), seq)

    def leaves(self) -> None:
        for owner, key in ((HUB, "member/west"), ("west", "bundle")):
            self.listed(owner)
            self.hears(owner, key, None, next(self.seq))

    def listed(self, owner: str) -> None:
        """A delta counts after a first listing."""
        if owner not in self.importer.have() or self.importer.have()[owner].epoch == 0:
            self.importer.apply(Batch(owner, 1, 0, full=True, last=True, items=()), None)

    def offered(self, bundle: Bundle) -> bool:
        """Whether it is believed."""
        seq = next(self.seq)
        self.listed("west")
        taken = self.hears("west", "bundle", codec.encode("bundle", seq, bundle), seq)
        assert bool(taken.events) != bool(taken.refused)
        return bool(taken.events)

    def restarts_without_memory_of_what_was_heard(self) -> None:
        self.disk.heard, self.disk.cursors = {}, {}
        self.start()


def test_a_hub_cannot_lead_back_to_an_authority_that_was_replaced() -> None:
    east = East()
    east.joins()
    assert east.offered(begun(FIRST))
    assert east.offered(begun(SECOND)), "an operator had it replaced"
    assert not east.offered(begun(FIRST))
    for attempt in range(1, 4):
        east.joins(timedelta(seconds=attempt))
        assert not east.offered(begun(FIRST)), "a hub says that it joined anew"
    east.leaves()
    east.joins(timedelta(seconds=9))
    assert not east.offered(begun(FIRST)), "a hub says that it left and came back"
    east.restarts_without_memory_of_what_was_heard()
    east.joins()
    assert not east.offered(begun(FIRST)), "a restart forgets nothing either"
    assert east.offered(begun(SECOND))


def test_an_authority_that_ended_by_a_rotation_begins_nothing_either() -> None:
    """The root's word for it is public for ever, and its key may have been stolen from a copy."""
    east = East()
    east.joins()
    assert east.offered(begun(FIRST))
    assert east.offered(ROTATED)
    assert east.offered(following(ROTATED, SECOND, THIRD))
    east.leaves()
    east.joins(timedelta(seconds=1))
    assert not east.offered(replace(begun(FIRST), sequence=9)), (
        "with the word of the root, and a number beyond"
    )
    assert not east.offered(begun(SECOND))
    assert east.offered(begun(FOURTH)), "who joins anew has a higher epoch than any before"


def test_who_comes_back_as_it_was_is_believed_as_it_was() -> None:
    east = East()
    east.joins()
    assert east.offered(begun(FIRST))
    assert east.offered(ROTATED)
    east.leaves()
    assert east.importer.problems() == ()
    east.joins(timedelta(hours=1))
    assert east.offered(ROTATED)
    assert east.offered(following(ROTATED, SECOND, SECOND, THIRD))


def test_what_is_not_believed_is_said_until_it_is_over() -> None:
    east = East()
    east.joins()
    east.offered(ROTATED)
    east.offered(begun(FIRST))
    [problem] = east.importer.problems()
    assert "west" in problem
    assert "federation token create west --replace-authority" in problem
    east.offered(ROTATED)
    assert east.importer.problems() == ()
    east.offered(begun(FIRST))
    east.leaves()
    assert east.importer.problems() == ()


def test_of_a_crash_between_two_writes_the_newest_counts() -> None:
    east = East()
    east.joins()
    east.offered(begun(FIRST))
    before = dict(east.disk.heard)
    east.offered(ROTATED)
    east.disk.heard = before
    events = [event for event in east.start() if isinstance(event, BundleChanged)]
    assert [content(event.bundle) for event in events] == [content(ROTATED)]


def test_names_are_bounded_and_nobody_is_pushed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "MOST_BELIEVED", 1)
    east = East()
    east.joins()
    assert east.offered(begun(FIRST))
    north = make_ca(TrustDomain.of_cluster("north", BASE), ROOT_KEY, ROOT)
    east.listed("north")
    taken = east.hears("north", "bundle", codec.encode("bundle", 1, north.bundle), 1)
    assert "other names" in taken.refused[0].why.detail
    assert not taken.events
    assert east.offered(ROTATED), "who is known goes on"


VERSIONS = (
    begun(FIRST),
    ROTATED,
    following(begun(FIRST), FIRST, FIRST),
    following(ROTATED, SECOND, SECOND, THIRD),
    following(following(ROTATED, SECOND, SECOND, THIRD), THIRD, THIRD),
    begun(SECOND),
    begun(THIRD),
    following(begun(THIRD), THIRD, FOURTH),
    begun(FOURTH),
)
steps = st.lists(
    st.one_of(
        st.sampled_from(VERSIONS),
        st.sampled_from(("leaves", "restarts", "forgets")),
        st.integers(-5, 5),
    ),
    max_size=14,
)


@given(steps)
def test_what_was_believed_never_falls(walk: list[Bundle | str | int]) -> None:
    """Whatever a hub says in whatever order, and however often we restart."""
    east = East()
    east.joins()
    floor: Bundle | None = None
    for step in walk:
        match step:
            case Bundle():
                if east.offered(step):
                    assert floor is None or isinstance(accept(floor, step, ROOT), Accepted)
                    assert floor is None or step.version >= floor.version
                    floor = step
            case "leaves":
                east.leaves()
            case "restarts":
                east.start()
            case "forgets":
                east.restarts_without_memory_of_what_was_heard()
            case int():
                east.joins(timedelta(minutes=step))
    believed = east.disk.believed.get("west")
    assert (believed and content(believed)) == (floor and content(floor))
