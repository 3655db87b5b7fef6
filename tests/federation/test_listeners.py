"""No endpoint may be one of our own gateways: what it sends to itself would come back without end."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from federation.events import Event, GatewayGone, GatewayReported, LocalChanged, LocalGone, MemberChanged
from federation.listeners import GATEWAY, is_listener, listener
from federation.model import Backend, Load, OwnGateway, Service, View
from federation.own import held_back, own_backends, owned_by_service
from federation.reduce import reduce
from tests.federation.world import ECHO, backend, gateway, joined, local, member, view_after

IMPORTS = (20000, 20999)
OURS = OwnGateway("gw-0", "eastwest", "10.1.0.1", 443, "10.1.0.9", 15443, serving=True)
ANYWHERE = replace(OURS, bind="0.0.0.0")
LISTENING = listener(OURS, IMPORTS)
BOUND = GatewayReported(replace(gateway(), bind="10.1.0.1"), {}, {})
OTHER = Service("default", "other")


@pytest.mark.parametrize(
    "at", ["10.1.0.1:443", "10.1.0.9:15443", "10.1.0.9:20000", "10.1.0.9:20999", "10.1.0.9:20500"]
)
def test_what_a_gateway_listens_on_is_refused(at: str) -> None:
    host, _, port = at.partition(":")
    refused = is_listener(Backend(host, int(port)), (LISTENING,))
    assert refused is not None
    assert refused.rule == GATEWAY
    assert at in refused.detail
    assert "gw-0" in refused.detail


@pytest.mark.parametrize(
    "at",
    [
        "10.1.0.1:15443",
        "10.1.0.1:20000",
        "10.1.0.9:443",
        "10.1.0.9:19999",
        "10.1.0.9:21000",
        "127.0.0.1:20000",
    ],
)
def test_another_port_or_address_of_its_machine_is_not(at: str) -> None:
    host, _, port = at.partition(":")
    assert is_listener(Backend(host, int(port)), (LISTENING,)) is None


def test_one_that_listens_everywhere_is_at_its_advertised_address_and_at_loopback() -> None:
    everywhere = (listener(ANYWHERE, IMPORTS),)
    for host in ("10.1.0.1", "127.0.0.1", "::1"):
        assert is_listener(Backend(host, 20001), everywhere) is not None
    assert is_listener(Backend("10.1.0.2", 20001), everywhere) is None


def test_an_address_counts_however_it_is_written() -> None:
    v6 = (listener(replace(OURS, address="fd00::1", bind="fd00::1"), IMPORTS),)
    assert is_listener(Backend("fd00:0::0:1", 20001), v6) is not None
    assert is_listener(Backend("backend.example", 20001), v6) is None


def test_a_gateway_not_placed_yet_claims_no_address() -> None:
    assert is_listener(backend(1), (listener(replace(OURS, address="", port=0), IMPORTS),)) is None


def said(*events: Event) -> tuple[int, list[str]]:
    """How many endpoints of ECHO are told, and by which rules others are not."""
    view = view_after(*joined("east"), *events)
    load = owned_by_service(view, ECHO)["load/default/echo/80/"]
    assert isinstance(load, Load)
    assert sum(len(found) for _, found in own_backends(view, view.local[ECHO])) == load.total
    return load.total, [refused.rule for _, refused in held_back(view)]


LOOP = LocalChanged(local(backend(1), Backend("10.1.0.1", 20000)))


def test_an_endpoint_there_is_neither_told_nor_dialled_whatever_came_first() -> None:
    assert said(LOOP) == (2, [])
    assert said(LOOP, BOUND) == (1, [GATEWAY])
    assert said(BOUND, LOOP) == (1, [GATEWAY])


def test_it_is_taken_up_when_the_gateway_is_gone_or_listens_elsewhere() -> None:
    assert said(LOOP, BOUND, GatewayGone("gw-0")) == (2, [])
    assert said(LOOP, BOUND, GatewayReported(gateway(), {}, {})) == (2, [])


def test_only_the_services_with_an_endpoint_there_are_touched() -> None:
    other = LocalChanged(local(backend(2), service=OTHER))
    view = view_after(*joined("east"), LOOP, other)
    placed, touched = reduce(view, BOUND)
    assert touched == frozenset({ECHO})
    assert reduce(placed, BOUND)[1] == frozenset()
    assert reduce(placed, GatewayGone("gw-0"))[1] == frozenset({ECHO})


def test_a_service_is_found_by_the_ports_of_its_endpoints_for_as_long_as_it_has_them() -> None:
    view = view_after(*joined("east"), LOOP)
    assert set(view.by_port) == {8080, 20000}
    assert set(view_after(LocalChanged(local(backend(1))), start=view).by_port) == {8080}
    assert set(view_after(LocalChanged(local(known=False)), start=view).by_port) == {8080, 20000}
    assert set(view_after(LocalGone(ECHO), start=view).by_port) == set()


def test_the_ranges_are_named_first() -> None:
    narrow = MemberChanged(replace(member("east", seq=2), ranges=(ip_network("10.1.9.0/24"),)))
    assert said(LOOP, BOUND, narrow) == (1, ["address"])


def test_a_view_without_local_services_follows_too() -> None:
    view: View = view_after(*joined("east"), BOUND)
    assert list(held_back(view)) == []
