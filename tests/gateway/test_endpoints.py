from hypothesis import given
from hypothesis import strategies as st

from federation.route import PortPlan
from gateway import endpoints
from gateway.pb.envoy.config.core.v3.health_check_pb2 import HEALTHY, UNHEALTHY
from gateway.pb.envoy.config.endpoint.v3.endpoint_components_pb2 import LbEndpoint
from gateway.pb.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from tests.gateway.plans import line, peer, plan

WEIGHTS = st.lists(st.integers(0, 2**40), min_size=1, max_size=1000)


def assignment(given_plan: PortPlan) -> ClusterLoadAssignment:
    return ClusterLoadAssignment.FromString(endpoints.imported_endpoints(given_plan, "east").body)


def where(endpoint: LbEndpoint) -> str:
    return endpoint.endpoint.address.envoy_internal_address.server_listener_name


def why(endpoint: LbEndpoint) -> dict[str, object]:
    return dict(endpoint.metadata.filter_metadata["federation"].items())


def test_a_tier_is_a_priority_and_a_line_an_endpoint_that_says_why_it_is_there() -> None:
    given_plan = plan(["east"], [line("west", 3), line("north", 1, healthy=False)], ["central"])
    made = assignment(given_plan)
    assert made.cluster_name == "default/echo:80"
    assert [one.priority for one in made.endpoints] == [0, 1, 2]
    assert [[where(one) for one in tier.lb_endpoints] for tier in made.endpoints] == [
        ["local"],
        ["to/west", "to/north"],
        ["to/central"],
    ]
    west, north = made.endpoints[1].lb_endpoints
    assert (west.health_status, north.health_status) == (HEALTHY, UNHEALTHY)
    assert (west.load_balancing_weight.value, north.load_balancing_weight.value) == (3, 1)
    plan_version = endpoints.plan_version(given_plan)
    assert why(north) == {"cluster": "north", "tier": 1, "reason": "lost", "plan": plan_version}


def test_the_version_of_a_plan_changes_with_what_it_says_and_only_then() -> None:
    first = plan(["east"], ["west"], local=[("127.0.0.1", 1)], exported_to=["west"])
    same_way = plan(["east"], ["west"], local=[("127.0.0.1", 2)], listen_port=20001)
    other_way = plan(["east"], [line("west", 2)])
    assert (
        endpoints.plan_version(first) == endpoints.plan_version(same_way) != endpoints.plan_version(other_way)
    )


@given(WEIGHTS)
def test_scaled_weights_keep_their_proportion_and_fit_what_envoy_multiplies_in(weights: list[int]) -> None:
    scaled = endpoints.scaled(weights)
    total = max(sum(weights), endpoints.TIER_WEIGHT)
    assert all(one >= 1 for one in scaled)
    assert sum(scaled) * endpoints.OVERPROVISIONING < 2**32
    for weight, made in zip(weights, scaled, strict=True):
        assert abs(made - weight * endpoints.TIER_WEIGHT / total) <= 1


@given(WEIGHTS, st.data())
def test_one_healthy_line_however_light_keeps_all_traffic_in_its_tier(
    weights: list[int], data: st.DataObject
) -> None:
    scaled = endpoints.scaled(weights)
    lightest = scaled[data.draw(st.integers(0, len(scaled) - 1))]
    assert endpoints.OVERPROVISIONING * lightest // sum(scaled) >= 100


def test_backends_that_are_not_ready_stay_listed_and_gateways_of_other_classes_do_not() -> None:
    given_plan = plan(["east"], local=[("127.0.0.1", 1), ("::1", 2)])
    local = ClusterLoadAssignment.FromString(endpoints.local_endpoints(given_plan).body)
    assert [one.health_status for one in local.endpoints[0].lb_endpoints] == [HEALTHY, HEALTHY]
    addresses = [one.endpoint.address.socket_address.address for one in local.endpoints[0].lb_endpoints]
    assert addresses == ["127.0.0.1", "::1"]

    west = peer("west", ("127.0.0.2", 15443))
    gateways = ClusterLoadAssignment.FromString(endpoints.gateway_endpoints(west).body)
    assert gateways.cluster_name == "gateway/west"
    found = [one.endpoint.address.socket_address for one in gateways.endpoints[0].lb_endpoints]
    assert [(one.address, one.port_value) for one in found] == [("127.0.0.2", 15443)]
