"""Which number the listener of an imported (service, port) has.

A number is the lowest free one of the configured range, the same on all gateways, and stays with its service.
When nobody exports the port any more the number is released: the same service gets it back, another one not
before 24 h, so that a client with an old answer never reaches a stranger. Free numbers are kept as intervals:
taking one costs the same however many are taken. Numbers read back from disk count as released until their
service is seen again.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from rpds import HashTrieMap, HashTrieSet

from federation.model import ListenPort, Service, View

HOLD = timedelta(hours=24)

Intervals = tuple[tuple[int, int], ...]
"""Disjoint (first, last), ascending, both ends included."""

_NONE: HashTrieMap[int, ListenPort] = HashTrieMap()


def settle(view: View, service: Service, wanted: frozenset[int]) -> View:
    """Give each wanted port of `service` a number, and release those of the others. An exhausted range gives none."""
    view = counted(view)
    held = view.ports.get(service, _NONE)
    for port in sorted(wanted):
        kept = held.get(port)
        if kept is None or not _in_range(view, kept.number):
            view, held = _allocated(view, service, port, held)
        elif kept.released_at is not None:
            held = held.insert(port, ListenPort(kept.number))
            view = replace(view, released=view.released.discard((service, port)))
    for port, kept in held.items():
        if port not in wanted and kept.released_at is None:
            held = held.insert(port, ListenPort(kept.number, view.now))
            view = replace(view, released=view.released.insert((service, port)))
    if held is view.ports.get(service, _NONE):
        return view
    return replace(view, ports=view.ports.insert(service, held))


def expire(view: View) -> View:
    """Forget the numbers that were released 24 h ago or longer: from now on anybody may have them."""
    view = counted(view)
    for service, port in tuple(view.released):
        held = view.ports[service]
        kept = held[port]
        if kept.released_at is not None and view.now - kept.released_at >= HOLD:
            held = held.remove(port)
            view = replace(
                view,
                ports=view.ports.insert(service, held) if held else view.ports.remove(service),
                released=view.released.remove((service, port)),
                free=_give(view.free or (), kept.number) if _in_range(view, kept.number) else view.free,
            )
    return view


def counted(view: View) -> View:
    """The view with its free numbers counted, as they must be once after `ports` were read back."""
    if view.free is not None:
        return view
    first, last = view.me.port_range
    ports: HashTrieMap[Service, HashTrieMap[int, ListenPort]] = HashTrieMap(
        {
            service: HashTrieMap(
                {port: replace(kept, released_at=kept.released_at or view.now) for port, kept in held.items()}
            )
            for service, held in view.ports.items()
        }
    )
    taken = [kept.number for held in ports.values() for kept in held.values()]
    released = HashTrieSet((service, port) for service, held in ports.items() for port in held)
    return replace(view, ports=ports, released=released, free=_between(first, last, taken))


def _allocated(
    view: View, service: Service, port: int, held: HashTrieMap[int, ListenPort]
) -> tuple[View, HashTrieMap[int, ListenPort]]:
    view = replace(view, released=view.released.discard((service, port)))
    if not view.free:
        return view, held.remove(port) if port in held else held
    (first, last), *rest = view.free
    free = ((first + 1, last), *rest) if first < last else tuple(rest)
    return replace(view, free=free), held.insert(port, ListenPort(first))


def _in_range(view: View, number: int) -> bool:
    first, last = view.me.port_range
    return first <= number <= last


def _between(first: int, last: int, taken: Iterable[int]) -> Intervals:
    gaps: list[tuple[int, int]] = []
    for number in sorted(set(taken)):
        if first <= number <= last:
            if first < number:
                gaps.append((first, number - 1))
            first = number + 1
    return (*gaps, (first, last)) if first <= last else tuple(gaps)


def _give(free: Intervals, number: int) -> Intervals:
    at = bisect(free, (number, number))
    before, after = free[:at], free[at:]
    first = last = number
    if before and before[-1][1] == number - 1:
        first, before = before[-1][0], before[:-1]
    if after and after[0][0] == number + 1:
        last, after = after[0][1], after[1:]
    return (*before, (first, last), *after)
