"""A model of Envoy as an xDS client: it applies responses, resolves references, and says when one leads nowhere.

What it copies from the real one: a cluster is accepted only when it is warm (its endpoints and secrets are there), a
listener serves only when its secrets and routes are there and the old one serves until then, and new subscriptions are
sent before the acceptance of the response that caused them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.snapshot import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, TYPES, Key, Resource
from gateway.xds.messages import Request, Response


def resource(
    type_url: str, name: str, revision: int, refers: Iterable[Key] = (), *, bad: bool = False
) -> Resource:
    """A resource whose body says what it refers to, and whether a client refuses it."""
    body = {"revision": revision, "refers": sorted(refers), "bad": bad}
    return Resource.of(type_url, name, json.dumps(body).encode())


def refers(found: Resource) -> list[Key]:
    return [(type_url, name) for type_url, name in json.loads(found.body)["refers"]]


def is_bad(found: Resource) -> bool:
    return bool(json.loads(found.body)["bad"])


@dataclass
class EnvoyModel:
    """`applies_good_ones`: whether a refused response is applied as far as it is good (Envoy: it depends).

    `is_mended`: bad resources are not refused any more.
    """

    applies_good_ones: bool = True
    is_mended: bool = False
    held: dict[Key, Resource] = field(default_factory=dict)
    warming: dict[Key, Resource] = field(default_factory=dict)
    refused: set[Key] = field(default_factory=set)
    subscribed: set[Key] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)
    withheld: list[str] = field(default_factory=list)
    heard: set[str] = field(default_factory=set)

    def connect(self) -> list[Request]:
        """A new stream: what was received before is offered as known, and subscriptions by name are repeated."""
        self.withheld = []
        self.heard = set()
        self.opened = set()
        self.subscribed = set()
        named = {request.type_url: request for request in self._subscriptions()}
        wildcards = {t: Request(t, initial=self._received(t)) for t in (CLUSTER, LISTENER)}
        return [found for t in TYPES if (found := wildcards.get(t) or named.get(t)) is not None]

    def receive(self, response: Response) -> list[Request]:
        """Apply; what is said in return. Raises AssertionError when something would refer to what is not there."""
        self.heard.add(response.type_url)
        bad = sorted(r.name for r in response.put if is_bad(r) and not self.is_mended)
        self.refused.update((response.type_url, name) for name in bad)
        for found in response.put:
            if found.name in bad or (bad and not self.applies_good_ones):
                continue
            if found.type_url in (CLUSTER, LISTENER):
                self.warming[found.key] = found
            elif found.key in self.subscribed:
                self.held[found.key] = found
        for name in response.removed:
            self.held.pop((response.type_url, name), None)
            self.warming.pop((response.type_url, name), None)
        self._warm()
        answers = self._subscriptions()
        if bad:
            answers.append(Request(response.type_url, response.nonce, error=f"bad: {', '.join(bad)}"))
        elif response.type_url == CLUSTER:
            self.withheld.append(response.nonce)
        else:
            answers.append(Request(response.type_url, response.nonce))
        if not any(type_url == CLUSTER for type_url, _ in self.warming):
            answers.extend(Request(CLUSTER, nonce) for nonce in self.withheld)
            self.withheld = []
        self._check()
        return answers

    def give_up_waiting(self) -> list[Request]:
        """`initial_fetch_timeout`: go on without what did not come."""
        self.refused |= {
            key for found in self.warming.values() for key in refers(found) if not self._is_there(key)
        }
        self._warm()
        answers, self.withheld = [Request(CLUSTER, nonce) for nonce in self.withheld], []
        return answers

    def versions(self) -> dict[Key, str]:
        return {key: found.version for key, found in self.held.items()}

    def _received(self, type_url: str) -> dict[str, str]:
        received = {**self.held, **self.warming}
        return {name: found.version for (kind, name), found in received.items() if kind == type_url}

    def _warm(self) -> None:
        """Clusters need endpoints and secrets, listeners routes and secrets; what was refused is not waited for."""
        for key, found in list(self.warming.items()):
            needed = [target for target in refers(found) if target[0] in (ENDPOINTS, SECRET, ROUTES)]
            if all(self._is_there(target) for target in needed):
                self.held[key] = self.warming.pop(key)
        self.refused -= set(self.held)

    def _is_there(self, key: Key) -> bool:
        return key in self.held or key in self.refused

    def _subscriptions(self) -> list[Request]:
        users = [
            r
            for found in (self.held, self.warming)
            for (t, _), r in found.items()
            if t in (CLUSTER, LISTENER)
        ]
        wanted = {key for user in users for key in refers(user) if key[0] in (ENDPOINTS, SECRET, ROUTES)}
        requests = []
        for type_url in (ENDPOINTS, SECRET, ROUTES):
            new = tuple(sorted(name for kind, name in wanted - self.subscribed if kind == type_url))
            old = tuple(sorted(name for kind, name in self.subscribed - wanted if kind == type_url))
            for name in old:
                self.held.pop((type_url, name), None)
                self.refused.discard((type_url, name))
            initial = self._received(type_url) if type_url not in self.opened else {}
            if new or old:
                self.opened.add(type_url)
                requests.append(Request(type_url, subscribe=new, unsubscribe=old, initial=initial))
        self.subscribed = wanted
        return requests

    def _check(self) -> None:
        """Make before break: nothing in use refers to what is not there."""
        for key, found in self.held.items():
            if key[0] in (CLUSTER, LISTENER) or (key[0] == ROUTES and self._is_used(key)):
                for target in refers(found):
                    assert self._is_there(target), f"{key} refers to {target}, which is not there"

    def _is_used(self, routes: Key) -> bool:
        return any(routes in refers(found) for (kind, _), found in self.held.items() if kind == LISTENER)
