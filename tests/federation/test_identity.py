"""The certificate of a process itself: renewed at its instant, kept otherwise, never half a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from federation.clock import ManualClock
from federation.errors import FederationError
from federation.identity import RETRY_AFTER, Identity, Leaf
from pki import durable
from pki.errors import KeyFileError, WriteError
from pki.keys import pkcs8
from pki.keys.file import FileKeyStore
from pki.keys.passphrase import Passphrase
from pki.lineage import Lineage
from pki.policy import Attestation, Attested, Grant, decide
from pki.renewal import renew_at
from pki.spiffe import SpiffeId, TrustDomain
from tests.gateway.process import private

EAST = TrustDomain.of_cluster("east", "mesh.example")
DAY = timedelta(days=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@asynccontextmanager
async def authority(folder: Path, clock: ManualClock) -> AsyncIterator[Lineage]:
    keys = FileKeyStore(folder / "keys")
    place = folder / "authority"
    opened = await Lineage.open(place, keys, EAST, clock)
    try:
        yield opened
    finally:
        await opened.close()


def identity(
    made_by: Lineage, folder: Path, clock: ManualClock, passphrase: Passphrase | None = None
) -> Identity:
    return Identity(made_by, SpiffeId.agent(EAST), folder / "leaf.pem", DAY, clock, passphrase)


async def settled(clock: ManualClock) -> None:
    """Wait until the identity sleeps on the clock."""
    async with asyncio.timeout(30):
        while not clock.sleepers:
            await asyncio.sleep(0.001)


async def test_a_leaf_is_issued_once_and_kept_while_it_is_fresh(tmp_path: Path, clock: ManualClock) -> None:
    async with authority(tmp_path, clock) as issuer:
        first = identity(issuer, tmp_path, clock)
        with pytest.raises(FederationError, match="has no certificate yet"):
            _ = first.current
        await first.start()
        content = (tmp_path / "leaf.pem").read_bytes()
        assert (tmp_path / "leaf.pem").stat().st_mode & 0o777 == 0o600
        assert first.current.chain + first.current.key == content
        key = load_pem_private_key(first.current.key, None)
        assert key.public_key() == first.current.certificate.public_key()
        assert b"PRIVATE" not in repr(first.current).encode()
    async with authority(tmp_path, clock) as issuer:
        again = identity(issuer, tmp_path, clock)
        told: list[Leaf] = []
        again.on_renewal(told.append)
        await again.start()
        assert (tmp_path / "leaf.pem").read_bytes() == content
        assert again.current == first.current
        assert not told


SECRET = Passphrase(b"correct horse")


async def test_k1_with_a_passphrase_the_key_of_a_leaf_is_encrypted_on_disk_and_not_in_memory(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "leaf.pem"
    async with authority(tmp_path, clock) as issuer:
        plain = identity(issuer, tmp_path, clock)
        await plain.start()
        first = identity(issuer, tmp_path, clock, SECRET)
        await first.start()
        content = path.read_bytes()
        assert first.current.certificate != plain.current.certificate, "the other key was in the clear"
        assert pkcs8.is_encrypted(content)
        assert b"BEGIN PRIVATE KEY" not in content
        assert (
            load_pem_private_key(first.current.key, None).public_key()
            == first.current.certificate.public_key()
        )
        again = identity(issuer, tmp_path, clock, SECRET)
        await again.start()
        assert again.current == first.current
        with pytest.raises(FederationError, match="is not opened by the passphrase") as told:
            await identity(issuer, tmp_path, clock, Passphrase(b"another")).start()
        assert told.value.hint == "remove it; a new one is issued"
        with pytest.raises(FederationError, match="no passphrase is set"):
            await identity(issuer, tmp_path, clock).start()
        assert path.read_bytes() == content


async def test_a_leaf_is_renewed_at_its_instant_and_everybody_is_told(
    tmp_path: Path, clock: ManualClock
) -> None:
    async with authority(tmp_path, clock) as issuer:
        own = identity(issuer, tmp_path, clock)
        await own.start()
        told: list[tuple[Leaf, bytes]] = []
        own.on_renewal(lambda leaf: told.append((leaf, (tmp_path / "leaf.pem").read_bytes())))
        before = own.current
        due = renew_at(before.certificate)
        assert clock.now() + 0.4 * DAY <= due <= clock.now() + 0.5 * DAY
        running = asyncio.create_task(own.run())
        try:
            await settled(clock)
            while clock.now() < due - timedelta(seconds=1):
                clock.advance(min(600.0, (due - clock.now()).total_seconds() - 1))
                await asyncio.sleep(0)
                await settled(clock)
            assert own.current is before
            clock.advance(1.0)
            await asyncio.sleep(0)
            await settled(clock)
            assert own.current is not before
            assert told == [(own.current, own.current.chain + own.current.key)]
            assert own.current.key != before.key
            assert own.current.certificate.serial_number != before.certificate.serial_number
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_leaf_that_is_due_at_the_start_is_renewed_at_once(tmp_path: Path, clock: ManualClock) -> None:
    async with authority(tmp_path, clock) as issuer:
        own = identity(issuer, tmp_path, clock)
        await own.start()
        before = own.current
        clock.advance((renew_at(before.certificate) - clock.now()).total_seconds())
        later = identity(issuer, tmp_path, clock)
        await later.start()
        assert later.current.certificate.serial_number != before.certificate.serial_number


async def test_a_leaf_of_an_authority_that_was_replaced_is_not_used(
    tmp_path: Path, clock: ManualClock
) -> None:
    async with authority(tmp_path / "old", clock) as issuer:
        await identity(issuer, tmp_path, clock).start()
    content = (tmp_path / "leaf.pem").read_bytes()
    async with authority(tmp_path / "new", clock) as issuer:
        own = identity(issuer, tmp_path, clock)
        await own.start()
        assert (tmp_path / "leaf.pem").read_bytes() != content
        own.current.certificate.verify_directly_issued_by(issuer.self_signed)


async def test_a_leaf_of_another_identity_is_not_used(tmp_path: Path, clock: ManualClock) -> None:
    async with authority(tmp_path, clock) as issuer:
        key = ec.generate_private_key(ec.SECP256R1())
        grant = decide(Attested(SpiffeId.gateway(EAST, "eastwest"), Attestation.TOKEN), EAST)
        assert isinstance(grant, Grant)
        issued = await issuer.issue(key.public_key(), grant, who="gw-0", why="a test")
        durable.write(tmp_path / "leaf.pem", issued.pem() + private(key))
        own = identity(issuer, tmp_path, clock)
        await own.start()
        assert own.current.certificate.serial_number != issued.certificate.serial_number


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "cut": lambda good: good[: len(good) // 2],
    "without a key": lambda good: good.replace(b"-----BEGIN PRIVATE KEY-----", b""),
    "not text": lambda good: b"\xff" * 100,
    "without a certificate": lambda good: good[good.index(b"-----BEGIN PRIVATE") :],
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_told_and_left_as_it_is(
    damage: str, tmp_path: Path, clock: ManualClock
) -> None:
    async with authority(tmp_path, clock) as issuer:
        await identity(issuer, tmp_path, clock).start()
        path = tmp_path / "leaf.pem"
        damaged = DAMAGES[damage](path.read_bytes())
        path.write_bytes(damaged)
        with pytest.raises(FederationError, match=r"leaf\.pem") as told:
            await identity(issuer, tmp_path, clock).start()
        assert told.value.hint == "remove it; a new one is issued"
        assert path.read_bytes() == damaged
        path.unlink()
        await identity(issuer, tmp_path, clock).start()


async def test_a_key_that_belongs_to_another_certificate_or_lies_open_is_refused(
    tmp_path: Path, clock: ManualClock
) -> None:
    async with authority(tmp_path, clock) as issuer:
        own = identity(issuer, tmp_path, clock)
        await own.start()
        first = own.current
        await own.renew()
        path = tmp_path / "leaf.pem"
        path.write_bytes(own.current.chain + first.key)
        with pytest.raises(FederationError, match="not that of its certificate"):
            await identity(issuer, tmp_path, clock).start()
        path.write_bytes(first.chain + first.key)
        path.chmod(0o644)
        with pytest.raises(KeyFileError, match="chmod 0600"):
            await identity(issuer, tmp_path, clock).start()


async def test_a_renewal_that_fails_is_tried_again_and_the_old_leaf_serves_meanwhile(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with authority(tmp_path, clock) as issuer:
        own = identity(issuer, tmp_path, clock)
        await own.start()
        before = own.current
        clock.advance((renew_at(before.certificate) - clock.now()).total_seconds())

        def full(path: Path, data: bytes) -> None:
            raise WriteError(path, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("federation.identity.durable.write", full)
            running = asyncio.create_task(own.run())
            await settled(clock)
            assert own.current is before
        try:
            clock.advance(RETRY_AFTER)
            await asyncio.sleep(0)
            await settled(clock)
            assert own.current is not before
            assert (tmp_path / "leaf.pem").read_bytes() == own.current.chain + own.current.key
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
