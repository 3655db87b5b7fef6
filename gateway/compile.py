"""How decisions look to Envoy: plans and fabric in, a snapshot for each place where a gateway listens out.

Pure, and incremental without patching: the resources of a service follow from its plans alone, those of the
fabric from `FabricInputs` alone, and only what differs from last time is made again. After any sequence of
steps the snapshots equal those compiled from scratch.

Gateways of one class share every resource but the addresses of their listeners, so a snapshot belongs to a
(class, bind address, east-west port), not to a gateway.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from rpds import HashTrieMap

from federation.inputs import FabricInputs, Peer
from federation.model import Service
from federation.route import PortPlan
from gateway import clusters, endpoints, listeners, names, routes, secrets
from gateway.routes import Table
from gateway.snapshot import LISTENER, ROUTES, TYPES, Key, Resource, Snapshot
from gateway.tuning import Tuning

Place = tuple[str, str, int]
"""(class, bind address, east-west port): what gateways that share a snapshot have in common."""

Plans = tuple[PortPlan, ...]


@dataclass(frozen=True, slots=True)
class Listening:
    """A listener without its address, encoded. `port` is None for the one whose port belongs to the place."""

    name: str
    body: bytes
    port: int | None

    def at(self, place: Place) -> Resource:
        _, address, east_west_port = place
        return listeners.at(self.body, self.name, address, east_west_port if self.port is None else self.port)


@dataclass(frozen=True, slots=True)
class Made:
    """What a plan, or the fabric, looks like to Envoy.

    `resources` are the same at every place, `listening` differs by its address. `hosts` maps the name of each
    virtual host to (its encoded field, the route tables that hold it).
    """

    resources: tuple[Resource, ...] = ()
    listening: tuple[Listening, ...] = ()
    hosts: tuple[tuple[str, bytes, frozenset[str]], ...] = ()

    def keys(self) -> set[Key]:
        own = {resource.key for resource in self.resources}
        return own | {(LISTENER, listening.name) for listening in self.listening}

    def entries(self) -> dict[tuple[str, str], bytes]:
        """(route table, virtual host) to the encoded field."""
        return {(table, name): body for name, body, tables in self.hosts for table in tables}


@dataclass(frozen=True, slots=True)
class Compiled:
    """What was compiled last. `start` gives the first one, `compile_step` each next.

    `recomputed` names the services whose resources the last step made; all others were taken over.
    """

    tuning: Tuning
    fabric: FabricInputs
    snapshots: HashTrieMap[Place, Snapshot] = field(default_factory=HashTrieMap)
    recomputed: frozenset[Service] = frozenset()
    fabric_made: Made = field(default_factory=Made)
    services: HashTrieMap[Service, tuple[Plans, Made]] = field(default_factory=HashTrieMap)
    tables: HashTrieMap[str, Table] = field(default_factory=HashTrieMap)


def start(fabric: FabricInputs, tuning: Tuning) -> Compiled:
    """A cluster without services, or with none known yet."""
    nothing = Compiled(tuning, FabricInputs(fabric.me, fabric.base, peers=(), binds=()))
    return compile_step(nothing, {}, fabric)


def compile_step(previous: Compiled, plans: Mapping[Service, Plans], fabric: FabricInputs) -> Compiled:
    """The next `Compiled`: `plans` holds the services that may have changed (no plans: it is gone).

    Costs what differs, whatever else there is; a route table is concatenated again when an entry of it
    changes. Raises ValueError for a fabric of another cluster: the names in all resources come from it.
    """
    if (fabric.me, fabric.base) != (previous.fabric.me, previous.fabric.base):
        raise ValueError(f"{previous.fabric.me} cannot become {fabric.me}")
    tuning = previous.tuning
    services = previous.services
    steps: list[tuple[Made, Made]] = []
    recomputed = []
    for service, wanted in plans.items():
        held, before = services.get(service) or ((), Made())
        if wanted == held:
            continue
        after = service_resources(wanted, fabric.me, tuning)
        services = services.insert(service, (wanted, after)) if wanted else services.discard(service)
        steps.append((before, after))
        recomputed.append(service)
    fabric_made = previous.fabric_made
    if fabric != previous.fabric or not fabric_made.resources:
        fabric_made = fabric_resources(fabric, tuning)
        steps.append((previous.fabric_made, fabric_made))
    tables = _tables(previous.tables, steps)
    compiled = Compiled(
        tuning, fabric, previous.snapshots, frozenset(recomputed), fabric_made, services, tables
    )
    return _with_snapshots(compiled, previous, steps)


def service_resources(plans: Plans, me: str, tuning: Tuning) -> Made:
    """All resources of one service in cluster `me`: to reach it, and to let others reach it here."""
    ports = [_port_resources(plan, me, tuning) for plan in plans]
    return Made(
        tuple(resource for made in ports for resource in made.resources),
        tuple(listening for made in ports for listening in made.listening),
        tuple(host for made in ports for host in made.hosts),
    )


def _port_resources(plan: PortPlan, me: str, tuning: Tuning) -> Made:
    service, port = plan.service, plan.port.number
    name = names.imported(service, port)
    resources: list[Resource] = []
    listening: tuple[Listening, ...] = ()
    hosts: tuple[tuple[str, bytes, frozenset[str]], ...] = ()
    if plan.tiers:
        resources += clusters.imported_cluster(service, port, tuning), endpoints.imported_endpoints(plan, me)
        if plan.listen_port is not None:
            body = listeners.imported_listener(service, port, me, tuning)
            listening = (Listening(name, body, plan.listen_port),)
    if _exported(plan, me):
        resources += clusters.local_cluster(service, port, tuning), endpoints.local_endpoints(plan)
        tables = frozenset({names.LOCAL, *(names.inbound(peer) for peer in plan.exported_to)})
        hosts = ((name, routes.virtual_host(service, port, tuning.tunnel), tables),)
    return Made(tuple(resources), listening, hosts)


def _exported(plan: PortPlan, me: str) -> bool:
    ours = any(line.cluster == me for tier in plan.tiers for line in tier.lines)
    return ours or bool(plan.local or plan.exported_to)


def fabric_resources(fabric: FabricInputs, tuning: Tuning) -> Made:
    """What the gateways of this cluster have besides services: the ways to its peers, and the doors for
    them."""
    resources = [listeners.local(fabric.me, tuning)]
    for peer in fabric.peers:
        resources += _peer_resources(peer, fabric.me, tuning)
    if not fabric.peers:
        return Made(tuple(resources))
    body = listeners.east_west(fabric.peers, fabric.me, fabric.base, tuning)
    return Made(tuple(resources), (Listening(names.EAST_WEST, body, None),))


def _peer_resources(peer: Peer, me: str, tuning: Tuning) -> Iterator[Resource]:
    yield clusters.gateway_cluster(peer, me, tuning)
    yield endpoints.gateway_endpoints(peer)
    yield secrets.bundle_secret(peer.bundle)
    yield listeners.onward(peer.name, tuning)
    yield routes.onward(peer, tuning.tunnel)


def _tables(tables: HashTrieMap[str, Table], steps: Iterable[tuple[Made, Made]]) -> HashTrieMap[str, Table]:
    put: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
    remove: defaultdict[str, list[str]] = defaultdict(list)
    for before, after in steps:
        held, wanted = before.entries(), after.entries()
        for table, host in held.keys() - wanted.keys():
            remove[table].append(host)
        for (table, host), body in wanted.items():
            if held.get((table, host)) != body:
                put[table][host] = body
    for table in remove.keys() | put.keys():
        entries = routes.changed(tables.get(table) or {}, put[table], remove[table])
        tables = tables.insert(table, entries)
    return tables


def _with_snapshots(compiled: Compiled, previous: Compiled, steps: list[tuple[Made, Made]]) -> Compiled:
    """`compiled` with a snapshot for each place: the one before with the differences, or a whole one if it is
    new."""
    put, remove = _changed_tables(compiled, previous)
    listening: list[Listening] = []
    for before, after in steps:
        remove |= before.keys() - after.keys()
        put += after.resources
        listening += after.listening
    snapshots: HashTrieMap[Place, Snapshot] = HashTrieMap()
    for place in compiled.fabric.binds:
        known = previous.snapshots.get(place)
        if known is None:
            snapshots = snapshots.insert(place, _whole(compiled, place))
        else:
            bound = [one.at(place) for one in listening]
            snapshots = snapshots.insert(place, known.replace([*put, *bound], remove))
    return replace(compiled, snapshots=snapshots)


def _changed_tables(compiled: Compiled, previous: Compiled) -> tuple[list[Resource], set[Key]]:
    served, served_before = set(_served(compiled.fabric)), set(_served(previous.fabric))
    put = [
        _table(compiled, name)
        for name in sorted(served)
        if name not in served_before or compiled.tables.get(name) is not previous.tables.get(name)
    ]
    return put, {(ROUTES, name) for name in served_before - served}


def _served(fabric: FabricInputs) -> Iterator[str]:
    yield names.LOCAL
    for peer in fabric.peers:
        yield names.inbound(peer.name)


def _table(compiled: Compiled, name: str) -> Resource:
    return routes.table(name, compiled.tables.get(name) or {})


def _whole(compiled: Compiled, place: Place) -> Snapshot:
    parts = [compiled.fabric_made, *(made for _, made in compiled.services.values())]
    shared = [resource for made in parts for resource in made.resources]
    bound = [one.at(place) for made in parts for one in made.listening]
    tables = [_table(compiled, name) for name in _served(compiled.fabric)]
    return Snapshot().replace([*shared, *bound, *tables], (), TYPES)
