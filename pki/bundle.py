"""Trust bundles: which anchors speak for one trust domain, and when a new version of them may be believed.

`accept` decides, with these rules, for content = (trust domain, sequence, set of anchors):

- the first version of a trust domain needs, for each anchor, a certificate by the root over the same public
  key that names this trust domain and lives at least as long as the anchor;
- a later version needs a higher sequence and a signature over its content by an anchor of the version before;
  who missed versions gets there by those that the bundle brings along (`earlier`);
- the same sequence with the same content is no change; anything else is rejected;
- a version of a higher generation begins anew, whatever was held: like a first version it needs the root's word
  for each anchor, and only authorities of that epoch or a later one may be in it. The root signs such an epoch
  for a name that exists when an operator said so: its key was lost or stolen. The generation must lie above the
  epoch of every anchor held, as the root's word for an authority that has ended since can still be shown.

The roots of a federation are published like that too (`accept_roots`), under its own name: they carry no name of a
trust domain, nobody vouches for them, and who pinned one of them begins with that, as a version without a number.

So whoever relays bundles can delay and hide them, and cannot make anybody trust a key. Bundles of different
trust domains are never merged (SPIFFE Federation §4.2). A pinned first bundle (one-time token) does not pass
through `accept`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from pki.algorithms import digest_for, spki
from pki.certificate import (
    authority_trust_domain,
    check_authority,
    der,
    load_der,
    pem,
    public_key,
    signed_by,
)
from pki.errors import InvalidBundle, InvalidSpiffeId, Untrusted
from pki.profiles import HIGHEST_EPOCH, epoch_of
from pki.rooted import is_rooted
from pki.spiffe import TrustDomain

UNNUMBERED = 0
"""The sequence of what was pinned without one; never of a bundle that is published."""
FIRST_SEQUENCE = 1
HIGHEST_SEQUENCE = 2**63 - 1
FIRST_GENERATION = 1
MOST_EPOCHS = 10_000
"""Of one generation: whoever stole a key uses up no more of them, as another generation takes the root's word."""
MOST_ANCHORS = 8
MOST_AUTHORITIES = 2
"""Of a rotation."""
MOST_SIGNATURES = MOST_AUTHORITIES
MOST_EARLIER = 16
"""Versions that a bundle brings along: who missed more rotations than that has to be told anew."""
LONGEST_ENCODED = 128 * 1024
"""Bytes of an encoded bundle."""

_SIGNED_AS = b"federation trust bundle v1\n"


@dataclass(frozen=True, slots=True)
class Proof:
    """Why a bundle may be believed: root-signed forms of its anchors, and signatures of its content.

    Signatures are ECDSA over `content`, one of them by an anchor of the version before; a first version has none.
    """

    rooted: tuple[x509.Certificate, ...] = ()
    signatures: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Bundle:
    """The anchors of one trust domain, at one sequence number (1 to 2^63 - 1, only ever rising in a generation).

    `generation` is the lowest epoch of an authority that may be in it. `earlier` are versions before, in order and
    without ones of their own, that lead here from what others may hold still.
    """

    trust_domain: TrustDomain
    sequence: int
    anchors: tuple[x509.Certificate, ...]
    proof: Proof = Proof()
    generation: int = FIRST_GENERATION
    earlier: tuple[Bundle, ...] = ()

    @property
    def version(self) -> tuple[int, int]:
        """Generation and sequence: what is greater is newer."""
        return self.generation, self.sequence

    def pem(self) -> bytes:
        """The anchors as PEM, for a TLS context that trusts this trust domain alone."""
        return pem(self.anchors)


class Rejection(StrEnum):
    """Why an offered bundle is not accepted."""

    OTHER_TRUST_DOMAIN = "it is for another trust domain"
    MALFORMED = "an anchor is not a self-signed authority of this trust domain"
    NOT_ROOTED = "an anchor of a new trust domain is not vouched for by the root"
    OLDER = "it is older than the one held"
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
    generation: int
    sequence: int
    anchors: tuple[bytes, ...]


class _Version(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    trust_domain: str
    sequence: int
    anchors: tuple[bytes, ...]
    rooted: tuple[bytes, ...] = ()
    signatures: tuple[bytes, ...] = ()
    generation: int = FIRST_GENERATION


class _Encoded(_Version, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    earlier: tuple[_Version, ...] = ()


def content(bundle: Bundle) -> bytes:
    """What a version says, as the bytes that are signed; the order of the anchors does not count."""
    anchors = tuple(sorted(der(anchor) for anchor in bundle.anchors))
    said = _Content(bundle.trust_domain.name, bundle.generation, bundle.sequence, anchors)
    return _SIGNED_AS + msgspec.json.encode(said)


def encode(bundle: Bundle) -> bytes:
    """A bundle with its proof, and the versions before that it brings along, as JSON; certificates are base64 DER."""
    earlier = tuple(_Version(**_fields(version)) for version in bundle.earlier)
    return msgspec.json.encode(_Encoded(**_fields(bundle), earlier=earlier))


def decode(data: bytes, *, roots: bool = False) -> Bundle:
    """The inverse of `encode`; checks form (that of `roots`, if they are some), not proof. Raises `InvalidBundle`."""
    bundle = _read_all(_parsed(data))
    check_bundle(bundle, roots=roots)
    return bundle


def claim(data: bytes) -> tuple[str, tuple[int, int]]:
    """Of which trust domain, and which version, an encoded bundle says that it is: not verified, and cheap to know.

    Raises `InvalidBundle`.
    """
    raw = _parsed(data)
    return raw.trust_domain, (raw.generation, raw.sequence)


def leads_on(held: Bundle, data: bytes, *roots: x509.Certificate) -> bool:
    """Whether signatures lead from `held`, or from `roots` for a higher generation, to an encoded bundle. For who hears
    of bundles from anybody: nothing else of it is checked, and no key that it brings along is used before an earlier
    one has signed for it, so what is made up costs little. Raises `InvalidBundle`.
    """
    raw = _parsed(data)
    if any(max(len(each.anchors), len(each.rooted)) > MOST_AUTHORITIES for each in (raw, *raw.earlier)):
        return False
    offered = _read_all(raw)
    if offered.trust_domain != held.trust_domain:
        return False
    if offered.generation > held.generation:
        return isinstance(_begun(offered, roots), Accepted)
    return _follows(held, offered)


def _parsed(data: bytes) -> _Encoded:
    if len(data) > LONGEST_ENCODED:
        raise InvalidBundle(f"{len(data)} bytes, allowed are {LONGEST_ENCODED}")
    try:
        return msgspec.json.decode(data, type=_Encoded)
    except msgspec.MsgspecError as error:
        raise InvalidBundle(str(error)) from error


def _fields(bundle: Bundle) -> dict[str, Any]:
    return {
        "trust_domain": bundle.trust_domain.name,
        "sequence": bundle.sequence,
        "anchors": tuple(der(anchor) for anchor in bundle.anchors),
        "rooted": tuple(der(certificate) for certificate in bundle.proof.rooted),
        "signatures": bundle.proof.signatures,
        "generation": bundle.generation,
    }


def _read_all(raw: _Encoded) -> Bundle:
    return replace(_read(raw), earlier=tuple(_read(version) for version in raw.earlier[: MOST_EARLIER + 1]))


def _read(raw: _Version) -> Bundle:
    if max(len(raw.rooted), len(raw.anchors)) > MOST_ANCHORS:
        raise InvalidBundle(f"more than {MOST_ANCHORS} anchors")
    try:
        return Bundle(
            TrustDomain.parse(raw.trust_domain),
            raw.sequence,
            tuple(load_der(anchor) for anchor in raw.anchors),
            Proof(tuple(load_der(certificate) for certificate in raw.rooted), raw.signatures),
            raw.generation,
        )
    except (InvalidSpiffeId, Untrusted) as error:
        raise InvalidBundle(str(error)) from error


def check_bundle(bundle: Bundle, *, roots: bool = False) -> None:
    """1 to 8 self-signed authorities of this trust domain (of none if they are `roots`) and generation, with different
    keys and subjects; and the same of each version that it brings along, all before it and in order.

    Raises `InvalidBundle`. Says nothing about whether it may be believed.
    """
    speaks_for = None if roots else bundle.trust_domain
    _check_version(bundle, speaks_for)
    if len(bundle.earlier) > MOST_EARLIER:
        raise InvalidBundle(f"more than {MOST_EARLIER} earlier versions")
    for before, after in pairwise((*bundle.earlier, bundle)):
        _check_version(before, speaks_for)
        if before.trust_domain != after.trust_domain or before.earlier or before.version >= after.version:
            raise InvalidBundle("its earlier versions are not of the same trust domain, or not in order")


def _check_version(bundle: Bundle, speaks_for: TrustDomain | None) -> None:
    if not FIRST_SEQUENCE <= bundle.sequence <= HIGHEST_SEQUENCE:
        raise InvalidBundle(f"sequence {bundle.sequence} is not within 1 to 2^63 - 1")
    if not FIRST_GENERATION <= bundle.generation <= HIGHEST_EPOCH:
        raise InvalidBundle(f"generation {bundle.generation} is not within 1 to {HIGHEST_EPOCH}")
    if not 1 <= len(bundle.anchors) <= MOST_ANCHORS:
        raise InvalidBundle(f"{len(bundle.anchors)} anchors, allowed are 1 to {MOST_ANCHORS}")
    if len(bundle.proof.signatures) > MOST_SIGNATURES:
        raise InvalidBundle(f"more than {MOST_SIGNATURES} signatures")
    try:
        for anchor in bundle.anchors:
            check_authority(anchor)
            if authority_trust_domain(anchor) != speaks_for:
                raise InvalidBundle(
                    "a root names a trust domain"
                    if speaks_for is None
                    else "an anchor names another trust domain, or none"
                )
            if not signed_by(anchor, anchor):
                raise InvalidBundle("an anchor is not self-signed")
            if (epoch_of(anchor.subject) or FIRST_GENERATION) < bundle.generation:
                raise InvalidBundle("an anchor is older than the generation")
            if (epoch_of(anchor.subject) or FIRST_GENERATION) >= bundle.generation + MOST_EPOCHS:
                raise InvalidBundle(f"an anchor is not of the {MOST_EPOCHS} epochs of the generation")
        keys = {spki(public_key(anchor)) for anchor in bundle.anchors}
    except Untrusted as error:
        raise InvalidBundle(str(error)) from error
    subjects = {anchor.subject.public_bytes() for anchor in bundle.anchors}
    if not len(keys) == len(subjects) == len(bundle.anchors):
        raise InvalidBundle("two anchors share a key or a subject")


def accept(previous: Bundle | None, offered: Bundle, *roots: x509.Certificate) -> Accepted | Rejected:
    """Decide whether `offered` replaces `previous` (None: a new trust domain); `roots` are those that we believe."""
    if (wrong := _wrong(previous, offered)) is not None:
        return wrong
    if previous is None:
        return _begun(offered, roots)
    if offered.generation <= previous.generation:
        return _later(previous, offered)
    if offered.generation <= newest_epoch(previous):
        return Rejected(Rejection.OLDER, f"{_at(offered)}, and epoch {newest_epoch(previous)} is held")
    return _begun(offered, roots)


def newest_epoch(bundle: Bundle) -> int:
    """The highest epoch of an authority in it, or its generation if none says one."""
    return max(epoch_of(anchor.subject) or bundle.generation for anchor in bundle.anchors)


def accept_roots(previous: Bundle, offered: Bundle) -> Accepted | Rejected:
    """The same for the roots of a federation: nothing but a signature by one of those before leads to others."""
    if (wrong := _wrong(previous, offered, roots=True)) is not None:
        return wrong
    return _later(previous, offered)


def accept_from(pinned: Collection[x509.Certificate], offered: Bundle) -> Accepted | Rejected:
    """The same for who pinned anchors and knows no more of them, not even their version."""
    held = Bundle(offered.trust_domain, UNNUMBERED, tuple(pinned), generation=offered.generation)
    if (wrong := _wrong(held, offered)) is not None:
        return wrong
    return _later(held, offered)


def _wrong(previous: Bundle | None, offered: Bundle, *, roots: bool = False) -> Rejected | None:
    if previous is not None and previous.trust_domain != offered.trust_domain:
        return Rejected(Rejection.OTHER_TRUST_DOMAIN, f"{offered.trust_domain}, not {previous.trust_domain}")
    try:
        check_bundle(offered, roots=roots)
    except InvalidBundle as error:
        return Rejected(Rejection.MALFORMED, error.reason)
    return None


def _later(previous: Bundle, offered: Bundle) -> Accepted | Rejected:
    """By a chain of signatures from one version to the next."""
    if offered.version < previous.version:
        return Rejected(Rejection.OLDER, f"{_at(offered)} < {_at(previous)}")
    if offered.version == previous.version:
        if content(offered) == content(previous):
            return Accepted(previous, changed=False)
        return Rejected(Rejection.CONFLICT, _at(offered))
    if previous.sequence == UNNUMBERED and set(previous.anchors) == set(offered.anchors):
        return Accepted(offered, changed=True)
    if not _follows(previous, offered):
        return Rejected(Rejection.NOT_SIGNED, f"{_at(offered)} after {_at(previous)}")
    return Accepted(offered, changed=True)


def _begun(offered: Bundle, roots: Collection[x509.Certificate]) -> Accepted | Rejected:
    """By the root's word for all anchors, or for those of a version before it in this generation, and the chain."""
    unrooted = _unrooted(offered, roots)
    if unrooted is None:
        return Accepted(offered, changed=True)
    for version in offered.earlier:
        rooted = version.generation == offered.generation and _unrooted(version, roots) is None
        if rooted and _follows(version, offered):
            return Accepted(offered, changed=True)
    return Rejected(Rejection.NOT_ROOTED, unrooted.subject.rfc4514_string())


def _unrooted(version: Bundle, roots: Collection[x509.Certificate]) -> x509.Certificate | None:
    """The first anchor that no root vouches for."""
    for anchor in version.anchors:
        if not any(is_rooted(anchor, form, root) for form in version.proof.rooted for root in roots):
            return anchor
    return None


def _follows(held: Bundle, offered: Bundle) -> bool:
    """Whether signatures lead from `held` to `offered`, by way of the versions that it brings along."""
    for version in (*offered.earlier, offered):
        if version.version > held.version and _signed_by_any(held.anchors, version):
            held = version
    return held is offered


def _at(bundle: Bundle) -> str:
    return f"generation {bundle.generation}, sequence {bundle.sequence}"


def sign_content(bundle: Bundle, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Sign a version with an anchor of the version before. Blocks for as long as the key takes."""
    return key.sign(content(bundle), ec.ECDSA(digest_for(key.public_key())))


def _signed_by_any(anchors: Iterable[x509.Certificate], offered: Bundle) -> bool:
    said = content(offered)
    keys = [key for anchor in anchors if isinstance(key := anchor.public_key(), ec.EllipticCurvePublicKey)]
    return any(_signed(key, signature, said) for key in keys for signature in offered.proof.signatures)


def _signed(key: ec.EllipticCurvePublicKey, signature: bytes, said: bytes) -> bool:
    try:
        key.verify(signature, said, ec.ECDSA(digest_for(key)))
    except InvalidSignature:
        return False
    return True
