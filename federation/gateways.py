"""The agent's side of its own gateways: who may speak, which snapshot each gets, and what they report.

A gateway is known by its certificate: the class is in its identity, the instance is bound to its key when it attests.
Where it listens is a label of its own; gateways that share (class, bind address, port) share snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import ip_address

import structlog
from rpds import HashTrieMap

from federation.agent import Agent
from federation.api.messages import GatewayStatus, RejectedResource
from federation.attest import Instances
from federation.banned import banned
from federation.clock import Clock
from federation.events import GatewayGone, GatewayLost, GatewayReported
from federation.held import Version, common
from federation.model import OwnGateway, Path, Service
from gateway import names
from gateway.compile import Place
from gateway.secrets import bundle_secret
from gateway.snapshot import SECRET, Key, Snapshot
from gateway.xds.lane import Rejected
from gateway.xds.latest import Latest
from gateway.xds.server import Client, Denied, Stream, Where
from pki.algorithms import spki_hash
from pki.bundle import Bundle
from pki.certificate import load_pem, public_key
from pki.errors import PkiError
from pki.ledger import Entry
from pki.spiffe import SpiffeId
from pki.validate import verify_peer

FORGOTTEN_AFTER = timedelta(hours=24)
"""Silence after which a gateway is no longer told to others."""

MOST_NAMED = 5
"""Trust domains in one line for people."""

_NO_PATHS: HashTrieMap[str, Path] = HashTrieMap()
_NONE_FAILED: HashTrieMap[tuple[Service, int], frozenset[str]] = HashTrieMap()

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Report:
    """The last word of one gateway."""

    at: datetime
    envoy: str
    certificate_expires_at: datetime | None
    draining: bool
    issuer: bytes = b""
    """The key identifier of the authority whose certificate its Envoy presents."""
    bundle: Version = (0, 0)
    """The version of our own bundle that it goes by."""


class Gateways:
    """What the agent knows of its gateways beyond the view: streams, last reports, snapshots by place.

    `certified` tells of the certificates that were handed out for a key (`pki.lineage.Lineage.certified`).
    """

    def __init__(
        self,
        agent: Agent,
        bundle: Callable[[], Bundle],
        instances: Instances,
        clock: Clock,
        certified: Callable[[str], Iterable[Entry]],
    ) -> None:
        self._agent = agent
        self._bundle = bundle
        self._instances = instances
        self._clock = clock
        self._certified = certified
        self._latest: dict[Place, Latest[Snapshot]] = {}
        self._streams: dict[str, Stream] = {}
        self._refused: dict[str, dict[Key, Rejected]] = {}
        self._reports: dict[str, Report] = {}
        self._reporting: dict[str, Client] = {}
        self._keys: dict[str, str] = {}
        self._acked: dict[str, dict[str, Version | None]] = {}
        self._left: dict[str, datetime] = {}
        instances.is_connected = self.is_connected

    def publish(self, snapshots: Mapping[Place, Snapshot]) -> None:
        """Hand new snapshots to the streams of their places."""
        for place, snapshot in snapshots.items():
            if place in self._latest:
                self._latest[place].publish(snapshot)
            else:
                self._latest[place] = Latest(snapshot)

    # ---- who may speak -------------------------------------------------------------------------------------------

    def authorize(self, chain: bytes) -> Client | Denied:
        """The gateway that a certificate chain (PEM) proves; verified here again, by our own trust domain alone."""
        try:
            certificates = load_pem(chain)
            bundle = self._bundle()
            identity = verify_peer(certificates, {bundle.trust_domain: bundle}, self._clock.now())
        except PkiError as error:
            return Denied(str(error))
        role, _, gateway_class = identity.path[1:].partition("/")
        if role != "gateway":
            return Denied(f"{identity} is not a gateway")
        key = spki_hash(public_key(certificates[0]))
        if (refusal := self.why_banned(identity, key)) is not None:
            return Denied(refusal)
        return Client(str(identity), gateway_class, self._instances.name_of(key), key)

    def why_banned(self, identity: SpiffeId, key: str) -> str | None:
        """As `WhyBanned` says, by what the agent has heard of bans."""
        found = banned(self._agent.view.bans, identity, key, self._agent.view.me.base)
        return None if found is None else str(found)

    def refused(self, client: Client) -> str | None:
        """The same of one that speaks to us."""
        return self.why_banned(SpiffeId.parse(client.identity), client.key)

    def choose(self, client: Client, where: Where) -> Latest[Snapshot] | None:
        """The snapshots of the place where this client listens; a new place is compiled at once.

        None while what was compiled for it is withheld: the gateway then goes on with what it has.
        """
        place = (client.gateway_class, where.bind, where.bind_port)
        if not _can_be_bound(where.bind, where.bind_port):
            log.warning("a gateway does not say where it listens", instance=client.instance, bind=where.bind)
            return None
        self._agent.catch_up()
        if place not in self._agent.compiled.snapshots:
            self._place(client, where)
        return self._latest.get(place)

    def _place(self, client: Client, where: Where) -> None:
        """Note where a gateway listens, before it has reported or since; what it sees is for its reports to say."""
        name, view = client.instance, self._agent.view
        known = view.gateways.get(name)
        if known is None:
            known = OwnGateway(name, client.gateway_class, "", 0, where.bind, where.bind_port, serving=False)
        placed = replace(known, bind=where.bind, bind_port=where.bind_port)
        paths, failed = view.paths.get(name, _NO_PATHS), view.failed.get(name, _NONE_FAILED)
        self._agent.submit(GatewayReported(placed, dict(paths.items()), dict(failed.items())))
        if name not in self._reporting:
            self._agent.submit(GatewayLost(name))
        self._agent.catch_up()

    # ---- what they say -------------------------------------------------------------------------------------------

    def stream_changed(self, stream: Stream) -> None:
        instance = stream.client.instance
        self._streams[instance] = stream
        refused = stream.subscription.rejected()
        for (kind, name), why in refused.items():
            if self._refused.get(instance, {}).get((kind, name)) != why:
                log.warning(
                    "refused by a gateway", instance=instance, type=kind, resource=name, error=why.error
                )
        self._refused[instance] = refused

    def stream_ended(self, stream: Stream) -> None:
        instance = stream.client.instance
        if self._streams.get(instance) is stream:
            self._note_acked(instance)
            del self._streams[instance], self._refused[instance]

    def reported(
        self,
        by: Client,
        gateway: OwnGateway,
        report: Report,
        paths: Mapping[str, Path],
        failed: Mapping[tuple[Service, int], frozenset[str]],
    ) -> None:
        """A gateway's whole state, as it sees it now; `by` stands for the stream on which it says so."""
        if not _can_be_bound(gateway.bind, gateway.bind_port):
            log.warning("a gateway does not say where it listens", instance=gateway.name, bind=gateway.bind)
            return
        self._left.pop(gateway.name, None)
        self._reports[gateway.name] = report
        self._reporting[gateway.name] = by
        self._keys[gateway.name] = by.key
        self._agent.submit(GatewayReported(gateway, paths, failed))

    def fell_silent(self, by: Client) -> None:
        """A report stream ended: in good order after draining, else the gateway stays listed for a day.

        One that a newer stream of the same gateway has taken over from says nothing.
        """
        name = by.instance
        if self._reporting.get(name) is not by:
            return
        del self._reporting[name]
        if self._reports[name].draining:
            # Nobody is told of it any more. But it comes back with what it has, as after a restart in good order.
            self._left[name] = self._reports[name].certificate_expires_at or self._clock.now()
            self._agent.submit(GatewayGone(name))
        else:
            self._agent.submit(GatewayLost(name))

    async def forget(self, name: str) -> bool:
        """Drop a gateway that is not connected, durably; False if it is connected or unknown. Raises StoreError.

        Nobody waits for it any more. If it comes back while its certificate lives, it is named by its key.
        """
        if name in self._reporting or name not in {*self.counted, *self._agent.view.gateways}:
            return False
        await self._instances.unbind(name)
        if name not in self._reporting:
            self._drop(name)
        return True

    def _drop(self, name: str) -> None:
        self._reports.pop(name, None)
        self._keys.pop(name, None)
        self._acked.pop(name, None)
        self._left.pop(name, None)
        self._agent.submit(GatewayGone(name))

    async def forget_the_lost(self) -> None:
        """Tell nobody any more of gateways that were silent for too long, for ever; their own cluster goes on waiting
        for those whose certificate lives.
        """
        since = self._clock.now()
        while True:
            await self._clock.sleep(60.0)
            for name in self._agent.view.gateways:
                last = self._reports[name].at if name in self._reports else since
                if name not in self._reporting and self._clock.now() - last >= FORGOTTEN_AFTER:
                    self._agent.submit(GatewayGone(name))
            listed = {*self._agent.view.gateways, *self._reporting, *self.counted}
            for name in self._reports.keys() - listed:
                self._drop(name)

    # ---- what they go by -----------------------------------------------------------------------------------------

    def held(self) -> dict[str, Version]:
        """Of which trust domain which version of the bundle is held by every gateway that counts, and by this agent's
        disk: what a restart takes back, it would take from them, too.
        """
        kept = (each for name, each in self._agent.view.bundles.items() if self._agent.keeps_bundle(name))
        everyone = {bundle.trust_domain.name: bundle.version for bundle in kept}
        for name in self._streams:
            self._note_acked(name)
        trusted = {peer.trust_domain.name for peer in self._agent.compiled.fabric.peers}
        acked = [self._acked.get(name, {}) for name in self.counted]
        return common(everyone, trusted, acked)

    def behind(self) -> tuple[str, ...]:
        """Which gateways do not hold the newest anchors of whom, for people: others may wait for them."""
        newest = {peer.trust_domain.name: peer.bundle.version for peer in self._agent.compiled.fabric.peers}
        found = []
        for name in self.counted:
            acked = self._acked.get(name, {})
            missing = sorted(domain for domain, version in newest.items() if acked.get(domain) != version)
            if missing:
                lacks = ", ".join(missing[:MOST_NAMED]) + (" and others" if len(missing) > MOST_NAMED else "")
                found.append(
                    f"gateway {name}, {self.whereabouts(name)}, has not acknowledged the anchors of {lacks}"
                )
        return tuple(found)

    def _note_acked(self, name: str) -> None:
        """A secret that a gateway acknowledged is on its disk, and its Envoy has taken it (`gateway.relay`); one that
        it does not have any more, by its word, they have let go of.
        """
        lane = self._streams[name].subscription.lanes.get(SECRET)
        if lane is None:
            return  # it is just beginning to speak
        acked = self._acked.setdefault(name, {})
        for bundle in self._agent.view.bundles.values():
            domain, known = bundle.trust_domain.name, lane.known.get(names.bundle(bundle.trust_domain))
            if known is None:
                acked[domain] = None
            elif acked.get(domain) != bundle.version:
                if known == bundle_secret(bundle).version:
                    acked[domain] = bundle.version
                elif acked.get(domain) is None:
                    acked.pop(domain, None)  # a version from before, nobody knows which

    def report(self, name: str) -> Report | None:
        """The last word of a gateway since this agent started."""
        return self._reports.get(name)

    def keys(self) -> dict[str, str]:
        """The keys (SPKI hashes) that gateways have, each with the name of its gateway: those that are bound, and that
        by which each was heard last, which may be bound no more.
        """
        return {**{key: name for name, key in self._keys.items()}, **self._instances.keys()}

    def whereabouts(self, name: str) -> str:
        """Whether a gateway is there, or since when it is not, for people."""
        if name in self._reporting:
            return "connected"
        report = self._reports.get(name)
        if report is None:
            return "silent since this agent started"
        how = "stopped in good order, last heard" if name in self._left else "silent since"
        return f"{how} {report.at.isoformat(timespec='seconds')}"

    @property
    def counted(self) -> tuple[str, ...]:
        """The gateways for which others wait: those that are connected, and all that may come back with what they have,
        until their certificate has ended or they are forgotten. Such a one may be silent, have left in good order, or
        not have been heard since the start or at all. Who is banned is turned away, and counts no more.
        """
        now, bound, listed = self._clock.now(), self._instances.keys(), set(self._agent.view.gateways)
        names = set(bound.values())
        self._left = {name: ends for name, ends in self._left.items() if ends > now}
        banned = {name for name in listed if self._is_banned(name)}
        there = {name for name in listed - banned if not self._has_ended(name, name in names, now)}
        there |= self._left.keys() & names
        settled = there | banned
        may_come = (name for key, name in bound.items() if name not in settled and self._may_come(key, now))
        return tuple(sorted(there.union(may_come)))

    def _has_ended(self, name: str, is_bound: bool, now: datetime) -> bool:
        """Whether nothing but a key that is bound to it could speak for a silent gateway. One of which nobody knows a
        key or a certificate is waited for while it is listed.
        """
        if self.is_connected(name):
            return False
        if (report := self._reports.get(name)) is None:
            return is_bound
        return report.certificate_expires_at is not None and report.certificate_expires_at <= now

    def _may_come(self, key: str, now: datetime) -> bool:
        """Whether a certificate for this key lives, and whoever shows it is not turned away."""
        return any(
            entry.not_after > now and self.why_banned(SpiffeId.parse(entry.identity), key) is None
            for entry in self._certified(key)
        )

    def _is_banned(self, name: str) -> bool:
        """Whether a gateway is turned away, so that it will never say anything again."""
        view = self._agent.view
        if not view.bans:
            return False
        identity = SpiffeId.gateway(view.me.trust_domain, view.gateways[name].cls)
        keys = (key for key, bound in self._instances.keys().items() if bound == name)
        return any(self.why_banned(identity, key) is not None for key in keys)

    # ---- how they stand ------------------------------------------------------------------------------------------

    def is_connected(self, name: str) -> bool:
        """Whether the gateway of this name has any stream to us."""
        return name in self._reporting or name in self._streams

    @property
    def connected(self) -> int:
        return len(self._streams)

    def status(self) -> tuple[GatewayStatus, ...]:
        return tuple(self._status(gateway) for _, gateway in sorted(self._agent.view.gateways.items()))

    def _status(self, gateway: OwnGateway) -> GatewayStatus:
        stream = self._streams.get(gateway.name)
        report = self._reports.get(gateway.name)
        place = (gateway.cls, gateway.bind, gateway.bind_port)
        snapshot = self._agent.compiled.snapshots.get(place)
        rejected = stream.subscription.rejected() if stream else {}
        return GatewayStatus(
            name=gateway.name,
            address=f"{gateway.address}:{gateway.port}",
            connected=stream is not None and gateway.name in self._reporting,
            state="silent"
            if gateway.name not in self._reporting
            else "serving"
            if gateway.serving
            else "draining",
            snapshot=snapshot.number if snapshot else 0,
            acknowledged=stream.subscription.acked if stream else 0,
            envoy=report.envoy if report else "",
            certificate_expires_at=report.certificate_expires_at if report else None,
            rejected=tuple(
                RejectedResource(type=kind.rpartition(".")[2], name=name, error=why.error)
                for (kind, name), why in sorted(rejected.items())
            ),
        )


def _can_be_bound(address: str, port: int) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return 1 <= port <= 65535
