"""One door process for `IssueSvid`: `python -m federation.app.svid_door SOCKET ADDRESS`. It ends when its agent does.

Several of them share one address: the kernel gives each new connection to one of them (SO_REUSEPORT, socket(7)).
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from federation.clock import SystemClock
from federation.errors import FederationError
from federation.hardening import harden
from federation.listen import HostPort
from federation.svid.doors import Link, Served
from federation.svid.server import Callers, SvidServer, new_server
from gateway.xds.server import ServerCredentials, add_secure_port
from pki import bundle as bundles
from pki.bundle import Bundle


class _Door:
    """What the agent told last."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self._served: Served | None = None
        self._bundle: Bundle | None = None

    def take(self, served: Served) -> None:
        self._served, self._bundle = served, bundles.decode(served.bundle)
        self.told.set()

    def bundle(self) -> Bundle:
        assert self._bundle is not None
        return self._bundle

    def credentials(self) -> ServerCredentials:
        assert self._served is not None
        return ServerCredentials(self._served.chain, self._served.key, self.bundle().pem())


async def run(socket: Path, address: HostPort) -> None:
    """Serve at `address` for as long as the agent at `socket` lives."""
    reader, writer = await asyncio.open_unix_connection(socket)
    door = _Door()
    link = Link(reader, writer, door.take)
    listening = asyncio.create_task(link.run(), name="link")
    await door.told.wait()
    server = new_server(SvidServer(Callers(door.bundle, SystemClock().now), link.issue))
    add_secure_port(server, address, door.credentials, shared=True)
    await server.start()
    try:
        await listening
    finally:
        await server.stop(grace=0.5)
        writer.close()


if __name__ == "__main__":
    harden()
    try:
        asyncio.run(run(Path(sys.argv[1]), HostPort.parse(sys.argv[2])))
    except (FederationError, OSError) as error:
        sys.exit(f"a door for certificates ends: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
