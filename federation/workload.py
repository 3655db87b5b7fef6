"""A workload's identity in a folder: key.pem, chain.pem to present and bundle.pem to trust, and how to renew it.

The key is made here and never leaves; the folder is for its owner alone (0700, files 0600). A new key is on disk beside
the old one before a token or the old certificate is shown for it, and until its chain is written: after a crash at any
point the old pair is there or the new one, and whoever asks again does so with the key that may have been answered
already. Where the answer is no, nothing is left that was not there.

What is trusted is on disk before what is presented. Then the agent is told, with the new certificate, that it has come:
until then the rotation of its authority waits for whoever has only the one before.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from federation.api.client import Refusal as Refused
from federation.api.messages import IssuedCertificate, NewCertificate
from federation.api.redeem import redeem
from federation.clock import Clock
from federation.errors import FederationError
from federation.svid import svid_pb2 as pb
from federation.svid.client import Agent, believed, issue, newest_bundle, request
from federation.svid.demand import Refusal
from pki import bundle as bundles
from pki import csr, durable
from pki.bundle import Bundle
from pki.certificate import check_leaf, load_pem, pem
from pki.errors import KeyFileError, PkiError, Untrusted
from pki.spiffe import SpiffeId
from pki.token import JoinToken

KEY, CHAIN, BUNDLE, AGENT = "key.pem", "chain.pem", "bundle.pem", "agent.json"
NEXT_KEY = "next-key.pem"
FILES = (KEY, CHAIN, BUNDLE, AGENT, NEXT_KEY)
LONGEST_FILE = 256 * 1024
SERVER_ERROR = 500
"""The first status of HTTP that says nothing about whether something was done."""
CALLER = "workload"
"""What a workload calls itself where a gateway gives its name; its identity comes from the token."""


class Home(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """agent.json: where its agent renews, and the bundle (base64) by which that agent is known."""

    address: str
    bundle: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What is in a folder; `key` and `chain` belong together."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]
    home: Home | None

    @property
    def spiffe_id(self) -> SpiffeId:
        return check_leaf(self.chain[0])


def from_operator(
    ask: Callable[[NewCertificate], Any], spiffe_id: str, lifetime: float | None, folder: Path
) -> IssuedCertificate:
    """A certificate that an operator has the agent issue; `ask` takes the request there. It is not renewed by itself.

    Raises FederationError, WriteError or KeyFileError.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    body = NewCertificate(spiffe_id=spiffe_id, csr=csr.request(key).decode(), lifetime=lifetime)
    with durable.tentative_folder(folder):
        try:
            made = msgspec.convert(ask(body), IssuedCertificate)
        except msgspec.ValidationError as error:
            raise FederationError(
                f"the agent does not speak this version: {error}", "upgrade both"
            ) from error
        chain = load_pem(made.certificates.encode())
        if str(check_leaf(chain[0])) != spiffe_id or chain[0].public_key() != key.public_key():
            raise FederationError("the agent answered with a certificate for something else", "see its log")
        durable.write(folder / NEXT_KEY, _pem(key))
        _write(folder, key, chain, made.bundle.encode())
    return made


async def from_token(token: JoinToken, folder: Path, clock: Clock) -> Kept:
    """A certificate for a one-time token, and all that it takes to renew it. Raises FederationError or PkiError."""
    if token.kind != "workload":
        raise FederationError(
            "this token is not for a workload", "on the agent: federation token create --workload NS/ACCOUNT"
        )

    async def asked(_: Bundle) -> bytes:
        return csr.request(await asyncio.to_thread(next_key, folder))

    with _asking(folder):
        redemption = await redeem(token, "/v1/attest", "agent", asked, CALLER, clock)
    key = await asyncio.to_thread(next_key, folder)
    home = Home(redemption.answer.address, redemption.answer.bundle)
    bundle = _of_the_same(_bundle(home), redemption.bundle)
    chain = load_pem("".join(redemption.answer.certificates).encode())
    if check_leaf(chain[0]).path != token.subject or chain[0].public_key() != key.public_key():
        raise FederationError("the agent answered with a certificate for something else", "see its log")
    await asyncio.to_thread(_write, folder, key, chain, bundle.pem(), home)
    return Kept(key, chain, home)


async def renewed(folder: Path, clock: Clock) -> Kept:
    """The next certificate in place of the one in `folder`, for a new key. Raises FederationError or PkiError."""
    kept = await asyncio.to_thread(read, folder)
    if kept.home is None:
        raise FederationError(
            f"{folder} does not say where its certificate is renewed",
            "an operator issued it; issue another one, or use a token",
        )
    trusted = _bundle(kept.home)
    key = await asyncio.to_thread(next_key, folder)
    async with _agent(kept.home, trusted).channel(pem(kept.chain), _pem(kept.key)) as channel:
        answer = await issue(channel, [pb.Wish(csr=request(key))])
    (outcome,) = answer.outcomes
    if isinstance(outcome, Refusal):
        raise FederationError(f"the agent refuses: {outcome.field}: {outcome.reason}")
    bundle = _of_the_same(bundles.decode(answer.bundle), trusted)
    chain = believed(outcome, key, kept.spiffe_id, bundle, clock.now())
    home = Home(kept.home.address, base64.b64encode(answer.bundle).decode())
    await asyncio.to_thread(_write, folder, key, chain, bundle.pem(), home)
    with suppress(FederationError, PkiError):  # it is only waited for longer then
        home = await _arrived(folder, Kept(key, chain, home), home, bundle)
    return Kept(key, chain, home)


async def _arrived(folder: Path, kept: Kept, home: Home, bundle: Bundle) -> Home:
    """Come with the new certificate, and take the bundle if there is a newer one by now."""
    async with _agent(home, bundle).channel(pem(kept.chain), _pem(kept.key)) as channel:
        told = await newest_bundle(channel)
    newest = _of_the_same(bundles.decode(told), bundle)
    if newest.version <= bundle.version:
        return home
    home = Home(home.address, base64.b64encode(told).decode())
    await asyncio.to_thread(_write_trust, folder, newest.pem(), home)
    return home


def read(folder: Path) -> Kept:
    """What is in `folder`. Raises KeyFileError if it is not whole, or does not belong together."""
    try:
        chain = load_pem(durable.read_private(folder / CHAIN, LONGEST_FILE))
        home = None
        if (folder / AGENT).exists():
            home = msgspec.json.decode(durable.read_private(folder / AGENT, LONGEST_FILE), type=Home)
    except FileNotFoundError as error:
        raise KeyFileError(folder / CHAIN, "does not exist; get a certificate with a token") from error
    except msgspec.MsgspecError as error:
        raise KeyFileError(folder / AGENT, "cannot be read") from error
    except Untrusted as error:
        raise KeyFileError(folder / CHAIN, f"{error}; get a new certificate with a token") from error
    for name in (NEXT_KEY, KEY):
        key = _key(folder / name)
        if key is not None and key.public_key() == chain[0].public_key():
            return Kept(key, chain, home)
    raise KeyFileError(folder / KEY, f"is not the key of {CHAIN}; get a new certificate with a token")


def next_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """The key to ask a certificate for, on disk: a new one, or the one for which a crash left no chain.

    Raises KeyFileError or WriteError.
    """
    durable.private_folder(folder)
    key = _key(folder / NEXT_KEY)
    if key is not None and (folder / CHAIN).exists() and read(folder).key.public_key() == key.public_key():
        durable.write(folder / KEY, _pem(key))
        key = None
    if key is None:
        key = ec.generate_private_key(ec.SECP256R1())
        durable.write(folder / NEXT_KEY, _pem(key))
    return key


@contextmanager
def _asking(folder: Path) -> Iterator[None]:
    """A clear no leaves nothing behind that was not there; a key that may have been answered stays."""
    fresh = not (folder / NEXT_KEY).exists()
    with durable.tentative_folder(folder):
        try:
            yield
        except Refused as error:
            if fresh and error.status < SERVER_ERROR:
                (folder / NEXT_KEY).unlink(missing_ok=True)
            raise


def _key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    """The key in this file, None if there is no such file. Raises KeyFileError."""
    try:
        key = load_pem_private_key(durable.read_private(path, LONGEST_FILE), None)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise KeyFileError(path, "does not hold an unencrypted PKCS#8 key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyFileError(path, "does not hold an ECDSA key")
    return key


def _write(
    folder: Path,
    key: ec.EllipticCurvePrivateKey,
    chain: tuple[x509.Certificate, ...],
    anchors: bytes,
    home: Home | None = None,
) -> None:
    """Put what was answered for the next key in place; that key is on disk."""
    _write_trust(folder, anchors, home)
    durable.write(folder / CHAIN, pem(chain))
    durable.write(folder / KEY, _pem(key))
    (folder / NEXT_KEY).unlink()


def _write_trust(folder: Path, anchors: bytes, home: Home | None) -> None:
    if home is not None:
        durable.write(folder / AGENT, msgspec.json.encode(home))
    durable.write(folder / BUNDLE, anchors)


def _agent(home: Home, trusted: Bundle) -> Agent:
    return Agent(home.address, f"agent.{trusted.trust_domain}", trusted.pem())


def _of_the_same(bundle: Bundle, trusted: Bundle) -> Bundle:
    if bundle.trust_domain != trusted.trust_domain:
        raise FederationError("the agent answered with the bundle of another trust domain", "see its log")
    return bundle


def _bundle(home: Home) -> Bundle:
    try:
        return bundles.decode(base64.b64decode(home.bundle, validate=True))
    except (binascii.Error, PkiError) as error:
        raise FederationError(f"the bundle in {AGENT} cannot be read: {error}") from error


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
