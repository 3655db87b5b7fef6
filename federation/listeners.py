"""Where our own gateways listen: no endpoint of a service may be there.

What a gateway sends to itself comes back as a new request, and then again, until it has no descriptors left. An
endpoint at such a place is refused like one outside the ranges. The whole range of the listen ports counts, not the
ones in use now: any of them may be given to an import at any moment.

Only the addresses that gateways tell are known here. Another name of the same machine is not recognised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from rpds import HashTrieSet

from federation.admit import Refused
from federation.model import Backend, LocalService, OwnGateway, Service, View

GATEWAY = "gateway"
"""The rule on endpoints that are our own gateways."""

_NOBODY: HashTrieSet[Service] = HashTrieSet()


@dataclass(frozen=True, slots=True)
class Listener:
    """One gateway: others dial `advertised` at `port`; its own sockets have the address `bound` (None: every address of
    its machine) and `bound_port` or a port of `imports`."""

    name: str
    advertised: IPv4Address | IPv6Address | None
    port: int
    bound: IPv4Address | IPv6Address | None
    bound_port: int
    imports: tuple[int, int]

    def ports(self) -> frozenset[int]:
        """Every port at which it may listen."""
        first, last = self.imports
        return frozenset({self.port, self.bound_port, *range(first, last + 1)})

    def __contains__(self, backend: Backend) -> bool:
        first, last = self.imports
        local = backend.port == self.bound_port or first <= backend.port <= last
        if not local and backend.port != self.port:
            return False
        address = _address(backend.address)
        if address is None:
            return False
        if backend.port == self.port and address == self.advertised:
            return True
        if self.bound is None:
            return local and (address.is_loopback or address == self.advertised)
        return local and address == self.bound


def listener(gateway: OwnGateway, imports: tuple[int, int]) -> Listener:
    """Where `gateway` listens; `imports` is the range of the listen ports, both ends included."""
    bound = _address(gateway.bind)
    return Listener(
        name=gateway.name,
        advertised=_address(gateway.address),
        port=gateway.port,
        bound=None if bound is not None and bound.is_unspecified else bound,
        bound_port=gateway.bind_port,
        imports=imports,
    )


def own_listeners(view: View) -> tuple[Listener, ...]:
    """Where the gateways of `view` listen, by name."""
    return tuple(listener(gateway, view.me.port_range) for _, gateway in sorted(view.gateways.items()))


def is_listener(backend: Backend, listeners: Sequence[Listener]) -> Refused | None:
    """Why `backend` may not be an endpoint if one of `listeners` is there."""
    for one in listeners:
        if backend in one:
            first, last = one.imports
            return Refused(
                GATEWAY,
                f"{backend} belongs to our own gateway {one.name}, which listens on {one.bound_port} and on "
                f"{first} to {last}: what is sent there would come back without end",
            )
    return None


def found_at(view: View, before: LocalService | None, after: LocalService | None) -> View:
    """The view with `by_port` as a service of ours changes from `before` to `after`; None: it is not there."""
    old, new = _ports(before), _ports(after)
    by_port = view.by_port
    for port in old ^ new:
        services = by_port.get(port, _NOBODY)
        if after is not None and port in new:
            services = services.insert(after.service)
        elif before is not None:
            services = services.discard(before.service)
        by_port = by_port.insert(port, services) if services else by_port.discard(port)
    return replace(view, by_port=by_port)


def _ports(local: LocalService | None) -> frozenset[int]:
    found = {} if local is None or local.backends is None else local.backends
    return frozenset(backend.port for backends in found.values() for backend in backends)


def services_at(view: View, listeners: Iterable[Listener]) -> frozenset[Service]:
    """Our services of which an endpoint is at one of `listeners`."""
    return frozenset(
        service
        for one in listeners
        for port in one.ports()
        for service in view.by_port.get(port, _NOBODY)
        if _is_behind(view.local[service], one)
    )


def _is_behind(local: LocalService, listener: Listener) -> bool:
    return any(backend in listener for backends in (local.backends or {}).values() for backend in backends)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
