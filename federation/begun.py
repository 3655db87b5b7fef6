"""What begins with a change: exports of ours, and ports on which a service is reached from here.

Others come to rely on what begins, so it is on disk before anybody is told of it. Everything else, and above all
whatever ends, needs no disk to be true.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from federation.model import Service, View


@dataclass(frozen=True, slots=True)
class Begun:
    """`exports` are services of which we began to offer a port or all, `ports` are (service, port) that got a listener.

    The order in which they came does not matter, so two of them are united with `|`, and told apart with `-`.
    """

    exports: frozenset[Service] = frozenset()
    ports: frozenset[tuple[Service, int]] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.exports or self.ports)

    def __or__(self, other: Begun) -> Begun:
        return Begun(self.exports | other.exports, self.ports | other.ports)

    def __sub__(self, other: Begun) -> Begun:
        return Begun(self.exports - other.exports, self.ports - other.ports)


def begun(before: View, after: View, touched: Iterable[Service]) -> Begun:
    """What began between two views; `touched` are the services that may differ. Maps that are the same object did not
    change."""
    services = frozenset(touched)
    exports: frozenset[Service] = frozenset()
    ports: frozenset[tuple[Service, int]] = frozenset()
    if before.local is not after.local:
        exports = frozenset(each for each in services if _begins_to_export(before, after, each))
    if before.ports is not after.ports:
        ports = frozenset(
            (each, port)
            for each in services
            for port, _ in _listening(after, each) - _listening(before, each)
        )
    return Begun(exports, ports)


def _begins_to_export(before: View, after: View, service: Service) -> bool:
    first = service in after.first_exported and service not in before.first_exported
    return first or not _offered(after, service) <= _offered(before, service)


def _offered(view: View, service: Service) -> frozenset[int]:
    local = view.local.get(service)
    return frozenset(port.number for port in local.ports) if local and local.exported else frozenset()


def _listening(view: View, service: Service) -> frozenset[tuple[int, int]]:
    """Ports of `service`, each with the number of its listener. A number that was released may be on disk as that."""
    held = view.ports.get(service)
    if held is None:
        return frozenset()
    return frozenset((port, kept.number) for port, kept in held.items() if kept.released_at is None)
