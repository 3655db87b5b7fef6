"""What an owner does with refusals: it says again what may be allowed now, and nothing else."""

from __future__ import annotations

from federation.admit import Refused
from federation.model import Position
from federation.sync.publisher import Publisher
from federation.sync.refusals import OTHERS, Refusal
from tests.federation.sync.world import spec

NO = Refused("may-export", "not allowed")


def publisher() -> Publisher:
    made = Publisher("east", 0)
    made.begin(1)
    for name in ("echo", "gone", "shop"):
        made.set(f"spec/default/{name}", spec("east", name))
    made.remove("spec/default/gone")
    return made


def positions(made: Publisher) -> dict[str, int]:
    return {key.rpartition("/")[2]: item.seq for key, item in made.feed.items.items()}


def test_what_was_refused_is_said_again_when_rights_change() -> None:
    made = publisher()
    assert positions(made) == {"echo": 1, "gone": 4, "shop": 3}
    made.refuse(Refusal("spec/default/echo", 1, NO))
    made.refuse(Refusal("spec/default/shop", 2, NO))
    made.say_refused_again()
    assert positions(made) == {"echo": 5, "gone": 4, "shop": 3}
    assert made.refused == {}


def test_when_refusals_were_only_counted_everything_is_said_again() -> None:
    made = publisher()
    made.refuse(Refusal("spec/default/echo", 1, NO))
    made.refuse(Refusal(OTHERS, 0, Refused("limit", "1 more entries are refused")))
    made.say_refused_again()
    assert positions(made) == {"echo": 5, "gone": 4, "shop": 6}
    assert made.refused == {}
    assert made.feed.position == Position(1, 6)
