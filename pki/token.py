"""One-time tokens: how a cluster joins and a gateway attests before either has a certificate.

The text that is handed over holds a 256-bit secret and a pin over the root and the issuer's bundle; the
issuer keeps only the hash of the secret. Redemption takes two steps, so that the secret never reaches
somebody in between: the client sends the hash alone over TLS that it cannot verify yet, gets root and bundle,
compares them with the pin (`check_pin`), verifies TLS with that bundle, and only then sends the secret.

`redeem` decides; the store must replace the record by compare-and-set with what it returns, so that of many
at once one wins. A refusal has one form, whatever the cause. The first use binds the token to the key of the
request, and the same key may ask again until the token expires, so that a lost answer costs nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from cryptography import x509

from pki.bundle import Bundle, content
from pki.certificate import der
from pki.errors import InvalidToken, PinMismatch
from pki.profiles import HIGHEST_EPOCH

Kind = Literal["join", "attest", "workload"]

SECRET_BYTES = 32
FIRST_EPOCH = 1
SHORTEST_LIFE = timedelta(seconds=1)
LONGEST_LIFE = timedelta(minutes=10)
LONGEST_TEXT = 4096
PREFIX = "fed1."
"""Names the version; a scanner for leaked secrets can look for it."""

_NOBODY = hashlib.sha256(b"no such token").digest()


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What is handed over, once. `repr` and `str` do not show the secret; `encode` does.

    `epoch` is that of the authority which a cluster makes to join with, if it has none yet.
    """

    kind: Kind
    url: str
    subject: str
    pin: bytes
    secret: bytes = field(repr=False)
    epoch: int = FIRST_EPOCH

    def hash(self) -> bytes:
        """SHA-256 of the secret: names the token to its issuer and reveals nothing."""
        return hashlib.sha256(self.secret).digest()

    def encode(self) -> str:
        """The token as one word. It is a secret: file, standard input or environment, never an argument."""
        text = _Text(self.kind, self.url, self.subject, self.pin, self.secret, self.epoch)
        packed = msgspec.msgpack.encode(text)
        return PREFIX + base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> JoinToken:
        """The inverse of `encode`; raises `InvalidToken`, which never quotes the text."""
        word = text.strip()
        if not word:
            raise InvalidToken("it is empty")
        if len(word) > LONGEST_TEXT:
            raise InvalidToken(f"it is longer than {LONGEST_TEXT} characters")
        if not word.startswith(PREFIX):
            raise InvalidToken(
                f"it does not start with {PREFIX!r}; copy it whole, as `token create` printed it"
            )
        body = word.removeprefix(PREFIX)
        try:
            packed = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            raw = msgspec.msgpack.decode(packed, type=_Text)
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            raise InvalidToken("it is damaged or cut; copy it whole, as `token create` printed it") from None
        if len(raw.secret) != SECRET_BYTES or len(raw.pin) != hashlib.sha256().digest_size:
            raise InvalidToken("its secret or its pin has the wrong length")
        if not FIRST_EPOCH <= raw.epoch <= HIGHEST_EPOCH:
            raise InvalidToken(f"its epoch is not within {FIRST_EPOCH} to {HIGHEST_EPOCH}")
        return cls(raw.kind, raw.url, raw.subject, raw.pin, raw.secret, raw.epoch)


class _Text(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    kind: Kind
    url: str
    subject: str
    pin: bytes
    secret: bytes
    epoch: int = FIRST_EPOCH


class TokenRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the issuer keeps. Holds no secret: nobody can redeem a token with a copy of this.

    `subject` is a cluster's name (`join`), a gateway's class (`attest`) or the path of a SPIFFE ID (`workload`).
    `may_export` and `ranges` become the cluster's when the token is redeemed. `used_by` is the hash of the key that
    the first use bound, as hex SHA-256 of the SPKI. `replaces` says that an operator means a member to come back with
    another key.
    """

    hash: bytes
    kind: Kind
    subject: str
    not_after: datetime
    may_export: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    used_by: str | None = None
    replaces: bool = False

    @property
    def id(self) -> str:
        """A short public name, for listing and revoking."""
        return self.hash.hex()[:12]


@dataclass(frozen=True, slots=True)
class Redeemed:
    """First use. Store `record` in place of the one that was read, by compare-and-set, before acting on it."""

    record: TokenRecord


@dataclass(frozen=True, slots=True)
class Resumed:
    """The same key asks again; give it the same answer."""

    record: TokenRecord


@dataclass(frozen=True, slots=True)
class Refused:
    """Wrong, used, expired, or for another subject: deliberately not said which."""

    def __str__(self) -> str:
        return "the token is not valid: wrong, used, expired, or made for another name; ask for a new one"


def mint(
    secret: bytes,
    now: datetime,
    *,
    kind: Kind,
    url: str,
    subject: str,
    pin: bytes,
    may_export: tuple[str, ...] = (),
    ranges: tuple[str, ...] = (),
    lifetime: timedelta = LONGEST_LIFE,
    epoch: int = FIRST_EPOCH,
    replaces: bool = False,
) -> tuple[JoinToken, TokenRecord]:
    """Make a token from 32 random bytes: what to hand over and what to keep.

    `lifetime` is from 1 second to 10 minutes, else `InvalidToken`. `subject` is trusted to be a valid
    name.
    """
    if len(secret) != SECRET_BYTES:
        raise InvalidToken(f"a secret of {len(secret)} bytes, needed are {SECRET_BYTES}")
    if not SHORTEST_LIFE <= lifetime <= LONGEST_LIFE:
        raise InvalidToken(f"a lifetime of {lifetime}, allowed is from {SHORTEST_LIFE} to {LONGEST_LIFE}")
    token = JoinToken(kind, url, subject, pin, secret, epoch)
    record = TokenRecord(token.hash(), kind, subject, now + lifetime, may_export, ranges, replaces=replaces)
    return token, record


def redeem(
    record: TokenRecord | None, secret: bytes, subject: str, spki_hash: str, now: datetime
) -> Redeemed | Resumed | Refused:
    """Decide on one attempt; `record` is what the store has under the hash of `secret`, or None.

    Every refusal does the same work. A failed attempt uses nothing up.
    """
    hash_fits = hmac.compare_digest(
        _NOBODY if record is None else record.hash, hashlib.sha256(secret).digest()
    )
    subject_fits = hmac.compare_digest(("" if record is None else record.subject).encode(), subject.encode())
    bound = record.used_by if record is not None and record.used_by is not None else spki_hash
    key_fits = hmac.compare_digest(bound, spki_hash)
    in_time = record is not None and now < record.not_after
    if record is None or not (hash_fits & subject_fits & key_fits & in_time):
        return Refused()
    if record.used_by is None:
        return Redeemed(msgspec.structs.replace(record, used_by=spki_hash))
    return Resumed(record)


def pin_of(root: x509.Certificate, bundle: Bundle) -> bytes:
    """SHA-256 over the root's certificate and the content of the issuer's bundle."""
    root_der = der(root)
    length = len(root_der).to_bytes(4, "big")
    return hashlib.sha256(b"federation pin v1\n" + length + root_der + content(bundle)).digest()


def check_pin(pin: bytes, root: x509.Certificate, bundle: Bundle) -> None:
    """Raise `PinMismatch` unless these are the certificates that the token pins."""
    offered = pin_of(root, bundle)
    if not hmac.compare_digest(pin, offered):
        raise PinMismatch(pin, offered)
