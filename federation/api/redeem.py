"""Redeeming a one-time token: the first contact of an agent with its hub, and of a gateway with its agent.

Two steps. The hash of the token goes over a connection that nobody has verified yet and brings the certificates that
the token pins; only over a connection verified with these does the secret follow. The server's identity is checked as
its DNS SAN under the one trust domain of the pinned bundle.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography import x509

from federation.api.client import Refusal, Target, connect
from federation.api.messages import Redeem, Redeemed
from federation.api.tls import client_context, unverified_context
from federation.clock import Clock
from federation.errors import FederationError
from pki import bundle as bundles
from pki import durable
from pki.bundle import Bundle
from pki.errors import KeyFileError, PkiError
from pki.skew import check_skew
from pki.token import LONGEST_TEXT, JoinToken, check_pin


@dataclass(frozen=True, slots=True)
class Redemption:
    """What a redeemed token brought: the pinned root and issuer bundle, and the issuer's answer.

    `roots` is what the issuer says of how that root follows earlier ones, not verified.
    """

    root: x509.Certificate
    bundle: Bundle
    answer: Redeemed
    roots: Bundle | None = None


def read_token(path: Path) -> JoinToken:
    """The token in a private file (0600, ours). Raises FederationError or InvalidToken."""
    try:
        text = durable.read_private(path, LONGEST_TEXT + len("\r\n")).decode("ascii", "replace")
    except FileNotFoundError as error:
        raise FederationError(f"the token in {path} cannot be read: {error.strerror}") from error
    except KeyFileError as error:
        raise FederationError(f"the token in {path} cannot be read: {error.reason}") from error
    return JoinToken.decode(text)


async def redeem(
    token: JoinToken,
    path: str,
    role: str,
    request: Callable[[Bundle], Awaitable[bytes]],
    name: str,
    clock: Clock,
    anchor: Callable[[], bytes] | None = None,
) -> Redemption:
    """Redeem `token` at `path` of the issuer whose identity is `/<role>`; `name` is the caller's name for itself.

    `request` makes the certificate request (PEM) once the issuer's bundle is known to be the pinned one; `anchor` gives
    the self-signed form (PEM) of the authority that the request is of.
    Raises Unreachable, Refusal (the token is no good, in whatever way), PinMismatch, or ClockError: certificates mean
    nothing between clocks that are more than 5 minutes apart.
    """
    secret_hash = token.hash().hex()
    first = await _post(Target(token.url, unverified_context()), path, Redeem(token_hash=secret_hash))
    if first.now is not None:
        check_skew(clock.now(), first.now, token.url)
    root, bundle = _certificates(token.url, first)
    check_pin(token.pin, root, bundle)
    verified = Target(token.url, client_context(bundle.anchors), f"{role}.{bundle.trust_domain}")
    secret = base64.urlsafe_b64encode(token.secret).decode()
    csr = (await request(bundle)).decode()
    shown = None if anchor is None else anchor().decode()
    body = Redeem(token=secret, csr=csr, name=name, anchor=shown)
    return Redemption(root, bundle, await _post(verified, path, body), _roots(token.url, first))


async def _post(target: Target, path: str, body: Redeem) -> Redeemed:
    async with connect(target) as client:
        try:
            return msgspec.convert(await client.call("POST", path, body=body), Redeemed)
        except msgspec.ValidationError as error:
            raise FederationError(
                f"{target.url} does not speak this version: {error}", "upgrade both sides"
            ) from error


def _roots(url: str, answer: Redeemed) -> Bundle | None:
    if answer.roots is None:
        return None
    try:
        return bundles.decode(base64.b64decode(answer.roots, validate=True), roots=True)
    except (ValueError, binascii.Error, PkiError) as error:
        raise FederationError(f"{url} answered with roots that cannot be read: {error}") from error


def _certificates(url: str, answer: Redeemed) -> tuple[x509.Certificate, Bundle]:
    try:
        root = x509.load_pem_x509_certificate((answer.root or "").encode())
        return root, bundles.decode(base64.b64decode(answer.bundle, validate=True))
    except (ValueError, binascii.Error, PkiError) as error:
        raise FederationError(f"{url} answered with certificates that cannot be read: {error}") from error


__all__ = ["Redemption", "Refusal", "read_token", "redeem"]
