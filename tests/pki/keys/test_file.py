from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pki.errors import InvalidName, KeyFileError, KeyMissing, WriteError
from pki.keys import KeyStore
from pki.keys.file import FileKeyStore


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


async def test_a_key_is_durable_private_and_the_same_when_loaded(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store: KeyStore = FileKeyStore(tmp_path / "keys")
        made = await store.create("ca-1")
    finally:
        os.umask(before)
    assert mode(tmp_path / "keys") == 0o700
    assert mode(tmp_path / "keys" / "ca-1.key") == 0o600
    assert made.curve.name == "secp256r1"
    loaded = await FileKeyStore(tmp_path / "keys").load("ca-1")
    assert loaded.private_numbers() == made.private_numbers()
    assert await store.names() == {"ca-1"}
    text = (tmp_path / "keys" / "ca-1.key").read_text()
    assert text.startswith("-----BEGIN PRIVATE KEY-----")


async def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys")
    outcomes = await asyncio.gather(*(store.create("a") for _ in range(8)), return_exceptions=True)
    made = [each for each in outcomes if isinstance(each, ec.EllipticCurvePrivateKey)]
    assert len(made) == 1
    assert all(isinstance(each, KeyFileError | WriteError) for each in outcomes if each is not made[0])
    assert (await store.load("a")).private_numbers() == made[0].private_numbers()
    assert os.listdir(tmp_path / "keys") == ["a.key"]


async def test_removed_keys_are_gone(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys")
    await store.create("a")
    await store.remove("a")
    await store.remove("a")
    assert await store.names() == frozenset()
    with pytest.raises(KeyMissing):
        await store.load("a")


@pytest.mark.parametrize("name", ["../a", "a/b", "", "A", "a.key", "-a", "a\x00"])
async def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    store = FileKeyStore(tmp_path / "keys")
    for call in (store.create, store.load, store.remove):
        with pytest.raises(InvalidName):
            await call(name)
    assert os.listdir(tmp_path) == ["keys"]


async def test_looser_modes_are_refused_at_start_and_at_load(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys")
    await store.create("a")
    path = tmp_path / "keys" / "a.key"
    for loose in (0o640, 0o604, 0o620, 0o700):
        path.chmod(loose)
        with pytest.raises(KeyFileError, match="chmod 0600"):
            await store.load("a")
        with pytest.raises(KeyFileError, match="chmod 0600"):
            FileKeyStore(tmp_path / "keys")
    path.chmod(0o600)
    (tmp_path / "keys").chmod(0o750)
    with pytest.raises(KeyFileError, match="chmod 0700"):
        FileKeyStore(tmp_path / "keys")


async def test_links_are_not_followed(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys")
    await store.create("a")
    (tmp_path / "keys" / "b.key").symlink_to(tmp_path / "keys" / "a.key")
    with pytest.raises(KeyFileError, match="symbolic link"):
        await store.load("b")
    with pytest.raises(KeyFileError, match="never replaced"):
        await store.create("b")


async def test_what_is_no_key_of_ours_is_refused_without_quoting_it(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys")
    path = tmp_path / "keys" / "a.key"

    def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> bytes:
        lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)

    good = pem(ec.generate_private_key(ec.SECP256R1()))
    for data in (
        b"",
        b"canary-secret",
        good[:-60],
        pem(ec.generate_private_key(ec.SECP256K1())),
        pem(rsa.generate_private_key(65537, 2048)),
        pem(ec.generate_private_key(ec.SECP256R1()), b"password"),
        good * 40,
    ):
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(KeyFileError) as refused:
            await store.load("a")
        assert str(path) in str(refused.value)
        assert "canary" not in str(refused.value)
        assert refused.value.__cause__ is None
        path.unlink()


async def test_secrets_do_not_show(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys")
    key = await store.create("a")
    secret = key.private_numbers().private_value
    for shown in (repr(store), str(store), repr(key)):
        assert str(secret) not in shown
        assert f"{secret:x}" not in shown


async def test_leftovers_of_a_crash_are_removed_by_the_next_who_makes_a_key_and_by_no_reader(
    tmp_path: Path,
) -> None:
    """A process that was started twice by mistake opens the folder too, while the first may be writing a key."""
    program = textwrap.dedent(
        """
        import asyncio, os, sys
        from pathlib import Path
        from pki.keys.file import FileKeyStore
        store = FileKeyStore(Path(sys.argv[1]))
        os.link = lambda *args, **kwargs: os.kill(os.getpid(), 9)
        asyncio.run(store.create("a"))
        """
    )
    command = [sys.executable, "-c", program, str(tmp_path / "keys")]
    assert subprocess.run(command, cwd=Path(__file__).parents[3], check=False, timeout=60).returncode == -9
    assert len(os.listdir(tmp_path / "keys")) == 1
    left = os.listdir(tmp_path / "keys")
    store = FileKeyStore(tmp_path / "keys")
    with pytest.raises(KeyMissing):
        await store.load("a")
    assert os.listdir(tmp_path / "keys") == left
    await asyncio.gather(*(store.create(name) for name in "abcdefgh"))
    assert sorted(os.listdir(tmp_path / "keys")) == [f"{name}.key" for name in "abcdefgh"]
