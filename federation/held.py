"""Which versions of the others' trust bundles a cluster goes by: the evidence that lets a rotation go on.

A cluster holds a version when each of its gateways that counts has it on disk and its Envoy has acknowledged it; the
hub when it is in its registry. What is not known to be held is not named. A cluster signs its word with the key of its
authority, as others pass it on; whether it counts is `federation.evidence`'s question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import msgspec

from pki import bundle as bundles
from pki.bundle import Bundle
from pki.spiffe import TrustDomain

Version = tuple[int, int]
"""Generation and sequence of a bundle (`pki.bundle.Bundle.version`)."""

MOST_HELD = 10_000
MOST_ROOTS = 8
"""Whose word one owner may present at once."""

Stamp = tuple[int, int]
"""The epoch in which an owner speaks, and how many times it has signed in it: what is greater is newer."""


@dataclass(frozen=True, slots=True)
class Held:
    """`bundles` holds (trust domain, generation, sequence), sorted, each trust domain once; `roots` the key identifiers
    of the roots that signed what the owner presents of its own authorities, sorted. `digests` tell by trust domain what
    the version says that is held, sorted, where it is the newest that the owner knows. `signature` is over `content`.
    """

    owner: str
    bundles: tuple[tuple[str, int, int], ...] = ()
    roots: tuple[bytes, ...] = ()
    digests: tuple[tuple[str, bytes], ...] = ()
    stamp: Stamp = (0, 0)
    signature: bytes = b""

    def version(self, trust_domain: str) -> Version | None:
        """The version of this trust domain's bundle that `owner` holds; None if it does not say."""
        found = (one[1:] for one in self.bundles if one[0] == trust_domain)
        return next(found, None)

    def digest(self, trust_domain: str) -> bytes | None:
        """What that version says (`digest`); None if `owner` does not tell."""
        return next((digest for name, digest in self.digests if name == trust_domain), None)


def digest(bundle: Bundle) -> bytes:
    """SHA-256 of what a version says. Its number alone does not tell it: who was put back from a copy may give a number
    for the second time.
    """
    return hashlib.sha256(bundles.content(bundle)).digest()


class _Said(msgspec.Struct, frozen=True):
    trust_domain: str
    stamp: Stamp
    bundles: tuple[tuple[str, int, int], ...]
    roots: tuple[bytes, ...]
    digests: tuple[tuple[str, bytes], ...]


def content(held: Held, trust_domain: TrustDomain) -> bytes:
    """What `held` says, for its owner's trust domain, as the bytes of a `pki.statement`."""
    said = _Said(trust_domain.name, held.stamp, held.bundles, held.roots, held.digests)
    return msgspec.json.encode(said)


def common(
    current: Mapping[str, Version], trusted: Set[str], acked: Sequence[Mapping[str, Version | None]]
) -> dict[str, Version]:
    """What all of a cluster's gateways hold, by trust domain: the oldest version that one of them acknowledged.

    `acked` has None where a gateway is known to hold nothing, and nothing where it is not known. A trust domain that is
    not trusted is taken from the gateways; from the one that holds nothing it gets what the agent has, if it is trusted
    again, so that counts. But a gateway that has not let go of it may still be listening with what it held.
    """
    found = {}
    for name, version in current.items():
        if all(name in one for one in acked):
            held = [one[name] for one in acked]
            if None not in held or name not in trusted:
                found[name] = min((each for each in held if each is not None), default=version)
    return found
