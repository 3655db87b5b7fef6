"""Agents and hub over real gRPC with real certificates."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from federation.errors import Unreachable
from federation.events import BeatHeard, ExportGone, HubChanged, MemberGone
from federation.model import Service
from federation.questions import Question
from federation.sync.client import Credentials
from federation.sync.protocol import REMOVED
from tests.federation.sync.world import Agent, HubWorld, eventually, hub_world, running, spec

pytestmark = pytest.mark.live


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[HubWorld]:
    async with hub_world(tmp_path) as world:
        yield world


async def test_what_one_cluster_exports_another_imports(world: HubWorld) -> None:
    east, west = await world.join("east"), await world.join("west")
    async with running(Agent(east)) as one, running(Agent(west)) as other:
        one.publish(spec("east", "echo"))
        await eventually(lambda: other.sees("east", "echo"))
        assert set(other.view.members) == {"east", "west"}
        assert other.view.bundles["east"].anchors == (east.authority.self_signed,)
        one.publisher.remove("spec/default/echo")
        await eventually(lambda: not other.sees("east", "echo"))
        await eventually(lambda: any(isinstance(each, BeatHeard) for each in other.events))
        assert not one.sees("east", "echo"), "an owner is not told what it said"


async def test_a_listing_before_the_services_are_known_is_never_sent(world: HubWorld) -> None:
    east, west = await world.join("east"), await world.join("west")
    async with running(Agent(west)) as other:
        async with running(Agent(east)) as one:
            one.publish(spec("east", "echo"))
            await eventually(lambda: other.sees("east", "echo"))
        async with running(Agent(east)) as again:
            await eventually(lambda: again.client.connected)
            await eventually(lambda: world.hub.member("east") is not None)
            beats = sum(isinstance(each, BeatHeard) for each in other.events)
            await eventually(lambda: sum(isinstance(each, BeatHeard) for each in other.events) > beats)
            assert other.sees("east", "echo")
            again.publish(spec("east", "shop"))
            await eventually(lambda: other.sees("east", "shop") and not other.sees("east", "echo"))
        assert not any(isinstance(each, MemberGone) for each in other.events)


async def test_everybody_survives_a_restart_of_the_hub(world: HubWorld) -> None:
    east, west = await world.join("east"), await world.join("west")
    async with running(Agent(east)) as one, running(Agent(west)) as other:
        one.publish(spec("east", "echo"), spec("east", "old"))
        await eventually(lambda: other.sees("east", "echo") and other.sees("east", "old"))
        await world.stop()
        await eventually(lambda: not one.client.connected and not other.client.connected)
        assert HubChanged(up=False) in other.events
        one.publisher.remove("spec/default/old")
        one.publish(spec("east", "new"))
        assert other.sees("east", "echo")
        await world.start()
        await eventually(lambda: other.sees("east", "new") and not other.sees("east", "old"))
        gone = [each for each in other.events if isinstance(each, ExportGone)]
        assert gone == [ExportGone("east", Service("default", "old"))]


async def test_a_hub_that_stops_says_so(world: HubWorld, caplog: pytest.LogCaptureFixture) -> None:
    east = await world.join("east")
    async with running(Agent(east)) as one:
        await eventually(lambda: one.client.connected)
        await world.stop()
        await eventually(lambda: not one.client.connected)
        assert HubChanged(up=False) in one.events
        await world.start()
        await eventually(lambda: one.client.connected)
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


async def test_an_agent_starts_with_what_it_knew_and_asks_for_the_rest(world: HubWorld) -> None:
    east, west = await world.join("east"), await world.join("west")
    async with running(Agent(east)) as one:
        async with running(Agent(west)) as other:
            one.publish(spec("east", "echo"))
            await eventually(lambda: other.sees("east", "echo"))
        one.publish(spec("east", "more"))
        again = Agent(west)
        assert again.sees("east", "echo")
        known = len(again.events)
        async with running(again):
            await eventually(lambda: again.sees("east", "more"))
        exports = [each for each in again.events[known:] if "exports" in str(each)]
        assert [str(each) for each in exports] == ["east exports default/more"]


async def test_what_a_cluster_may_not_say_is_refused_and_said_again_when_it_may(world: HubWorld) -> None:
    east, west = await world.join("east", ("default/echo",)), await world.join("west")
    async with running(Agent(east)) as one, running(Agent(west)) as other:
        one.publish(spec("east", "echo"), spec("east", "secret"))
        await eventually(
            lambda: other.sees("east", "echo") and "spec/default/secret" in one.publisher.refused
        )
        assert one.publisher.refused["spec/default/secret"].why.rule == "may-export"
        known = world.hub.member("east")
        assert known is not None
        assert [each.key for each in known.refused] == ["spec/default/secret"]
        assert not other.sees("east", "secret")
        await world.hub.membership.set("east", may_export=("default/*",))
        await eventually(lambda: other.sees("east", "secret"))
        await world.hub.membership.set("east", may_export=("default/echo",))
        await eventually(lambda: not other.sees("east", "secret"))
        assert other.sees("east", "echo")


async def test_rights_that_changed_while_their_cluster_was_away_count_when_it_is_back(
    world: HubWorld,
) -> None:
    east, west = await world.join("east"), await world.join("west")
    one = Agent(east)
    async with running(Agent(west)) as other:
        async with running(one):
            one.publish(spec("east", "echo"), spec("east", "secret"))
            await eventually(lambda: other.sees("east", "echo") and other.sees("east", "secret"))
        await world.hub.membership.set("east", may_export=("default/echo",))
        await eventually(lambda: not other.sees("east", "secret"))
        await world.stop()
        await world.start()
        await world.hub.membership.set("east", may_export=("default/*",))
        async with running(one):
            await eventually(lambda: other.sees("east", "secret"))
            assert other.sees("east", "echo")
        assert not [each for each in other.events if isinstance(each, ExportGone)][1:]


async def test_many_exports_arrive_whole(world: HubWorld) -> None:
    """They take several batches, and each batch several pieces, at the hub and at the importer."""
    east, west = await world.join("east"), await world.join("west")
    async with running(Agent(east)) as one, running(Agent(west)) as other:
        one.publish(*(spec("east", f"s{number}") for number in range(8_000)))
        await eventually(lambda: other.sees("east", "s7999") and other.sees("east", "s0"), seconds=60)
        assert one.client.acknowledged == one.publisher.feed.position


async def test_a_removed_cluster_is_cut_and_may_join_anew_with_another_key(
    world: HubWorld, tmp_path: Path
) -> None:
    east, west = await world.join("east"), await world.join("west")
    attempts: list[bool] = []

    def dialling() -> Credentials:
        attempts.append(True)
        return east.credentials()

    async with running(Agent(west)) as other:
        async with running(Agent(east, dialling)) as one:
            one.publish(spec("east", "echo"))
            await eventually(lambda: other.sees("east", "echo"))
            assert await world.hub.remove_member("east")
            await eventually(lambda: not one.client.connected and "east" not in other.view.members)
            begun = len(attempts)
            await eventually(lambda: len(attempts) > begun + 3)
            assert REMOVED in (one.client.problem or ""), "a refused handshake says less than the hub did"
        await east.authority.close()
        (tmp_path / "east").rename(tmp_path / "former-east")
        anew = await world.join("east")
        async with running(Agent(anew)) as fresh:
            fresh.publish(spec("east", "shop"))
            await eventually(lambda: other.sees("east", "shop") and not other.sees("east", "echo"))
            assert other.view.bundles["east"].anchors == (anew.authority.self_signed,)


async def test_a_removed_cluster_comes_back_with_its_key(world: HubWorld) -> None:
    east, west = await world.join("east"), await world.join("west")
    async with running(Agent(west)) as other:
        async with running(Agent(east)) as one:
            one.publish(spec("east", "echo"))
            await eventually(lambda: other.sees("east", "echo"))
            assert await world.hub.remove_member("east")
            await eventually(lambda: not one.client.connected and "east" not in other.view.members)
        await world.admit("east", east.authority)
        async with running(Agent(east)) as again:
            again.publish(spec("east", "echo"))
            await eventually(lambda: again.client.connected and again.client.problem is None)
            await eventually(lambda: "east" in other.view.members and "east" in other.view.bundles)
            await eventually(lambda: other.sees("east", "echo"))
            assert other.view.bundles["east"].anchors == (east.authority.self_signed,)


async def test_the_newest_stream_of_a_cluster_wins(world: HubWorld) -> None:
    east = await world.join("east")
    async with running(Agent(east)) as one:
        await eventually(lambda: one.client.connected)
        async with running(Agent(east)) as other:
            up, down = HubChanged(up=True), HubChanged(up=False)
            await eventually(lambda: up in other.events and down in one.events)
            assert one.events.index(up) < one.events.index(down)


async def test_a_question_reaches_the_agent_and_comes_back(world: HubWorld) -> None:
    east = await world.join("east")
    with pytest.raises(Unreachable, match="not connected"):
        await world.hub.ask("east", Question("/v1/status"))
    async with running(Agent(east)) as one:
        await eventually(lambda: one.client.connected)
        answer = await world.hub.ask("east", Question("/v1/status"))
        assert (answer.status, json.loads(answer.body)) == (200, {"asked": "/v1/status", "of": "east"})


async def test_a_renewed_certificate_is_used_at_once(world: HubWorld) -> None:
    east = await world.join("east")
    async with running(Agent(east)) as one:
        await eventually(lambda: one.client.connected)
        before = east.identity.current.certificate.serial_number
        await east.identity.renew()
        assert east.identity.current.certificate.serial_number != before
        one.client.refresh()
        one.publish(spec("east", "echo"))
        await eventually(lambda: one.client.acknowledged == one.publisher.feed.position)
        assert one.events.count(HubChanged(up=False)) == 0


class Renewing(Agent):
    """Whatever it is asked, it renews its certificate and answers after that."""

    async def answer(self, question: Question) -> tuple[int, bytes]:
        await self.member.identity.renew()
        self.client.refresh()
        for _ in range(50):
            await asyncio.sleep(
                0
            )  # what else there is to do before the answer, such as writing something down
        return await super().answer(question)


async def test_an_answer_about_the_very_renewal_that_replaces_the_stream_arrives(world: HubWorld) -> None:
    east = await world.join("east")
    async with running(Renewing(east)) as one:
        await eventually(lambda: one.client.connected)
        answer = await world.hub.ask("east", Question("/v1/ca/rotation", "POST"))
        assert answer.status == 200
        one.publish(spec("east", "echo"))
        await eventually(lambda: one.client.acknowledged == one.publisher.feed.position)
        assert one.events.count(HubChanged(up=False)) == 0, "it goes on with the next stream"
