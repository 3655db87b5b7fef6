"""Files that carry requests to a root in a safe, and its signatures back: what is in them, and when one is believed.

Each is one JSON text of at most 48 KiB, so that it fits on a stick, on paper or into a QR code or two. Its fingerprint
covers its kind and all that it says, whatever the white space: it finds damage, and read aloud at both ends it finds an
exchange. A file carries no secret and proves nothing by itself: a request is judged by the root's rule, an answer by
the key that asked and by the root that is pinned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from cryptography import x509

from pki.certificate import authority_trust_domain, check_authority, check_time, der, load_der, signed_by
from pki.digest import plain
from pki.errors import CeremonyFile, Refused, Untrusted
from pki.root_rules import check_root
from pki.spiffe import TrustDomain
from pki.subordinate import Subordinate, read_request

VERSION = 1
LONGEST_FILE = 48 * 1024
MOST_REQUESTS = 24
"""In one file; as many answers with the longest names fit as well."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One authority that wants its root-signed form. `csr` is DER or PEM."""

    trust_domain: str
    csr: bytes


class Requests(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a hub or an agent asks for. `root` is the fingerprint of the root that it has pinned, empty before."""

    base: str
    made_at: datetime
    root: str = ""
    requests: tuple[Request, ...]


class Answers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the root signed: its own certificate, and the root-signed forms (DER)."""

    base: str
    made_at: datetime
    root: bytes
    certificates: tuple[bytes, ...]


class NextRoot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The root that is to follow: its certificate (DER), and the sets of roots that lead to it (`pki.following`), each
    as `pki.bundle.encode` writes it.
    """

    base: str
    made_at: datetime
    root: bytes
    versions: tuple[bytes, ...]


class _Envelope(msgspec.Struct, frozen=True):
    """Enough to say what a file is; fields of other versions may be there."""

    kind: str
    version: int


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    version: int
    fingerprint: str
    content: msgspec.Raw


Content = Requests | Answers | NextRoot
C = TypeVar("C", Requests, Answers, NextRoot)

_KINDS: dict[type, str] = {
    Requests: "federation-ca-requests",
    Answers: "federation-ca-answers",
    NextRoot: "federation-ca-next-root",
}
_WORDS = {
    "federation-ca-requests": "requests to a root",
    "federation-ca-answers": "answers of a root",
    "federation-ca-next-root": "the root that is to follow",
}
SETS = 4
"""Of roots, in the file of one that is to follow."""


def kind_of(data: bytes) -> type[Content] | None:
    """What a file says that it is; None for anything else."""
    try:
        kind = msgspec.json.decode(data, type=_Envelope).kind
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return next((each for each, name in _KINDS.items() if name == kind), None)


def fingerprint(content: Content) -> str:
    """SHA-256 (hex) over the kind and all that the file says: what is read aloud at both ends."""
    said = f"{_KINDS[type(content)]} v{VERSION}\n".encode() + msgspec.json.encode(content)
    return hashlib.sha256(said).hexdigest()


def fingerprint_of(certificate: x509.Certificate) -> str:
    """SHA-256 (hex) over the DER of a certificate, as other tools show it."""
    return hashlib.sha256(der(certificate)).hexdigest()


def aloud(digest: str) -> str:
    """A fingerprint in groups of four, for people who compare it on the telephone."""
    return " ".join(digest[at : at + 4] for at in range(0, len(digest), 4))


def same_fingerprint(one: str, other: str) -> bool:
    """Whether two people mean the same: case, spaces and colons do not count."""
    return plain(one) == plain(other)


def encode(content: Content) -> bytes:
    """The file."""
    file = _File(
        _KINDS[type(content)], VERSION, fingerprint(content), msgspec.Raw(msgspec.json.encode(content))
    )
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def decode(data: bytes, kind: type[C]) -> C:
    """What the file says, if it is whole and of this kind and version. Raises `CeremonyFile`."""
    if len(data) > LONGEST_FILE:
        raise CeremonyFile(f"longer than {LONGEST_FILE} bytes", "it is another file")
    wanted = _KINDS[kind]
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CeremonyFile("no file of a ceremony", f"expected {_WORDS[wanted]}, in JSON") from error
    if envelope.kind != wanted:
        found = _WORDS.get(envelope.kind, "something else")
        raise CeremonyFile(f"it holds {found}, and {_WORDS[wanted]} are needed here", "take the other file")
    if envelope.version != VERSION:
        raise CeremonyFile(
            f"it is of version {envelope.version}, and this program knows version {VERSION}",
            "use the same version of the program on both machines",
        )
    try:
        file = msgspec.json.decode(data, type=_File)
        content = msgspec.json.decode(file.content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CeremonyFile(f"it is damaged: {error}", _AGAIN) from error
    if not same_fingerprint(fingerprint(content), file.fingerprint):
        raise CeremonyFile("it is damaged or was changed: its fingerprint does not fit what it says", _AGAIN)
    _check_number(content)
    return content


def _check_number(content: Content) -> None:
    if isinstance(content, NextRoot):
        if len(content.versions) != SETS:
            raise CeremonyFile(
                f"it holds {len(content.versions)} sets of roots, and {SETS} are needed", _AGAIN
            )
        return
    number = len(content.requests if isinstance(content, Requests) else content.certificates)
    if not 1 <= number <= MOST_REQUESTS:
        raise CeremonyFile(f"it holds {number} of them, allowed are 1 to {MOST_REQUESTS}", _AGAIN)


_AGAIN = "carry it over once more; make it again if that does not help"


# ---- at the root ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that the root's rule allows: who asks, and the CSR itself."""

    subordinate: Subordinate
    csr: bytes


def asked(files: Sequence[Requests], root: x509.Certificate, base: str) -> tuple[Asked, ...]:
    """What these files ask the root of `base` to sign. Raises `CeremonyFile`, `Refused` for a request.

    One file or several, each authority once; two keys for one trust domain are refused, because a person who compares
    names would see one.
    """
    found: dict[TrustDomain, Asked] = {}
    for file in files:
        if file.base != base:
            raise CeremonyFile(
                f"it is of the federation {file.base}, and this root of {base}", "take its root"
            )
        if file.root and not same_fingerprint(file.root, fingerprint_of(root)):
            raise CeremonyFile(
                f"who asks has pinned the root {aloud(file.root)[:19]} …,"
                f" and this is {aloud(fingerprint_of(root))[:19]} …",
                "take the other root",
            )
        for request in file.requests:
            domain = TrustDomain.parse(request.trust_domain)
            try:
                one = Asked(read_request(request.csr, domain, base), request.csr)
            except Refused as error:
                raise Refused(f"{domain.name}: {error.field}", error.reason) from error
            if domain in found and found[domain].subordinate != one.subordinate:
                raise Refused(
                    "trust domain", f"{domain} asks with two different keys; find out which is right"
                )
            found[domain] = one
    if len(found) > MOST_REQUESTS:
        raise CeremonyFile(
            f"together they ask for {len(found)}, allowed are {MOST_REQUESTS}", "sign them in turn"
        )
    return tuple(found[domain] for domain in sorted(found, key=str))


# ---- at the one who asked ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """The content of an answer, as certificates by the trust domain that each is for."""

    root: x509.Certificate
    signed: dict[TrustDomain, x509.Certificate]


def open_answers(answers: Answers, base: str, pinned: x509.Certificate | None, now: datetime) -> Opened:
    """The certificates in `answers`, each valid and signed by the root that comes along: the `pinned` one, if any is.

    Whether they are over the keys that asked is for the caller to see (`pki.rooted`). Raises `CeremonyFile`.
    """
    if answers.base != base:
        raise CeremonyFile(f"it is of the federation {answers.base}, and this is {base}", _OTHER)
    signed: dict[TrustDomain, x509.Certificate] = {}
    try:
        root = load_der(answers.root)
        check_root(root, now)
        for data in answers.certificates:
            certificate = load_der(data)
            check_authority(certificate)
            check_time(certificate, now)
            domain = authority_trust_domain(certificate)
            if domain is None or domain in signed or not signed_by(certificate, root):
                raise CeremonyFile(
                    "a certificate in it is not signed by the root that comes along, or for no trust domain"
                    " of its own",
                    _OTHER,
                )
            signed[domain] = certificate
    except Untrusted as error:
        raise CeremonyFile(f"a certificate in it cannot be used: {error}", _OTHER) from error
    if pinned is not None and der(pinned) != der(root):
        raise CeremonyFile(
            f"it is by the root {aloud(fingerprint_of(root))[:19]} …,"
            f" and pinned here is {aloud(fingerprint_of(pinned))[:19]} …",
            _OTHER,
        )
    return Opened(root, signed)


_OTHER = "it answers other requests; nothing was changed"


def now_in_seconds(now: datetime) -> datetime:
    """Files say whole seconds, in UTC."""
    return now.astimezone(UTC).replace(microsecond=0)
