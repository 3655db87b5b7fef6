"""What a gateway shall have: resources by type and name, each encoded once and shared by every stream.

A snapshot holds nothing secret and nothing that belongs to one gateway alone; the gateway adds its own key by SDS.
It is a persistent map: the next snapshot shares all that did not change, and says what did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeAlias

from rpds import HashTrieMap

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

TYPES = (CLUSTER, ENDPOINTS, SECRET, LISTENER, ROUTES)
"""In the order in which additions are sent, so that nothing refers to what is not there yet (Envoy, "xDS protocol:
eventual consistency considerations"). Removals go the other way, last."""

Key = tuple[str, str]
"""(type URL, name)"""


@dataclass(frozen=True, slots=True)
class Resource:
    """One xDS resource; `body` is the serialised message that goes into the Any, `version` its content hash."""

    type_url: str
    name: str
    version: str
    body: bytes

    @classmethod
    def of(cls, type_url: str, name: str, body: bytes) -> Resource:
        return cls(type_url, name, sha256(body).hexdigest()[:16], body)

    @property
    def key(self) -> Key:
        return self.type_url, self.name


Resources: TypeAlias = "HashTrieMap[str, Resource]"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All resources of one class of gateway; `changed` names the keys that differ from snapshot `number - 1`.

    `types` has the types of which it is known what there is; one without any resource is there, and empty. Of a type
    that is not there nothing is known yet, which is not the same: silence is not emptiness.
    """

    number: int = 0
    types: HashTrieMap[str, Resources] = field(default_factory=HashTrieMap)
    changed: frozenset[Key] = frozenset()

    def get(self, type_url: str, name: str) -> Resource | None:
        return self.of(type_url).get(name)

    def of(self, type_url: str) -> Resources:
        return self.types.get(type_url) or HashTrieMap()

    def differences(self, before: Snapshot) -> frozenset[Key]:
        """Keys that may differ: what `changed` says if `before` is the previous snapshot, else by comparing all."""
        if self.number == before.number + 1:
            return self.changed
        return frozenset(
            (type_url, name)
            for type_url in TYPES
            for name in {*before.of(type_url), *self.of(type_url)}
            if before._version(type_url, name) != self._version(type_url, name)
        )

    def _version(self, type_url: str, name: str) -> str | None:
        resource = self.get(type_url, name)
        return None if resource is None else resource.version

    def replace(
        self, put: Iterable[Resource], remove: Iterable[Key], known_types: Iterable[str] = ()
    ) -> Snapshot:
        """The next snapshot. What is put with the version it has already, and what is removed twice, is no change.

        Of `known_types` is known what there is, if only that there is nothing; so it is of the types of `put`.
        """
        types = self.types
        for type_url in known_types:
            if type_url not in types:
                types = types.insert(type_url, HashTrieMap())
        changed: set[Key] = set()
        for key in remove:
            if (known := types.get(key[0])) is not None and key[1] in known:
                types = types.insert(key[0], known.remove(key[1]))
                changed.add(key)
        for resource in put:
            known = types.get(resource.type_url) or HashTrieMap()
            if (before := known.get(resource.name)) is None or before.version != resource.version:
                types = types.insert(resource.type_url, known.insert(resource.name, resource))
                changed.add(resource.key)
        return self if types is self.types else Snapshot(self.number + 1, types, frozenset(changed))


def versions(resources: Mapping[str, Resource] | Resources) -> dict[str, str]:
    """Name to version, as `initial_resource_versions` wants it."""
    return {name: resource.version for name, resource in resources.items()}
