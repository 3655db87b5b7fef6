"""What `federation ca export` does with a key that is made here: into a folder of its own, or to standard output."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from federation.document import dump
from federation.errors import FederationError
from pki import durable
from pki.certificate import load_pem
from pki.export import Export, Material, cert_manager, consul, istio, linkerd, trust
from pki.spiffe import TrustDomain
from pki.spiffe_bundle import SpiffeBundle

READ_ALONE = "set-config.json"
"""What Consul reads when it gets one file."""


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key for another system: ECDSA P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def material(answer: Mapping[str, Any], key: ec.EllipticCurvePrivateKey, crl: bytes) -> Material:
    """What the hub signed for `key`, looked at before it is used; `crl` is PEM, or empty. Raises Untrusted."""
    (certificate,) = load_pem(answer["certificate"].encode(), most=1)
    bridges = load_pem(answer["bridges"].encode()) if answer["bridges"] else ()
    made = Material(certificate, key, load_pem(answer["roots"].encode()), bridges, crl)
    made.check(datetime.now(UTC))
    return made


def of_consumer(consumer: str, made: Material, namespace: str | None) -> Export:
    """The export for a system that signs."""
    match consumer:
        case "istio":
            return istio.export(made, namespace or istio.NAMESPACE)
        case "linkerd":
            return linkerd.export(made, namespace or linkerd.NAMESPACE)
        case "cert-manager":
            return cert_manager.export(made, namespace or cert_manager.NAMESPACE)
        case _:
            return consul.export(made)


def revocation_list(answer: Mapping[str, Any]) -> bytes:
    """The root's revocation list as PEM, from what the hub tells of it."""
    return x509.load_der_x509_crl(base64.b64decode(answer["crl"])).public_bytes(Encoding.PEM)


def of_trust(consumer: str, row: Mapping[str, Any], roots: Sequence[Mapping[str, Any]], crl: bytes) -> Export:
    """What needs no key, from what the hub tells of a cluster: `spiffe` or `pem`."""
    held = row["bundle"]
    anchors = load_pem(held["pem"].encode())
    bundle = SpiffeBundle(TrustDomain.parse(held["trust_domain"]), held["sequence"], anchors)
    if consumer == "spiffe":
        return trust.spiffe(bundle)
    forms = [form for authority in row["authorities"] for form in authority["forms"]]
    rooted = [
        one for form in forms if form["form"] == "root-signed" for one in load_pem(form["pem"].encode())
    ]
    own = [one for root in roots for form in root["forms"] for one in load_pem(form["pem"].encode())]
    return trust.certificates(bundle, rooted, own, crl)


def printed(made: Export) -> str:
    """What is read at once: the Kubernetes objects as one stream of documents, else the one file that is read."""
    objects = [each for manifest in made.manifests for each in manifest.objects]
    if objects:
        return "---\n".join(dump(each) for each in objects)
    files = {file.name: file.data for file in made.files}
    return (files.get(READ_ALONE) or made.files[0].data).decode()


class Folder:
    """A folder (0700) that an export goes to, with files of 0600."""

    def __init__(self, path: Path, replace: bool) -> None:
        self.path = path
        self._replace = replace

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the folder before anything is signed, and take it away if nothing came of it.

        Raises FederationError or PkiError if nothing could be written.
        """
        if os.path.lexists(self.path) and not self._replace and not self._is_empty():
            raise FederationError(
                f"{self.path} is there already", "choose another --out, or replace it with --force"
            )
        with durable.tentative_folder(self.path):
            yield

    def _is_empty(self) -> bool:
        return self.path.is_dir() and not any(self.path.iterdir())

    def write(self, made: Export) -> tuple[str, ...]:
        """Write everything or nothing; returns the names. Raises PkiError."""
        manifests = {
            manifest.name: "---\n".join(dump(each) for each in manifest.objects).encode()
            for manifest in made.manifests
        }
        everything = {file.name: file.data for file in made.files} | manifests
        durable.write_all(self.path, everything, replace=self._replace)
        return tuple(everything)
