"""Who believes an authority and is no member: workloads of its own, and trust domains outside that fetch its bundle.

Pure. Neither says what it holds. Of a workload the ledger says with which version of the bundle its certificate was
given, and a later one only counts once it has come with it. Who fetches a bundle may do so as seldom as its refresh
hint allows (SPIFFE Federation §4.1), so he gets five times as long, and nobody waits where nobody fetches.

Both count where anchors are added. An anchor that is taken away later does nobody harm who still believes it: its key
is destroyed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from datetime import datetime, timedelta

from federation.api.messages import Blocking
from federation.turning import named
from pki.ledger import Entry
from pki.profiles import SVID
from pki.rotation import Phase, Report, Rotation, Side
from pki.spiffe_bundle import USUAL_REFRESH

WORKLOADS = "its workloads"
OUTSIDERS = "trust domains outside"
"""Names of no cluster: they are no DNS labels."""

TIME_TO_LOOK = 5 * USUAL_REFRESH
MINUTES_TO_LOOK = TIME_TO_LOOK // timedelta(minutes=1)


def behind(
    entries: Iterable[Entry],
    sequence: int,
    gone: Set[int],
    is_banned: Callable[[Entry], bool],
    now: datetime,
) -> Iterator[Entry]:
    """Certificates of workloads that may know no bundle as new as `sequence`.

    Not those that ended, that are `gone` (serial numbers: their holders have come with a later one), or whose holders
    are banned, whom nobody believes.
    """
    return (
        entry
        for entry in entries
        if entry.profile == SVID.name
        and entry.bundle < sequence
        and entry.not_after > now
        and entry.serial not in gone
        and not is_banned(entry)
    )


def report(rotation: Rotation, is_ready: Callable[[], bool]) -> Report:
    """As of a member that does all by itself, but has the anchors that a rotation adds only when it is ready; that is
    not asked where none are added.
    """
    rule = rotation.rule
    ready = rotation.phase is not Phase.PUBLISHED or is_ready()
    anchors = rule.anchors if ready else frozenset({Side.OLD})
    return Report(rotation.token, anchors, rule.issuer, frozenset({rule.issuer}))


def of_workloads(waited_for: Sequence[Entry]) -> Blocking:
    """Who is waited for, in words; those whose certificates end first are named."""
    count, last = len(waited_for), max(entry.not_after for entry in waited_for)
    some = "1 workload has" if count == 1 else f"{count} workloads have"
    return Blocking(
        member=WORKLOADS,
        reason=f"{some} a certificate that came with the anchors from before, "
        f"until {last.isoformat(timespec='minutes')} at the latest",
        who=named(waited_for),
        todo="wait: they renew at half the life of their certificates (`federation ca renew` does it now); whoever "
        "will never come back can be let go of by its key: federation ca ban KEY --reason 'it is gone'",
    )


def of_outsiders(until: datetime) -> Blocking:
    """The same of those who fetch the bundle."""
    return Blocking(
        member=OUTSIDERS,
        reason="fetch the bundle from here, and may not have seen the new anchor yet; they get until "
        f"{until.isoformat(timespec='minutes')}",
        todo=f"wait: {MINUTES_TO_LOOK} minutes from when it was there, five times the refresh hint of the bundle",
    )
