"""A root that others made, taken over: wherever that is interrupted it is begun anew, and ends with the same root."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from federation.clock import ManualClock
from pki.errors import KeyFileError, Untrusted
from pki.keys.file import FileKeyStore
from pki.root import RootAuthority
from tests.pki.test_root_rules import organisation
from tests.pki.world import BASE, NOW

CLOCK = ManualClock(NOW)
KEY = ec.generate_private_key(ec.SECP384R1())
ROOT = organisation(key=KEY)


class Died(Exception):
    pass


async def taken(folder: Path, key: ec.EllipticCurvePrivateKey = KEY, base: str = BASE) -> RootAuthority:
    store = FileKeyStore(folder / "root-keys")
    return await RootAuthority.take_over(folder / "root", store, base, ROOT, key, CLOCK)


@pytest.mark.parametrize(
    "step",
    [
        "pki.keys.file.FileKeyStore.adopt",
        "pki.folder.Folder.make",
        "pki.root.durable.write",
        "pki.folder.Folder.write",
    ],
)
async def test_what_was_interrupted_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(step, die)
        with pytest.raises(Died):
            await taken(tmp_path)
    assert not RootAuthority.exists(tmp_path / "root")
    root = await taken(tmp_path)
    assert root.certificate == ROOT
    await root.close()
    loaded = await RootAuthority.load(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, CLOCK)
    assert loaded.certificate == ROOT
    await loaded.close()


async def test_it_serves_one_federation_and_needs_its_own_key(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="whose key is another one"):
        await taken(tmp_path, ec.generate_private_key(ec.SECP384R1()))
    root = await taken(tmp_path)
    await root.close()
    store = FileKeyStore(tmp_path / "root-keys")
    with pytest.raises(KeyFileError, match=r"is not the root of other\.example"):
        await RootAuthority.load(tmp_path / "root", store, "other.example", CLOCK)
    with pytest.raises(KeyFileError, match="never replaced"):
        await taken(tmp_path)
    (tmp_path / "root" / "taken-over").unlink()
    with pytest.raises(KeyFileError, match="is not the root of"):
        await RootAuthority.load(tmp_path / "root", store, BASE, CLOCK)


async def test_one_that_breaks_a_rule_is_not_taken_over(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "root-keys")
    bad = organisation(lambda extensions: extensions.clear(), key=KEY)
    with pytest.raises(Untrusted):
        await RootAuthority.take_over(tmp_path / "root", store, BASE, bad, KEY, CLOCK)
    assert await store.names() == frozenset()
