"""What counts of what others say that they hold: their own signed word, and nobody else's.

Pure. What a cluster says is passed on by a hub, which is not believed: it counts if an anchor in the bundle that is
held of that cluster has signed it. During a rotation of its own that may be either of its authorities. A hub can hide a
word or tell an old one; of those that were heard, the newest counts. The hub's word of itself needs no signature: it
comes over the stream that the hub's certificate opened, and concerns that stream alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from federation.held import Held, Stamp, content, digest
from federation.model import HUB
from pki.bundle import Bundle
from pki.rotation import Lack
from pki.statement import Kind, is_said

BundleOf = Callable[[str], Bundle | None]
"""The bundle that is held of a cluster, by its name."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """By owner: the word that counts, or why it does not."""

    counted: Mapping[str, Held]
    doubts: Mapping[str, Lack]


def lack(held: Held, bundle: Bundle | None) -> Lack | None:
    """Why the word of a cluster, of which `bundle` is held, does not count, or None."""
    if not held.signature:
        return Lack.SIGNATURE
    if bundle is None:
        return Lack.BUNDLE
    said = content(held, bundle.trust_domain)
    return None if is_said(Kind.HELD, said, held.signature, bundle.anchors) else Lack.PROOF


class Evidence:
    """Remembers what it has verified, as it is asked again and again, and the newest word of each."""

    def __init__(self) -> None:
        self._verified: dict[str, tuple[Held, Bundle | None, Lack | None]] = {}
        self._newest: dict[str, tuple[int, Stamp]] = {}

    def weigh(self, told: Mapping[str, Held], bundle_of: BundleOf, ours: Bundle) -> Weighed:
        """What was told last of each owner, by what is held of them now, for who asks whether they hold `ours`."""
        mine = digest(ours)
        doubts = {
            name: doubt
            for name, held in told.items()
            if (doubt := self._doubt(name, held, bundle_of) or _mistaken(name, held, ours, mine)) is not None
        }
        return Weighed({name: held for name, held in told.items() if name not in doubts}, doubts)

    def _doubt(self, name: str, held: Held, bundle_of: BundleOf) -> Lack | None:
        if name == HUB:
            return None
        bundle = bundle_of(name)
        known = self._verified.get(name)
        if known is None or known[:2] != (held, bundle):
            known = held, bundle, lack(held, bundle)
            self._verified[name] = known
        if known[2] is not None or bundle is None:
            return known[2]
        age = bundle.generation, held.stamp
        if age < self._newest.get(name, age):
            return Lack.NEWS
        self._newest[name] = age
        return None


def _mistaken(name: str, held: Held, ours: Bundle, mine: bytes) -> Lack | None:
    """Two versions have one number where the folder of whoever gave it was put back from a copy. A hub of a version
    before tells the number alone.
    """
    domain = ours.trust_domain.name
    if held.version(domain) != ours.version:
        return None
    theirs = held.digest(domain)
    return None if theirs == mine or (theirs is None and name == HUB) else Lack.CONTENT
