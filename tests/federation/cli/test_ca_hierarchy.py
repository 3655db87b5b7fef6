"""How the hierarchy is drawn and judged, from answers as values."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner

from federation.api.authority_info import (
    ClusterAuthorities,
    HeldInfo,
    OwnAuthorities,
    OwnAuthority,
    Tree,
    authority_info,
    trust_info,
)
from federation.cli.ca.tree import draw, hierarchy
from federation.cli.ca.verify import judged
from pki.bundle import Bundle
from pki.certificate import pem
from pki.spiffe import SpiffeId
from tests.pki.world import NOW, Ca, World, make_root, make_world


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


def own(name: str, ca: Ca, world: World, trusts: dict[str, Bundle], **changed: Any) -> OwnAuthorities:
    kind: Any = "hub" if name == "hub" else "agent"
    held = OwnAuthority(
        authority=authority_info(ca.forms), key_store="file", issued=1, journal_entries=3, journal="ab" * 32
    )
    leaf = ca.leaf(
        SpiffeId.gateway(ca.trust_domain, "eastwest")
        if kind == "agent"
        else SpiffeId.federation(ca.trust_domain)
    )
    given: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "roots": (authority_info((world.root,)),),
        "authorities": (held,),
        "bundle": trust_info(name, ca.bundle),
        "presented": pem((leaf, ca.rooted)).decode(),
        "trusts": tuple(trust_info(other, bundle) for other, bundle in trusts.items()),
    }
    return OwnAuthorities(**(given | changed))


def cluster(name: str, ca: Ca, told: OwnAuthorities | None, **changed: Any) -> ClusterAuthorities:
    given: dict[str, Any] = {
        "name": name,
        "state": "active",
        "authorities": (authority_info(ca.forms),),
        "bundle": trust_info(name, ca.bundle),
        "own": told,
        "problem": "" if told else "its agent is not connected",
    }
    return ClusterAuthorities(**(given | changed))


def tree(world: World, now: datetime = NOW, **changed: Any) -> dict[str, Any]:
    east = own("east", world.east, world, {"west": world.west.bundle})
    answer = Tree(
        base="mesh.example",
        now=now,
        root="online",
        hub=own("hub", world.hub, world, {"east": world.east.bundle, "west": world.west.bundle}),
        clusters=(cluster("east", world.east, east), cluster("west", world.west, None)),
    )
    found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(answer, **changed))
    return found


def drawn(answer: dict[str, Any], *, colour: bool = False) -> str:
    @click.command()
    def command() -> None:
        draw(hierarchy(answer))

    return CliRunner().invoke(command, color=colour).output


def test_each_authority_hangs_from_the_root_with_its_validity_key_and_believers(world: World) -> None:
    lines = drawn(tree(world)).splitlines()
    assert lines[0].startswith("root ")
    assert "3650 days left" in lines[0]
    assert lines[1].startswith("├─ hub · epoch 1 · until 2027-11-21, 365 days left · bundle 1")
    assert next(line for line in lines if "east ·" in line).startswith("├─ ")
    assert next(line for line in lines if "west ·" in line).startswith("└─ ")
    assert "│     believed by hub (sequence 1)" in lines
    assert "      believed by hub (sequence 1), east (sequence 1)" in lines
    assert "      not asked: its agent is not connected" in lines
    assert sum("in file" in line for line in lines) == 2


@pytest.mark.parametrize(("days", "colour"), [(300, None), (340, "\x1b[33m"), (400, "\x1b[31m")])
def test_what_ends_soon_is_yellow_and_what_has_ended_red(world: World, days: int, colour: str | None) -> None:
    text = drawn(tree(world, NOW + timedelta(days=days)), colour=True)
    line = next(line for line in text.splitlines() if "east ·" in line)
    assert (colour in line) if colour else ("\x1b[3" not in line)
    assert ("ended" in line) == (days == 400)


def test_without_colour_there_is_no_escape(world: World) -> None:
    assert "\x1b" not in drawn(tree(world, NOW + timedelta(days=400)))


def test_an_authority_that_no_root_has_signed_yet_says_so(world: World) -> None:
    waiting = cluster("west", world.west, None, authorities=(authority_info((world.west.self_signed,)),))
    assert "west · epoch 1 · until 2027-11-21, 365 days left · not signed by the root yet" in drawn(
        tree(world, clusters=(waiting,))
    )


def test_during_a_rotation_both_roots_and_both_keys_are_shown(world: World) -> None:
    _, later = make_root()
    both = own("hub", world.hub, world, {}, roots=(authority_info((world.root,)), authority_info((later,))))
    second = world.authority(world.west.trust_domain, epoch=2)
    bundle = replace(world.west.bundle, sequence=2, anchors=(world.west.self_signed, second.self_signed))
    west = cluster(
        "west",
        world.west,
        None,
        authorities=(authority_info(world.west.forms), authority_info(second.forms)),
        bundle=trust_info("west", bundle),
    )
    text = drawn(tree(world, hub=both, clusters=(west,)))
    assert text.count("root ") >= 2
    assert "west · epoch 1+2 ·" in text
    assert "bundle 2" in text


@pytest.mark.parametrize(
    ("version", "said"), [((1, 2), "east (sequence 2)"), ((1, 1), "east (sequence 2, its gateways 1)")]
)
def test_gateways_that_go_by_an_older_version_than_their_agent_knows_are_told(
    world: World, version: tuple[int, int], said: str
) -> None:
    newer = replace(world.west.bundle, sequence=2)
    told = own("east", world.east, world, {"west": newer})
    held = HeldInfo(trust_domain="west.mesh.example", generation=version[0], sequence=version[1])
    east = cluster("east", world.east, told, held=(held,))
    text = drawn(tree(world, clusters=(east, cluster("west", world.west, None))))
    assert f"believed by hub (sequence 1), {said}" in text


def test_of_a_silent_agent_the_last_word_about_its_gateways_counts(world: World) -> None:
    held = HeldInfo(trust_domain="east.mesh.example", generation=1, sequence=4)
    text = drawn(
        tree(
            world,
            clusters=(cluster("east", world.east, None), cluster("west", world.west, None, held=(held,))),
        )
    )
    assert "believed by hub (sequence 1), west (its gateways 4, when it was last heard)" in text


def test_a_banned_cluster_is_drawn_as_banned(world: World) -> None:
    why = "cluster west is banned: its nodes were broken into"
    banned = cluster("west", world.west, None, banned=why)
    hub = own("hub", world.hub, world, {})
    lines = [line.strip(" │") for line in drawn(tree(world, hub=hub, clusters=(banned,))).splitlines()]
    assert lines[lines.index(why) + 1] == "believed by nobody else"
    assert "believed by nobody else yet" in lines, "that is the hub, which nobody has banned"


def test_a_name_from_elsewhere_cannot_steer_the_terminal(world: World) -> None:
    silent = cluster("west", world.west, None, problem="\x1b[2J")
    assert "\x1b" not in drawn(tree(world, clusters=(silent,)))


def test_every_verifier_judges_what_one_presents_with_what_the_other_holds(world: World) -> None:
    answer = tree(world)
    east, west = (
        answer["clusters"][0]["own"],
        msgspec.to_builtins(own("west", world.west, world, {"east": world.east.bundle})),
    )
    rows = judged(east, west, (), "bundle", NOW)
    assert [row["verifier"] for row in rows] == [
        "federation",
        "envoy",
        "envoy-ca",
        "openssl",
        "go",
        "java",
        "pyca",
    ]
    assert all(row["believed"] for row in rows)
    assert [row["verifier"] for row in judged(east, west, (), "root", NOW)] == [
        "envoy-ca",
        "openssl",
        "go",
        "java",
        "pyca",
    ]
    assert all(row["believed"] for row in judged(east, east, (), "bundle", NOW))


def test_who_holds_no_bundle_believes_nobody_and_says_so(world: World) -> None:
    answer = tree(world)
    stranger = msgspec.to_builtins(own("west", world.west, world, {}))
    rows = judged(answer["clusters"][0]["own"], stranger, ("envoy", "go"), "bundle", NOW)
    assert [row["believed"] for row in rows] == [False, False]
    assert {row["reason"] for row in rows} == {"west holds no bundle of east"}


def test_a_bundle_without_the_key_that_signs_now_is_what_a_rotation_gone_wrong_looks_like(
    world: World,
) -> None:
    second = world.authority(world.east.trust_domain, epoch=2)
    presented = msgspec.to_builtins(own("east", second, world, {}))
    holder = msgspec.to_builtins(own("west", world.west, world, {"east": world.east.bundle}))
    rows = judged(presented, holder, (), "bundle", NOW)
    assert not any(row["believed"] for row in rows)
    assert all(row["reason"] for row in rows)
