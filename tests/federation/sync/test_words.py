"""What waits is the newest of each kind, in the order in which it fell due, and its size is known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from federation.sync.words import Words

PUTS = st.lists(st.tuples(st.integers(0, 4), st.binary(max_size=40)))


def drained(words: Words) -> list[bytes]:
    taken = []
    while (message := words.take()) is not None:
        taken.append(message)
    return taken


def test_a_newer_message_takes_the_place_of_an_older_one() -> None:
    words = Words(100)
    words.put(("ack", "east"), b"1")
    words.put(("refusal", "spec/default/echo"), b"no")
    words.put(("ack", "east"), b"2")
    assert drained(words) == [b"2", b"no"]


@given(PUTS, st.integers(0, 10))
def test_what_waits_is_counted_by_its_bytes(puts: list[tuple[int, bytes]], taken: int) -> None:
    words, waiting = Words(60), dict[int, bytes]()
    for slot, message in puts:
        words.put(("ack", slot), message)
        waiting[slot] = message
    for slot in list(waiting)[:taken]:
        assert words.take() == waiting.pop(slot)
    size = sum(map(len, waiting.values()))
    assert words.too_many == (size > 60)
    assert words.fits(10) == (size + 10 <= 60)
    assert drained(words) == list(waiting.values())
    assert not words.too_many
