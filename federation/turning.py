"""What a rotation waits for, and when the next one is due: the evidence of a federation, as `pki.rotation` wants it.

Pure. The driver of a rotation is the only one who issues with the authority that is replaced; everybody else only
believes it, and says which version of the bundle all of its verifiers have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import nsmallest

from federation.held import Held, Version
from pki.ledger import Entry
from pki.profiles import CLUSTER_CA, GATEWAY
from pki.rotation import Report, Rotation, Side

ROTATED_AT = 2 / 3
"""Share of an authority's life after which the next one begins: a third is left for those who are away."""

LONGEST_LEFT = timedelta(days=8)
"""Before the end of an authority: the life of its longest leaf, and a day for clocks and renewals."""

MOST_NAMED = 5
"""Of those who hold a phase up, as many are named."""


@dataclass(frozen=True, slots=True)
class Own:
    """Where the driver itself stands: the version that it published last and the anchors in it, the version that its
    own gateways go by (None: some of them do not say), who issues, and whose leaves may still be presented.
    """

    published: Version
    anchors: frozenset[Side]
    held: Version | None
    issues: Side
    living: frozenset[Side]


def other(side: Side) -> Side:
    """The other one of the two authorities of a rotation."""
    return Side.OLD if side is Side.NEW else Side.NEW


def reports(
    rotation: Rotation,
    driver: str,
    own: Own,
    trust_domain: str,
    held: Mapping[str, Held],
    living: Mapping[str, frozenset[Side]] | None = None,
) -> dict[str, Report]:
    """By member. Whoever has the version that was published last has obeyed the phase; others have not reported.

    A later version than that is no evidence: then our folder is an old copy, and they hold what we do not know of.
    `living`: whose leaves each of the others may still present, where others than the driver have any.
    """
    anchors = own.anchors if own.held == own.published else frozenset[Side]()
    found = {driver: Report(rotation.token, anchors, own.issues, own.living)}
    for name, each in held.items():
        version = each.version(trust_domain)
        if name != driver and version is not None:
            everywhere = own.anchors if version == own.published else frozenset[Side]()
            theirs = (living or {}).get(name, frozenset())
            found[name] = Report(rotation.token, everywhere, rotation.rule.issuer, theirs)
    return found


def survivors(
    entries: Iterable[Entry],
    ours: str,
    still_ours: bool,
    gateways: Mapping[str, bool],
    now: datetime,
    gone: Set[int] | None = None,
) -> Iterator[Entry]:
    """Certificates of the other authority that may still be presented; there may be very many.

    `ours` is the identity of the driver itself, which presents one of them while `still_ours`. `gateways` maps the keys
    of gateways that are known to whether one of them is still presented. A key that no gateway has any more is out of
    use, and so is what anybody else has done with: `gone` by serial number, or else what was replaced.
    """
    for entry in entries:
        if entry.profile == CLUSTER_CA.name:
            lives = False  # the anchor itself, which nobody presents
        elif entry.identity == ours:
            lives = still_ours
        elif entry.profile == GATEWAY.name:
            lives = gateways.get(entry.spki, False)
        else:
            lives = not entry.successors if gone is None else entry.serial not in gone
        if lives and entry.not_after > now:
            yield entry


def named(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Certificates in words: the first few in the order in which they end, and how many there are besides."""
    found = tuple(entries)
    first = nsmallest(MOST_NAMED, found, key=lambda entry: (entry.not_after, entry.serial))
    return few(tuple(map(lives, first)), len(found))


def few(who: Sequence[str], count: int) -> tuple[str, ...]:
    """The first of `count`, and how many there are besides."""
    more = count - MOST_NAMED
    return (*who[:MOST_NAMED], *((f"and {more} more",) if more > 0 else ()))


def lives(entry: Entry) -> str:
    """Whose certificate it is, until when, and over which key, as it can be banned, for people."""
    return f"{entry.identity} until {entry.not_after.isoformat(timespec='minutes')}, key {entry.spki}"


def due(begins: datetime, ends: datetime) -> datetime:
    """When an authority with this life is to be replaced."""
    return begins + (ends - begins) * ROTATED_AT


def deadline(ends: datetime) -> datetime:
    """Until when a rotation may wait for those who are away: by then leaves of the old authority must be replaced."""
    return ends - LONGEST_LEFT
