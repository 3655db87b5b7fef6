"""Trust bundles in the form that SPIFFE implementations exchange: a JWK set with a sequence and a refresh hint.

`publish` writes ours, `parse` reads what a stranger serves, `follow` decides whether a newer one is taken. The name of
the trust domain never comes from the document, which does not carry one, but from whoever configured where to fetch it
(SPIFFE Federation §5.1). Anchors of foreign trust domains are kept apart, each under its own name, and are never merged
with anybody's (§4.2).

Of a set only X.509 authorities are taken; keys of other uses and kinds are passed over, as the format demands (SPIFFE
Trust Domain and Bundle §4.2). An authority that is there and wrong makes the whole document refused: half of a bundle
would silently be a smaller one.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from pki.bundle import Bundle
from pki.certificate import check_readable, der, extension, load_der, pem, public_key
from pki.errors import Distrust, InvalidBundle, Untrusted, shown
from pki.spiffe import TrustDomain

LONGEST_DOCUMENT = 1024 * 1024
"""Bytes of a document."""

MOST_AUTHORITIES = 32
"""X.509 authorities of one foreign trust domain."""

HIGHEST_SEQUENCE = 2**64 - 1

SHORTEST_REFRESH = timedelta(seconds=60)
LONGEST_REFRESH = timedelta(hours=24)
USUAL_REFRESH = timedelta(minutes=5)
"""Between two looks where the document says nothing (SPIFFE Federation §4.1)."""

X509_SVID = "x509-svid"


@dataclass(frozen=True, slots=True)
class SpiffeBundle:
    """The X.509 authorities of one trust domain as published.

    `sequence` is None where the publisher counts none; `refresh` is how long until the next look, within 60 s to 24 h.
    """

    trust_domain: TrustDomain
    sequence: int | None
    anchors: tuple[x509.Certificate, ...]
    refresh: timedelta = USUAL_REFRESH

    def pem(self) -> bytes:
        """The anchors as PEM, for a TLS context that trusts this trust domain alone."""
        return pem(self.anchors)


@dataclass(frozen=True, slots=True)
class Followed:
    """The bundle to hold from now on; `changed` is False when its content is the one held already."""

    bundle: SpiffeBundle
    changed: bool


@dataclass(frozen=True, slots=True)
class NotFollowed:
    """The bundle held stays, and this is why."""

    reason: str


class _Set(msgspec.Struct, frozen=True):
    """Members that are not named here are ignored, as RFC 7517 §5 demands."""

    keys: list[Any]
    spiffe_sequence: int | None = None
    spiffe_refresh_hint: int | None = None


def publish(bundle: Bundle, refresh: timedelta = USUAL_REFRESH) -> bytes:
    """A bundle of ours as a JWK set: `use` x509-svid, one `x5c` a key, no `kid` (X509-SVID §6.1)."""
    return write(of(bundle, refresh))


def of(bundle: Bundle, refresh: timedelta = USUAL_REFRESH) -> SpiffeBundle:
    """What we publish of a bundle of ours."""
    return SpiffeBundle(bundle.trust_domain, bundle.sequence, bundle.anchors, refresh)


def write(bundle: SpiffeBundle) -> bytes:
    """The inverse of `parse`: the document, UTF-8 JSON."""
    document: dict[str, Any] = {} if bundle.sequence is None else {"spiffe_sequence": bundle.sequence}
    document["spiffe_refresh_hint"] = int(bundle.refresh.total_seconds())
    document["keys"] = [
        {
            "use": X509_SVID,
            **_members(public_key(anchor)),
            "x5c": [base64.b64encode(der(anchor)).decode()],
        }
        for anchor in bundle.anchors
    ]
    return msgspec.json.encode(document)


def parse(trust_domain: TrustDomain, document: bytes) -> SpiffeBundle:
    """What `document` says are the authorities of `trust_domain`. Raises `InvalidBundle`, naming the member."""
    if len(document) > LONGEST_DOCUMENT:
        raise InvalidBundle(f"{len(document)} bytes, allowed are {LONGEST_DOCUMENT}")
    try:
        raw = msgspec.json.decode(document, type=_Set)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBundle(f"not a JWK set: {error}") from error
    anchors: dict[bytes, x509.Certificate] = {}
    for place, key in enumerate(raw.keys):
        if not isinstance(key, dict):
            raise InvalidBundle(f"keys[{place}]: not an object")
        if key.get("use") == X509_SVID and key.get("kty") in ("EC", "RSA"):
            anchor = _anchor(key, f"keys[{place}]")
            anchors[der(anchor)] = anchor
            if len(anchors) > MOST_AUTHORITIES:
                raise InvalidBundle(f"more than {MOST_AUTHORITIES} X.509 authorities")
    if not anchors:
        raise InvalidBundle("it has no X.509 authority")
    return SpiffeBundle(
        trust_domain,
        _sequence(raw.spiffe_sequence),
        tuple(anchors.values()),
        _refresh(raw.spiffe_refresh_hint),
    )


def follow(held: SpiffeBundle | None, offered: SpiffeBundle) -> Followed | NotFollowed:
    """Whether `offered`, which came from the right place, takes the place of `held` of the same trust domain.

    A sequence only rises, and the same sequence means the same authorities. Where the publisher counts none, the last
    one fetched is the newest (SPIFFE Federation §4.2); one that counted may not stop to.
    """
    if held is None:
        return Followed(offered, changed=True)
    if held.trust_domain != offered.trust_domain:
        return NotFollowed(f"it is of {offered.trust_domain}, not of {held.trust_domain}")
    same = {der(anchor) for anchor in held.anchors} == {der(anchor) for anchor in offered.anchors}
    if held.sequence is None:
        return Followed(offered, changed=not same or offered.sequence is not None)
    if offered.sequence is None:
        return NotFollowed(f"it has no sequence, and the one held has {held.sequence}")
    if offered.sequence < held.sequence:
        return NotFollowed(f"its sequence {offered.sequence} is lower than the {held.sequence} held")
    if offered.sequence == held.sequence and not same:
        return NotFollowed(f"it has the sequence {held.sequence} of the one held and other authorities")
    return Followed(offered, changed=offered.sequence != held.sequence)


def _anchor(key: dict[str, Any], where: str) -> x509.Certificate:
    if "kid" in key:
        raise InvalidBundle(f"{where}.kid: an X.509 authority has none (X509-SVID §6.1)")
    chain = key.get("x5c")
    if not isinstance(chain, list) or not chain or not isinstance(chain[0], str):
        raise InvalidBundle(f"{where}.x5c: not a list that begins with a certificate")
    try:
        anchor = load_der(base64.b64decode(chain[0], validate=True))
        _check_authority(anchor)
        said = _members(public_key(anchor))
    except (binascii.Error, ValueError) as error:
        raise InvalidBundle(f"{where}.x5c[0]: not base64") from error
    except Untrusted as error:
        raise InvalidBundle(f"{where}.x5c[0]: {error}") from error
    if differing := [name for name, value in said.items() if key.get(name) != value]:
        raise InvalidBundle(f"{where}.{differing[0]}: not that of the certificate (RFC 7517 §4.7)")
    return anchor


def _check_authority(anchor: x509.Certificate) -> None:
    """Less than of our own: somebody else's profile, but still a mark that it may sign certificates."""
    check_readable(anchor)
    basic = extension(anchor, x509.BasicConstraints)
    usage = extension(anchor, x509.KeyUsage)
    if basic is None or not basic.value.ca:
        raise Untrusted(Distrust.BASIC_CONSTRAINTS, "not marked as an authority")
    if usage is None or not usage.value.key_cert_sign:
        raise Untrusted(Distrust.KEY_USAGE, "may not sign certificates")


def _members(key: CertificatePublicKeyTypes) -> dict[str, str]:
    """The public key as members of a JWK (RFC 7518 §6.2.1, §6.3.1)."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        size = (key.curve.key_size + 7) // 8
        numbers = key.public_numbers()
        curve = {"secp256r1": "P-256", "secp384r1": "P-384"}[key.curve.name]
        return {"kty": "EC", "crv": curve, "x": _url(numbers.x, size), "y": _url(numbers.y, size)}
    assert isinstance(key, rsa.RSAPublicKey)
    modulus = key.public_numbers()
    return {"kty": "RSA", "n": _url(modulus.n), "e": _url(modulus.e)}


def _url(number: int, size: int | None = None) -> str:
    length = size or (number.bit_length() + 7) // 8
    return base64.urlsafe_b64encode(number.to_bytes(length)).rstrip(b"=").decode()


def _sequence(said: int | None) -> int | None:
    if said is not None and not 0 <= said <= HIGHEST_SEQUENCE:
        raise InvalidBundle(f"spiffe_sequence: {shown(str(said))} is not within 0 to 2^64 - 1")
    return said


def _refresh(said: int | None) -> timedelta:
    if said is None:
        return USUAL_REFRESH
    if said < 0:
        raise InvalidBundle("spiffe_refresh_hint: it is negative")
    shortest, longest = (int(each.total_seconds()) for each in (SHORTEST_REFRESH, LONGEST_REFRESH))
    return timedelta(seconds=min(max(said, shortest), longest))
