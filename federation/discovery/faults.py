"""What makes no sense in one object that has the right fields: names, addresses, ports, our annotations.

Each check looks at one object alone, so an object without a fault can be translated whatever the others say. Nothing
is repaired: an object with a fault is refused as a whole by whoever read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import assert_never

from federation.admit import MOST_CAPACITY, MOST_SCOPE
from federation.discovery.kinds import (
    CAPACITY,
    PREFIX,
    SCOPE,
    SERVICE_NAME,
    EndpointSlice,
    KubeObject,
    Ref,
    Service,
    ServiceExport,
)
from pki.errors import InvalidName
from pki.names import dns_name, is_dns_label

Path = tuple[str | int, ...]
Fault = tuple[Path, str, str]

LABEL = "a DNS label: 1 to 63 of a-z, 0-9 and '-', with no '-' at either end"
SUBDOMAIN = "DNS labels joined by '.', at most 253 characters"

_ADDRESS = {"IPv4": IPv4Address, "IPv6": IPv6Address}
_ZONE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_CAPACITY = re.compile(r"[1-9][0-9]{0,6}")


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """What is wrong with the value at `path` of the object `of`, and what would be accepted there."""

    of: Ref
    path: Path
    problem: str
    allowed: str = ""


def faults(subject: KubeObject) -> Iterator[Finding]:
    """All that is wrong with `subject`, whatever other objects there are."""
    for path, problem, allowed in _faults(subject):
        yield Finding(subject.ref, path, problem, allowed)


def _faults(subject: KubeObject) -> Iterator[Fault]:
    yield from _names(subject)
    match subject:
        case Service():
            yield from _ports(subject)
        case EndpointSlice():
            yield from _belongs(subject)
            yield from _addresses(subject)
            yield from _port_names(subject)
            yield from _zones(subject)
        case ServiceExport():
            yield from _scope(subject)
            yield from _capacity(subject)
        case _:
            assert_never(subject)


def _names(subject: KubeObject) -> Iterator[Fault]:
    """Name and namespace, and annotations that look like ours: a misspelt one would silently do nothing."""
    name, namespace = subject.metadata.name, subject.metadata.namespace
    if isinstance(subject, EndpointSlice):
        if not _is_subdomain(name):
            yield ("metadata", "name"), f"got {_short(name)}", SUBDOMAIN
    elif not is_dns_label(name):
        yield ("metadata", "name"), f"got {_short(name)}", LABEL
    if not is_dns_label(namespace):
        yield ("metadata", "namespace"), f"got {_short(namespace)}", LABEL
    ours = (SCOPE, CAPACITY) if isinstance(subject, ServiceExport) else ()
    for key in subject.metadata.annotations:
        if key.startswith(PREFIX) and key not in ours:
            yield (
                ("metadata", "annotations", key),
                "unknown annotation",
                f"{SCOPE} and {CAPACITY}, on a ServiceExport",
            )


def _ports(service: Service) -> Iterator[Fault]:
    """As the API server validates a Service: several ports have names, and each name and number comes once."""
    names: set[str] = set()
    numbers: set[tuple[int, str]] = set()
    for index, port in enumerate(service.spec.ports):
        at: Path = ("spec", "ports", index)
        if not port.name and len(service.spec.ports) > 1:
            yield at, 'the field "name" is missing', f"{LABEL}; one port alone may go without"
        elif port.name and not is_dns_label(port.name):
            yield (*at, "name"), f"got {_short(port.name)}", LABEL
        elif port.name in names:
            yield (*at, "name"), f"a second port named {port.name!r}", "each name once"
        if (port.port, port.protocol) in numbers:
            yield (*at, "port"), f"a second port {port.port}/{port.protocol}", "each number and protocol once"
        names.add(port.name)
        numbers.add((port.port, port.protocol))


def _belongs(part: EndpointSlice) -> Iterator[Fault]:
    name = part.metadata.labels.get(SERVICE_NAME)
    if name is None:
        yield ("metadata", "labels"), f"the label {SERVICE_NAME} is missing", "the name of a Service"
    elif not is_dns_label(name):
        yield ("metadata", "labels", SERVICE_NAME), f"got {_short(name)}", LABEL


def _addresses(part: EndpointSlice) -> Iterator[Fault]:
    for index, endpoint in enumerate(part.endpoints or ()):
        for place, address in enumerate(endpoint.addresses):
            try:
                _ADDRESS[part.address_type](address)
            except ValueError:
                fits = False
            else:
                fits = "%" not in address
            if not fits:
                allowed = f"an {part.address_type} address, as addressType says"
                yield ("endpoints", index, "addresses", place), f"got {_short(address)}", allowed


def _port_names(part: EndpointSlice) -> Iterator[Fault]:
    names: set[tuple[str, str]] = set()
    for index, port in enumerate(part.ports or ()):
        name = port.name or ""
        if name and not is_dns_label(name):
            yield ("ports", index, "name"), f"got {_short(name)}", LABEL
        elif (name, port.protocol) in names:
            called = f"a second port named {name!r}" if name else "a second port without a name"
            yield ("ports", index), called, "each name once"
        names.add((name, port.protocol))


def _zones(part: EndpointSlice) -> Iterator[Fault]:
    for index, endpoint in enumerate(part.endpoints or ()):
        if not _ZONE.fullmatch(endpoint.zone):
            allowed = "at most 63 of letters, digits, '-', '_' and '.', with a letter or digit at either end"
            yield ("endpoints", index, "zone"), f"got {_short(endpoint.zone)}", allowed


def _scope(export: ServiceExport) -> Iterator[Fault]:
    scope = export.scope
    if scope is not None and (len(scope) > MOST_SCOPE or not all(map(is_dns_label, scope))):
        text = export.metadata.annotations[SCOPE]
        allowed = f'names of clusters with commas between, such as "west,central", at most {MOST_SCOPE}'
        yield ("metadata", "annotations", SCOPE), f"got {_short(text)}", allowed


def _capacity(export: ServiceExport) -> Iterator[Fault]:
    text = export.metadata.annotations.get(CAPACITY)
    if text is not None and (not _CAPACITY.fullmatch(text) or int(text) > MOST_CAPACITY):
        allowed = f'a whole number from 1 to {MOST_CAPACITY} in quotes, such as "40"'
        yield ("metadata", "annotations", CAPACITY), f"got {_short(text)}", allowed


def _is_subdomain(text: str) -> bool:
    try:
        dns_name(text)
    except InvalidName:
        return False
    return True


def _short(text: str) -> str:
    return repr(text if len(text) <= 63 else text[:60] + "...")
