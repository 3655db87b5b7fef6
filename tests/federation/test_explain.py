from __future__ import annotations

import msgspec

from federation.events import ExportChanged, LoadChanged, LocalChanged, MemberChanged
from federation.explain import Explained, explain
from federation.inputs import inputs
from federation.merge import merge
from federation.model import MemberState, Port, View
from federation.route import route
from tests.federation.world import ECHO, backend, joined, load, local, member, spec, view_after


def explained(view: View) -> Explained:
    cut = inputs(view, ECHO)
    imported = merge(cut)
    return explain(cut, imported, route(cut, imported))


VIEW = view_after(
    *joined("east", "west", "north", "central"),
    MemberChanged(member("far")),
    LocalChanged(local(backend(1, ready=False))),
    *(ExportChanged(spec(name)) for name in ("west", "north", "central", "far")),
    LoadChanged(load("west", 3, 4)),
    LoadChanged(load("north", 1, 1)),
    LoadChanged(load("central", 2, 2)),
)


def test_shares_are_those_of_the_first_tier_that_can_serve() -> None:
    (port,) = explained(VIEW).ports
    assert [(line.tier, line.cluster, line.share, line.code) for line in port.lines] == [
        (0, "east", 0.0, "no-healthy-endpoint"),
        (1, "north", 25.0, "same-region"),
        (1, "west", 75.0, "same-region"),
        (2, "central", 0.0, "other-region"),
        (None, "far", 0.0, "untrusted"),
    ]
    assert port.listen_port == 20000
    assert port.exported_to == ("central", "north", "west")


def test_what_is_not_used_is_told_too() -> None:
    udp = ExportChanged(spec("west", ports=(Port("http", 80), Port("dns", 53, "UDP")), age=5, seq=2))
    quarantined = MemberChanged(member("central", state=MemberState.QUARANTINED))
    found = explained(view_after(udp, quarantined, start=VIEW))
    assert [(line.cluster, line.code) for line in found.left_out] == [("central", "quarantined")]
    assert [(port.number, port.note) for port in found.ports] == [
        (80, ""),
        (53, "UDP is not routed: tunnels carry TCP only"),
    ]


def test_nobody_can_serve() -> None:
    (port,) = explained(view_after(*joined("east"), LocalChanged(local()))).ports
    assert [(line.cluster, line.share, line.reason) for line in port.lines] == [
        ("east", 0.0, "it has no endpoint")
    ]


def test_it_survives_the_wire() -> None:
    found = explained(VIEW)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Explained) == found
    assert (found.service, found.cluster, found.type) == ("default/echo", "east", "ClusterSetIP")
    assert found.host == "echo.default.svc.clusterset.local"
