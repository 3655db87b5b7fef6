"""A root whose key is elsewhere: pinned once, checks as the root does, signs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.clock import ManualClock
from pki import csr
from pki.errors import CeremonyFile, KeyFileError, Refused
from pki.offline import OfflineRoot, refuse_keys
from pki.upstream import Root
from tests.pki.world import BASE, NOW, World, make_root

CLOCK = ManualClock(NOW)


@pytest.fixture
async def root(world: World, tmp_path: Path) -> OfflineRoot:
    return await OfflineRoot.pin(tmp_path / "root", BASE, world.root, CLOCK)


async def test_it_is_pinned_for_ever(root: OfflineRoot, world: World, tmp_path: Path) -> None:
    place = tmp_path / "root"
    assert OfflineRoot.exists(place)
    assert (await OfflineRoot.load(place, BASE, CLOCK)).certificate == world.root
    assert (await OfflineRoot.pin(place, BASE, world.root, CLOCK)).certificate == world.root
    with pytest.raises(CeremonyFile, match="another root is pinned here"):
        await OfflineRoot.pin(place, BASE, make_root()[1], CLOCK)
    assert (await OfflineRoot.load(place, BASE, CLOCK)).certificate == world.root
    assert [path.name for path in place.iterdir()] == ["self-signed.pem"]


async def test_only_a_root_is_pinned(world: World, tmp_path: Path) -> None:
    with pytest.raises(CeremonyFile, match="its root cannot be one"):
        await OfflineRoot.pin(tmp_path / "root", BASE, world.east.self_signed, CLOCK)
    assert not (tmp_path / "root").exists()


async def test_it_refuses_what_the_root_would_refuse_and_signs_nothing(
    root: OfflineRoot, world: World
) -> None:
    it: Root = root
    request = csr.request(world.east.key, world.east.self_signed.subject)
    assert await it.check_cluster_ca(request, world.east.trust_domain) == world.east.key.public_key()
    assert await it.sign_cluster_ca(request, world.east.trust_domain, who="", why="") is None
    with pytest.raises(Refused, match="its subject is not that of"):
        await it.sign_cluster_ca(request, world.west.trust_domain, who="", why="")
    await it.close()


def test_k2_a_key_of_the_root_may_not_be_on_the_machine(tmp_path: Path) -> None:
    keys = tmp_path / "root-keys"
    refuse_keys(keys)
    keys.mkdir()
    refuse_keys(keys)
    (keys / "ca-1.key").touch()
    with pytest.raises(KeyFileError, match=r"ca-1\.key: a key of the root is on this machine"):
        refuse_keys(keys)
