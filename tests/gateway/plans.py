"""Plans and fabrics in few words, and the strategies that draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import strategies as st

from federation.inputs import FabricInputs, Peer
from federation.model import Backend, Gateway, Port, Service
from federation.route import Line, PortPlan, Reason, Tier
from gateway import names
from gateway.compile import Place, Plans
from tests.gateway.certificates import BASE, ca

ME = "east"
ECHO = Service("default", "echo")
SECRET = Service("default", "secret")
HERE: Place = (names.GATEWAY_CLASS, "127.0.0.1", 15443)

WELL = Reason("local", "2 of 2 endpoints healthy")


def line(cluster: str, weight: int = 1, *, healthy: bool = True) -> Line:
    return Line(cluster, weight, healthy, WELL if healthy else Reason("lost", "silent, and not reached"))


def plan(
    *tiers: Sequence[Line | str],
    service: Service = ECHO,
    port: int = 80,
    listen_port: int | None = 20000,
    local: Sequence[tuple[str, int]] = (),
    exported_to: Sequence[str] = (),
) -> PortPlan:
    """A plan whose lines are given, or named by their cluster alone."""
    return PortPlan(
        service=service,
        port=Port("http", port),
        listen_port=listen_port,
        tiers=tuple(
            Tier(f"tier {index}", tuple(line(one) if isinstance(one, str) else one for one in tier))
            for index, tier in enumerate(tiers)
        ),
        local=tuple(Backend(address, number) for address, number in local),
        exported_to=tuple(exported_to),
    )


def peer(name: str, *gateways: tuple[str, int]) -> Peer:
    listed = tuple(
        Gateway(f"{name}-{index}", names.GATEWAY_CLASS, address, port)
        for index, (address, port) in enumerate(gateways)
    )
    return Peer(name, ca(name).trust_domain, "eu", listed, ca(name).bundle)


def fabric(*peers: Peer, me: str = ME, binds: Sequence[Place] = (HERE,)) -> FabricInputs:
    return FabricInputs(me, BASE, tuple(sorted(peers, key=lambda one: one.name)), tuple(binds))


def three_clusters() -> FabricInputs:
    """East with its peers west, which has two gateways, and central."""
    return fabric(
        peer("west", ("127.0.0.2", 15443), ("127.0.0.3", 15443)), peer("central", ("127.0.0.4", 15443))
    )


def echo_plan() -> PortPlan:
    return plan(
        ["east"], ["west"], ["central"], local=[("127.0.0.1", 18081)], exported_to=["central", "west"]
    )


PEERS = ("central", "north", "west")
SERVICES = tuple(Service("default", name) for name in ("echo", "secret", "shop"))
PLACES: tuple[Place, ...] = (
    HERE,
    (names.GATEWAY_CLASS, "127.0.0.9", 15443),
    (names.GATEWAY_CLASS, "127.0.0.1", 15444),
)


@st.composite
def fabrics(draw: st.DrawFn) -> FabricInputs:
    """East with some peers, each with some gateways, and some places where its own gateways listen."""
    peers = []
    for name in sorted(draw(st.sets(st.sampled_from(PEERS)))):
        ports = draw(st.sets(st.integers(15443, 15446), max_size=2))
        peers.append(peer(name, *[("127.0.1.1", port) for port in sorted(ports)]))
    return fabric(*peers, binds=sorted(draw(st.sets(st.sampled_from(PLACES)))))


@st.composite
def ports_of(draw: st.DrawFn, service: Service, peers: Sequence[str]) -> Plans:
    """What an agent may plan for one service while `peers` are trusted; no plans at all when it is gone."""
    plans = []
    for port in sorted(draw(st.sets(st.sampled_from((80, 443))))):
        exporters = draw(st.lists(st.sampled_from([ME, *peers]), unique=True))
        cuts = draw(st.lists(st.booleans(), min_size=len(exporters), max_size=len(exporters)))
        tiers: list[list[Line]] = []
        for cluster, new_tier in zip(exporters, cuts, strict=True):
            one = line(cluster, draw(st.integers(1, 10**6)), healthy=draw(st.booleans()))
            if new_tier or not tiers:
                tiers.append([one])
            else:
                tiers[-1].append(one)
        ours = ME in exporters
        number = 20000 + 10 * SERVICES.index(service) + (port == 443)
        plans.append(
            plan(
                *tiers,
                service=service,
                port=port,
                listen_port=draw(st.sampled_from((None, number, number))),
                local=[("127.0.0.1", 18000 + n) for n in range(draw(st.integers(0, 2)))] if ours else (),
                exported_to=sorted(draw(st.sets(st.sampled_from(peers)))) if ours and peers else (),
            )
        )
    return tuple(plans)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[FabricInputs, Mapping[Service, Plans]]:
    """A fabric, and plans for all services that refer to nothing outside it."""
    around = draw(fabrics())
    trusted = [one.name for one in around.peers]
    return around, {service: draw(ports_of(service, trusted)) for service in SERVICES}
