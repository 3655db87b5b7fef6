"""Keys in the Transit engine of a real OpenBao: what makes one ours, and what a key that is not gets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from pki import durable
from pki.errors import KeyFileError, KeyMissing, VaultError, VaultFault
from pki.keys.transit import Engine, TransitKeyStore
from pki.vault.wire import Vault
from tests.pki.vault.prepared import Prepared, prepare
from tests.pki.vault.server import Bao

pytestmark = pytest.mark.live

SHA256 = ec.ECDSA(hashes.SHA256())


@pytest.fixture
def prepared(bao: Bao, tmp_path: Path) -> Prepared:
    return prepare(bao, "keys", tmp_path)


@asynccontextmanager
async def opened(prepared: Prepared, folder: Path, prefix: str = "") -> AsyncIterator[TransitKeyStore]:
    session = prepared.session()
    try:
        yield TransitKeyStore(session, Engine(prepared.mount, prefix), folder)
    finally:
        await session.close()


@pytest.fixture
async def store(prepared: Prepared, tmp_path: Path) -> AsyncIterator[TransitKeyStore]:
    async with opened(prepared, tmp_path / "keys") as made:
        yield made


async def test_k1_a_key_cannot_be_exported_copied_or_read(
    prepared: Prepared, store: TransitKeyStore, tmp_path: Path
) -> None:
    key = await store.create("ca-1")
    found = prepared.bao.call("GET", f"{prepared.mount}/keys/ca-1")["data"]
    assert (found["type"], found["exportable"], found["allow_plaintext_backup"]) == (
        "ecdsa-p256",
        False,
        False,
    )
    for path in (f"export/signing-key/{'ca-1'}", "backup/ca-1"):
        with pytest.raises(requests.HTTPError):
            prepared.bao.call("GET", f"{prepared.mount}/{path}")
    with pytest.raises(UnsupportedAlgorithm, match="does not leave"):
        key.private_numbers()
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["ca-1.public.pem"]


async def test_v1_the_policy_of_deploy_is_enough_and_not_too_much(prepared: Prepared, tmp_path: Path) -> None:
    session = prepared.session()
    verdict = await session.examine(Engine(prepared.mount).needs)
    await session.close()
    assert (verdict.lacking, verdict.excess) == ((), ())


async def test_it_signs_what_was_hashed_by_us_or_not(store: TransitKeyStore) -> None:
    key = await store.create("ca-1")
    key.public_key().verify(key.sign(b"words", SHA256), b"words", SHA256)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(b"words")
    prehashed = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
    key.public_key().verify(key.sign(digest.finalize(), prehashed), b"words", SHA256)
    for algorithm in (ec.ECDSA(hashes.SHA384()), ec.ECDSA(utils.Prehashed(hashes.SHA384()))):
        with pytest.raises(UnsupportedAlgorithm, match="SHA-256"):
            key.sign(b"x" * 48, algorithm)


@pytest.mark.parametrize(
    ("loose", "reason"),
    [
        ({"type": "ecdsa-p256", "exportable": True}, "is exportable"),
        ({"type": "ecdsa-p256", "allow_plaintext_backup": True}, "is allow_plaintext_backup"),
        ({"type": "ecdsa-p384"}, "not one version of ecdsa-p256"),
        ({"type": "rsa-2048"}, "not one version of ecdsa-p256"),
    ],
    ids=str,
)
async def test_k1_a_key_that_is_not_kept_in_is_refused_when_it_is_loaded(
    loose: dict[str, Any], reason: str, prepared: Prepared, tmp_path: Path
) -> None:
    """Somebody with more rights than we have made another one of the same name."""
    async with opened(prepared, tmp_path / "keys") as store:
        await store.create("ca-1")
    path = f"{prepared.mount}/keys/ca-1"
    prepared.bao.write(f"{path}/config", deletion_allowed=True)
    prepared.bao.call("DELETE", path)
    prepared.bao.write(path, **loose)
    async with opened(prepared, tmp_path / "keys") as store:
        with pytest.raises(KeyFileError, match=reason):
            await store.load("ca-1")


async def test_v3_another_key_in_the_place_of_ours_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    async with opened(prepared, tmp_path / "keys") as store:
        key = await store.create("ca-1")
        path = f"{prepared.mount}/keys/ca-1"
        prepared.bao.write(f"{path}/config", deletion_allowed=True)
        prepared.bao.call("DELETE", path)
        prepared.bao.write(path, type="ecdsa-p256")
        with pytest.raises(VaultError, match="not of the key that we know") as caught:
            key.sign(b"words", SHA256)
        assert caught.value.fault is VaultFault.STRANGE
        with pytest.raises(KeyFileError, match="is another one"):
            await store.load("ca-1")
    async with opened(prepared, tmp_path / "other") as elsewhere:
        with pytest.raises(KeyMissing):
            await elsewhere.load("ca-1")
        with pytest.raises(KeyFileError, match="not made from here"):
            await elsewhere.create("ca-1")


async def test_v3_a_rotated_key_signs_nothing(prepared: Prepared, store: TransitKeyStore) -> None:
    key = await store.create("ca-1")
    prepared.bao.write(f"{prepared.mount}/keys/ca-1/rotate")
    with pytest.raises(VaultError, match="no signature in it"):
        key.sign(b"words", SHA256)
    with pytest.raises(KeyFileError, match="not one version"):
        await store.load("ca-1")


async def test_k3_a_key_that_a_crash_left_is_taken_up_again(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its making in Vault and our note of it."""
    create = durable.create

    def crash(path: Path, data: bytes, mode: int = durable.PRIVATE_FILE) -> None:
        if path.name.endswith(".public.pem"):
            raise KeyboardInterrupt
        create(path, data, mode)

    async with opened(prepared, tmp_path / "keys") as store:
        monkeypatch.setattr(durable, "create", crash)
        with pytest.raises(KeyboardInterrupt):
            store._create("ca-1")
        monkeypatch.undo()
    async with opened(prepared, tmp_path / "keys") as store:
        with pytest.raises(KeyMissing):
            await store.load("ca-1")
        key = await store.create("ca-1")
        key.public_key().verify(key.sign(b"words", SHA256), b"words", SHA256)
    found = prepared.bao.call("GET", f"{prepared.mount}/keys/ca-1")["data"]
    assert found["latest_version"] == 1


async def test_v5_a_key_is_known_while_vault_is_away_and_signs_afterwards(
    own_bao: Bao, tmp_path: Path
) -> None:
    prepared = prepare(own_bao, "keys", tmp_path)
    async with opened(prepared, tmp_path / "keys") as store:
        public = (await store.create("ca-1")).public_key()
    own_bao.seal()
    async with opened(prepared, tmp_path / "keys") as store:
        key = await store.load("ca-1")
        assert key.public_key() == public
        with pytest.raises(VaultError) as caught:
            key.sign(b"words", SHA256)
        assert caught.value.fault is VaultFault.SEALED
        own_bao.unseal()
        public.verify(key.sign(b"words", SHA256), b"words", SHA256)


async def test_a_removed_key_is_destroyed_in_vault(prepared: Prepared, store: TransitKeyStore) -> None:
    await store.create("ca-1")
    await store.remove("ca-1")
    with pytest.raises(requests.HTTPError, match="404"):
        prepared.bao.call("GET", f"{prepared.mount}/keys/ca-1")
    await store.create("ca-2")
    prepared.bao.write(f"{prepared.mount}/keys/ca-2/config", deletion_allowed=True)
    prepared.bao.call("DELETE", f"{prepared.mount}/keys/ca-2")
    await store.remove("ca-2")
    assert await store.names() == frozenset()


async def test_two_processes_share_a_mount_by_prefix(prepared: Prepared, tmp_path: Path) -> None:
    async with (
        opened(prepared, tmp_path / "hub", "hub-") as hub,
        opened(prepared, tmp_path / "root", "root-") as root,
    ):
        assert (await hub.create("ca-1")).public_key() != (await root.create("ca-1")).public_key()
        await root.remove("ca-1")
        assert (await hub.load("ca-1")).public_key()


async def test_k8_the_policy_lets_nobody_make_a_key_that_could_leave(
    prepared: Prepared, tmp_path: Path
) -> None:
    session = prepared.session()
    usual = {"type": "ecdsa-p256", "exportable": False, "allow_plaintext_backup": False}
    attempts: list[tuple[str, dict[str, Any]]] = [
        ("keys/mine", usual | {"exportable": True}),
        ("keys/mine", usual | {"allow_plaintext_backup": True}),
        ("keys/mine", usual | {"type": "aes256-gcm96"}),
        ("keys/ca-1/rotate", {}),
        ("keys/ca-1/config", {"exportable": True}),
        ("keys/ca-1/import", {}),
        ("restore/ca-1", {"backup": "x"}),
    ]
    for path, body in attempts:
        with pytest.raises(VaultError) as caught:
            await session.ask(partial(_post, f"{prepared.mount}/{path}", body))
        assert caught.value.fault is VaultFault.DENIED, path
    await session.close()


def _post(path: str, body: dict[str, Any], vault: Vault) -> None:
    vault.post(path, body)
