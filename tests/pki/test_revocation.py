"""The root's revocation list: what RFC 5280 asks of one, and what a crash or a lost file may not take back."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from federation.clock import ManualClock
from pki import revocation
from pki.authority import Authority
from pki.certificate import pem
from pki.errors import Refused, Untrusted
from pki.keys.file import FileKeyStore
from pki.ledger import Revoked
from pki.revocation import DUE_AFTER, LIFETIME, Reason, check_list, is_due, load_list, number_of, sign_list
from pki.root import RootAuthority
from pki.spiffe import TrustDomain
from tests.pki.rules import linter
from tests.pki.world import BASE, NOW, make_root, make_world

WORLD = make_world()
EAST = TrustDomain.of_cluster("east", BASE)


def listed(*serials: int, reason: Reason = Reason.KEY_COMPROMISE) -> x509.CertificateRevocationList:
    revoked = [Revoked(NOW, f"{serial:x}", reason.value, "ada", "test") for serial in serials]
    return sign_list(WORLD.root, WORLD.root_key, revoked, 7, NOW)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_list_has_the_form_of_the_standard(reason: Reason) -> None:
    made = load_list(revocation.der(listed(5, 1 << 150, reason=reason)))
    check_list(made, WORLD.root)
    assert made.issuer == WORLD.root.subject
    assert number_of(made) == 7
    assert made.next_update_utc is not None
    assert made.next_update_utc - made.last_update_utc == LIFETIME
    assert [one.serial_number for one in made] == [5, 1 << 150]
    assert linter.of_crl(revocation.der(made)) == set()
    assert linter.of_crl(revocation.der(listed())) == set()


def test_who_did_not_sign_it_is_not_believed() -> None:
    _, stranger = make_root()
    with pytest.raises(Untrusted, match="did not sign"):
        check_list(listed(5), stranger)
    data = bytearray(revocation.der(listed(5)))
    data[-1] ^= 1
    with pytest.raises(Untrusted):
        check_list(load_list(bytes(data)), WORLD.root)
    with pytest.raises(Untrusted):
        load_list(b"nonsense")


def test_the_next_one_is_due_long_before_this_one_ends() -> None:
    made = listed()
    assert not is_due(made, NOW + DUE_AFTER - timedelta(seconds=1))
    assert is_due(made, NOW + DUE_AFTER)
    assert DUE_AFTER * 2 < LIFETIME


def openssl(folder: Path, crl: x509.CertificateRevocationList, chain: x509.Certificate) -> str:
    (folder / "root.pem").write_bytes(pem([WORLD.root]))
    (folder / "east.pem").write_bytes(pem([chain]))
    (folder / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    command = ["openssl", "verify", "-x509_strict", "-crl_check", "-attime", str(int(NOW.timestamp()) + 60)]
    command += [
        "-CAfile",
        str(folder / "root.pem"),
        "-CRLfile",
        str(folder / "crl.pem"),
        str(folder / "east.pem"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "OK" if done.returncode == 0 else done.stdout + done.stderr


def test_openssl_refuses_what_is_listed_and_nothing_else(tmp_path: Path) -> None:
    crl = listed(WORLD.east.rooted.serial_number)
    assert "certificate revoked" in openssl(tmp_path, crl, WORLD.east.rooted)
    assert openssl(tmp_path, crl, WORLD.west.rooted) == "OK"


class Installation:
    def __init__(self, folder: Path, root: RootAuthority, clock: ManualClock) -> None:
        self.folder, self.root, self.clock = folder, root, clock
        self.revocations = root.revocations(clock)

    async def again(self) -> RootAuthority:
        await self.root.close()
        self.root = await RootAuthority.load(
            self.folder / "root", FileKeyStore(self.folder / "root-keys"), BASE, self.clock
        )
        self.revocations = self.root.revocations(self.clock)
        return self.root


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    clock = ManualClock(NOW)
    root = await RootAuthority.create(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock)
    made = Installation(tmp_path, root, clock)
    yield made
    await made.root.close()


async def rooted(installation: Installation, name: str) -> x509.Certificate:
    domain = TrustDomain.of_cluster(name, BASE)
    folder, keys = installation.folder / name, FileKeyStore(installation.folder / f"{name}-keys")
    authority = await Authority.create(folder, keys, domain, installation.clock)
    try:
        return await installation.root.sign_cluster_ca(await authority.csr(), domain, who=name, why="test")
    finally:
        await authority.close()


async def test_what_is_revoked_stays_revoked_over_a_restart_and_numbers_only_rise(
    installation: Installation,
) -> None:
    east, west = await rooted(installation, "east"), await rooted(installation, "west")
    first = await installation.revocations.sign_list()
    assert (number_of(first), len(first)) == (1, 0)
    assert {one.serial for one in installation.revocations.living()} == {
        east.serial_number,
        west.serial_number,
    }
    await installation.revocations.revoke(
        [east.serial_number], Reason.KEY_COMPROMISE, who="ada", why="stolen"
    )
    root = await installation.again()
    second = await installation.revocations.sign_list()
    check_list(second, root.certificate)
    assert (number_of(second), [one.serial_number for one in second]) == (2, [east.serial_number])
    assert {one.serial for one in installation.revocations.living()} == {west.serial_number}
    installation.clock.advance(400 * 86400)
    third = await installation.revocations.sign_list()
    assert [one.serial_number for one in third] == [east.serial_number], "an entry outlives its certificate"


async def test_only_what_this_root_signed_and_lives_is_revoked_once(installation: Installation) -> None:
    east = await rooted(installation, "east")
    root, stranger = installation.root.certificate.serial_number, 12345
    for serials in ([stranger], [root], [east.serial_number, stranger]):
        with pytest.raises(Refused, match="no living certificate"):
            await installation.revocations.revoke(serials, Reason.UNSPECIFIED, who="ada", why="x")
    assert installation.revocations.revoked() == ()
    await installation.revocations.revoke([east.serial_number] * 2, Reason.UNSPECIFIED, who="ada", why="x")
    with pytest.raises(Refused, match="no living certificate"):
        await installation.revocations.revoke([east.serial_number], Reason.UNSPECIFIED, who="ada", why="x")
    assert len(installation.revocations.revoked()) == 1
