"""What is asked of the issuer and what it answers, as values that may come from another process.

A `Vetted` wish is one whose caller has proved to hold the new key, and the key of the certificate to be replaced if it
names one. What it may have is for the issuer to decide.
"""

from __future__ import annotations

import msgspec

MOST_WISHES = 64
"""Wishes of one call."""
REQUEST_ID_BYTES = 16


class Held(msgspec.Struct, frozen=True, tag="held", forbid_unknown_fields=True):
    """The certificate to be replaced, whose key the caller holds: serial number (hex) and SHA-256 of its SPKI (hex)."""

    serial: str
    spki: str


class Secret(msgspec.Struct, frozen=True, tag="secret", forbid_unknown_fields=True):
    """The secret of a one-time token."""

    secret: bytes

    def __repr__(self) -> str:
        return "Secret(…)"


class Vetted(msgspec.Struct, frozen=True, tag="vetted", forbid_unknown_fields=True):
    """`key` is a SubjectPublicKeyInfo (DER) whose private part the caller holds; `lifetime` is in seconds."""

    key: bytes
    proof: Held | Secret
    lifetime: int | None = None


class Refusal(msgspec.Struct, frozen=True, tag="refusal", forbid_unknown_fields=True):
    """Why one wish is not granted; `field` names what is wrong. Trying again is of no use if `retry_after` (s) is 0."""

    field: str
    reason: str
    retry_after: float = 0.0


class Given(msgspec.Struct, frozen=True, tag="given", forbid_unknown_fields=True):
    """What is presented (DER, the certificate first). Lives are in seconds; `limited_by` names what made this one
    shorter than requested or usual; `renew_at` is in Unix seconds.
    """

    chain: tuple[bytes, ...]
    requested: int | None
    granted: int
    limited_by: str
    renew_at: int


Outcome = Given | Refusal


class Demand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call: who has connected, with which key (SPKI hash, hex) in which certificate (serial number, hex; empty if
    with none), its own number for the call, and its wishes, some of which may be refused already. Without any it asks
    for the bundle.
    """

    caller: str
    key: str
    request_id: bytes
    wishes: tuple[Vetted | Refusal, ...]
    serial: str = ""


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An outcome for each wish, in their order, and the encoded bundle of this trust domain."""

    outcomes: tuple[Given | Refusal, ...]
    bundle: bytes
