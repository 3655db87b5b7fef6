"""The peer that our compiled snapshots are held against: three Envoys with a static configuration, written by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

from bench.load import Tunnel
from bench.processes import SERVER_CPU, listening, loopback, running
from federation.demo.processes import Process
from federation.listen import HostPort
from gateway.envoy.binary import find_envoy

CONFIGURATIONS = Path(__file__).parent / "configurations"
ENTRY = 20000
GATEWAY = 15443


@dataclass(frozen=True, slots=True)
class Reference:
    """East takes connections at `entry`, and goes to west, then to central, while it has no live backend of its own.

    `envoys` are the processes, by cluster.
    """

    entry: HostPort
    envoys: Mapping[str, Process]

    @property
    def tunnel(self) -> Tunnel:
        """The way from a client in east to a backend in west."""
        return Tunnel("reference", self.entry, (self.envoys["east"].pid, self.envoys["west"].pid))


@asynccontextmanager
async def reference(folder: Path, backends: Mapping[str, HostPort]) -> AsyncIterator[Reference]:
    """The three Envoys; `folder` has credentials of each, `backends` the backend of each."""
    addresses = dict(zip(("east", "west", "central"), loopback(3, (ENTRY, GATEWAY)), strict=True))
    envoys: dict[str, Process] = {}
    async with AsyncExitStack() as stack:
        for me, other in (("west", "central"), ("central", "west"), ("east", "")):
            config = folder / f"{me}.yaml"
            kind = "source" if me == "east" else "destination"
            template = Template((CONFIGURATIONS / f"envoy-{kind}.yaml").read_text())
            config.write_text(
                template.substitute(
                    addresses,
                    me=me,
                    other=other,
                    address=addresses[me],
                    admin=folder / f"{me}.admin",
                    log=folder / f"{me}.access.log",
                    folder=folder,
                    entry=ENTRY,
                    gateway=GATEWAY,
                    backend=backends[me].host,
                    backend_port=backends[me].port,
                )
            )
            command = (str(find_envoy()), "--config-path", str(config), *_FLAGS)
            envoy = await stack.enter_async_context(running(f"reference-{me}", command, folder, SERVER_CPU))
            await listening(envoy, HostPort.of(addresses[me], ENTRY if me == "east" else GATEWAY))
            envoys[me] = envoy
        yield Reference(HostPort.of(addresses["east"], ENTRY), envoys)


_FLAGS = ("--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "--drain-time-s", "5")
