"""Bounds and costs of the protocol; what it says in which order is in the transcripts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.snapshot import CLUSTER, ENDPOINTS, LISTENER, Resource, Snapshot
from gateway.xds.lane import LARGEST_RESPONSE, LONGEST_ERROR, LONGEST_RESPONSE, Lane
from gateway.xds.messages import EVERYTHING, Message, Overloaded, Published, Reply, Request, Response
from gateway.xds.protocol import MOST_NAMES, Subscription, advance


def resources(type_url: str, number: int, body: bytes = b"") -> list[Resource]:
    return [Resource(type_url, f"name-{index:05}", "1", body) for index in range(number)]


def tell(subscription: Subscription, *messages: Message) -> tuple[Subscription, list[Reply]]:
    replies: list[Reply] = []
    for message in messages:
        subscription, said = advance(subscription, message)
        replies.extend(said)
    return subscription, replies


def accept_all(subscription: Subscription, replies: list[Reply]) -> tuple[Subscription, list[Response]]:
    """Accept whatever comes until nothing comes; all responses in their order."""
    heard: list[Response] = []
    while replies:
        response = replies.pop(0)
        assert isinstance(response, Response)
        heard.append(response)
        subscription, more = advance(subscription, Request(response.type_url, response.nonce))
        replies.extend(more)
    return subscription, heard


def test_a_large_configuration_comes_in_chunks_and_completely() -> None:
    snapshot = Snapshot().replace(resources(CLUSTER, 1203), ())
    subscription, replies = tell(Subscription(), Published(snapshot), Request(CLUSTER), Request(LISTENER))
    subscription, heard = accept_all(subscription, replies)
    assert [len(response.put) for response in heard] == [LONGEST_RESPONSE, LONGEST_RESPONSE, 203]
    assert subscription.acked == snapshot.number


def test_a_response_has_a_bound_in_bytes_and_a_single_resource_may_be_larger() -> None:
    large = resources(CLUSTER, 3, b"x" * (LARGEST_RESPONSE // 2))
    huge = Resource(CLUSTER, "z-huge", "1", b"x" * (LARGEST_RESPONSE + 1))
    snapshot = Snapshot().replace([*large, huge], ())
    subscription, replies = tell(Subscription(), Published(snapshot), Request(CLUSTER))
    _, heard = accept_all(subscription, replies)
    assert [[r.name for r in response.put] for response in heard] == [
        ["name-00000", "name-00001"],
        ["name-00002"],
        ["z-huge"],
    ]


def test_too_many_names_close_the_stream() -> None:
    names = tuple(str(index) for index in range(MOST_NAMES + 1))
    subscription, _ = tell(Subscription(), Published(Snapshot().replace(resources(CLUSTER, 1), ())))
    _, replies = tell(subscription, Request(ENDPOINTS, subscribe=names[:-2]))
    assert replies == []
    _, (reply,) = tell(subscription, Request(ENDPOINTS, subscribe=(*names, "one more")))
    assert isinstance(reply, Overloaded)
    assert f"at most {MOST_NAMES + 1} are allowed" in reply.reason


def test_a_long_error_is_cut() -> None:
    snapshot = Snapshot().replace(resources(CLUSTER, 1), ())
    subscription, _ = tell(Subscription(), Published(snapshot), Request(CLUSTER))
    subscription, _ = tell(subscription, Request(CLUSTER, "1", error="x" * 10_000_000))
    ((_, rejected),) = subscription.rejected().items()
    assert rejected.error == "x" * LONGEST_ERROR


def test_before_the_first_snapshot_nothing_is_said() -> None:
    has = {"a": "1", "b": "1"}
    requests = [
        Request(kind, subscribe=(EVERYTHING,), initial=has) for kind in (CLUSTER, ENDPOINTS, LISTENER)
    ]
    _, replies = tell(Subscription(), Published(Snapshot()), *requests)
    assert replies == []


def test_a_change_costs_what_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at one name among 10,000, however many there are."""
    snapshot = Snapshot().replace(resources(ENDPOINTS, 10_000), ())
    subscription, replies = tell(
        Subscription(), Published(snapshot), Request(ENDPOINTS, subscribe=(EVERYTHING,)), Request(CLUSTER)
    )
    subscription, heard = accept_all(subscription, replies)
    assert len(heard) == 20
    looked: list[str] = []
    look = Lane.look

    def counted(lane: Lane, name: str, wanted: Resource | None) -> Lane:
        looked.append(name)
        return look(lane, name, wanted)

    changed = snapshot.replace([Resource(ENDPOINTS, "name-05000", "2", b"")], ())
    monkeypatch.setattr(Lane, "look", counted)
    _, (reply,) = tell(subscription, Published(changed))
    assert isinstance(reply, Response)
    assert [r.name for r in reply.put] == ["name-05000"]
    assert set(looked) == {"name-05000"}


def test_a_snapshot_whose_number_leaves_a_gap_is_compared_as_a_whole() -> None:
    one = Snapshot().replace(resources(CLUSTER, 3), ())
    subscription, replies = tell(Subscription(), Published(one), Request(CLUSTER), Request(LISTENER))
    subscription, _ = accept_all(subscription, replies)
    two = one.replace([Resource(CLUSTER, "name-00000", "2", b"")], [(CLUSTER, "name-00001")])
    gap = replace(two, number=9, changed=frozenset())
    subscription, replies = tell(subscription, Published(gap))
    subscription, heard = accept_all(subscription, replies)
    assert [([r.name for r in h.put], h.removed) for h in heard] == [
        (["name-00000"], ()),
        ([], ("name-00001",)),
    ]
    assert subscription.acked == 9
