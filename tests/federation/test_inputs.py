from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.admit import Refused
from federation.events import (
    BundleChanged,
    ClusterChanged,
    Event,
    ExportChanged,
    GatewayGone,
    GatewayLost,
    GatewayReported,
    LoadChanged,
    LocalChanged,
    MemberChanged,
    MemberGone,
)
from federation.inputs import Peer, Withheld, fabric, inputs
from federation.model import Gateway, ImportPolicy, ImportRule, MemberState, Port, Position
from pki.bundle import Bundle
from pki.spiffe import TrustDomain
from tests.federation.world import (
    BASE,
    ECHO,
    JOINED,
    ME,
    NOW,
    backend,
    bundle,
    cluster,
    gateway,
    joined,
    load,
    local,
    member,
    spec,
    view_after,
)

EXPORTED = (*joined("east", "west", "central"), LocalChanged(local(backend(1))))


@pytest.mark.parametrize(
    ("events", "rule"),
    [
        ((), None),
        ((MemberChanged(member("west", state=MemberState.DRAINING)),), None),
        ((MemberChanged(member("west", state=MemberState.DRAINED)),), "drained"),
        ((MemberChanged(member("west", state=MemberState.QUARANTINED)),), "quarantined"),
        ((MemberGone("west"),), "member"),
        ((MemberChanged(member("west", may_export=("other/*",))),), "may-export"),
        ((ExportChanged(spec("west", scope=frozenset({"central"}), seq=2)),), "scope"),
        ((ExportChanged(spec("west", scope=frozenset({"east"}), seq=2)),), None),
        ((ExportChanged(spec("west", ports=(Port("a", 80), Port("b", 80)), seq=2)),), "ports"),
    ],
)
def test_an_export_is_used_or_withheld_with_its_rule(events: tuple[Event, ...], rule: str | None) -> None:
    cut = inputs(view_after(*joined("east", "west"), ExportChanged(spec("west")), *events), ECHO)
    assert [(one.cluster, one.refused.rule) for one in cut.withheld] == (
        [] if rule is None else [("west", rule)]
    )
    assert [one.cluster for one in cut.exports] == ([] if rule else ["west"])


def test_our_import_policy_withholds_whatever_the_hub_says() -> None:
    me = replace(ME, import_policy=ImportPolicy(deny=(ImportRule(clusters=("west",)),)))
    view = view_after(*EXPORTED, ExportChanged(spec("west")), ExportChanged(spec("central")), me=me)
    cut = inputs(view, ECHO)
    assert [one.cluster for one in cut.exports] == ["central", "east"]
    assert cut.withheld == (
        Withheld("west", Refused("import-policy", "our import policy denies default/echo from west")),
    )


def test_nobody_is_older_than_its_join() -> None:
    late = JOINED + timedelta(hours=5)
    view = view_after(
        *joined("east"),
        MemberChanged(member("west", joined_at=late)),
        ExportChanged(spec("west", age=10**7)),
    )
    assert inputs(view, ECHO).exports[0].exported_at == late


def test_loads_that_cannot_be_are_left_out() -> None:
    view = view_after(
        *joined("east", "west"),
        ExportChanged(spec("west")),
        LoadChanged(load("west", 2, 2, zone="a")),
        LoadChanged(load("west", 9, 2, zone="b")),
        LoadChanged(load("central")),
    )
    assert inputs(view, ECHO).loads == (replace(load("west", 2, 2, zone="a"), at=Position()),)


def test_a_repeated_word_at_a_later_position_changes_nothing() -> None:
    view = view_after(*EXPORTED, ExportChanged(spec("west")), LoadChanged(load("west")))
    again = view_after(ExportChanged(spec("west", seq=9)), LoadChanged(load("west", seq=9)), start=view)
    assert again.exports[ECHO]["west"].at == Position(1, 9)
    assert inputs(again, ECHO) == inputs(view, ECHO)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (MemberChanged(member("west", state=MemberState.DRAINING)), ("central", "west")),
        (MemberChanged(member("west", state=MemberState.DRAINED)), ("central", "west")),
        (MemberChanged(member("west", state=MemberState.QUARANTINED)), ("central",)),
        (MemberGone("west"), ("central",)),
        (BundleChanged("west", Bundle(TrustDomain.of_cluster("east", BASE), 2, ())), ("central",)),
        (MemberChanged(member("south")), ("central", "west")),
        (LocalChanged(local(backend(1), scope=frozenset({"central", "nobody"}))), ("central",)),
        (LocalChanged(local(backend(1), scope=frozenset())), ()),
        (LocalChanged(local(backend(1), exported=False)), ()),
        (MemberChanged(member("east", may_export=("other/*",))), ()),
    ],
)
def test_who_may_reach_our_export(event: Event, expected: tuple[str, ...]) -> None:
    assert inputs(view_after(*EXPORTED, event), ECHO).exported_to == expected


SCOPES = st.one_of(st.none(), st.frozensets(st.sampled_from(["west", "central", "far", "nobody"])))


@given(
    SCOPES,
    st.lists(
        st.one_of(
            st.builds(
                lambda n, s: MemberChanged(member(n, state=s)),
                st.sampled_from(["west", "central", "far"]),
                st.sampled_from(MemberState),
            ),
            st.builds(lambda n: BundleChanged(n, bundle(n)), st.sampled_from(["west", "central", "far"])),
            st.builds(MemberGone, st.sampled_from(["west", "central", "far"])),
        ),
        max_size=8,
    ),
)
def test_only_known_trusted_members_in_scope_reach_us(
    scope: frozenset[str] | None, events: list[Event]
) -> None:
    view = view_after(*EXPORTED, LocalChanged(local(backend(1), scope=scope)), *events)
    peers = {peer.name for peer in fabric(view).peers}
    reaching = set(inputs(view, ECHO).exported_to)
    assert reaching == {name for name in peers if scope is None or name in scope}
    for name in reaching:
        assert view.members[name].state is not MemberState.QUARANTINED
        assert view.bundles[name].trust_domain == TrustDomain.of_cluster(name, BASE)


def test_fabric_lists_trusted_peers_and_each_bind_once() -> None:
    view = view_after(
        *joined("east", "west"),
        MemberChanged(member("central")),
        GatewayReported(gateway("gw-0"), {}, {}),
        GatewayReported(gateway("gw-1", serving=False), {}, {}),
    )
    found = fabric(view)
    assert found.peers == (
        Peer(
            "west",
            TrustDomain.of_cluster("west", BASE),
            "eu",
            (Gateway("gw-0", "eastwest", "10.2.0.1", 15443),),
            bundle("west"),
        ),
    )
    assert found.binds == (("eastwest", "127.0.0.1", 15443),)
    assert found.trust_domain == TrustDomain.of_cluster("east", BASE)
    assert fabric(view_after(GatewayLost("gw-0"), GatewayLost("gw-1"), start=view)) == found
    assert fabric(view_after(GatewayGone("gw-0"), GatewayGone("gw-1"), start=view)).binds == ()


def test_a_gateway_out_of_its_ranges_is_not_dialled_and_takes_no_other_with_it() -> None:
    wrong = Gateway("gw-9", "eastwest", "127.0.0.1", 15443)
    ingress = Gateway("gw-8", "ingress", "10.2.0.8", 15443)
    said = cluster("west")
    view = view_after(
        *joined("east", "west"),
        ClusterChanged(replace(said, gateways=(wrong, ingress, *said.gateways))),
    )
    assert fabric(view).peers[0].gateways == said.gateways


def test_a_quarantined_peer_is_no_peer() -> None:
    view = view_after(*joined("east", "west"), MemberChanged(member("west", state=MemberState.QUARANTINED)))
    assert fabric(view).peers == ()


def test_backends_appear_only_with_our_export() -> None:
    view = view_after(*EXPORTED)
    assert inputs(view, ECHO).backends == ((80, (backend(1),)),)
    assert (
        inputs(view_after(LocalChanged(local(backend(1), exported=False)), start=view), ECHO).backends == ()
    )
    assert inputs(view, ECHO).exports[0].exported_at == NOW
