"""What every key store promises, whatever it is: those who sign must not notice where a key lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pki.authority import Authority
from pki.errors import InvalidName, KeyFileError, KeyMissing, PkiError, WriteError
from pki.keys import KeyStore
from pki.keys.file import FileKeyStore
from pki.keys.passphrase import Passphrase
from pki.keys.transit import Engine, TransitKeyStore
from pki.root import RootAuthority
from pki.spiffe import SpiffeId, TrustDomain
from tests.pki.vault.prepared import Prepared, prepare
from tests.pki.world import BASE, NOW, StoppedClock, granted, new_key, openssl_verify

PASSPHRASE = Passphrase(b"correct horse battery staple")

Opened = Callable[[Path], AbstractAsyncContextManager[KeyStore]]
"""Opens a store in a folder of its own; opened again there, it is the same store."""


@asynccontextmanager
async def plain(folder: Path) -> AsyncIterator[KeyStore]:
    yield FileKeyStore(folder / "keys")


@asynccontextmanager
async def encrypted(folder: Path) -> AsyncIterator[KeyStore]:
    yield FileKeyStore(folder / "keys", PASSPHRASE)


@asynccontextmanager
async def transit(prepared: Prepared, folder: Path) -> AsyncIterator[KeyStore]:
    session = prepared.session()
    yield TransitKeyStore(session, Engine(prepared.mount), folder / "keys")
    await session.close()


STORES: dict[str, Opened] = {"plain file": plain, "encrypted file": encrypted}
TRANSIT = "Vault Transit"


@pytest.fixture(params=[*STORES, pytest.param(TRANSIT, marks=pytest.mark.live)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Every kind of store there is; what needs a server has the mark `live`."""
    if request.param == TRANSIT:
        return partial(transit, prepare(request.getfixturevalue("bao"), "keys", tmp_path))
    return STORES[request.param]


@pytest.fixture
async def store(opened: Opened, tmp_path: Path) -> AsyncIterator[KeyStore]:
    async with opened(tmp_path) as found:
        yield found


async def test_a_key_is_one_of_the_library_s_own_on_p_256(store: KeyStore) -> None:
    key = await store.create("ca-1")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert key.key_size == 256
    assert isinstance(key.public_key(), ec.EllipticCurvePublicKey)


async def test_it_is_the_same_key_when_the_store_is_opened_again(opened: Opened, tmp_path: Path) -> None:
    async with opened(tmp_path) as first:
        made = await first.create("ca-1")
        assert (await first.load("ca-1")).public_key() == made.public_key()
    async with opened(tmp_path) as second:
        loaded = await second.load("ca-1")
        assert loaded.public_key() == made.public_key()
        signature = loaded.sign(b"words", ec.ECDSA(hashes.SHA256()))
        made.public_key().verify(signature, b"words", ec.ECDSA(hashes.SHA256()))
        assert await second.names() == {"ca-1"}


async def test_a_name_is_given_once(store: KeyStore) -> None:
    outcomes = await asyncio.gather(*(store.create("a") for _ in range(4)), return_exceptions=True)
    made = [one for one in outcomes if isinstance(one, ec.EllipticCurvePrivateKey)]
    assert len(made) == 1
    assert all(isinstance(one, KeyFileError | WriteError) for one in outcomes if one is not made[0])
    assert (await store.load("a")).public_key() == made[0].public_key()


async def test_two_names_are_two_keys(store: KeyStore) -> None:
    one, other = await store.create("a"), await store.create("b")
    assert one.public_key() != other.public_key()
    assert await store.names() == {"a", "b"}


async def test_removed_keys_are_gone(store: KeyStore) -> None:
    await store.create("a")
    await store.remove("a")
    await store.remove("a")
    assert await store.names() == frozenset()
    with pytest.raises(KeyMissing):
        await store.load("a")


@pytest.mark.parametrize("name", ["../a", "a/b", "", "A", "a.key", "-a", "a\x00", "%2e", "a" * 64])
async def test_k8_a_name_that_could_be_something_else_is_refused(store: KeyStore, name: str) -> None:
    for call in (store.create, store.load, store.remove):
        with pytest.raises(InvalidName):
            await call(name)
    assert await store.names() == frozenset()


async def test_k5_nothing_that_is_shown_has_the_secret(store: KeyStore) -> None:
    key = await store.create("a")
    shown = f"{store!r} {store} {key!r} {key}"
    assert PASSPHRASE.secret.decode() not in shown
    try:
        secret = key.private_numbers().private_value
    except (NotImplementedError, UnsupportedAlgorithm, PkiError):  # a key that lives elsewhere cannot be read
        return
    assert str(secret) not in shown
    assert f"{secret:x}" not in shown


async def test_builders_of_certificates_requests_and_lists_take_the_key_as_it_is(store: KeyStore) -> None:
    key = await store.create("a")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    certificate.verify_directly_issued_by(certificate)
    assert x509.CertificateSigningRequestBuilder(name).sign(key, hashes.SHA256()).is_signature_valid
    revoked = x509.CertificateRevocationListBuilder(name, NOW, NOW + timedelta(hours=1))
    assert revoked.sign(key, hashes.SHA256()).is_signature_valid(key.public_key())


async def test_a_root_and_a_cluster_s_authority_live_on_its_keys(store: KeyStore, tmp_path: Path) -> None:
    east, clock = TrustDomain.of_cluster("east", BASE), StoppedClock()
    root = await RootAuthority.create(tmp_path / "root", Renamed(store, "root"), BASE, clock)
    authority = await Authority.create(tmp_path / "east", Renamed(store, "east"), east, clock)
    try:
        rooted = await root.sign_cluster_ca(await authority.csr(), east, who="test", why="test")
        await authority.accept_root_signed(rooted, root.certificate)
        grant = granted(SpiffeId.gateway(east, "eastwest"))
        issued = await authority.issue(new_key().public_key(), grant, who="test", why="test")
        assert openssl_verify(tmp_path, root.certificate, issued.chain) == "OK"
        assert openssl_verify(tmp_path, authority.self_signed, issued.chain[:1]) == "OK"
    finally:
        await authority.close()
        await root.close()


class Renamed(KeyStore):
    """One store for two authorities, which name their keys alike."""

    def __init__(self, store: KeyStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    async def create(self, name: str) -> ec.EllipticCurvePrivateKey:
        return await self._store.create(f"{self._prefix}-{name}")

    async def load(self, name: str) -> ec.EllipticCurvePrivateKey:
        return await self._store.load(f"{self._prefix}-{name}")

    async def remove(self, name: str) -> None:
        await self._store.remove(f"{self._prefix}-{name}")

    async def names(self) -> frozenset[str]:
        return await self._store.names()
