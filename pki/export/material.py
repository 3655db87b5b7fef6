"""What every export is made of, and what it is when it is made."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pki.certificate import check_authority, check_time, pem, public_key, signed_by
from pki.errors import Distrust, Untrusted

LABELS = {"app.kubernetes.io/managed-by": "federation"}


@dataclass(frozen=True, slots=True)
class Material:
    """An authority of another system: its certificate by a root, its key, and what those who verify need.

    `bridges` are presented between it and a root, and lead from one root to another. `crl` is PEM, empty if there is
    none.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    roots: tuple[x509.Certificate, ...]
    bridges: tuple[x509.Certificate, ...] = ()
    crl: bytes = b""

    def key_pem(self) -> bytes:
        """`EC PRIVATE KEY` (RFC 5915), which all of them read, older versions too."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())

    def chain_pem(self) -> bytes:
        """The certificate, then bridges: what is presented above a leaf. A root is never in it."""
        return pem((self.certificate, *self.bridges))

    def roots_pem(self) -> bytes:
        return pem(self.roots)

    def check(self, now: datetime) -> None:
        """Raise `Untrusted` unless the certificate is an authority over this key, by one of these roots, valid now."""
        check_authority(self.certificate)
        check_time(self.certificate, now)
        if public_key(self.certificate) != self.key.public_key():
            raise Untrusted(Distrust.KEY, "the certificate is for another key than the one that was made")
        if not any(signed_by(self.certificate, root) for root in self.roots):
            raise Untrusted(Distrust.NO_PATH, "none of the roots signed the certificate")


@dataclass(frozen=True, slots=True)
class File:
    """A file by its name within the folder of the export; `data` may hold a key and is not shown."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Kubernetes objects that are applied together, and the name of the file that they go to."""

    name: str
    objects: tuple[Mapping[str, Any], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Export:
    """`use` says in a line or two what to do with it."""

    files: tuple[File, ...]
    manifests: tuple[Manifest, ...]
    use: str


def secret(name: str, namespace: str, kind: str, data: Mapping[str, bytes]) -> dict[str, Any]:
    """A v1 Secret of the type `kind`."""
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return _object("Secret", name, namespace) | {"type": kind, "data": encoded}


def config_map(name: str, namespace: str, data: Mapping[str, bytes]) -> dict[str, Any]:
    """A v1 ConfigMap."""
    return _object("ConfigMap", name, namespace) | {
        "data": {key: text.decode() for key, text in data.items()}
    }


def _object(kind: str, name: str, namespace: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": LABELS}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}
