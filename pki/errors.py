"""What can go wrong with an identity, as exceptions that carry fields.

Expected outcomes (a policy that says no, a token that is refused, a bundle that is not accepted) are values
and live beside the function that returns them. No error here ever carries key material or the secret of a
token.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path


def shown(text: str, longest: int = 80) -> str:
    """Hostile text made fit for a message: quoted, escaped to ASCII, cut to `longest` characters."""
    cut = text if len(text) <= longest else text[:longest] + "…"
    return ascii(cut)


class PkiError(Exception):
    """Base of every error of this package."""


class InvalidName(PkiError):
    """A name of a cluster, class, operator or key that is not on the allow-list of characters."""

    def __init__(self, text: str, allowed: str) -> None:
        super().__init__(f"{shown(text)} is not a valid name: {allowed}")
        self.text = text
        self.allowed = allowed


class InvalidSpiffeId(PkiError):
    """A text that is not a SPIFFE ID or not the name of a trust domain."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{shown(text)} is not a valid SPIFFE identity: {reason}")
        self.text = text
        self.reason = reason


class Distrust(StrEnum):
    """Why a certificate is not trusted. Closed: a metric or a status page may count by it."""

    EMPTY_CHAIN = "no certificate was presented"
    LONG_CHAIN = "the chain is longer than allowed"
    NOT_V3 = "not an X.509 version 3 certificate"
    MALFORMED = "the certificate cannot be parsed"
    URI_COUNT = "a leaf needs exactly one URI SAN"
    SPIFFE_ID = "the URI SAN is not a SPIFFE ID"
    SAN_KIND = "a SAN is neither a URI nor a DNS name"
    NO_BUNDLE = "no bundle for the trust domain of the leaf"
    KEY = "the public key is of a refused kind"
    ALGORITHM = "the signature algorithm is refused"
    BASIC_CONSTRAINTS = "the basic constraints do not fit the place in the chain"
    PATH_LENGTH = "the path length constraint is exceeded"
    KEY_USAGE = "the key usage does not fit the place in the chain"
    EXTENDED_KEY_USAGE = "the extended key usage does not allow both TLS roles"
    NAME_CONSTRAINTS = "a name is not among those that an authority above it may certify"
    CRITICAL_EXTENSION = "a critical extension is not understood"
    KEY_IDENTIFIER = "subject or authority key identifier is missing or does not match"
    NOT_YET_VALID = "not valid yet"
    EXPIRED = "expired"
    NO_PATH = "no path to an anchor of the leaf's own trust domain"
    NOT_AS_PLANNED = "the signed certificate differs from what was planned"


class Untrusted(PkiError):
    """A certificate or chain that must not be believed."""

    def __init__(self, reason: Distrust, detail: str = "") -> None:
        super().__init__(f"certificate not trusted: {reason.value}" + (f" ({detail})" if detail else ""))
        self.reason = reason
        self.detail = detail


class Refused(PkiError):
    """A request for a certificate that is not fulfilled; `field` names the part of it that is wrong."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class CeremonyFile(PkiError):
    """A file of a ceremony (requests to a root, or its answers) that is not used; `hint` says what to do."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(f"the file of the ceremony is not used: {reason}")
        self.reason = reason
        self.hint = hint


class InvalidBundle(PkiError):
    """Bytes or anchors that do not make a trust bundle."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a trust bundle: {reason}")
        self.reason = reason


class InvalidToken(PkiError):
    """A text that is not a one-time token. Never carries the text, which may hold a secret."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a one-time token: {reason}")
        self.reason = reason


class PinMismatch(PkiError):
    """The certificates that a server showed at first contact are not those that the token pins."""

    def __init__(self, pinned: bytes, offered: bytes) -> None:
        super().__init__(
            "the root and bundle of the server do not match the pin of the token"
            f" (pinned {pinned.hex()[:16]}…, offered {offered.hex()[:16]}…): either the token was made by"
            " another installation, or the certificates changed since (make a new token), or somebody is in"
            " between"
        )
        self.pinned = pinned
        self.offered = offered


class WriteError(PkiError):
    """Bytes that could not be made durable (a full disk, no permission)."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot write {path}: {reason}")
        self.path = path
        self.reason = reason


class KeyFileError(PkiError):
    """A private file or folder that cannot be used as it is."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class KeyMissing(KeyFileError):
    """There is no key of that name yet."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "no such key")


class WrongPassphrase(KeyFileError):
    """A key that the passphrase does not open, or that needs one."""

    def __init__(
        self,
        path: Path,
        reason: str = "is not opened by the passphrase that is set, or is damaged; nothing was changed",
    ) -> None:
        super().__init__(path, reason)


class PassphraseError(PkiError):
    """A passphrase that cannot be had from where it should come from; `source` names that place."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source} {reason}")
        self.source = source
        self.reason = reason


class JournalError(PkiError):
    """A journal that cannot be written or does not verify; `line` counts from 1, 0 is the whole file."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        where = f"{path}:{line}" if line else f"{path}"
        super().__init__(f"{where}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


class ClockError(PkiError):
    """A wall clock that cannot be right; `off` says how far it is ahead of the other one."""

    def __init__(self, ours: datetime, other: datetime, what: str) -> None:
        self.ours = ours
        self.other = other
        self.off: timedelta = ours - other
        side = "behind" if self.off < timedelta(0) else "ahead of"
        seconds = abs(self.off).total_seconds()
        super().__init__(
            f"our clock ({ours.isoformat(timespec='seconds')}) is {seconds:.0f} s {side} {what}"
            f" ({other.isoformat(timespec='seconds')}); correct the clock (NTP) and try again"
        )


class VaultFault(StrEnum):
    """What was wrong with a call of Vault. Closed: an alarm or a metric may tell them apart."""

    UNREACHABLE = "cannot be reached"
    UNTRUSTED = "shows a certificate that is not to be trusted"
    SILENT = "does not answer in time"
    SEALED = "is sealed"
    BUSY = "is asked too often"
    DENIED = "denies it"
    MISSING = "has no such thing"
    REFUSED = "refuses the request"
    FAILING = "fails"
    STRANGE = "answers what was not asked for"


_TO_DO = {
    VaultFault.UNREACHABLE: "see that it runs and that its address is right",
    VaultFault.UNTRUSTED: "see that `ca` is what signed its certificate, and that the certificate names its address",
    VaultFault.SILENT: "see whether it is overloaded, or a firewall drops what it says",
    VaultFault.SEALED: "unseal it",
    VaultFault.BUSY: "raise its quota, or wait",
    VaultFault.DENIED: "see that the role still exists, and give it the policy of deploy/vault",
    VaultFault.MISSING: "see that mount, issuer and role are written as they are in Vault; deploy/vault makes them",
    VaultFault.REFUSED: "see its log and its audit log",
    VaultFault.FAILING: "see its log",
    VaultFault.STRANGE: "see that nobody else answers at its address, and that mount and issuer are the right ones",
}


class VaultError(PkiError):
    """A call of the Vault or OpenBao at `address` that brought nothing; `what` was asked.

    `retry_after` are seconds, where it said so. No secret is in it.
    """

    def __init__(
        self, address: str, fault: VaultFault, what: str, detail: str = "", retry_after: float | None = None
    ) -> None:
        told = f" ({detail})" if detail else ""
        super().__init__(f"Vault at {address} {fault.value}: {what}{told}")
        self.address = address
        self.fault = fault
        self.what = what
        self.detail = detail
        self.retry_after = retry_after
        self.hint = _TO_DO[fault]
