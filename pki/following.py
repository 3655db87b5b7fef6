"""The root that is to follow one in a safe: what the safe hands over, and when it may be believed.

The key of a root in a safe signs once, for the whole rotation: four sets of roots, in this order. Both of them; the
new one alone; both once more, for whoever turns back, and then the old one alone. Their sequences rise in this order
too, so no two of them contradict each other: whoever publishes them can choose when, and can make nobody trust a third
root. The way back is the newer one, and the key of the old root alone signs it: whoever has gone it believes nothing of
the root that was given up, and nobody goes it from the new root alone. A hub that publishes both ways divides the
members. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from cryptography import x509

from pki import bundle as bundles
from pki.bundle import Accepted, Bundle, accept_roots
from pki.ceremony import NextRoot
from pki.certificate import load_der
from pki.errors import CeremonyFile, InvalidBundle, Untrusted
from pki.root_rules import root_faults
from pki.spiffe import TrustDomain

_AGAIN = "make it anew on the machine of the root; nothing was changed"


SIGNED_BY_BOTH = 2
"""The first sets, those that lead to the new root; its key signs none of the others."""


def drafts(base: str, old: x509.Certificate, new: x509.Certificate, sequence: int) -> tuple[Bundle, ...]:
    """What the safe is to sign, after the set with this sequence."""
    domain = TrustDomain.parse(base)
    sets = ((old, new), (new,), (old, new), (old,))
    return tuple(Bundle(domain, sequence + step, anchors) for step, anchors in enumerate(sets, 1))


@dataclass(frozen=True, slots=True)
class Following:
    """A root that is to follow, and the sets of roots in the order in which their sequences rise."""

    certificate: x509.Certificate
    versions: tuple[Bundle, ...]

    @classmethod
    def of(cls, file: NextRoot) -> Self:
        """What a file says, whether or not it may be believed. Raises `CeremonyFile`."""
        try:
            versions = tuple(bundles.decode(each, roots=True) for each in file.versions)
            return cls(load_der(file.root), versions)
        except (InvalidBundle, Untrusted) as error:
            raise CeremonyFile(f"a certificate or a set in it cannot be read: {error}", _AGAIN) from error


def read_next(file: NextRoot, base: str, held: Bundle, now: datetime) -> Following:
    """The root in `file`, if the one of the set that is `held` hands over to it. Raises `CeremonyFile`."""
    if file.base != base:
        raise CeremonyFile(f"it is of the federation {file.base}, and this is {base}", "take the other file")
    found = Following.of(file)
    if faults := root_faults(found.certificate, now):
        raise CeremonyFile("it cannot be the root: " + "; ".join(faults), _AGAIN)
    (old,) = held.anchors
    wanted = [set(draft.anchors) for draft in drafts(base, old, found.certificate, held.sequence)]
    if [set(version.anchors) for version in found.versions] != wanted:
        raise CeremonyFile(
            "it follows another root than the one that is pinned here, or has not all sets", _AGAIN
        )
    both, forth, again, back = found.versions
    for before, after in ((held, both), (both, forth), (both, again), (both, back), (again, back)):
        outcome = accept_roots(before, after)
        if not (isinstance(outcome, Accepted) and outcome.changed):
            reason = "it is the one that is there" if isinstance(outcome, Accepted) else str(outcome)
            raise CeremonyFile(f"the set of roots {after.sequence} in it does not follow: {reason}", _AGAIN)
    if any(isinstance(accept_roots(forth, after), Accepted) for after in (again, back)):
        raise CeremonyFile("it leads back from the new root alone", _AGAIN)
    return found
