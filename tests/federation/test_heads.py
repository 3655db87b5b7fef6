"""Heads that others keep: what is behind, or beside, the furthest one that was told is never forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from federation.events import HeadsAccepted, HeadsTold, MemberGone
from federation.heads import MOST_KEPT, Heads, JournalHead, Kept, accepted, keep
from federation.model import HUB
from tests.federation.world import joined, view_after

OURS = "aa" * 32


def head(lines: int, hash_: str = "11", authority: str = OURS) -> JournalHead:
    return JournalHead(authority, lines, hash_ * 32)


def told(owner: str, *heads: JournalHead) -> HeadsTold:
    return HeadsTold(Heads(owner, heads))


def test_the_furthest_head_is_kept() -> None:
    kept = keep(keep(None, head(3)), head(7, "22"))
    assert kept == Kept(head(7, "22"))
    assert kept.problem("west") is None
    assert keep(kept, head(7, "22")) is kept


def test_what_is_behind_or_beside_it_is_a_contradiction_until_somebody_accepts_it() -> None:
    before = Kept(head(7))
    for contradiction in (head(6), head(7, "22")):
        kept = keep(before, contradiction)
        assert kept == Kept(head(7), contradiction)
        assert "the journal of west" in (kept.problem("west") or "")
        later = keep(kept, head(9, "33"))
        assert later == Kept(head(7), head(9, "33")), (
            "who was rewritten once is not believed when it is longer"
        )
        assert accepted(later) == Kept(head(9, "33"))
    assert accepted(before) == before


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["11", "22"])), max_size=12))
def test_whatever_is_told_a_kept_head_is_replaced_by_a_further_one_alone(
    words: list[tuple[int, str]],
) -> None:
    kept: Kept | None = None
    for lines, hash_ in words:
        after = keep(kept, head(lines, hash_))
        if kept is not None and after.head != kept.head:
            assert after.head.lines > kept.head.lines
            assert kept.doubt is None
        if kept is not None and kept.doubt is not None:
            assert after.doubt is not None
        kept = after


def test_an_agent_keeps_the_heads_of_the_hub_and_of_others_and_not_its_own() -> None:
    view = view_after(*joined("west"), told(HUB, head(3)), told("west", head(4)), told("east", head(5)))
    assert dict(view.heads.items()) == {(HUB, OURS): Kept(head(3)), ("west", OURS): Kept(head(4))}
    view = view_after(told(HUB, head(2)), MemberGone("west"), start=view)
    assert view.heads[HUB, OURS] == Kept(head(3), head(2))
    assert view.heads["west", OURS] == Kept(head(4)), "what it signed it has signed"
    view = view_after(HeadsAccepted(HUB), start=view)
    assert view.heads[HUB, OURS] == Kept(head(2))


def test_an_owner_has_so_many_journals_and_no_more() -> None:
    many = [head(1, authority=f"{number:064x}") for number in range(2 * MOST_KEPT)]
    view = view_after(*(told("west", one) for one in many), told("west", head(2, authority=f"{0:064x}")))
    assert len(view.heads) == MOST_KEPT
    assert view.heads["west", f"{0:064x}"].head.lines == 2


def test_what_cannot_be_a_head_is_none() -> None:
    assert head(1).is_possible
    impossible = (head(0), head(1 << 60), head(1, "XX"), JournalHead("aa", 1, "11" * 32))
    assert not any(one.is_possible for one in impossible)
