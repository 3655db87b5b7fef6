"""Where a hub's root is: one in a safe is waited for, and its key is never on this machine."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from federation.api.ceremony_routes import InstallAnswers, InstallNextRoot, PinRoot
from federation.api.client import Target
from federation.api.messages import NewToken
from federation.app import hub
from federation.clock import SystemClock
from federation.config import HubSettings
from federation.errors import FederationError
from federation.settings_file import read_settings
from pki.ceremony import Answers, Requests, asked, decode, encode, fingerprint_of, now_in_seconds
from pki.certificate import der, pem
from pki.errors import KeyFileError
from pki.keys.file import FileKeyStore
from pki.root import RootAuthority
from pki.root_lineage import RootLineage
from pki.rotation import advance
from pki.safe import hand_over, open_root
from tests.federation.api.world import ask

BASE = "mesh.example"
CLOCK = SystemClock()


def settings(folder: Path, root: str) -> HubSettings:
    address = f"127.{random.randint(192, 250)}.{random.randint(0, 255)}.1"
    places = {"api": f"{address}:8443", "sync": f"{address}:8444"}
    written = {
        "base": BASE,
        "directory": str(folder / "state"),
        "root": root,
        "keys": {"plain": True},
        "advertise": places,
        "listen": places | {"telemetry": f"{address}:9464"},
    }
    file = folder / "hub.yaml"
    file.write_text(yaml.safe_dump(written))
    return read_settings(file, HubSettings)


@asynccontextmanager
async def running(folder: Path, root: str = "offline") -> AsyncIterator[Target]:
    """A hub in this process, from when it answers at its socket."""
    task = asyncio.create_task(hub.run(settings(folder, root), None, CLOCK), name="hub process")
    target = Target(f"unix://{folder / 'state' / 'api.sock'}")
    try:
        await until(target, task, lambda status, _: status is not None)
        yield target
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(
    target: Target, task: asyncio.Task[None] | None, holds: Callable[[int | None, Any], bool]
) -> None:
    """Wait for an answer to `GET /readyz`; None stands for none."""
    async with asyncio.timeout(60):
        while True:
            assert task is None or not task.done(), task.result()
            found: tuple[int | None, Any] = (None, None)
            with suppress(aiohttp.ClientError, OSError):
                found = await ask(target, "GET", "/readyz")
            if holds(*found):
                return
            await asyncio.sleep(0.02)


def ready(status: int | None, _: Any) -> bool:
    return status == 200


@pytest.fixture
async def safe(tmp_path: Path) -> AsyncIterator[RootAuthority]:
    place = tmp_path / "safe"
    root = await RootAuthority.create(place / "root", FileKeyStore(place / "root-keys"), BASE, CLOCK)
    yield root
    await root.close()


async def sign(root: RootAuthority, file: str) -> InstallAnswers:
    requests = decode(file.encode(), Requests)
    signed = [
        await root.sign_cluster_ca(one.csr, one.subordinate.trust_domain, who="", why="")
        for one in asked((requests,), root.certificate, BASE)
    ]
    answers = Answers(
        base=BASE,
        made_at=now_in_seconds(CLOCK.now()),
        root=der(root.certificate),
        certificates=tuple(map(der, signed)),
    )
    return InstallAnswers(file=encode(answers).decode())


async def test_a_hub_waits_for_its_root_at_its_socket_alone_and_then_starts(
    tmp_path: Path, safe: RootAuthority
) -> None:
    async with running(tmp_path) as target:
        status, said = await ask(target, "GET", "/readyz")
        assert status == 503
        assert "has to sign this hub's authority" in said["waiting_for"][0]
        _, state = await ask(target, "GET", "/v1/status")
        assert (state["kind"], state["root"], state["root_expires_at"]) == ("hub", "offline", None)
        _, groups = await ask(target, "GET", "/v1/checks")
        assert groups[0]["checks"][0]["result"] == "failure"
        body = NewToken(cluster="east", may_export=("a/b",), ranges=("10.0.0.0/8",))
        for method, path in (("POST", "/v1/tokens"), ("GET", "/v1/hub/rotation"), ("GET", "/v1/nothing")):
            status, problem = await ask(target, method, path, body=body if method == "POST" else None)
            assert (status, problem["code"]) == (503, "waiting")
            assert "has to sign this hub's authority" in problem["message"]
            assert "federation ca request" in problem["hint"]
        _, asking = await ask(target, "GET", "/v1/ca/requests")
        pin = PinRoot(certificate=pem([safe.certificate]).decode())
        assert (await ask(target, "PUT", "/v1/ca/root", body=pin))[1] == {
            "root": fingerprint_of(safe.certificate)
        }
        body_of_answers = await sign(safe, asking["file"])
        status, done = await ask(target, "PUT", "/v1/ca/answers", body=body_of_answers)
        assert (status, done["kept"]) == (200, ["hub.mesh.example"])
        await until(target, None, ready)
        assert (await ask(target, "POST", "/v1/tokens", body=body))[0] == 200
        _, state = await ask(target, "GET", "/v1/status")
        assert state["problems"] == []
        assert (await ask(target, "PUT", "/v1/ca/answers", body=body_of_answers))[0] == 200
    async with running(tmp_path) as target:
        await until(target, None, ready)


@pytest.mark.parametrize("what", ["nonsense", "an authority", "two"])
async def test_only_a_root_is_pinned(tmp_path: Path, safe: RootAuthority, what: str) -> None:
    async with running(tmp_path) as target:
        own = (tmp_path / "state" / "authority" / "self-signed.pem").read_text()
        root = pem([safe.certificate]).decode()
        body = PinRoot(certificate={"nonsense": "nonsense", "an authority": own, "two": root + root}[what])
        status, said = await ask(target, "PUT", "/v1/ca/root", body=body)
        assert (status, said["code"]) == (400, "bad-value")
        assert not (tmp_path / "state" / "root").exists()


async def test_a_hub_whose_root_is_not_in_a_safe_pins_no_other(tmp_path: Path, safe: RootAuthority) -> None:
    async with running(tmp_path, "online") as target:
        body = PinRoot(certificate=pem([safe.certificate]).decode())
        status, said = await ask(target, "PUT", "/v1/ca/root", body=body)
        assert (status, said["code"]) == (409, "ceremony")
        assert "pinned at a hub whose own is in a safe" in said["message"]


async def test_an_online_root_moves_into_a_safe_and_k2_its_key_may_not_stay(tmp_path: Path) -> None:
    state, place = tmp_path / "state", tmp_path / "safe"
    async with running(tmp_path, "online") as target:
        await until(target, None, ready)
    with pytest.raises(KeyFileError, match=r"ca-1\.key: a key of the root is on this machine"):
        async with asyncio.timeout(60):
            await hub.run(settings(tmp_path, "offline"), None, CLOCK)
    place.mkdir(mode=0o700)
    for part in ("root", "root-keys"):
        (state / part).rename(place / part)
    (state / "root").mkdir(mode=0o700)
    kept = state / "root" / "self-signed.pem"
    kept.touch(0o600)
    kept.write_bytes((place / "root" / "self-signed.pem").read_bytes())
    async with running(tmp_path, "offline") as target:
        await until(target, None, ready)
    root = await RootAuthority.load(place / "root", FileKeyStore(place / "root-keys"), BASE, CLOCK)
    await root.close()


async def test_an_online_root_that_followed_another_one_moves_into_a_safe_and_hands_over_there(
    tmp_path: Path,
) -> None:
    """What stays at the hub are certificates, sets of roots and journals."""
    state, place = tmp_path / "state", tmp_path / "safe"
    async with running(tmp_path, "online") as target:
        await until(target, None, ready)
    roots = await RootLineage.open(state / "root", FileKeyStore(state / "root-keys"), BASE, CLOCK)
    await roots.begin("ada", "")
    while roots.rotation is not None and not roots.rotation.over:
        await roots.enter(advance(roots.rotation, frozenset(), {}))
    second = roots.certificate
    await roots.close()
    place.mkdir(mode=0o700)
    shutil.copytree(state / "root", place / "root")
    (state / "root-keys").rename(place / "root-keys")
    old = await open_root(place / "root", FileKeyStore(place / "root-keys"), BASE, CLOCK)
    new = await RootAuthority.create(
        tmp_path / "new", FileKeyStore(tmp_path / "new-keys"), BASE, CLOCK, epoch=3
    )
    file = await hand_over(old, place / "root", new, tmp_path / "new", CLOCK.now())
    async with running(tmp_path, "offline") as target:
        await until(target, None, ready)
        body = InstallNextRoot(file=encode(file).decode())
        assert await ask(target, "PUT", "/v1/ca/next-root", body=body) == (
            200,
            {"root": fingerprint_of(new.certificate), "follows": fingerprint_of(second)},
        )
        status, said = await ask(target, "PUT", "/v1/ca/next-root", body=InstallNextRoot(file="{}"))
        assert (status, said["code"]) == (409, "ceremony")
    await old.close()
    await new.close()


async def test_a_hub_that_lost_the_root_that_it_pinned_pins_no_other_one(
    tmp_path: Path, safe: RootAuthority
) -> None:
    async with running(tmp_path) as target:
        _, asking = await ask(target, "GET", "/v1/ca/requests")
        assert (await ask(target, "PUT", "/v1/ca/answers", body=await sign(safe, asking["file"])))[0] == 200
        await until(target, None, ready)
    (tmp_path / "state" / "root").rename(tmp_path / "lost")
    with pytest.raises(FederationError, match=r"root/self-signed\.pem: .* is missing"):
        async with asyncio.timeout(60):
            await hub.run(settings(tmp_path, "offline"), None, CLOCK)
