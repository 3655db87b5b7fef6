"""Two federations, each a hub of its own, fetch each other's bundles: one over https_spiffe, one over https_web."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from federation.demo.asking import ask, until
from federation.document import dump
from tests.federation.test_foreign import web_files
from tests.scenarios.lone_hub import LoneAgent, LoneHub, network, serving, started

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


class Federation(LoneHub):
    """A hub of its own base, with an endpoint for bundles and relations to others."""

    def __init__(self, folder: Path, address: str, base: str, **more: Any) -> None:
        self.base = base
        self.more = more
        folder.mkdir(exist_ok=True)
        super().__init__(folder, address)

    def settings(self, directory: Path) -> dict[str, Any]:
        return super().settings(directory) | {"base": self.base} | self.more

    @property
    def endpoint(self) -> str:
        return f"{self.address}:8447"

    async def restart(self, **more: Any) -> None:
        """The same hub with other settings."""
        await self.process.stop()
        self.more |= more
        self.config.write_text(dump(self.settings(self.directory)))
        self.process = self.running()
        await self.start()


def addresses() -> tuple[str, str]:
    prefix = network()
    return f"{prefix}.1", f"{prefix}.11"


async def test_two_federations_keep_each_others_bundles_over_both_profiles(tmp_path: Path) -> None:
    ours, theirs = addresses()
    certificate, key, ca = web_files(tmp_path, ours)
    for file in (certificate, key):
        file.chmod(0o600)
    web = {"listen": f"{ours}:8447", "profile": "https_web", "certificate": str(certificate), "key": str(key)}
    spiffe = {"listen": f"{theirs}:8447", "profile": "https_spiffe"}
    mesh = Federation(tmp_path / "mesh", ours, "mesh.example", bundle_endpoint=web)
    partner = Federation(tmp_path / "partner", theirs, "partner.example", bundle_endpoint=spiffe)
    async with AsyncExitStack() as stack:
        for each in (mesh, partner):
            await stack.enter_async_context(serving(each))
        first = tmp_path / "first.json"
        exported = await partner.ask("ca", "export", "spiffe", "--cluster", "hub", "--out", "-")
        assert exported.code == 0, exported.said
        first.write_text(exported.out)
        over_spiffe = {
            "trust_domain": "hub.partner.example",
            "url": f"https://{partner.endpoint}/",
            "profile": "https_spiffe",
            "spiffe_id": "spiffe://hub.partner.example/federation",
            "first_bundle": str(first),
            "allow": ["127.0.0.0/8"],
        }
        over_web = {
            "trust_domain": "hub.mesh.example",
            "url": f"https://{mesh.endpoint}/hub.mesh.example",
            "profile": "https_web",
            "ca": str(ca),
            "allow": ["127.0.0.0/8"],
        }
        await mesh.restart(federates=[over_spiffe])
        await partner.restart(federates=[over_web])
        for one, other in ((mesh, partner), (partner, mesh)):
            await until("the bundle outside", partial(_fetched, one), watch=(one.process,))
            [held] = (await one.ask("ca", "show", "-o", "json")).json["foreign"]
            own = (await other.ask("ca", "show", "-o", "json")).json["bundle"]
            assert (held["trust_domain"], held["pem"]) == (own["trust_domain"], own["pem"])
            assert (held["sequence"], held["stale"], held["problem"]) == (own["sequence"], False, "")
        shown = await mesh.ask("ca", "show")
        assert shown.code == 0
        assert "hub.partner.example" in shown.out
        files = [file.name for file in (mesh.directory / "federates").iterdir()]
        assert files == ["hub.partner.example.json"]
        await mesh.restart(federates=[])
        assert (await mesh.ask("ca", "show", "-o", "json")).json["foreign"] == []
        assert list((mesh.directory / "federates").iterdir()) == []


@pytest.mark.parametrize("way", ["its agent, https_spiffe", "the hub, https_spiffe", "the hub, https_web"])
async def test_the_bundle_of_a_cluster_is_followed_through_a_rotation(tmp_path: Path, way: str) -> None:
    ours, theirs = addresses()
    certificate, key, ca = web_files(tmp_path, ours)
    for file in (certificate, key):
        file.chmod(0o600)
    endpoint: dict[str, Any] = {"listen": f"{ours}:8447"}
    if way == "the hub, https_web":
        endpoint |= {"profile": "https_web", "certificate": str(certificate), "key": str(key)}
    mesh = Federation(tmp_path / "mesh", ours, "mesh.example", bundle_endpoint=endpoint)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving(mesh))
        config = mesh.agent("east", await mesh.token("east"))
        host = ours.rpartition(".")[0] + ".2"
        config.write_text(config.read_text() + dump({"bundle_endpoint": {"listen": f"{host}:8448"}}))
        agent = LoneAgent("east", config)
        await stack.enter_async_context(started(agent.process, agent.connected))
        relation = {
            "its agent, https_spiffe": {
                "url": f"https://{host}:8448/",
                "profile": "https_spiffe",
                "spiffe_id": "spiffe://east.mesh.example/agent",
                "first_bundle": str(await _pinned(mesh, "east", tmp_path)),
            },
            "the hub, https_spiffe": {
                "url": f"https://{mesh.endpoint}/east.mesh.example",
                "profile": "https_spiffe",
                "spiffe_id": "spiffe://hub.mesh.example/federation",
                "first_bundle": str(await _pinned(mesh, "hub", tmp_path)),
            },
            "the hub, https_web": {
                "url": f"https://{mesh.endpoint}/east.mesh.example",
                "profile": "https_web",
                "ca": str(ca),
            },
        }[way] | {"trust_domain": "east.mesh.example", "allow": ["127.0.0.0/8"]}
        partner = Federation(tmp_path / "partner", theirs, "partner.example", federates=[relation])
        await stack.enter_async_context(serving(partner))
        await until("the bundle of east", lambda: _fetched(partner), watch=(partner.process,))
        [before] = await ask(partner.socket, "/v1/bundles")
        assert (before["sequence"], len(before["anchors"])) == (1, 1)
        for step in (("start", "east", "--manual", "--why", "a test"), ("advance", "east")):
            done = await mesh.ask("ca", "rotate", "cluster", *step)
            assert done.code == 0, done.said

        async def risen() -> bool:
            looked = (await partner.ask("ca", "refresh", "east.mesh.example", "-o", "json")).json
            assert looked["problem"] == ""
            return looked["sequence"] > 1 and set(looked["anchors"]) > set(before["anchors"])

        await until("the anchor of a rotation", risen, watch=(partner.process,))
        await _gives_them_time(mesh, way, agent.socket)


async def _gives_them_time(mesh: Federation, way: str, agent: Path) -> None:
    """Somebody looked within a day, so the new authority is not used before he may have looked again."""
    member, said = {
        "its agent, https_spiffe": ("trust domains outside", "they get until "),
    }.get(way, ("hub", "it goes by 1"))

    async def only_they_are_waited_for() -> bool:
        blocking = (await ask(agent, "/v1/ca/rotation"))["blocking"]
        return [one["member"] for one in blocking] == [member] and said in blocking[0]["reason"]

    await until("that others have looked", only_they_are_waited_for, watch=(mesh.process,))
    refused = await mesh.ask("ca", "rotate", "cluster", "advance", "east")
    assert (refused.code, f"{member}: " in refused.err, "25 minutes" in refused.err) == (1, True, True), (
        refused.said
    )
    aborted = await mesh.ask("ca", "rotate", "cluster", "abort", "east")
    assert aborted.code == 0, aborted.said

    async def turned_back() -> bool:
        return bool((await ask(agent, "/v1/ca/rotation"))["phase"] == "aborted")

    await until("that it is turned back", turned_back, watch=(mesh.process,))


async def _pinned(hub: Federation, name: str, folder: Path) -> Path:
    exported = await hub.ask("ca", "export", "spiffe", "--cluster", name, "--out", "-")
    assert exported.code == 0, exported.said
    path = folder / f"{name}.json"
    path.write_text(exported.out)
    return path


async def _fetched(hub: Federation) -> bool:
    [held] = await ask(hub.socket, "/v1/bundles")
    return held["problem"] == "" and held["fetched_at"] is not None
