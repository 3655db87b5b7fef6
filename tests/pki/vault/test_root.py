"""The root in a real OpenBao: what it signs is what our rule says, and whatever is wrong with it is told by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from federation.clock import SystemClock
from pki import csr, journal
from pki.algorithms import spki_hash
from pki.authority import Authority
from pki.certificate import public_key
from pki.errors import KeyFileError, Refused, Untrusted, VaultError, VaultFault
from pki.folder import JOURNAL
from pki.intermediate import Consumer, decide
from pki.keys.file import FileKeyStore
from pki.profiles import CLUSTER_CA_ROOTED, authority_subject
from pki.rooted import is_rooted
from pki.spiffe import TrustDomain
from pki.vault.issuer import Issuer
from pki.vault.root import VaultRoot
from pki.vault.session import Session
from tests.pki.vault.prepared import BASE, Prepared, prepare
from tests.pki.vault.server import Bao
from tests.pki.world import new_key, openssl_verify

pytestmark = pytest.mark.live

CLOCK = SystemClock()
EAST = TrustDomain.of_cluster("east", BASE)
WEST = TrustDomain.of_cluster("west", BASE)


@pytest.fixture
def prepared(bao: Bao, tmp_path: Path) -> Prepared:
    return prepare(bao, "root", tmp_path)


@asynccontextmanager
async def opened(
    prepared: Prepared, folder: Path, session: Session | None = None, issuer: Issuer | None = None
) -> AsyncIterator[VaultRoot]:
    session = session or prepared.session()
    root = await VaultRoot.open(folder, session, issuer or prepared.issuer, BASE, CLOCK)
    try:
        yield root
    finally:
        await root.close()
        await session.close()


def request(domain: TrustDomain, key: ec.EllipticCurvePrivateKey, epoch: int = 1) -> bytes:
    return csr.request(key, authority_subject(domain.name, epoch, key.public_key()), domain.uri)


async def sign(root: VaultRoot, domain: TrustDomain, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return await root.sign_cluster_ca(request(domain, key), domain, who="east", why="a test")


async def test_v1_v2_v3_an_authority_gets_its_root_signed_form(prepared: Prepared, tmp_path: Path) -> None:
    key = new_key()
    async with opened(prepared, tmp_path / "root") as root:
        verdict = await root.examine()
        assert (verdict.lacking, verdict.excess) == ((), ())
        assert (await root.check_cluster_ca(request(EAST, key), EAST)) == key.public_key()
        signed = await sign(root, EAST, key)
        head, (entry,) = root.head, root.ledger(CLOCK.now())
    assert (entry.serial, entry.identity, entry.spki) == (
        signed.serial_number, EAST.uri, spki_hash(key.public_key())
    )  # fmt: skip
    assert openssl_verify(tmp_path, root.certificate, [signed], datetime.now(UTC)) == "OK"
    assert journal.verify(tmp_path / "root" / JOURNAL, spki_hash(public_key(root.certificate)), head) == head
    assert "sign-verbatim" not in prepared.bao.said


async def test_an_authority_of_ours_takes_it_as_its_own(prepared: Prepared, tmp_path: Path) -> None:
    """Its subject is the same to the byte: Go looks for issuers by the bytes of their names."""
    east = await Authority.create(tmp_path / "east", FileKeyStore(tmp_path / "keys"), EAST, CLOCK)
    try:
        async with opened(prepared, tmp_path / "root") as root:
            signed = await root.sign_cluster_ca(await east.csr(), EAST, who="east", why="a test")
            await east.accept_root_signed(signed, root.certificate)
    finally:
        await east.close()
    assert is_rooted(east.self_signed, signed, root.certificate)
    assert signed.subject.public_bytes() == east.self_signed.subject.public_bytes()


@pytest.mark.parametrize("consumer", Consumer)
async def test_v2_v3_another_system_gets_its_authority_as_granted(
    prepared: Prepared, tmp_path: Path, consumer: Consumer
) -> None:
    domain = TrustDomain.parse("36cb52cd-4058-f811-0432-6798a240c5d3.consul")
    grant = decide(consumer, "east", BASE, domain if consumer is Consumer.CONSUL else None, None)
    async with opened(prepared, tmp_path / "root") as root:
        for _ in range(2):
            key = new_key()
            made = await root.sign_intermediate(grant.request(key), grant, who="ada", why="a test")
            assert (made.public_key(), made.subject) == (key.public_key(), grant.subject(key.public_key()))
            found = [
                one.value for one in made.extensions if isinstance(one.value, x509.SubjectAlternativeName)
            ]
            assert found == ([] if grant.names is None else [grant.names])
        assert openssl_verify(tmp_path, root.certificate, [made], datetime.now(UTC)) == "OK"
        with pytest.raises(Refused, match="csr"):
            await root.sign_intermediate(request(EAST, new_key()), grant, who="ada", why="a test")
        with pytest.raises(Refused, match="belongs to"):
            await root.sign_cluster_ca(request(EAST, key), EAST, who="east", why="a test")


def asking(
    key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType, domain: TrustDomain = EAST
) -> bytes:
    """A request with the right subject that asks for `extensions`."""
    subject = authority_subject(domain.name, 1, key.public_key())
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def san(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


URI = x509.UniformResourceIdentifier(EAST.uri)
OTHER = x509.UniformResourceIdentifier(WEST.uri)


@pytest.mark.parametrize(
    "extensions",
    [
        (),
        (san(OTHER),),
        (san(URI, OTHER),),
        (san(URI, x509.DNSName("east.example")),),
        (san(URI), x509.BasicConstraints(ca=True, path_length=None)),
        (san(URI), x509.NameConstraints([x509.DNSName("example")], None)),
        (san(URI), x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])),
    ],
)
async def test_v2_a_request_with_anything_else_in_it_does_not_reach_vault(
    extensions: tuple[x509.ExtensionType, ...], prepared: Prepared, tmp_path: Path
) -> None:
    async with opened(prepared, tmp_path / "root") as root:
        before = root.head
        for attempt in (root.check_cluster_ca, lambda *a: root.sign_cluster_ca(*a, who="east", why="a test")):
            with pytest.raises(Refused, match="URI SAN"):
                await attempt(asking(new_key(), *extensions), EAST)
        assert root.head == before


async def test_r5_a_key_has_one_identity_also_where_the_root_is_in_vault(
    prepared: Prepared, tmp_path: Path
) -> None:
    key = new_key()
    async with opened(prepared, tmp_path / "root") as root:
        first = await sign(root, EAST, key)
        again = await sign(root, EAST, key)
        assert first.serial_number != again.serial_number
        with pytest.raises(Refused, match="belongs to spiffe://east"):
            await sign(root, WEST, key)
    async with opened(prepared, tmp_path / "root") as root:
        assert {entry.serial for entry in root.ledger(CLOCK.now())} == {
            first.serial_number,
            again.serial_number,
        }
        with pytest.raises(Refused, match="belongs to spiffe://east"):
            await root.check_cluster_ca(request(WEST, key), WEST)


async def test_another_key_for_a_name_needs_a_higher_epoch(prepared: Prepared, tmp_path: Path) -> None:
    first, second = new_key(), new_key()
    async with opened(prepared, tmp_path / "root") as root:
        await sign(root, EAST, first)
        with pytest.raises(Refused, match="epoch"):
            await sign(root, EAST, second)
        later = request(EAST, second, epoch=2)
        await root.sign_cluster_ca(later, EAST, who="east", why="a test")
        assert len(root.ledger(CLOCK.now())) == 2


async def test_v3_what_vault_adds_is_refused_and_nothing_is_released(
    prepared: Prepared, tmp_path: Path
) -> None:
    """An administrator has set URLs for the mount: Vault puts them into all that it signs."""
    async with opened(prepared, tmp_path / "root") as root:
        prepared.bao.write(f"{prepared.mount}/config/urls", crl_distribution_points="http://crl.example/crl")
        with pytest.raises(Untrusted, match="the set of extensions"):
            await sign(root, EAST, new_key())
        assert root.ledger(CLOCK.now()) == ()
        prepared.bao.write(f"{prepared.mount}/config/urls", crl_distribution_points="")
        await sign(root, EAST, new_key())
        assert len(root.ledger(CLOCK.now())) == 1


def another_issuer(prepared: Prepared, **wanted: Any) -> Issuer:
    usual = {
        "common_name": "root.example",
        "exclude_cn_from_sans": True,
        "key_type": "ec",
        "key_bits": 256,
        "ttl": "80000h",
    }
    made = prepared.bao.write(f"{prepared.mount}/issuers/generate/root/internal", **usual | wanted)
    allow(prepared, f"{prepared.mount}/issuer/*")
    return Issuer(prepared.mount, made["issuer_id"])


def allow(prepared: Prepared, path: str, *capabilities: str) -> None:
    """More than the policy of the script gives."""
    policy = prepared.bao.call("GET", f"sys/policies/acl/{prepared.role}")["data"]["policy"]
    wanted = ", ".join(f'"{one}"' for one in capabilities or ("read", "update"))
    more = f'{policy}\npath "{path}" {{ capabilities = [{wanted}] }}\n'
    prepared.bao.write(f"sys/policies/acl/{prepared.role}", policy=more)


async def test_v3_another_issuer_than_the_pinned_one_is_told_at_the_start_and_its_word_is_not_taken(
    prepared: Prepared, tmp_path: Path
) -> None:
    session = prepared.session()
    other = another_issuer(prepared)
    async with opened(prepared, tmp_path / "root", session) as root:
        with pytest.raises(KeyFileError, match="another one; name the right issuer"):
            await VaultRoot.open(tmp_path / "root", session, other, BASE, CLOCK)
        root._issuer = other  # as if Vault had exchanged what the id stands for
        with pytest.raises(Untrusted, match="the issuer"):
            await sign(root, EAST, new_key())
        assert root.ledger(CLOCK.now()) == ()


async def test_v3_default_is_never_asked(prepared: Prepared, tmp_path: Path) -> None:
    async with opened(prepared, tmp_path / "root") as root:
        other = another_issuer(prepared)
        prepared.bao.write(f"{prepared.mount}/config/issuers", default=other.id)
        signed = await sign(root, EAST, new_key())
    assert signed.issuer == root.certificate.subject


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"key_type": "rsa", "key_bits": 2048}, "ECDSA"),
        ({"max_path_length": 0}, "no authority below"),
        ({"exclude_cn_from_sans": False}, "no trust domain"),
    ],
)
async def test_c5_an_issuer_that_cannot_be_a_root_is_not_pinned(
    wrong: dict[str, Any], reason: str, prepared: Prepared, tmp_path: Path
) -> None:
    issuer = another_issuer(prepared, **wrong)
    session = prepared.session()
    with pytest.raises(Untrusted, match=reason):
        await VaultRoot.open(tmp_path / "root", session, issuer, BASE, CLOCK)
    await session.close()
    assert not VaultRoot.exists(tmp_path / "root")


async def test_v1_a_policy_that_lacks_something_is_told_by_name(prepared: Prepared, tmp_path: Path) -> None:
    async with opened(prepared, tmp_path / "root") as root:
        prepared.bao.write(
            f"sys/policies/acl/{prepared.role}",
            policy='path "sys/capabilities-self" { capabilities = ["update"] }',
        )
        with pytest.raises(VaultError, match=f"{prepared.issuer.signing} needs update") as caught:
            await root.ready()
        assert caught.value.fault is VaultFault.DENIED
        lacking = (await root.examine()).lacking
    assert f"{prepared.issuer.path} needs read" in lacking
    assert "auth/token/renew-self needs update" in lacking


async def test_v1_a_policy_that_gives_too_much_is_told_as_well(prepared: Prepared, tmp_path: Path) -> None:
    allow(prepared, f"{prepared.mount}/issuer/+/sign-verbatim")
    allow(prepared, f"{prepared.mount}/root/generate/internal")
    async with opened(prepared, tmp_path / "root") as root:
        excess = " ".join((await root.examine()).excess)
    assert f"{prepared.issuer.path}/sign-verbatim: signs whatever it is given" in excess
    assert f"{prepared.mount}/root/generate/internal: makes another issuer here" in excess


async def test_v5_a_pinned_root_is_there_while_vault_is_not(own_bao: Bao, tmp_path: Path) -> None:
    prepared = prepare(own_bao, "root", tmp_path)
    async with opened(prepared, tmp_path / "root") as root:
        certificate = root.certificate
    own_bao.kill()
    async with opened(prepared, tmp_path / "root") as root:
        assert root.certificate == certificate
        for attempt in (root.ready(), sign(root, EAST, new_key())):
            with pytest.raises(VaultError) as caught:
                await attempt
            assert caught.value.fault is VaultFault.UNREACHABLE
        await root.check_cluster_ca(request(EAST, new_key()), EAST)
    session = prepared.session()
    with pytest.raises(VaultError):
        await VaultRoot.open(tmp_path / "elsewhere", session, prepared.issuer, BASE, CLOCK)
    await session.close()
    assert not VaultRoot.exists(tmp_path / "elsewhere")


async def test_c9_the_life_is_the_planned_one_to_the_second(prepared: Prepared, tmp_path: Path) -> None:
    async with opened(prepared, tmp_path / "root") as root:
        before = datetime.now(UTC)
        signed = await sign(root, EAST, new_key())
        after = datetime.now(UTC)
    life = CLUSTER_CA_ROOTED.lifetime
    assert before + life - timedelta(seconds=1) <= signed.not_valid_after_utc <= after + life
    assert signed.not_valid_before_utc <= before
    assert signed.not_valid_before_utc >= root.certificate.not_valid_before_utc
