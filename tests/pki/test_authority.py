from __future__ import annotations

import asyncio
import errno
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils

from pki import csr, issue, journal
from pki.algorithms import spki_hash
from pki.authority import AUTHORITY_ENDS, Authority, Issued, Order
from pki.bundle import Accepted, Rejected, accept
from pki.certificate import pem
from pki.errors import ClockError, JournalError, KeyFileError, KeyMissing, PkiError, Refused, Untrusted
from pki.keys.file import FileKeyStore
from pki.policy import Grant
from pki.profiles import authority_subject
from pki.root import RootAuthority
from pki.signer import Signer
from pki.spiffe import SpiffeId, TrustDomain
from pki.validate import verify_peer
from tests.pki.world import BASE, NOW, StoppedClock, granted, make_world, new_key, openssl_verify

EAST = TrustDomain.of_cluster("east", BASE)
WEST = TrustDomain.of_cluster("west", BASE)
GATEWAY = SpiffeId.gateway(EAST, "eastwest")
GRANT = granted(GATEWAY)


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
async def root(tmp_path: Path, clock: StoppedClock) -> AsyncIterator[RootAuthority]:
    made = await RootAuthority.create(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock)
    yield made
    await made.close()


@pytest.fixture
async def east(tmp_path: Path, clock: StoppedClock) -> AsyncIterator[Authority]:
    made = await Authority.create(tmp_path / "east", FileKeyStore(tmp_path / "east-keys"), EAST, clock)
    yield made
    await made.close()


async def rooted(authority: Authority, root: RootAuthority) -> x509.Certificate:
    return await root.sign_cluster_ca(await authority.csr(), authority.trust_domain, who="test", why="test")


async def issued(
    authority: Authority, key: ec.EllipticCurvePrivateKey, grant: Grant = GRANT, **more: Any
) -> x509.Certificate:
    return (await authority.issue(csr.request(key), grant, who="test", why="test", **more)).certificate


async def test_from_root_to_a_peer_that_is_believed(
    east: Authority, root: RootAuthority, tmp_path: Path
) -> None:
    first = await east.issue(csr.request(new_key()), GRANT, who="token 1", why="attested")
    assert first.chain == (first.certificate,)
    await east.accept_root_signed(await rooted(east, root), root.certificate)
    second = await east.issue(csr.request(new_key()), GRANT, who="token 2", why="attested")
    assert second.chain[1:] == (east.root_signed,)
    assert second.pem() == pem(second.chain)
    for each in (first, second):
        assert verify_peer(each.chain, {EAST: east.bundle()}, NOW) == GATEWAY
        assert openssl_verify(tmp_path, east.self_signed, each.chain) == "OK"
        assert each.limited_by is None
    assert openssl_verify(tmp_path, root.certificate, second.chain) == "OK"
    assert accept(None, east.bundle(), root.certificate) == Accepted(east.bundle(), changed=True)


async def test_a_bundle_without_the_roots_word_is_not_accepted_by_others(
    east: Authority, root: RootAuthority
) -> None:
    assert isinstance(accept(None, east.bundle(), root.certificate), Rejected)


async def test_everything_is_there_after_a_restart(
    east: Authority, root: RootAuthority, tmp_path: Path, clock: StoppedClock
) -> None:
    await east.accept_root_signed(await rooted(east, root), root.certificate)
    leaf = await issued(east, new_key())
    await east.close()
    await root.close()
    again = await Authority.load(tmp_path / "east", FileKeyStore(tmp_path / "east-keys"), EAST, clock)
    assert again.forms == east.forms
    assert again.bundle() == east.bundle()
    assert again.head == east.head
    assert leaf.serial_number in {entry.serial for entry in again.ledger(NOW)}
    renewed = await issued(again, new_key(), replaces=leaf)
    assert verify_peer([renewed], {EAST: again.bundle()}, NOW) == GATEWAY
    await again.close()
    root_again = await RootAuthority.load(
        tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock
    )
    assert root_again.certificate == root.certificate
    assert root_again.head == root.head
    await root_again.close()


async def test_k6_files_that_do_not_belong_together_are_refused(
    east: Authority, root: RootAuthority, tmp_path: Path, clock: StoppedClock
) -> None:
    await east.close()
    keys = FileKeyStore(tmp_path / "east-keys")
    with pytest.raises(KeyFileError, match="already"):
        await Authority.create(tmp_path / "east", keys, EAST, clock)
    with pytest.raises(KeyFileError, match="not the authority of west"):
        await Authority.load(tmp_path / "east", keys, WEST, clock)
    with pytest.raises(KeyMissing):
        await Authority.load(tmp_path / "east", FileKeyStore(tmp_path / "none"), EAST, clock)
    other = FileKeyStore(tmp_path / "other-keys")
    await other.create("ca-1")
    with pytest.raises(JournalError, match="another authority"):
        await Authority.load(tmp_path / "east", other, EAST, clock)
    (tmp_path / "east" / "journal").unlink()
    with pytest.raises(JournalError, match="restore it together with its authority"):
        await Authority.load(tmp_path / "east", keys, EAST, clock)
    mixed = await other.load("ca-1")
    journal.Journal(tmp_path / "east" / "journal", spki_hash(mixed.public_key()), NOW, begin=True).close()
    with pytest.raises(KeyFileError, match="not over the key"):
        await Authority.load(tmp_path / "east", other, EAST, clock)
    (tmp_path / "east" / "self-signed.pem").write_bytes(b"garbage")
    with pytest.raises(KeyFileError, match="not the certificate of an authority"):
        await Authority.load(tmp_path / "east", keys, EAST, clock)
    with pytest.raises(KeyFileError, match="does not exist"):
        await Authority.load(tmp_path / "nowhere", keys, EAST, clock)
    assert not Authority.exists(tmp_path / "nowhere")
    await root.close()
    with pytest.raises(KeyFileError, match=r"not the root of other\.example"):
        await RootAuthority.load(
            tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), "other.example", clock
        )


async def test_k3_creation_goes_on_after_a_crash_with_the_same_key(
    tmp_path: Path, clock: StoppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = FileKeyStore(tmp_path / "keys")
    real = os.replace

    def failing(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(PkiError, match=r"self-signed\.pem: No space left"):
        await Authority.create(tmp_path / "east", keys, EAST, clock)
    monkeypatch.setattr(os, "replace", real)
    made = await keys.load("ca-1")
    authority = await Authority.create(tmp_path / "east", keys, EAST, clock)
    assert authority.self_signed.public_key() == made.public_key()
    await authority.close()


async def test_k7_two_at_once_cannot_sign_with_one_authority(
    east: Authority, tmp_path: Path, clock: StoppedClock
) -> None:
    with pytest.raises(JournalError, match="in use"):
        await Authority.load(tmp_path / "east", FileKeyStore(tmp_path / "east-keys"), EAST, clock)


async def test_r1_a_request_gives_its_key_and_nothing_else(east: Authority) -> None:
    key = new_key()
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(f"{n}.example") for n in range(50)]), critical=False
        )
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    one = (await east.issue(greedy, GRANT, who="t", why="t")).certificate
    bare = await issued(east, key)
    assert one.public_key() == bare.public_key()
    assert one.subject == bare.subject
    assert list(one.extensions) == list(bare.extensions)


async def test_c1_serials_are_new_and_come_from_the_operating_system(east: Authority) -> None:
    key = new_key().public_key()
    serials = set()
    for _ in range(50):
        random.seed(1)
        serials.add((await east.issue(key, GRANT, who="t", why="t")).certificate.serial_number)
    assert len(serials) == 50


async def test_c1_a_hundred_thousand_serials_differ_and_use_all_bits(
    tmp_path: Path, clock: StoppedClock
) -> None:
    key = new_key()
    book = journal.Journal(tmp_path / "journal", spki_hash(key.public_key()), NOW, begin=True)
    signer = Signer(key, book, clock)
    serials = [signer.fresh_serial() for _ in range(100_000)]
    await signer.close()
    assert len(set(serials)) == 100_000
    lengths = Counter(serial.bit_length() for serial in serials)
    assert min(lengths) >= 64
    assert max(lengths) == 159
    assert 49_000 < lengths[159] < 51_000
    for bit in range(159):
        assert 49_000 < sum(serial >> bit & 1 for serial in serials) < 51_000


async def test_r3_a_weak_key_is_refused_without_a_request_too(east: Authority) -> None:
    for weak in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256K1())):
        with pytest.raises(Refused):
            await east.issue(weak.public_key(), GRANT, who="t", why="t")


async def test_r5_keys_belong_to_one_identity(east: Authority, clock: StoppedClock) -> None:
    key = new_key()
    await issued(east, key)
    await issued(east, key)
    with pytest.raises(Refused, match=r"belongs to spiffe://east\.mesh\.example/gateway/eastwest already"):
        await issued(east, key, granted(SpiffeId.gateway(EAST, "ingress")))
    own = east.self_signed.public_key()
    assert isinstance(own, ec.EllipticCurvePublicKey)
    with pytest.raises(Refused, match="key of the authority itself"):
        await east.issue(own, GRANT, who="t", why="t")
    clock.time += timedelta(days=1, minutes=6)
    await issued(east, key, granted(SpiffeId.gateway(EAST, "ingress")))


async def test_what_has_ended_is_forgotten_as_it_goes(east: Authority, clock: StoppedClock) -> None:
    """An agent runs for years, and each of its gateways asks twice a day; nobody asks for the whole ledger."""
    key = new_key()
    for _ in range(20):
        clock.time += timedelta(hours=12)
        await issued(east, key)
    assert len(east._signer.journal._ledger._entries) <= 4


async def test_r7_another_trust_domain_is_refused(east: Authority) -> None:
    with pytest.raises(Refused, match=r"not of east\.mesh\.example"):
        await issued(east, new_key(), granted(SpiffeId.gateway(WEST, "eastwest")))


async def test_a6_only_the_latest_certificate_is_renewed(east: Authority) -> None:
    keys = [new_key() for _ in range(3)]
    first = await issued(east, keys[0])
    second = await issued(east, keys[1], replaces=first)
    again = await issued(east, keys[1], replaces=first)
    assert again.serial_number != second.serial_number
    with pytest.raises(Refused, match="replaced already"):
        await issued(east, keys[2], replaces=first)
    with pytest.raises(Refused, match="replaced already"):
        await issued(east, keys[0], replaces=first)
    await issued(east, keys[2], replaces=second)
    with pytest.raises(Refused, match=r"is for spiffe://east\.mesh\.example/gateway/eastwest"):
        await issued(east, new_key(), granted(SpiffeId.gateway(EAST, "ingress")), replaces=again)
    with pytest.raises(Refused, match="not in our ledger"):
        await issued(east, new_key(), replaces=make_world().east.leaf(GATEWAY))


async def test_s1_intent_is_on_disk_before_the_key_is_used_and_the_result_before_release(
    east: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    real = issue.signed

    def spying(template: issue.Template, key: ec.EllipticCurvePrivateKey) -> bytes:
        seen.append((tmp_path / "east" / "journal").read_bytes().splitlines()[-1])
        return real(template, key)

    monkeypatch.setattr(issue, "signed", spying)
    leaf = await issued(east, new_key())
    assert b'"type":"intent"' in seen[0]
    assert f"{leaf.serial_number:x}".encode() in seen[0]
    last = (tmp_path / "east" / "journal").read_bytes().splitlines()[-1]
    assert b'"type":"released"' in last
    assert f"{leaf.serial_number:x}".encode() in last
    assert leaf.fingerprint(hashes.SHA256()).hex().encode() in last


async def test_s2_a_full_disk_stops_issuance_before_the_key_is_used(
    east: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    real_sign, real_write = issue.signed, os.pwrite

    def spying(template: issue.Template, key: ec.EllipticCurvePrivateKey) -> bytes:
        used.append(template.serial)
        return real_sign(template, key)

    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(issue, "signed", spying)
    monkeypatch.setattr(os, "pwrite", full)
    head = east.head
    with pytest.raises(JournalError, match="No space left"):
        await issued(east, new_key())
    assert used == []
    assert east.head == head
    monkeypatch.setattr(os, "pwrite", real_write)
    await issued(east, new_key())
    assert len(used) == 1


async def test_c14_what_fails_the_second_look_is_never_released(
    east: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = issue.signed

    def wrong(template: issue.Template, key: ec.EllipticCurvePrivateKey) -> bytes:
        return real(replace(template, uri="spiffe://west.mesh.example/agent"), key)

    before = east.ledger(NOW)
    monkeypatch.setattr(issue, "signed", wrong)
    with pytest.raises(Untrusted, match="the identity"):
        await issued(east, new_key())
    assert east.ledger(NOW) == before
    assert b'"type":"failed"' in (tmp_path / "east" / "journal").read_bytes().splitlines()[-1]
    monkeypatch.undo()
    await issued(east, new_key())


async def test_s6_a_clock_that_went_back_stops_issuance(east: Authority, clock: StoppedClock) -> None:
    await issued(east, new_key())
    clock.time -= timedelta(seconds=3)
    await issued(east, new_key())
    clock.time -= timedelta(hours=1)
    with pytest.raises(ClockError, match="3603 s behind the last entry of our own journal"):
        await issued(east, new_key())


async def test_s6_a_clock_that_jumps_ahead_stops_issuance_until_it_stayed_so(
    east: Authority, clock: StoppedClock
) -> None:
    """Else one wrong hour would forget leaves that live, and leave a journal that no right clock could go on with."""
    first = await issued(east, new_key())
    month = timedelta(days=30)
    clock.time, clock.jumped = clock.time + month, month
    before = east.head
    with pytest.raises(ClockError, match="ahead of the time that passed"):
        await issued(east, new_key())
    assert east.head == before
    clock.time, clock.jumped = clock.time - month, timedelta(0)
    assert first.serial_number in {entry.serial for entry in east.ledger(NOW)}
    await issued(east, new_key())
    clock.time, clock.jumped = clock.time + month, month
    with pytest.raises(ClockError):
        await issued(east, new_key())
    clock.time += timedelta(seconds=60)
    await issued(east, new_key())


async def test_c8_a_leaf_that_is_cut_short_says_so(east: Authority, clock: StoppedClock) -> None:
    clock.time += timedelta(days=364, hours=12)
    made = await east.issue(csr.request(new_key()), GRANT, who="t", why="t")
    assert made.limited_by == AUTHORITY_ENDS
    assert made.certificate.not_valid_after_utc == east.self_signed.not_valid_after_utc


async def test_the_root_signed_form_must_be_ours(
    east: Authority, root: RootAuthority, tmp_path: Path, clock: StoppedClock
) -> None:
    west = await Authority.create(tmp_path / "west", FileKeyStore(tmp_path / "west-keys"), WEST, clock)
    for wrong in (
        await rooted(west, root),
        root.certificate,
        west.self_signed,
        await issued(east, new_key()),
    ):
        with pytest.raises(Untrusted):
            await east.accept_root_signed(wrong, root.certificate)
    with pytest.raises(Untrusted):
        await east.accept_root_signed(await rooted(east, root), west.self_signed)
    assert east.root_signed is None
    assert not (tmp_path / "east" / "root-signed.pem").exists()
    await west.close()


async def test_the_root_signs_only_what_the_rule_gives(east: Authority, root: RootAuthority) -> None:
    good = await east.csr()
    with pytest.raises(Refused, match="not that of an authority of west"):
        await root.sign_cluster_ca(good, WEST, who="t", why="t")
    for foreign in ("east.other.example", "mesh.example", "a.east.mesh.example"):
        with pytest.raises(Refused, match="not one under"):
            await root.sign_cluster_ca(good, TrustDomain(foreign), who="t", why="t")
    with pytest.raises(Refused, match="no epoch"):
        await root.sign_cluster_ca(csr.request(new_key()), EAST, who="t", why="t")
    stolen = csr.request(new_key(), east.self_signed.subject)
    with pytest.raises(Refused, match="with this key"):
        await root.sign_cluster_ca(stolen, EAST, who="t", why="t")
    with pytest.raises(Refused):
        await root.sign_cluster_ca(good + good, EAST, who="t", why="t")
    again = [await rooted(east, root) for _ in range(2)]
    assert again[0].serial_number != again[1].serial_number
    assert again[0].subject == again[1].subject == east.self_signed.subject


async def test_r5_the_root_takes_no_key_twice_for_two_clusters(root: RootAuthority) -> None:
    key = new_key()
    requests = {td: csr.request(key, authority_subject(td.name, 1, key.public_key())) for td in (EAST, WEST)}
    await root.sign_cluster_ca(requests[EAST], EAST, who="t", why="t")
    with pytest.raises(Refused, match=r"belongs to spiffe://east\.mesh\.example already"):
        await root.sign_cluster_ca(requests[WEST], WEST, who="t", why="t")


class RemoteKey(ec.EllipticCurvePrivateKey):
    """A key whose private part cannot be read: it signs elsewhere, here a digest with another key object."""

    def __init__(self, hidden: ec.EllipticCurvePrivateKey) -> None:
        self._hidden = hidden

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        assert isinstance(signature_algorithm, ec.ECDSA)
        algorithm = signature_algorithm.algorithm
        assert isinstance(algorithm, hashes.HashAlgorithm)
        digest = hashes.Hash(algorithm)
        digest.update(bytes(data))
        return self._hidden.sign(digest.finalize(), ec.ECDSA(utils.Prehashed(algorithm)))

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._hidden.public_key()

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._hidden.curve

    @property
    def key_size(self) -> int:
        return self._hidden.key_size

    def exchange(self, algorithm: Any, peer_public_key: Any) -> bytes:
        raise NotImplementedError

    def private_numbers(self) -> Any:
        raise NotImplementedError

    def private_bytes(self, *args: Any, **kwargs: Any) -> bytes:
        raise NotImplementedError

    def __copy__(self) -> RemoteKey:
        raise NotImplementedError

    def __deepcopy__(self, memo: Any) -> RemoteKey:
        raise NotImplementedError


class RemoteKeys:
    """A store whose keys are never in files and never in the caller's hands."""

    def __init__(self) -> None:
        self._keys: dict[str, RemoteKey] = {}

    async def create(self, name: str) -> ec.EllipticCurvePrivateKey:
        return self._keys.setdefault(name, RemoteKey(new_key()))

    async def load(self, name: str) -> ec.EllipticCurvePrivateKey:
        if name not in self._keys:
            raise KeyMissing(Path(name))
        return self._keys[name]

    async def remove(self, name: str) -> None:
        self._keys.pop(name, None)

    async def names(self) -> frozenset[str]:
        return frozenset(self._keys)


async def test_an_authority_needs_no_key_in_memory(
    root: RootAuthority, tmp_path: Path, clock: StoppedClock
) -> None:
    keys = RemoteKeys()
    east = await Authority.create(tmp_path / "remote", keys, EAST, clock)
    await east.accept_root_signed(await rooted(east, root), root.certificate)
    await issued(east, new_key())
    assert await east.sign_content(east.bundle())
    await east.close()
    again = await Authority.load(tmp_path / "remote", keys, EAST, clock)
    leaf = await issued(again, new_key())
    assert verify_peer([leaf], {EAST: again.bundle()}, NOW) == GATEWAY
    await again.close()


async def test_s3_many_at_once_are_all_in_the_ledger(east: Authority, tmp_path: Path) -> None:
    leaves = await asyncio.gather(*(issued(east, new_key()) for _ in range(40)))
    serials = {leaf.serial_number for leaf in leaves}
    assert len(serials) == 40
    assert serials <= {entry.serial for entry in east.ledger(NOW)}
    own = east.self_signed.public_key()
    assert journal.verify(tmp_path / "east" / "journal", spki_hash(own)) == east.head


async def test_a_caller_that_gives_up_leaves_a_journal_that_verifies(east: Authority, tmp_path: Path) -> None:
    tasks = [asyncio.create_task(issued(east, new_key()), name=f"issue {n}") for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    made = [each for each in outcomes if isinstance(each, x509.Certificate)]
    assert len(made) >= 10
    await east.close()
    own = east.self_signed.public_key()
    assert journal.verify(tmp_path / "east" / "journal", spki_hash(own)) == east.head


async def test_orders_are_fulfilled_together_and_refused_one_by_one(east: Authority) -> None:
    keys = [new_key().public_key() for _ in range(3)]
    orders = [
        Order(keys[0], GRANT, "t", "t"),
        Order(keys[1], granted(SpiffeId.gateway(WEST, "eastwest")), "t", "t"),
        Order(keys[2], GRANT, "t", "t"),
    ]
    first, refused, last = await east.issue_all(orders)
    assert isinstance(refused, Refused)
    assert refused.field == "identity"
    assert isinstance(first, Issued)
    assert isinstance(last, Issued)
    assert (first.certificate.public_key(), last.certificate.public_key()) == (keys[0], keys[2])
    assert len(east.ledger(NOW)) == 3
