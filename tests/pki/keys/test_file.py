from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pki.errors import InvalidName, KeyFileError, KeyMissing, WriteError, WrongPassphrase
from pki.keys import KeyStore, pkcs8
from pki.keys.file import FileKeyStore
from pki.keys.passphrase import Passphrase
from tests.pki.test_durable import SYSCALLS

SECRET = Passphrase(b"correct horse")
OTHER = Passphrase(b"another one")


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


async def test_k8_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys")
    for call in (store.create, store.load, store.remove):
        with pytest.raises(InvalidName):
            await call("../a")
    assert os.listdir(tmp_path) == ["keys"]


async def test_k1_looser_modes_are_refused_at_start_and_at_load(tmp_path: Path) -> None:
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


async def test_k1_links_are_not_followed(tmp_path: Path) -> None:
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


async def test_k5_secrets_do_not_show(tmp_path: Path) -> None:
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


# ---- with a passphrase -----------------------------------------------------------------------------------------------


async def test_k1_a_key_is_never_plain_on_disk_where_a_passphrase_is_set(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys", SECRET)
    made = await store.create("ca-1")
    path = tmp_path / "keys" / "ca-1.key"
    assert mode(path) == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    loaded = await FileKeyStore(tmp_path / "keys", SECRET).load("ca-1")
    assert loaded.private_numbers() == made.private_numbers()
    assert await store.protect() == frozenset()


async def test_a_wrong_passphrase_or_none_opens_nothing_and_changes_nothing(tmp_path: Path) -> None:
    await FileKeyStore(tmp_path / "keys", SECRET).create("ca-1")
    path = tmp_path / "keys" / "ca-1.key"
    before = path.read_bytes()
    wrong = FileKeyStore(tmp_path / "keys", OTHER)
    assert await wrong.protect() == frozenset()
    with pytest.raises(WrongPassphrase, match="nothing was changed") as refused:
        await wrong.load("ca-1")
    assert refused.value.__cause__ is None
    assert str(path) in str(refused.value)
    with pytest.raises(KeyFileError, match=r"is encrypted, and no passphrase is set; see `keys.passphrase`"):
        await FileKeyStore(tmp_path / "keys").load("ca-1")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path / "keys") == ["ca-1.key"]


async def test_plain_keys_are_refused_until_they_are_encrypted_in_place(tmp_path: Path) -> None:
    plain = FileKeyStore(tmp_path / "keys")
    one, other = await plain.create("a"), await plain.create("b")
    store = FileKeyStore(tmp_path / "keys", SECRET)
    with pytest.raises(KeyFileError, match="is not encrypted, and a passphrase is set"):
        await store.load("a")
    assert await store.protect() == {"a", "b"}
    assert await store.protect() == frozenset()
    for name, made in (("a", one), ("b", other)):
        assert (await store.load(name)).private_numbers() == made.private_numbers()
        path = tmp_path / "keys" / f"{name}.key"
        assert mode(path) == 0o600
        assert b"BEGIN PRIVATE KEY" not in path.read_bytes()
    assert sorted(os.listdir(tmp_path / "keys")) == ["a.key", "b.key"]


ENCRYPTING = textwrap.dedent(
    """
    import asyncio, os, sys
    from pathlib import Path
    from pki.keys import pkcs8
    from pki.keys.file import FileKeyStore
    from pki.keys.passphrase import Passphrase

    pkcs8.PARALLEL = 1
    store = FileKeyStore(Path(sys.argv[1]), Passphrase(sys.argv[2].encode()))
    calls, stop = 0, int(sys.argv[3])

    def dying(real, half):
        def call(*args, **kwargs):
            global calls
            if str(args[0]).endswith(("keys", ".partial")) or real is not REAL["open"]:
                calls += 1
            if calls == stop:
                if half:
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), 9)
            return real(*args, **kwargs)
        return call

    REAL = {name: getattr(os, name) for name in sys.argv[4:]}

    def protect():
        for name, real in REAL.items():
            setattr(os, name, dying(real, name == "write"))
        store._protect(store._path("ca-1"), store._passphrase)
        os._exit(0)

    protect()
    """
)


async def test_k6_a_kill_at_any_system_call_of_the_encryption_leaves_the_key(tmp_path: Path) -> None:
    call, forms, killed = 0, set[bool](), True
    made = await FileKeyStore(tmp_path / "made").create("ca-1")
    plain = (tmp_path / "made" / "ca-1.key").read_bytes()
    while killed:
        call += 1
        folder = tmp_path / str(call)
        path = folder / "ca-1.key"
        folder.mkdir(mode=0o700)
        path.touch(mode=0o600)
        path.write_bytes(plain)
        command = [
            sys.executable,
            "-c",
            ENCRYPTING,
            str(folder),
            SECRET.secret.decode(),
            str(call),
            *SYSCALLS,
        ]
        child = subprocess.run(command, cwd=Path(__file__).parents[3], check=False, timeout=60)
        assert child.returncode in (0, -9)
        killed = child.returncode == -9
        forms.add(pkcs8.is_encrypted(path.read_bytes()))
        store = FileKeyStore(folder, SECRET)
        await store.protect()
        assert (await store.load("ca-1")).private_numbers() == made.private_numbers()
        assert b"BEGIN PRIVATE KEY" not in b"".join(each.read_bytes() for each in folder.glob("ca-1.key"))
    assert forms == {False, True}
    assert call > 8


async def test_a_full_disk_leaves_a_key_plain_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await FileKeyStore(tmp_path / "keys").create("a")
    store = FileKeyStore(tmp_path / "keys", SECRET)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(WriteError, match="No space left"):
            await store.protect()
    assert os.listdir(tmp_path / "keys") == ["a.key"]
    loaded = await FileKeyStore(tmp_path / "keys").load("a")
    assert loaded.private_numbers() == made.private_numbers()


async def test_a_key_that_was_made_elsewhere_is_kept_once_and_never_replaced(tmp_path: Path) -> None:
    """Keeping it again, as after a crash, changes nothing."""
    store = FileKeyStore(tmp_path / "keys", Passphrase.of(b"one that nobody guesses", "a test"))
    key, other = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    for _ in range(2):
        await store.adopt("ca-1", key)
        assert (await store.load("ca-1")).private_numbers() == key.private_numbers()
    with pytest.raises(KeyFileError, match="never replaced"):
        await store.adopt("ca-1", other)
    assert (await store.load("ca-1")).private_numbers() == key.private_numbers()
    (path,) = (tmp_path / "keys").iterdir()
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert path.stat().st_mode & 0o777 == 0o600
