"""What a cluster asks the root for besides its join: the root-signed form of the authority that is to follow."""

from __future__ import annotations

from dataclasses import dataclass, field

LONGEST_REQUEST = 16 * 1024
"""Bytes, of the request and of the anchor."""


@dataclass(frozen=True, slots=True)
class RootRequest:
    """`csr` is a PEM request by the authority, `anchor` its self-signed form (DER)."""

    owner: str
    csr: bytes = field(repr=False)
    anchor: bytes = field(repr=False)
