from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network

from federation.admit import Refused
from federation.events import (
    Event,
    GatewayGone,
    GatewayLost,
    GatewayReported,
    LocalChanged,
    LocalGone,
    MemberChanged,
    MemberGone,
    Tick,
)
from federation.model import Backend, Gateway, Load, Port, Service, View
from federation.own import gateways_held_back, held_back, own_cluster, owned, owned_by_service
from tests.federation.world import (
    ECHO,
    HTTP,
    JOINED,
    ME,
    NOW,
    backend,
    gateway,
    joined,
    local,
    member,
    view_after,
)

BOTH = LocalChanged(local(backend(1), backend(2)))
FIRST, SECOND = "10.1.9.1:8080", "10.1.9.2:8080"


def failing(name: str, *addresses: str) -> GatewayReported:
    return GatewayReported(gateway(name), {}, {(ECHO, 80): frozenset(addresses)} if addresses else {})


def own_load(*events: Event) -> tuple[int, int, int]:
    view = view_after(*joined("east"), BOTH, *events)
    load = owned_by_service(view, ECHO)["load/default/echo/80/"]
    assert isinstance(load, Load)
    return load.healthy, load.total, load.capacity


def test_we_publish_spec_load_and_ourselves_by_key() -> None:
    view = view_after(*joined("east"), BOTH, GatewayReported(gateway(), {}, {}))
    assert set(owned(view)) == {"cluster", "spec/default/echo", "load/default/echo/80/"}
    assert owned(view)["cluster"] == own_cluster(view)
    assert own_cluster(view).gateways == (Gateway("gw-0", "eastwest", "10.1.0.1", 15443),)


def test_load_is_said_for_each_port_and_zone() -> None:
    hosts = (backend(1, zone="a"), backend(2, zone="b"), backend(3, zone="b", ready=False))
    ports = (HTTP, Port("admin", 90))
    view = view_after(*joined("east"), LocalChanged(local(*hosts, ports=ports)))
    said = {
        key: (load.healthy, load.total)
        for key, load in owned_by_service(view, ECHO).items()
        if isinstance(load, Load)
    }
    assert said == {
        "load/default/echo/80/a": (1, 1),
        "load/default/echo/80/b": (1, 2),
        "load/default/echo/90/a": (1, 1),
        "load/default/echo/90/b": (1, 2),
    }


def test_an_empty_slice_is_an_explicit_zero() -> None:
    assert own_load(LocalChanged(local())) == (0, 0, 0)


def test_without_a_slice_the_last_known_endpoints_stay() -> None:
    assert own_load(LocalChanged(local(known=False))) == (2, 2, 2)


def test_an_address_fails_only_if_all_that_report_say_so() -> None:
    assert own_load() == (2, 2, 2)
    assert own_load(failing("gw-0", FIRST)) == (1, 2, 1)
    assert own_load(failing("gw-0", FIRST), failing("gw-1")) == (2, 2, 2)
    assert own_load(failing("gw-0", FIRST, SECOND), failing("gw-1", SECOND)) == (1, 2, 1)
    assert own_load(failing("gw-0", FIRST), failing("gw-1"), GatewayLost("gw-1")) == (1, 2, 1)
    assert own_load(failing("gw-0", FIRST), failing("gw-1"), GatewayGone("gw-1")) == (1, 2, 1)
    assert own_load(failing("gw-0", FIRST), GatewayLost("gw-0")) == (2, 2, 2)
    assert own_load(failing("gw-0", FIRST), failing("gw-0")) == (2, 2, 2)


def test_a_declared_capacity_shrinks_with_health() -> None:
    assert own_load(LocalChanged(local(backend(1), backend(2), capacity=50))) == (2, 2, 50)
    assert own_load(LocalChanged(local(backend(1), backend(2, ready=False), capacity=50))) == (1, 2, 25)
    assert own_load(LocalChanged(local(backend(1, ready=False), capacity=50))) == (0, 1, 0)
    assert own_load(LocalChanged(local(backend(1), backend(2, ready=False), capacity=1))) == (1, 2, 1)


def exported_at(view: View) -> object:
    return view.exports[ECHO]["east"].exported_at


def test_an_export_is_as_old_as_we_first_saw_it_and_no_older_than_our_join() -> None:
    later = NOW + timedelta(hours=1)
    view = view_after(*joined("east"), BOTH, Tick(later, 1.0), LocalChanged(local(backend(7))))
    assert exported_at(view) == NOW
    rejoined = MemberChanged(member("east", joined_at=later, seq=2))
    assert exported_at(view_after(rejoined, start=view)) == later
    anew = view_after(LocalChanged(local(exported=False)), BOTH, start=view)
    assert exported_at(anew) == later
    assert exported_at(view_after(LocalGone(ECHO), BOTH, start=view)) == later


def test_the_age_outlives_a_restart() -> None:
    before = view_after(*joined("east"), BOTH)
    later = View(ME, NOW + timedelta(days=9), first_exported=before.first_exported)
    assert exported_at(view_after(BOTH, *joined("east"), start=later)) == NOW


def test_a_service_gone_while_we_were_away_loses_its_age_when_that_is_said() -> None:
    before = view_after(*joined("east"), BOTH)
    later = View(ME, NOW, first_exported=before.first_exported)
    assert ECHO not in view_after(LocalGone(ECHO), start=later).first_exported


def test_what_we_may_not_export_is_held_back_with_its_reason() -> None:
    view = view_after(*joined("east"), BOTH, MemberChanged(member("east", may_export=("shop/*",))))
    assert set(owned(view)) == {"cluster"}
    assert list(held_back(view)) == [
        (ECHO, Refused("may-export", "east may not export default/echo: it may export shop/*"))
    ]


def test_before_the_registry_knows_us_nothing_is_exported() -> None:
    view = view_after(BOTH)
    assert set(owned(view)) == {"cluster"}
    assert [refused.rule for _, refused in held_back(view)] == ["member"]
    assert ECHO in view_after(*joined("east"), start=view).exports
    assert set(owned(view_after(MemberGone("east"), start=view_after(*joined("east"), BOTH)))) == {"cluster"}


def test_endpoints_out_of_our_ranges_do_not_count() -> None:
    wrong = Backend("169.254.169.254", 80)
    view = view_after(*joined("east"), LocalChanged(local(backend(1), wrong)))
    load = owned_by_service(view, ECHO)["load/default/echo/80/"]
    assert isinstance(load, Load)
    assert load.total == 1
    assert [(service, refused.rule) for service, refused in held_back(view)] == [(ECHO, "address")]


def test_only_gateways_that_serve_within_our_ranges_are_offered() -> None:
    view = view_after(
        *joined("east"),
        GatewayReported(gateway("gw-0"), {}, {}),
        GatewayReported(gateway("gw-1", serving=False), {}, {}),
        GatewayReported(gateway("gw-2", address="10.2.0.1"), {}, {}),
    )
    assert [one.name for one in own_cluster(view).gateways] == ["gw-0"]
    lost = view_after(GatewayLost("gw-0"), start=view)
    assert own_cluster(lost) == own_cluster(view)
    assert own_cluster(view_after(GatewayGone("gw-0"), start=view)).gateways == ()


def test_a_gateway_that_is_not_offered_is_told_with_its_reason_for_as_long_as_there_is_one() -> None:
    view = view_after(
        GatewayReported(gateway("gw-0"), {}, {}),
        GatewayReported(gateway("gw-1", address="10.2.0.1"), {}, {}),
        GatewayReported(gateway("gw-2", address="10.2.0.1", serving=False), {}, {}),
    )
    assert list(gateways_held_back(view)) == [], "before the registry knows us, that is what is told"
    view = view_after(*joined("east"), start=view)
    [(one, refused)] = gateways_held_back(view)
    assert (one.name, refused.rule) == ("gw-1", "address")
    assert refused.detail == "10.2.0.1 is outside the registered ranges: 10.1.0.0/16"
    wider = replace(member("east", seq=2), ranges=(ip_network("10.0.0.0/8"),))
    assert list(gateways_held_back(view_after(MemberChanged(wider), start=view))) == []
    elsewhere = replace(member("east", seq=2), ranges=(ip_network("10.9.0.0/16"),))
    told = [one.name for one, _ in gateways_held_back(view_after(MemberChanged(elsewhere), start=view))]
    assert told == ["gw-0", "gw-1"]


def test_a_service_that_is_not_exported_says_nothing() -> None:
    view = view_after(*joined("east"), LocalChanged(replace(local(backend(1)), exported=False)))
    assert owned_by_service(view, ECHO) == {}
    assert list(held_back(view)) == []
    assert view.members["east"].joined_at == JOINED


def test_what_is_held_back_is_known_without_looking_at_what_is_not() -> None:
    wrong, other = Backend("10.9.9.9", 80), Service("default", "other")
    view = view_after(
        *joined("east"), LocalChanged(local(wrong)), LocalChanged(local(backend(1), service=other))
    )
    assert set(view.held_back) == {ECHO}
    assert set(view_after(LocalChanged(local(backend(1))), start=view).held_back) == set()
    assert set(view_after(LocalGone(ECHO), start=view).held_back) == set()
    wider = replace(member("east", seq=2), ranges=(ip_network("10.0.0.0/8"),))
    assert set(view_after(MemberChanged(wider), start=view).held_back) == set()
    assert set(view_after(MemberChanged(member("east", may_export=())), start=view).held_back) == {
        ECHO,
        other,
    }
