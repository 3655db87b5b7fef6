from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.inputs import FabricInputs
from federation.model import Service
from gateway import names
from gateway.check import check
from gateway.compile import Compiled, Place, Plans, compile_step, start
from gateway.pb.envoy.config.listener.v3.listener_pb2 import Listener
from gateway.pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext
from gateway.snapshot import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, TYPES, Key, Snapshot
from gateway.tuning import Tuning
from tests.gateway.plans import (
    ECHO,
    HERE,
    ME,
    SERVICES,
    echo_plan,
    fabric,
    line,
    peer,
    plan,
    three_clusters,
    worlds,
)

TUNING = Tuning()
World = tuple[FabricInputs, Mapping[Service, Plans]]


def from_scratch(around: FabricInputs, plans: Mapping[Service, Plans]) -> Compiled:
    return compile_step(start(around, TUNING), plans, around)


def contents(snapshot: Snapshot) -> dict[Key, str]:
    resources = [one for kind in snapshot.types.values() for one in kind.values()]
    return {one.key: one.version for one in resources}


def exported(snapshot: Snapshot, table: str) -> dict[str, str]:
    """Authority to cluster, as a route table has it."""
    found = snapshot.get(ROUTES, table)
    assert found is not None
    hosts = RouteConfiguration.FromString(found.body).virtual_hosts
    return {domain: host.routes[0].route.cluster for host in hosts for domain in host.domains}


def test_what_a_service_looks_like() -> None:
    made = from_scratch(three_clusters(), {ECHO: (echo_plan(),)}).snapshots[HERE]
    assert {kind: sorted(made.of(kind)) for kind in (CLUSTER, LISTENER, ROUTES, SECRET)} == {
        CLUSTER: ["default/echo:80", "gateway/central", "gateway/west", "local/default/echo:80"],
        LISTENER: ["default/echo:80", "east-west", "local", "to/central", "to/west"],
        ROUTES: ["from/central", "from/west", "local", "to/central", "to/west"],
        SECRET: ["bundle/central.mesh.example", "bundle/west.mesh.example"],
    }
    assert sorted(made.of(ENDPOINTS)) == sorted(made.of(CLUSTER))
    for table in ("from/central", "from/west", "local"):
        assert exported(made, table) == {"echo.default.svc.clusterset.local:80": "local/default/echo:80"}
    bound = Listener.FromString(made.of(LISTENER)["default/echo:80"].body).address.socket_address
    assert (bound.address, bound.port_value) == ("127.0.0.1", 20000)


def test_of_a_cluster_without_peers_and_services_is_known_that_there_is_nothing() -> None:
    alone = fabric(binds=(HERE,))
    assert set(start(alone, TUNING).snapshots[HERE].types) == set(TYPES)
    assert set(from_scratch(alone, {}).snapshots[HERE].of(CLUSTER)) == set()


def test_a_service_of_others_has_no_backends_here_and_no_virtual_host() -> None:
    made = from_scratch(three_clusters(), {ECHO: (plan(["west"], ["central"]),)}).snapshots[HERE]
    assert "local/default/echo:80" not in made.of(CLUSTER)
    assert {table: exported(made, table) for table in made.of(ROUTES)} == {
        "from/central": {},
        "from/west": {},
        "local": {},
        "to/central": {"*": "gateway/central"},
        "to/west": {"*": "gateway/west"},
    }


def test_without_a_listen_port_or_without_tiers_there_is_no_listener() -> None:
    portless = from_scratch(three_clusters(), {ECHO: (plan(["west"], listen_port=None),)}).snapshots[HERE]
    assert "default/echo:80" not in portless.of(LISTENER)
    assert "default/echo:80" in portless.of(CLUSTER)
    unimported = plan(local=[("127.0.0.1", 1)], exported_to=["west"])
    sold = from_scratch(three_clusters(), {ECHO: (unimported,)}).snapshots[HERE]
    assert "default/echo:80" not in {*sold.of(LISTENER), *sold.of(CLUSTER)}
    assert exported(sold, "from/west") == {"echo.default.svc.clusterset.local:80": "local/default/echo:80"}
    assert exported(sold, "from/central") == {}


@given(st.lists(worlds(), min_size=2, max_size=5))
def test_the_incremental_snapshot_is_the_one_from_scratch(history: list[World]) -> None:
    compiled = from_scratch(*history[0])
    for around, plans in history[1:]:
        before = compiled
        compiled = compile_step(compiled, plans, around)
        changed = {service for service in SERVICES if plans[service] != _plans(before, service)}
        assert compiled.recomputed == changed
        scratch = from_scratch(around, plans)
        assert set(compiled.snapshots) == set(scratch.snapshots) == set(around.binds)
        for place, snapshot in compiled.snapshots.items():
            assert contents(snapshot) == contents(scratch.snapshots[place])
            _says_what_changed(before.snapshots.get(place), snapshot)


def _plans(compiled: Compiled, service: Service) -> Plans:
    held = compiled.services.get(service)
    return held[0] if held is not None else ()


def _says_what_changed(before: Snapshot | None, after: Snapshot) -> None:
    if before is None or after is before:
        return
    old, new = contents(before), contents(after)
    assert after.number == before.number + 1
    assert after.changed == {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


@given(worlds())
def test_what_is_not_exported_to_a_peer_is_not_in_its_table(world: World) -> None:
    around, plans = world
    for snapshot in from_scratch(around, plans).snapshots.values():
        for one in around.peers:
            wanted = {
                names.authority(port.service, port.port.number)
                for ports in plans.values()
                for port in ports
                if one.name in port.exported_to
            }
            assert set(exported(snapshot, names.inbound(one.name))) == wanted
        doors = {names.LOCAL, *(names.inbound(one.name) for one in around.peers)}
        assert set(snapshot.of(ROUTES)) == doors | {names.to(one.name) for one in around.peers}


@given(worlds())
def test_no_context_trusts_two_trust_domains_and_nothing_else_is_wrong(world: World) -> None:
    around, plans = world
    for snapshot in from_scratch(around, plans).snapshots.values():
        assert check(snapshot).problems == ()
        assert set(snapshot.of(SECRET)) == {names.bundle(one.trust_domain) for one in around.peers}
        door = snapshot.get(LISTENER, names.EAST_WEST)
        assert (door is None) is (not around.peers)
        chains = Listener.FromString(door.body).filter_chains if door is not None else ()
        for one, chain in zip(around.peers, chains, strict=True):
            context = DownstreamTlsContext()
            assert chain.transport_socket.typed_config.Unpack(context)
            trusted = context.common_tls_context.combined_validation_context
            assert trusted.validation_context_sds_secret_config.name == names.bundle(one.trust_domain)
            assert list(chain.filter_chain_match.server_names) == [f"from-{one.name}.{ME}.mesh.example"]


def many(count: int) -> dict[Service, Plans]:
    services = [Service("many", f"s{number}") for number in range(count)]
    return {
        one: (
            plan(
                ["east"],
                ["west"],
                service=one,
                listen_port=20000 + number,
                local=[("127.0.0.1", 18081)],
                exported_to=["west"],
            ),
        )
        for number, one in enumerate(services)
    }


@pytest.mark.parametrize("count", [10, 500])
def test_one_changed_service_costs_one_service(count: int) -> None:
    around = three_clusters()
    plans = many(count)
    compiled = from_scratch(around, plans)
    assert len(compiled.recomputed) == count
    service, (before,) = next(iter(plans.items()))
    lighter = plan(
        [line("east", healthy=False)],
        ["west"],
        service=service,
        listen_port=before.listen_port,
        local=[("127.0.0.1", 18081)],
        exported_to=["west"],
    )
    step = compile_step(compiled, {**plans, service: (lighter,)}, around)
    assert step.recomputed == {service}
    assert step.snapshots[HERE].changed == {(ENDPOINTS, names.imported(service, 80))}
    same = compile_step(step, {service: (lighter,)}, around)
    assert same.recomputed == frozenset()
    assert same.snapshots[HERE] is step.snapshots[HERE]


def test_exports_change_a_route_table_and_never_a_listener() -> None:
    around = three_clusters()
    compiled = from_scratch(around, {ECHO: (plan(["east"], local=[("127.0.0.1", 1)]),)})
    shared = plan(["east"], local=[("127.0.0.1", 1)], exported_to=["west"])
    step = compile_step(compiled, {ECHO: (shared,)}, around)
    assert step.snapshots[HERE].changed == {(ROUTES, "from/west")}
    gone = compile_step(step, {ECHO: ()}, around)
    assert {key for key in gone.snapshots[HERE].changed if key[0] == LISTENER} == {
        (LISTENER, "default/echo:80")
    }
    assert exported(gone.snapshots[HERE], "from/west") == {}


def west_with(gateways: int) -> FabricInputs:
    return fabric(peer("west", *((f"127.0.0.{2 + number}", 15443) for number in range(gateways))))


def test_a_new_gateway_of_a_peer_changes_endpoints_and_how_a_second_one_is_tried() -> None:
    compiled = from_scratch(west_with(1), {ECHO: (plan(["west"]),)})
    ways = {(ENDPOINTS, "gateway/west"), (ROUTES, "to/west")}
    for gateways, changed in ((2, ways), (3, ways), (4, {(ENDPOINTS, "gateway/west")})):
        compiled = compile_step(compiled, {}, west_with(gateways))
        assert compiled.snapshots[HERE].changed == changed
        assert compiled.recomputed == frozenset()


@pytest.mark.parametrize(
    ("gateways", "retries", "after_a_reset"),
    [(0, 2, False), (1, 2, False), (2, 1, True), (3, 2, True), (9, 2, True)],
)
def test_a_tunnel_that_lost_its_gateway_is_tried_once_at_each_other_one(
    gateways: int, retries: int, after_a_reset: bool
) -> None:
    found = start(west_with(gateways), TUNING).snapshots[HERE].get(ROUTES, "to/west")
    assert found is not None
    policy = RouteConfiguration.FromString(found.body).virtual_hosts[0].routes[0].route.retry_policy
    assert policy.num_retries.value == retries
    assert ("reset" in policy.retry_on.split(",")) is after_a_reset
    elsewhere = [one.name for one in policy.retry_host_predicate]
    assert elsewhere == ["envoy.retry_host_predicates.previous_hosts"] * after_a_reset


def test_gateways_at_other_places_share_all_but_the_addresses_of_listeners() -> None:
    other: Place = (names.GATEWAY_CLASS, "127.0.0.9", 15443)
    around = fabric(peer("west", ("127.0.0.2", 15443)), binds=[HERE, other])
    made = from_scratch(around, {ECHO: (plan(["east"], ["west"], local=[("127.0.0.1", 1)]),)})
    one, two = contents(made.snapshots[HERE]), contents(made.snapshots[other])
    assert one.keys() == two.keys()
    differing = {key for key in one if one[key] != two[key]}
    assert differing == {(LISTENER, "default/echo:80"), (LISTENER, "east-west")}


def test_a_cluster_does_not_become_another() -> None:
    with pytest.raises(ValueError, match="east cannot become west"):
        compile_step(start(fabric(), TUNING), {}, fabric(me="west"))
