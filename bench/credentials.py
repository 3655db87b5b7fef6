"""Certificates for the peers: the same keys, chains and names as the gateways have, from the same code, kept for hours.

A root signs each cluster's CA; a gateway presents leaf and root-signed CA, and is verified with the self-signed form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import random_serial_number

from gateway import names
from pki import issue
from pki.certificate import pem
from pki.policy import Grant
from pki.profiles import GATEWAY
from pki.spiffe import TrustDomain

BASE = "mesh.example"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files of one cluster: `chain` and `key` of its gateway, both again in `combined`, and its `anchor`."""

    chain: Path
    key: Path
    combined: Path
    anchor: Path


def write(folder: Path, clusters: tuple[str, ...]) -> dict[str, Credentials]:
    """New credentials for each cluster, in `folder`, which must be private."""
    return dict(_each(folder, clusters))


def _each(folder: Path, clusters: tuple[str, ...]) -> Iterator[tuple[str, Credentials]]:
    now = datetime.now(UTC)
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = issue.sign(
        issue.root_authority(BASE, 1, root_key.public_key(), random_serial_number(), now), root_key
    )
    for cluster in clusters:
        domain = TrustDomain.of_cluster(cluster, BASE)
        ca_key = ec.generate_private_key(ec.SECP256R1())
        public = ca_key.public_key()
        own = issue.sign(issue.cluster_authority(domain, 1, public, random_serial_number(), now), ca_key)
        rooted = issue.sign(
            issue.rooted_authority(domain, 1, public, root, random_serial_number(), now), root_key
        )
        key = ec.generate_private_key(ec.SECP256R1())
        grant = Grant(names.gateway_id(domain), (), GATEWAY, GATEWAY.lifetime)
        leaf = issue.sign(
            issue.leaf(grant, key.public_key(), (own, rooted), random_serial_number(), now), ca_key
        )
        chain, secret = pem((leaf, rooted)), _private(key)
        made = Credentials(
            *(folder / f"{cluster}.{kind}.pem" for kind in ("chain", "key", "combined", "anchor"))
        )
        made.chain.write_bytes(chain)
        made.anchor.write_bytes(pem((own,)))
        for path, content in ((made.key, secret), (made.combined, chain + secret)):
            path.touch(mode=0o600)
            path.write_bytes(content)
        yield cluster, made


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
