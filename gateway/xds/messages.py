"""What is said on a delta xDS stream, as values: the protocol never sees gRPC or protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.snapshot import Resource, Snapshot

EVERYTHING = "*"
"""Subscribes to all resources of a type (xDS protocol, "wildcard" subscription)."""


@dataclass(frozen=True, slots=True)
class Request:
    """A DeltaDiscoveryRequest. `error` is None unless it refuses the response with `nonce`."""

    type_url: str
    nonce: str = ""
    error: str | None = None
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """A DeltaDiscoveryResponse: either resources to put or names to remove; with neither, there is nothing."""

    type_url: str
    nonce: str
    put: tuple[Resource, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """A newer snapshot. Older ones that were not sent yet are of no interest any more."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Retry:
    """Time has passed: what the client refused may be acceptable now, such as a listener whose port was taken."""


@dataclass(frozen=True, slots=True)
class Overloaded:
    """The stream asks for more than it may and is closed (RESOURCE_EXHAUSTED)."""

    reason: str


Message = Request | Published | Retry
Reply = Response | Overloaded
