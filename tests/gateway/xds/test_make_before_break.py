"""Random snapshots, refusals and reconnections against a model of Envoy."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.snapshot import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, TYPES, Key, Resource, Snapshot
from gateway.xds.messages import Message, Published, Request, Response, Retry
from gateway.xds.protocol import Subscription, advance
from tests.gateway.xds.envoy_model import EnvoyModel, is_bad, refers, resource

NAMES = ("a", "b", "c", "d")
revisions = st.integers(0, 3)
badness = st.sampled_from([False] * 7 + [True])


@st.composite
def resources(draw: st.DrawFn) -> dict[Key, Resource]:
    """A set of resources in which every reference leads somewhere."""
    found: dict[Key, Resource] = {}

    def add(type_url: str, name: str, targets: list[Key]) -> None:
        made = resource(type_url, name, draw(revisions), targets, bad=draw(badness))
        found[made.key] = made

    secrets = draw(st.sets(st.sampled_from(NAMES), min_size=1))
    for name in secrets:
        add(SECRET, name, [])
    clusters = draw(st.sets(st.sampled_from(NAMES)))
    for name in sorted(clusters):
        add(ENDPOINTS, name, [])
        secret = draw(st.sampled_from([None, *sorted(secrets)]))
        add(CLUSTER, name, [(ENDPOINTS, name), *([(SECRET, secret)] if secret else [])])
    routes = draw(st.sets(st.sampled_from(NAMES)))
    cluster_sets = st.sets(st.sampled_from(sorted(clusters))) if clusters else st.just(set())
    for name in sorted(routes):
        add(ROUTES, name, [(CLUSTER, target) for target in draw(cluster_sets)])
    for name in sorted(draw(st.sets(st.sampled_from(NAMES)))):
        targets = [(CLUSTER, target) for target in draw(cluster_sets)]
        route = draw(st.sampled_from([None, *sorted(routes)]))
        targets += [(ROUTES, route)] if route else []
        targets += [(SECRET, draw(st.sampled_from(sorted(secrets))))] if draw(st.booleans()) else []
        add(LISTENER, name, targets)
    return without_unused_routes(found)


def without_unused_routes(found: dict[Key, Resource]) -> dict[Key, Resource]:
    used = {key for (kind, _), made in found.items() if kind == LISTENER for key in refers(made)}
    return {key: made for key, made in found.items() if key[0] != ROUTES or key in used}


def next_snapshot(before: Snapshot, wanted: dict[Key, Resource], skipped: int) -> Snapshot:
    known = {(t, name) for t in TYPES for name in before.of(t)}
    after = before.replace(wanted.values(), known - set(wanted), TYPES)
    return replace(after, number=after.number + skipped) if after is not before else after


class OneStream(RuleBasedStateMachine):
    """Agent's side, wire and Envoy; each message is delivered when a rule says so."""

    def __init__(self) -> None:
        super().__init__()
        self.snapshot = Snapshot()
        self.subscription = Subscription()
        self.envoy = EnvoyModel()
        self.to_envoy: list[Response] = []
        self.to_server: list[Request] = []
        self.reconnected = False
        self.sent: dict[Key, str] = {}
        self.repeatable: set[Key] = set()

    @initialize(applies_good_ones=st.booleans())
    def start(self, applies_good_ones: bool) -> None:
        self.envoy = EnvoyModel(applies_good_ones)
        self._connect()

    @rule(wanted=resources(), skipped=st.integers(0, 1))
    def publish(self, wanted: dict[Key, Resource], skipped: int) -> None:
        self.snapshot = next_snapshot(self.snapshot, wanted, skipped)
        self._take(Published(self.snapshot))

    @precondition(lambda self: self.to_server)
    @rule()
    def hear(self) -> None:
        self._take(self.to_server.pop(0))

    @precondition(lambda self: self.to_envoy)
    @rule()
    def tell(self) -> None:
        response = self.to_envoy.pop(0)
        note(f"{response.type_url.rpartition('.')[2]} {[r.name for r in response.put]} -{response.removed}")
        answers = self.envoy.receive(response)
        self.to_server.extend(answers)

    @rule()
    def retry(self) -> None:
        self.repeatable |= self.subscription.rejected().keys()
        self._take(Retry())

    @rule(restarted=st.booleans())
    def reconnect(self, restarted: bool) -> None:
        self.reconnected = not restarted
        if restarted:
            self.envoy = EnvoyModel(self.envoy.applies_good_ones)
        self.subscription, replies = advance(Subscription(), Published(self.snapshot))
        assert replies == ()
        self._connect()

    def _connect(self) -> None:
        self.to_envoy, self.to_server = [], self.envoy.connect()
        self.repeatable = set()
        self.sent = {
            (r.type_url, name): version for r in self.to_server for name, version in r.initial.items()
        }

    def _take(self, message: Message) -> None:
        self.subscription, replies = advance(self.subscription, message)
        if isinstance(message, Request):
            self._may_repeat(message)
        for reply in replies:
            assert isinstance(reply, Response)
            self._send(reply)

    def _may_repeat(self, request: Request) -> None:
        names = request.subscribe
        if request.error is not None:
            names += tuple(name for kind, name in self.sent if kind == request.type_url)
        self.repeatable.update((request.type_url, name) for name in names)

    def _send(self, response: Response) -> None:
        """Nothing is sent twice without a cause: asked for again, refused with others, or its cluster changed."""
        for found in response.put:
            assert self.sent.get(found.key) != found.version or found.key in self.repeatable
            self.sent[found.key] = found.version
            self.repeatable.discard(found.key)
            if found.type_url == CLUSTER:
                self.repeatable.add((ENDPOINTS, found.name))
        for name in response.removed:
            self.sent.pop((response.type_url, name), None)
        self.to_envoy.append(response)

    @invariant()
    def one_unanswered_response_a_type(self) -> None:
        unanswered = Counter(r.type_url for r in self.to_envoy)
        assert all(count <= 1 for count in unanswered.values())

    def teardown(self) -> None:
        """When nothing happens any more, Envoy has what there is except what it refuses; all, once that is mended."""
        self._settle_down()
        good = {key for key in self._used() if not is_bad(self._get(key))}
        self._assert_held(good)
        if any(is_bad(r) for t in TYPES for r in self.snapshot.of(t).values()):
            self.envoy.is_mended = True
            self.retry()
            self._settle_down()
            assert not self.subscription.rejected()
            self._assert_held(self._used())
        assert set(self.envoy.held) == set(self._used())

    def _settle_down(self) -> None:
        for _ in range(1000):
            if self.to_envoy:
                self.tell()
            elif self.to_server:
                self.hear()
            elif self.reconnected and self.envoy.withheld:
                self.to_server = self.envoy.give_up_waiting()
            else:
                break
        assert not self.to_envoy
        assert not self.to_server
        assert self.subscription.acked == self.snapshot.number
        assert self.snapshot.number == 0 or self.envoy.heard >= {CLUSTER, LISTENER}

    def _assert_held(self, keys: set[Key]) -> None:
        versions = self.envoy.versions()
        for key in keys:
            assert versions.get(key) == self._get(key).version, key

    def _used(self) -> set[Key]:
        """Clusters and listeners, and what they refer to: Envoy does not ask for anything else."""
        used = {(t, name) for t in (CLUSTER, LISTENER) for name in self.snapshot.of(t)}
        bad = {key for key in used if is_bad(self._get(key)) and not self.envoy.is_mended}
        return used | {target for key in used - bad for target in refers(self._get(key))}

    def _get(self, key: Key) -> Resource:
        found = self.snapshot.get(*key)
        assert found is not None
        return found


TestOneStream = OneStream.TestCase
TestOneStream.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, report_multiple_bugs=False
)
