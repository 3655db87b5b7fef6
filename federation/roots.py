"""The roots of the federation, as the hub tells them: which there are, and which of them signs now."""

from __future__ import annotations

from dataclasses import dataclass, field

from pki.bundle import Bundle

LONGEST_KEY_ID = 64
"""Bytes of a key identifier."""


@dataclass(frozen=True, slots=True)
class Roots:
    """`bundle` is signed from version to version; `issuing`, the key identifier of the root that signs, is a hint."""

    bundle: Bundle
    issuing: bytes = field(repr=False)
