"""The issuer of an agent as a process of its own: `python -m bench.issuer FOLDER ADDRESS WORKLOADS [door]`.

The parts are the agent's: authority, journal, policy, quota, gRPC with mutual TLS. In FOLDER it writes what clients
need before it listens: the anchors, a certificate to connect with, and the first certificate of each workload. With a
door, a second process speaks to the clients; its process number is in FOLDER/door.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.credentials import BASE
from federation.app.issuing_doors import IssuingDoors
from federation.clock import SystemClock
from federation.identity import Identity
from federation.issuer import Issuer
from federation.listen import HostPort
from federation.store.memory import MemoryStore
from federation.svid.doors import Served
from federation.svid.quota import Quota
from federation.svid.server import Callers, SvidServer, new_server
from federation.tokens import TokenStore
from gateway.xds.server import ServerCredentials, add_secure_port
from pki import durable
from pki.authority import Issued, Order
from pki.bundle import encode
from pki.keys.file import FileKeyStore
from pki.limits import UNLIMITED
from pki.lineage import Lineage
from pki.policy import Attestation, Attested, Grant, decide
from pki.root import RootAuthority
from pki.spiffe import SpiffeId, TrustDomain

DOMAIN = TrustDomain.of_cluster("east", BASE)
SERVER_NAME = f"agent.{DOMAIN}"
ANCHORS, CHAIN, KEY, FLEET = "anchors.pem", "carrier-{}.pem", "carrier-{}.key", "fleet"
DOOR = "door"
CARRIERS = 8
"""Those who connect, each with a key of its own: the nodes on which workloads run."""
AMPLE = Quota(1e6, 1e6)
"""Nobody is held back: the quota is looked at all the same."""


def identity(number: int) -> SpiffeId:
    """The workload with this number."""
    return SpiffeId.workload(DOMAIN, "bench", f"n{number}")


async def run(folder: Path, address: HostPort, workloads: int, door: bool) -> None:
    """Serve until killed."""
    clock = SystemClock()
    authority = await Lineage.open(folder / "authority", FileKeyStore(folder / "keys"), DOMAIN, clock)
    root = await RootAuthority.create(folder / "root", FileKeyStore(folder / "root-keys"), BASE, clock)
    rooted = await root.sign_cluster_ca(await authority.csr(), DOMAIN, who="bench", why="bench")
    await authority.accept_root_signed(rooted, root.certificate)
    await root.close()
    own = Identity(authority, SpiffeId.agent(DOMAIN), folder / "leaf.pem", timedelta(days=1), clock)
    await own.start()
    issuer = Issuer(authority, TokenStore(MemoryStore(), clock.now), UNLIMITED, AMPLE, clock)
    await _write(folder, authority, workloads)

    def served() -> Served:
        return Served(own.current.chain, own.current.key, encode(authority.bundle()))

    if door:
        doors = IssuingDoors(folder / "doors.sock", address, 1, issuer.issue, served, clock)
        async with asyncio.TaskGroup() as group:
            group.create_task(doors.run(), name="doors")
            while not doors.connected:
                await asyncio.sleep(0.01)
            durable.write(folder / DOOR, str(doors.pids[0]).encode())

    def credentials() -> ServerCredentials:
        return ServerCredentials(own.current.chain, own.current.key, authority.bundle().pem())

    server = new_server(SvidServer(Callers(authority.bundle, clock.now), issuer.issue))
    add_secure_port(server, address, credentials)
    await server.start()
    await asyncio.Event().wait()


async def _write(folder: Path, authority: Lineage, workloads: int) -> None:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(workloads)]
    made = await authority.issue_all([_order(key, identity(number)) for number, key in enumerate(keys)])
    fleet = [
        (_private(key, Encoding.DER), one.certificate.serial_number.to_bytes(20))
        for key, one in zip(keys, made, strict=True)
        if isinstance(one, Issued)
    ]
    durable.write(folder / ANCHORS, authority.bundle().pem())
    for number in range(CARRIERS):
        key = ec.generate_private_key(ec.SECP256R1())
        (carrier,) = await authority.issue_all((_order(key, SpiffeId.gateway(DOMAIN, "eastwest")),))
        assert isinstance(carrier, Issued)
        durable.write(folder / CHAIN.format(number), carrier.pem())
        durable.write(folder / KEY.format(number), _private(key, Encoding.PEM))
    durable.write(folder / FLEET, msgspec.msgpack.encode(fleet))


def _order(key: ec.EllipticCurvePrivateKey, spiffe_id: SpiffeId) -> Order:
    granted = decide(Attested(spiffe_id, Attestation.TOKEN), DOMAIN)
    assert isinstance(granted, Grant)
    return Order(key.public_key(), granted, "bench", "bench")


def _private(key: ec.EllipticCurvePrivateKey, encoding: Encoding) -> bytes:
    return key.private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption())


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), HostPort.parse(sys.argv[2]), int(sys.argv[3]), "door" in sys.argv))
