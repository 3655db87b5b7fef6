"""Trust bundles: which anchors speak for one trust domain, and when a new version of them may be believed.

`accept` decides, with these rules, for content = (trust domain, sequence, set of anchors):

- the first version of a trust domain needs, for each anchor, a certificate by the root over the same public
  key that names this trust domain and lives at least as long as the anchor;
- a later version needs a higher sequence and a signature over its content by an anchor of the version before;
- the same sequence with the same content is no change; anything else is rejected.

So whoever relays bundles can delay and hide them, and cannot make anybody trust a key. Bundles of different
trust domains are never merged (SPIFFE Federation §4.2). A pinned first bundle (one-time token) does not pass
through `accept`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from pki.algorithms import digest_for, spki
from pki.certificate import (
    authority_key_id,
    authority_trust_domain,
    check_authority,
    der,
    load_der,
    pem,
    public_key,
    signed_by,
    subject_key_id,
)
from pki.errors import InvalidBundle, InvalidSpiffeId, Untrusted
from pki.spiffe import TrustDomain

FIRST_SEQUENCE = 1
HIGHEST_SEQUENCE = 2**63 - 1
MOST_ANCHORS = 8
LONGEST_ENCODED = 128 * 1024
"""Bytes of an encoded bundle."""

_SIGNED_AS = b"federation trust bundle v1\n"


@dataclass(frozen=True, slots=True)
class Proof:
    """Why a bundle may be believed: root-signed forms of its anchors, or a signature of its content.

    `signature` is ECDSA over `content`, by an anchor of the version before; empty for a first version.
    """

    rooted: tuple[x509.Certificate, ...] = ()
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The anchors of one trust domain, at one sequence number (1 to 2^63 - 1, only ever rising)."""

    trust_domain: TrustDomain
    sequence: int
    anchors: tuple[x509.Certificate, ...]
    proof: Proof = Proof()

    def pem(self) -> bytes:
        """The anchors as PEM, for a TLS context that trusts this trust domain alone."""
        return pem(self.anchors)


class Rejection(StrEnum):
    """Why an offered bundle is not accepted."""

    OTHER_TRUST_DOMAIN = "it is for another trust domain"
    MALFORMED = "an anchor is not a self-signed authority of this trust domain"
    NOT_ROOTED = "an anchor of a new trust domain is not vouched for by the root"
    OLDER = "its sequence is lower than the one held"
    CONFLICT = "it has the sequence of the one held and other content"
    NOT_SIGNED = "it is not signed by an anchor of the version before"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The bundle to hold from now on; `changed` is False when it is the one held already."""

    bundle: Bundle
    changed: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    reason: Rejection
    detail: str = ""

    def __str__(self) -> str:
        return self.reason.value + (f" ({self.detail})" if self.detail else "")


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    trust_domain: str
    sequence: int
    anchors: tuple[bytes, ...]


class _Encoded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    trust_domain: str
    sequence: int
    anchors: tuple[bytes, ...]
    rooted: tuple[bytes, ...] = ()
    signature: bytes = b""


def content(bundle: Bundle) -> bytes:
    """What a version says, as the bytes that are signed; the order of the anchors does not count."""
    anchors = tuple(sorted(der(anchor) for anchor in bundle.anchors))
    return _SIGNED_AS + msgspec.json.encode(_Content(bundle.trust_domain.name, bundle.sequence, anchors))


def encode(bundle: Bundle) -> bytes:
    """A bundle and its proof as JSON, certificates as base64 DER."""
    return msgspec.json.encode(
        _Encoded(
            bundle.trust_domain.name,
            bundle.sequence,
            tuple(der(anchor) for anchor in bundle.anchors),
            tuple(der(certificate) for certificate in bundle.proof.rooted),
            bundle.proof.signature,
        )
    )


def decode(data: bytes) -> Bundle:
    """The inverse of `encode`; checks form, not proof. Raises `InvalidBundle`."""
    if len(data) > LONGEST_ENCODED:
        raise InvalidBundle(f"{len(data)} bytes, allowed are {LONGEST_ENCODED}")
    try:
        raw = msgspec.json.decode(data, type=_Encoded)
        if len(raw.rooted) > MOST_ANCHORS or len(raw.anchors) > MOST_ANCHORS:
            raise InvalidBundle(f"more than {MOST_ANCHORS} anchors")
        bundle = Bundle(
            TrustDomain.parse(raw.trust_domain),
            raw.sequence,
            tuple(load_der(anchor) for anchor in raw.anchors),
            Proof(tuple(load_der(certificate) for certificate in raw.rooted), raw.signature),
        )
    except (msgspec.MsgspecError, InvalidSpiffeId, Untrusted) as error:
        raise InvalidBundle(str(error)) from error
    check_bundle(bundle)
    return bundle


def check_bundle(bundle: Bundle) -> None:
    """1 to 8 self-signed authorities of this trust domain, with different keys and subjects.

    Raises `InvalidBundle`. Says nothing about whether it may be believed.
    """
    if not FIRST_SEQUENCE <= bundle.sequence <= HIGHEST_SEQUENCE:
        raise InvalidBundle(f"sequence {bundle.sequence} is not within 1 to 2^63 - 1")
    if not 1 <= len(bundle.anchors) <= MOST_ANCHORS:
        raise InvalidBundle(f"{len(bundle.anchors)} anchors, allowed are 1 to {MOST_ANCHORS}")
    try:
        for anchor in bundle.anchors:
            check_authority(anchor)
            if authority_trust_domain(anchor) != bundle.trust_domain:
                raise InvalidBundle("an anchor names another trust domain, or none")
            if not signed_by(anchor, anchor):
                raise InvalidBundle("an anchor is not self-signed")
        keys = {spki(public_key(anchor)) for anchor in bundle.anchors}
    except Untrusted as error:
        raise InvalidBundle(str(error)) from error
    subjects = {anchor.subject.public_bytes() for anchor in bundle.anchors}
    if not len(keys) == len(subjects) == len(bundle.anchors):
        raise InvalidBundle("two anchors share a key or a subject")


def accept(previous: Bundle | None, offered: Bundle, root: x509.Certificate) -> Accepted | Rejected:
    """Decide whether `offered` replaces `previous` (None: a new trust domain); `root` is our own root."""
    if previous is not None and previous.trust_domain != offered.trust_domain:
        return Rejected(Rejection.OTHER_TRUST_DOMAIN, f"{offered.trust_domain}, not {previous.trust_domain}")
    try:
        check_bundle(offered)
    except InvalidBundle as error:
        return Rejected(Rejection.MALFORMED, error.reason)
    if previous is None:
        for anchor in offered.anchors:
            if not any(is_rooted(anchor, form, root) for form in offered.proof.rooted):
                return Rejected(Rejection.NOT_ROOTED, anchor.subject.rfc4514_string())
        return Accepted(offered, changed=True)
    if offered.sequence < previous.sequence:
        return Rejected(Rejection.OLDER, f"{offered.sequence} < {previous.sequence}")
    if offered.sequence == previous.sequence:
        if content(offered) == content(previous):
            return Accepted(previous, changed=False)
        return Rejected(Rejection.CONFLICT, f"sequence {offered.sequence}")
    if not any(_signed(anchor, offered) for anchor in previous.anchors):
        return Rejected(Rejection.NOT_SIGNED, f"sequence {offered.sequence} after {previous.sequence}")
    return Accepted(offered, changed=True)


def is_rooted(anchor: x509.Certificate, form: x509.Certificate, root: x509.Certificate) -> bool:
    """Whether `form` is the root's word for `anchor`: same key, names and trust domain, no shorter life."""
    try:
        check_authority(root)
        check_authority(form)
        return (
            spki(public_key(form)) == spki(public_key(anchor))
            and form.subject == anchor.subject
            and subject_key_id(form) == subject_key_id(anchor)
            and authority_trust_domain(form) == authority_trust_domain(anchor) is not None
            and form.not_valid_after_utc >= anchor.not_valid_after_utc
            and authority_key_id(form) == subject_key_id(root)
            and signed_by(form, root)
        )
    except Untrusted:
        return False


def sign_content(bundle: Bundle, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Sign a version with an anchor of the version before. Blocks for as long as the key takes."""
    return key.sign(content(bundle), ec.ECDSA(digest_for(key.public_key())))


def _signed(anchor: x509.Certificate, offered: Bundle) -> bool:
    key = anchor.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(offered.proof.signature, content(offered), ec.ECDSA(digest_for(key)))
    except InvalidSignature:
        return False
    return True
