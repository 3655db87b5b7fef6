"""Delta xDS as a pure state machine: what a client said, what there is, and therefore what to send it next.

Serves both streams: agent to gateway process, and gateway process to Envoy. It makes before it breaks (Envoy, "xDS
protocol, eventual consistency considerations"), in rounds. A round brings the client from what it has to one snapshot:

1. clusters;  2. listeners, once the clusters are accepted;  3. routes, once the listeners are accepted;
4. what is gone, the referring before what it refers to: listeners, routes, clusters, endpoints, secrets.

Endpoints and secrets never wait: Envoy accepts a cluster only when it is warm, which takes both. Listeners wait for
those endpoints and secrets that changed in their round. A snapshot that comes during a round waits for the next one,
so that a stream of changes cannot keep listeners and routes waiting for ever; its endpoints go out at once.

Removals wait while the client keeps an old version of something that may still refer to them, because it refused the
new one. A name that is subscribed to and does not exist is not answered: it will be, when it exists. To call it absent
would make Envoy use the cluster without endpoints. Who asks for everything is answered in any case, with nothing if
there is nothing; as long as the snapshot does not know a type, nothing is said of it and nothing is removed.

Endpoints may name an internal listener. That reference is beyond this module: whoever makes snapshots publishes a
listener before the endpoints that name it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from rpds import HashTrieMap, HashTrieSet

from gateway.snapshot import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    SECRET,
    TYPES,
    Key,
    Resource,
    Resources,
    Snapshot,
)
from gateway.xds.lane import InFlight, Lane, Rejected
from gateway.xds.messages import Message, Overloaded, Published, Reply, Request, Response, Retry

MOST_NAMES = 200_000
"""Names that one stream may subscribe to, or claim to have, over all types."""

_UNHURRIED = (CLUSTER, LISTENER, ROUTES)
_IMMEDIATE = (ENDPOINTS, SECRET)
_IMPLICIT_WILDCARD = (CLUSTER, LISTENER)
_REMOVALS = (LISTENER, ROUTES, CLUSTER, ENDPOINTS, SECRET)
_REFERRERS = {
    LISTENER: (),
    ROUTES: (LISTENER,),
    CLUSTER: (LISTENER, ROUTES),
    ENDPOINTS: (CLUSTER,),
    SECRET: (CLUSTER, LISTENER),
}


@dataclass(frozen=True, slots=True)
class Subscription:
    """One stream. `latest` is the newest snapshot, `target` the one that the present round brings.

    `waiting` are the keys in which the two may differ; `owed` the endpoints and secrets that the listeners of this
    round wait for; `acked` the number of the newest snapshot that the client has completely, refused resources aside.
    """

    latest: Snapshot = field(default_factory=Snapshot)
    target: Snapshot = field(default_factory=Snapshot)
    waiting: HashTrieSet[Key] = field(default_factory=HashTrieSet)
    owed: HashTrieSet[Key] = field(default_factory=HashTrieSet)
    lanes: HashTrieMap[str, Lane] = field(default_factory=HashTrieMap)
    responses: int = 0
    acked: int = 0
    stray_nonces: int = 0
    unknown_types: int = 0

    def rejected(self) -> dict[Key, Rejected]:
        """What the client refuses at present, by type and name."""
        return {(t, name): why for t, lane in self.lanes.items() for name, why in lane.rejected.items()}

    def offers(self, type_url: str) -> Mapping[str, Resource]:
        """What this type's lane is compared with.

        Endpoints and secrets are the newest; those that the newest snapshot has no more stay as long as the clusters of
        the target may need them.
        """
        target, latest = self.target.of(type_url), self.latest.of(type_url)
        if type_url not in _IMMEDIATE or self.target is self.latest:
            return target
        return _Newest(latest, target)


class _Newest(Mapping[str, Resource]):
    """Two maps as one, without a copy; what is in both is taken from the first."""

    def __init__(self, first: Resources, second: Resources) -> None:
        self._first, self._second = first, second

    def __getitem__(self, name: str) -> Resource:
        found = self._first.get(name)
        return self._second[name] if found is None else found

    def __iter__(self) -> Iterator[str]:
        yield from self._first
        yield from (name for name in self._second if name not in self._first)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def advance(subscription: Subscription, message: Message) -> tuple[Subscription, tuple[Reply, ...]]:
    """Take in one message; say what to send. The replies of one call are sent in their order."""
    match message:
        case Published(snapshot):
            return _fill(_published(subscription, snapshot))
        case Retry():
            return _fill(_retried(subscription))
        case Request(type_url) if type_url not in TYPES:
            return replace(subscription, unknown_types=subscription.unknown_types + 1), ()
        case Request():
            subscription = _requested(subscription, message)
            names = sum(len(lane.names) + len(lane.known) for lane in subscription.lanes.values())
            limit = MOST_NAMES + sum(len(subscription.latest.of(t)) for t in TYPES)
            if names > limit:
                return subscription, (Overloaded(f"{names} resource names, at most {limit} are allowed"),)
            return _fill(subscription)
    assert_never(message)


def _published(sub: Subscription, snapshot: Snapshot) -> Subscription:
    keys = snapshot.differences(sub.latest)
    sub = replace(sub, latest=snapshot, waiting=sub.waiting.update(keys))
    return _look(sub, (key for key in keys if key[0] in _IMMEDIATE))


def _retried(sub: Subscription) -> Subscription:
    lanes = {type_url: lane.retry(sub.offers(type_url)) for type_url, lane in sub.lanes.items()}
    return replace(sub, lanes=HashTrieMap.convert(lanes))


def _look(sub: Subscription, keys: Iterable[Key]) -> Subscription:
    lanes = sub.lanes
    for type_url, name in keys:
        if (lane := lanes.get(type_url)) is not None:
            lanes = lanes.insert(type_url, lane.look(name, sub.offers(type_url).get(name)))
    return replace(sub, lanes=lanes)


def _requested(sub: Subscription, request: Request) -> Subscription:
    offered = sub.offers(request.type_url)
    lane = sub.lanes.get(request.type_url)
    if lane is None:
        lane = Lane.opened(request, offered, implicit=request.type_url in _IMPLICIT_WILDCARD)
        sub = replace(sub, acked=sub.acked if lane.is_idle else 0)
        asked: Iterable[str] = lane.due
    else:
        if request.nonce:
            if (flight := lane.in_flight) is not None and flight.nonce == request.nonce:
                sub = _settled(sub, request, flight)
                lane = lane.answered(request.error, offered)
            else:
                sub = replace(sub, stray_nonces=sub.stray_nonces + 1)
        lane = lane.subscribe(request, offered)
        asked = request.subscribe
    sub = replace(sub, lanes=sub.lanes.insert(request.type_url, lane))
    keys = ((request.type_url, name) for name in asked)
    return replace(sub, owed=sub.owed.update(key for key in keys if _is_outstanding(sub, key)))


def _settled(sub: Subscription, request: Request, flight: InFlight) -> Subscription:
    """Listeners wait no longer for what was accepted or refused alone, even if something newer is due by now."""
    if request.error is not None and len(flight.put) > 1:
        return sub
    owed = sub.owed
    for name in flight.put:
        owed = owed.discard((request.type_url, name))
    return replace(sub, owed=owed)


def _fill(sub: Subscription) -> tuple[Subscription, tuple[Response, ...]]:
    """Send all that may be sent now, and begin the next round if this one is complete."""
    replies: list[Response] = []
    while True:
        sub = _send(sub, replies)
        if not _is_complete(sub):
            return sub, tuple(replies)
        sub = _close_round(sub)
        if sub.target is sub.latest:
            return sub, tuple(replies)
        sub = _open_round(sub)


def _send(sub: Subscription, replies: list[Response]) -> Subscription:
    if _may_put(sub, ROUTES) and _is_idle(sub, ROUTES):
        sub = _remove(sub, replies)
    for type_url in TYPES:
        if _may_put(sub, type_url):
            sub = _put(sub, type_url, replies)
    return sub


def _may_put(sub: Subscription, type_url: str) -> bool:
    if type_url == LISTENER:
        return _is_idle(sub, CLUSTER) and not _owes(sub)
    if type_url == ROUTES:
        return _may_put(sub, LISTENER) and _is_idle(sub, LISTENER)
    return True


def _is_idle(sub: Subscription, type_url: str) -> bool:
    lane = sub.lanes.get(type_url)
    return lane is None or lane.is_idle


def _owes(sub: Subscription) -> bool:
    return any(_is_outstanding(sub, key) for key in sub.owed)


def _is_outstanding(sub: Subscription, key: Key) -> bool:
    """An endpoint assignment or secret that is still to be sent, or to be accepted."""
    type_url, name = key
    lane = sub.lanes.get(type_url)
    if lane is None or type_url not in _IMMEDIATE or not lane.wants(name):
        return False
    return name in lane.due or (lane.in_flight is not None and name in lane.in_flight.put)


def _put(sub: Subscription, type_url: str, replies: list[Response]) -> Subscription:
    lane = sub.lanes.get(type_url)
    if lane is None:
        return sub
    is_known = type_url in sub.target.types
    lane, response = lane.next_put(str(sub.responses + 1), sub.offers(type_url), is_known)
    if response is None:
        return sub
    replies.append(response)
    sub = replace(sub, lanes=sub.lanes.insert(type_url, lane), responses=sub.responses + 1)
    return _repeat_endpoints(sub, response) if type_url == CLUSTER else sub


def _repeat_endpoints(sub: Subscription, response: Response) -> Subscription:
    """Envoy warms a changed cluster only when its endpoints come again (envoyproxy/envoy#21425), and does not ask."""
    lane = sub.lanes.get(ENDPOINTS)
    if lane is None:
        return sub
    for cluster in response.put:
        if cluster.name in lane.names:
            lane = lane.repeat(cluster.name, sub.offers(ENDPOINTS).get(cluster.name))
    return replace(sub, lanes=sub.lanes.insert(ENDPOINTS, lane))


def _remove(sub: Subscription, replies: list[Response]) -> Subscription:
    for type_url in _REMOVALS:
        lane = sub.lanes.get(type_url)
        if lane is None:
            continue
        if lane.in_flight is not None and lane.in_flight.removed:
            return sub
        lane, response = lane.next_removal(str(sub.responses + 1), _may_go(sub, type_url))
        if response is not None:
            replies.append(response)
            return replace(sub, lanes=sub.lanes.insert(type_url, lane), responses=sub.responses + 1)
    return sub


def _may_go(sub: Subscription, type_url: str) -> list[str]:
    """What is gone and nothing that the client keeps can refer to any more."""
    if type_url not in sub.target.types:
        return []
    for referrer in _REFERRERS[type_url]:
        lane = sub.lanes.get(referrer)
        if lane is None and _is_expected(sub, referrer):
            return []
        if lane is not None and (lane.gone or lane.holds_refused_update):
            return []
    return list(sub.lanes[type_url].gone)


def _is_expected(sub: Subscription, type_url: str) -> bool:
    """The client has yet to say, on this new stream, what it holds of this type."""
    if type_url != ROUTES:
        return True
    listeners = sub.lanes.get(LISTENER)
    return listeners is None or bool(listeners.known and sub.target.of(ROUTES))


def _is_complete(sub: Subscription) -> bool:
    if _owes(sub) or not all(_is_idle(sub, type_url) for type_url in _UNHURRIED):
        return False
    return not any(
        (lane.in_flight is not None and lane.in_flight.removed) or _may_go(sub, type_url)
        for type_url, lane in sub.lanes.items()
    )


def _close_round(sub: Subscription) -> Subscription:
    listens = CLUSTER in sub.lanes and LISTENER in sub.lanes
    return replace(sub, owed=HashTrieSet(), acked=sub.target.number if listens else sub.acked)


def _open_round(sub: Subscription) -> Subscription:
    keys = sub.waiting
    sub = replace(sub, target=sub.latest, waiting=HashTrieSet())
    sub = _look(sub, keys)
    return replace(sub, owed=HashTrieSet(key for key in keys if _is_outstanding(sub, key)))
