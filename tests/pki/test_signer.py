"""The way to a certificate, with a key that is slow: as a hardware token is, or a remote signer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pki import issue
from pki.algorithms import spki_hash
from pki.journal import Journal
from pki.signer import Signer
from tests.pki.world import BASE, NOW, StoppedClock, new_key

PATIENCE = 30.0


class SlowKey(ec.EllipticCurvePrivateKey):
    """Signs when it is let; `asked` says that somebody waits for it."""

    def __init__(self, inner: ec.EllipticCurvePrivateKey) -> None:
        self._inner = inner
        self.asked = threading.Event()
        self.let = threading.Event()
        self.threads: set[int] = set()

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        self.threads.add(threading.get_ident())
        self.asked.set()
        assert self.let.wait(PATIENCE)
        return self._inner.sign(data, signature_algorithm)

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._inner.curve

    @property
    def key_size(self) -> int:
        return self._inner.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._inner.public_key()

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        raise NotImplementedError

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        raise NotImplementedError

    def private_bytes(self, *_: Any, **__: Any) -> bytes:
        raise NotImplementedError

    def __copy__(self) -> SlowKey:
        return self

    def __deepcopy__(self, memo: dict[Any, Any]) -> SlowKey:
        return self


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[tuple[Signer, SlowKey]]:
    key = SlowKey(new_key())
    journal = Journal(tmp_path / "journal", spki_hash(key.public_key()), NOW, begin=True)
    signer = Signer(key, journal, StoppedClock())
    yield signer, key
    key.let.set()
    await signer.close()


async def test_a_slow_key_keeps_nobody_else_waiting(slow: tuple[Signer, SlowKey]) -> None:
    signer, key = slow
    signing = asyncio.create_task(
        signer.sign(
            lambda serial, now: issue.root_authority(BASE, 1, key.public_key(), serial, now),
            (),
            who="test",
            why="test",
        )
    )
    async with asyncio.timeout(PATIENCE):
        while not key.asked.is_set():
            await asyncio.sleep(0)
        turns = 0
        while turns < 1000:
            await asyncio.sleep(0)
            turns += 1
        assert not signing.done(), "the key has not signed, and the loop went round a thousand times"
        key.let.set()
        certificate = await signing
    assert key.threads
    assert threading.get_ident() not in key.threads
    assert certificate.public_key() == key.public_key()


async def test_one_certificate_is_signed_after_the_other_and_those_that_wait_are_signed_too(
    slow: tuple[Signer, SlowKey],
) -> None:
    signer, key = slow
    key.let.set()
    made = await asyncio.gather(
        *(
            signer.sign(
                lambda serial, now: issue.root_authority(BASE, 1, key.public_key(), serial, now),
                (),
                who="test",
                why="test",
            )
            for _ in range(8)
        )
    )
    assert len({one.serial_number for one in made}) == 8
    assert len(key.threads) == 1
