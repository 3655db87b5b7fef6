"""Authorities from templates and keys in memory, for tests of what is decided about certificates."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pki import issue
from pki.bundle import Bundle, Proof, sign_content
from pki.certificate import pem
from pki.issue import Template
from pki.policy import Attestation, Attested, Grant, decide
from pki.profiles import CLUSTER_CA_CONSTRAINED
from pki.spiffe import SpiffeId, TrustDomain

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
BASE = "mesh.example"

SERIALS = iter(range(1 << 100, 1 << 101))


class StoppedClock:
    """Stands still unless a test sets `time`; by as much of that as `jumped`, somebody has set the clock."""

    def __init__(self) -> None:
        self.time = NOW
        self.jumped = timedelta(0)

    def now(self) -> datetime:
        return self.time

    def running(self) -> float:
        return (self.time - NOW - self.jumped).total_seconds()


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def serial() -> int:
    return next(SERIALS)


@dataclass(frozen=True)
class Ca:
    """A cluster CA: its key and both forms of its certificate."""

    trust_domain: TrustDomain
    key: ec.EllipticCurvePrivateKey
    self_signed: x509.Certificate
    rooted: x509.Certificate

    @property
    def forms(self) -> tuple[x509.Certificate, x509.Certificate]:
        return (self.self_signed, self.rooted)

    @property
    def bundle(self) -> Bundle:
        return Bundle(self.trust_domain, 1, (self.self_signed,), Proof(rooted=(self.rooted,)))

    def template(self, spiffe_id: SpiffeId, now: datetime = NOW) -> Template:
        grant = granted(spiffe_id)
        return issue.leaf(grant, new_key().public_key(), self.forms, serial(), now)

    def leaf(self, spiffe_id: SpiffeId, now: datetime = NOW) -> x509.Certificate:
        return issue.sign(self.template(spiffe_id, now), self.key)

    def forge(self, spiffe_id: SpiffeId) -> x509.Certificate:
        """A leaf for any identity, also of another trust domain, correct in every other respect."""
        own = SpiffeId.gateway(self.trust_domain, "eastwest")
        return issue.sign(replace(self.template(own), uri=str(spiffe_id)), self.key)


def following(held: Bundle, by: Ca, *anchors: Ca) -> Bundle:
    """The bundle after `held`, signed `by` one of its anchors: it has these anchors, and the versions before it."""
    draft = replace(
        held,
        sequence=held.sequence + 1,
        anchors=tuple(ca.self_signed for ca in anchors),
        proof=Proof(),
        earlier=(*held.earlier, replace(held, earlier=())),
    )
    return replace(draft, proof=Proof(signatures=(sign_content(draft, by.key),)))


def granted(spiffe_id: SpiffeId) -> Grant:
    by = {"agent": Attestation.SELF, "federation": Attestation.SELF, "gateway": Attestation.TOKEN}
    role = spiffe_id.path.split("/")[1]
    outcome = decide(Attested(spiffe_id, by.get(role, Attestation.ADMINISTRATOR)), spiffe_id.trust_domain)
    assert isinstance(outcome, Grant), outcome
    return outcome


@dataclass(frozen=True)
class World:
    root_key: ec.EllipticCurvePrivateKey
    root: x509.Certificate
    hub: Ca
    east: Ca
    west: Ca

    def authority(self, trust_domain: TrustDomain, epoch: int = 1) -> Ca:
        return make_ca(trust_domain, self.root_key, self.root, epoch)

    @property
    def bundles(self) -> dict[TrustDomain, Bundle]:
        return {ca.trust_domain: ca.bundle for ca in (self.hub, self.east, self.west)}


def make_ca(
    trust_domain: TrustDomain, root_key: ec.EllipticCurvePrivateKey, root: x509.Certificate, epoch: int = 1
) -> Ca:
    key = new_key()
    public = key.public_key()
    self_signed = issue.sign(issue.cluster_authority(trust_domain, epoch, public, serial(), NOW), key)
    rooted = issue.sign(issue.rooted_authority(trust_domain, epoch, public, root, serial(), NOW), root_key)
    return Ca(trust_domain, key, self_signed, rooted)


def make_root() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = new_key()
    return key, issue.sign(issue.root_authority(BASE, 1, key.public_key(), serial(), NOW), key)


def make_world() -> World:
    key, root = make_root()
    hub = make_ca(TrustDomain.of_hub(BASE), key, root)
    east, west = (make_ca(TrustDomain.of_cluster(name, BASE), key, root) for name in ("east", "west"))
    return World(key, root, hub, east, west)


def constrained(ca: Ca, world: World) -> Ca:
    """The same authority, whose root-signed form has name constraints."""
    plan = issue.rooted_authority(
        ca.trust_domain, 1, ca.key.public_key(), world.root, serial(), NOW, CLUSTER_CA_CONSTRAINED
    )
    return replace(ca, rooted=issue.sign(plan, world.root_key))


def openssl_verify(
    folder: Path, anchor: x509.Certificate, chain: Sequence[x509.Certificate], now: datetime = NOW
) -> str:
    """What `openssl verify -x509_strict` says about a chain, leaf first; "OK" when it accepts."""
    (folder / "anchor.pem").write_bytes(pem([anchor]))
    (folder / "leaf.pem").write_bytes(pem(chain[:1]))
    command = ["openssl", "verify", "-x509_strict", "-attime", str(int(now.timestamp()))]
    command += ["-CAfile", str(folder / "anchor.pem")]
    if len(chain) > 1:
        (folder / "rest.pem").write_bytes(pem(chain[1:]))
        command += ["-untrusted", str(folder / "rest.pem")]
    done = subprocess.run([*command, str(folder / "leaf.pem")], capture_output=True, text=True, check=False)
    return "OK" if done.returncode == 0 else done.stdout + done.stderr
