"""Many clients that connect at once do not end the process that they connect to, while its certificate is stable.

In a process of its own, because gRPC ends it by a segmentation fault when it is told of the same credentials at each
handshake (https://github.com/grpc/grpc/issues/36693).
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.gateway.certificates import ca
from tests.gateway.envoys import free_port

pytestmark = pytest.mark.live

HERE = "127.0.0.1"
EAST = ca("east")
AT_ONCE = 100
ROUNDS = 40

START = """
import asyncio, sys
from pathlib import Path
from federation.clock import SystemClock
from federation.listen import HostPort

async def main():
    await {start}(HostPort.parse(sys.argv[1]), *(Path(name).read_bytes() for name in sys.argv[2:]))
    print("ready", flush=True)
    await asyncio.Event().wait()
"""

AGENT = """
from gateway.xds.server import ServerCredentials, add_secure_port, new_server

async def agent(address, *credentials):
    global server
    server = new_server()
    add_secure_port(server, address, lambda: ServerCredentials(*credentials))
    await server.start()
"""

HUB = """
from federation.sync.server import ServerCredentials, SyncServer

async def hub(address, *credentials):
    global server
    server = SyncServer(None, lambda: ServerCredentials(*credentials), SystemClock())
    await server.start(address)
"""


@pytest.mark.parametrize(("start", "code"), [("agent", AGENT), ("hub", HUB)])
async def test_clients_that_connect_at_once(start: str, code: str, tmp_path: Path) -> None:
    """Nobody has to be trusted for this: a TCP connection is enough."""
    script = START.format(start=start) + code + "asyncio.run(main())"
    identity = EAST.write(tmp_path / "east")
    anchors = tmp_path / "anchors.pem"
    anchors.write_bytes(EAST.bundle.pem())
    port = free_port(HERE)
    files = (identity.chain, identity.key, anchors)
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, f"{HERE}:{port}", *map(str, files)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert server.stdout is not None

    async def connect() -> None:
        _, writer = await asyncio.open_connection(HERE, port)
        writer.close()

    try:
        assert await server.stdout.readline() == b"ready\n"
        for _ in range(ROUNDS):
            results = await asyncio.gather(*(connect() for _ in range(AT_ONCE)), return_exceptions=True)
            assert server.returncode is None, f"the server ended: {server.returncode}"
            assert not [one for one in results if isinstance(one, BaseException)], results
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()
