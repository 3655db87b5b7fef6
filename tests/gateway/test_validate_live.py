"""Envoy itself accepts what the compiler makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from federation.inputs import FabricInputs
from federation.model import Service
from gateway.compile import Plans, compile_step, start
from gateway.tuning import Tuning
from tests.gateway.certificates import Identity, ca
from tests.gateway.envoys import validate
from tests.gateway.plans import ECHO, HERE, echo_plan, fabric, peer, plan, three_clusters, worlds
from tests.gateway.test_check import BAD, changed

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return ca("east").write(tmp_path_factory.mktemp("identity") / "east")


@pytest.mark.parametrize(
    ("around", "plans"),
    [
        (fabric(), ()),
        (fabric(peer("west")), ()),
        (three_clusters(), (echo_plan(),)),
        (three_clusters(), (plan(["west"], ["central"]), plan(["central"], port=443, listen_port=20001))),
        (three_clusters(), (plan(local=[("::1", 18081)], exported_to=["west"]),)),
    ],
    ids=["alone", "peer without gateways", "echo", "only elsewhere", "only exported"],
)
def test_envoy_accepts_it(around: FabricInputs, plans: Plans, identity: Identity, tmp_path: Path) -> None:
    made = compile_step(start(around, Tuning()), {ECHO: plans}, around).snapshots[HERE]
    assert validate(made, tmp_path, identity) == ""


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=worlds())
def test_envoy_accepts_whatever_may_be_planned(
    world: tuple[FabricInputs, Mapping[Service, Plans]], identity: Identity, tmp_path: Path
) -> None:
    around, plans = world
    for made in compile_step(start(around, Tuning()), plans, around).snapshots.values():
        assert validate(made, tmp_path, identity) == ""


def test_envoy_does_refuse_what_is_wrong(identity: Identity, tmp_path: Path) -> None:
    key, change, _ = BAD["authority twice"]
    assert "Only unique values for domains are permitted" in validate(
        changed(key, change), tmp_path, identity
    )
