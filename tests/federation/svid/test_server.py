"""`IssueSvid` over real mutual TLS: who is heard, what is proved, and what is too much."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from federation.errors import FederationError
from federation.listen import HostPort
from federation.svid import server as module
from federation.svid import svid_pb2 as pb
from federation.svid.client import Agent, believed, issue, newest_bundle, renewal, request
from federation.svid.demand import MOST_WISHES, Answer, Demand, Refusal
from federation.svid.server import PUSHBACK, Callers, SvidServer
from federation.svid.wire import LONGEST_CALL, METHOD, SERVICE, encode_call
from gateway.xds.server import ServerCredentials, add_secure_port, new_server
from pki import bundle
from pki import issue as sign
from pki.certificate import load_der
from pki.certificate import pem as certificates
from pki.errors import Untrusted
from pki.policy import Attestation, Attested, Grant, decide
from pki.spiffe import SpiffeId
from tests.federation.svid.world import CART, EAST, Cluster, cluster, given, new_key
from tests.pki.world import granted, make_world, serial

GATEWAY = SpiffeId.gateway(EAST, "eastwest")
AGENT = f"agent.{EAST}"
HELD_ONLY = 16


class Door:
    """A server of one cluster, and who may connect to it."""

    def __init__(self, east: Cluster, address: HostPort, server: SvidServer) -> None:
        self.east, self.address, self.server = east, address, server

    async def channel(
        self, identity: SpiffeId = GATEWAY, by: Attestation = Attestation.TOKEN
    ) -> grpc.aio.Channel:
        key = new_key()
        made = await leaf(self.east, key, identity, by)
        return self.dial(made, key)

    def dial(self, presented: bytes, key: ec.EllipticCurvePrivateKey) -> grpc.aio.Channel:
        agent = Agent(str(self.address), AGENT, self.east.authority.bundle().pem())
        return agent.channel(presented, pem(key))


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


async def leaf(east: Cluster, key: ec.EllipticCurvePrivateKey, identity: SpiffeId, by: Attestation) -> bytes:
    granted = decide(Attested(identity, by), EAST)
    assert isinstance(granted, Grant), granted
    return (await east.authority.issue(key.public_key(), granted, who="t", why="t")).pem()


def free_port() -> HostPort:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return HostPort.of("127.0.0.1", probe.getsockname()[1])


@asynccontextmanager
async def open_door(folder: Path) -> AsyncIterator[Door]:
    async with cluster(folder) as east:
        key = new_key()
        own = await leaf(east, key, SpiffeId.agent(EAST), Attestation.SELF)
        served = SvidServer(Callers(east.authority.bundle, east.clock.now), east.issuer.issue)
        server = new_server(served.handler())
        address = free_port()
        credentials = ServerCredentials(own, pem(key), east.authority.bundle().pem())
        add_secure_port(server, address, lambda: credentials)
        await server.start()
        try:
            yield Door(east, address, served)
        finally:
            await server.stop(None)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path) as made:
        yield made


async def status(attempt: Awaitable[Answer]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(FederationError) as failed:
        await attempt
    cause = failed.value.__cause__
    assert isinstance(cause, grpc.aio.AioRpcError)
    return cause.code(), cause.details() or ""


async def test_a_token_then_the_certificate_of_the_connection_then_one_of_another(door: Door) -> None:
    keys = [new_key() for _ in range(3)]
    async with await door.channel() as carrier:
        asked = pb.Wish(csr=request(keys[0]), token=await door.east.token())
        answer = await issue(carrier, [asked])
    trusted = bundle.decode(answer.bundle)
    first = believed(given(answer), keys[0], CART, trusted, door.east.clock.now())
    async with door.dial(certificates(first), keys[0]) as own:
        answer = await issue(own, [pb.Wish(csr=request(keys[1]), lifetime=600)])
        second = believed(given(answer), keys[1], CART, trusted, door.east.clock.now())
        assert given(answer).granted == 600
        late = await issue(own, [pb.Wish(csr=request(keys[2]))])
        assert isinstance(late.outcomes[0], Refusal), "it counts at each call, not once a connection"
        assert "replaced already" in late.outcomes[0].reason
    async with await door.channel() as carrier:
        asked = renewal(request(keys[2]), second[0].serial_number, keys[1])
        third = given(await issue(carrier, [asked]))
    assert load_der(third.chain[0]).public_key() == keys[2].public_key()


async def test_the_newest_bundle_is_for_whoever_has_a_certificate_of_ours(door: Door) -> None:
    key = new_key()
    first = await door.east.first(key)
    async with door.dial(certificates(map(load_der, first.chain)), key) as own:
        assert bundle.decode(await newest_bundle(own)).sequence == 1
        made = given(await issue(own, [pb.Wish(csr=request(new_key()))]))
        assert load_der(first.chain[0]).serial_number not in door.east.issuer.gone, "it may not have arrived"
        assert bundle.decode(await newest_bundle(own)) == door.east.authority.bundle()
        assert not door.east.issuer.gone, "it came with the old one again"
    west, key = make_world().west, new_key()
    template = sign.leaf(granted(CART), key.public_key(), west.forms, serial(), door.east.clock.now())
    async with door.dial(sign.sign(template, west.key).public_bytes(Encoding.PEM), key) as foreign:
        with pytest.raises(FederationError):
            await newest_bundle(foreign)
    assert made.chain


async def test_who_connects_with_the_next_certificate_has_done_with_the_one_before(door: Door) -> None:
    keys = [new_key() for _ in range(2)]
    first = await door.east.first(keys[0])
    async with door.dial(certificates(map(load_der, first.chain)), keys[0]) as own:
        second = given(await issue(own, [pb.Wish(csr=request(keys[1]))]))
    async with door.dial(certificates(map(load_der, second.chain)), keys[1]) as own:
        await newest_bundle(own)
    assert door.east.issuer.gone == {load_der(first.chain[0]).serial_number}


async def test_what_is_presented_leads_to_the_root(door: Door) -> None:
    async with await door.channel() as carrier:
        key = new_key()
        answer = await issue(carrier, [pb.Wish(csr=request(key), token=await door.east.token())])
    made, trusted, now = given(answer), bundle.decode(answer.bundle), door.east.clock.now()
    assert believed(made, key, CART, trusted, now)[1:] == (door.east.authority.root_signed,)
    for other_key, identity, anchors in (
        (new_key(), CART, trusted),
        (key, GATEWAY, trusted),
        (key, CART, make_world().west.bundle),
    ):
        with pytest.raises(Untrusted):
            believed(made, other_key, identity, anchors, now)


async def test_many_identities_in_one_call(door: Door) -> None:
    names = [SpiffeId.workload(EAST, "shop", f"n{number}") for number in range(MOST_WISHES)]
    keys = [new_key() for _ in names]
    wishes = [
        pb.Wish(csr=request(key), token=await door.east.token(name))
        for key, name in zip(keys, names, strict=True)
    ]
    async with await door.channel() as carrier:
        answer = await issue(carrier, wishes)
        following = [new_key() for _ in names]
        again = await issue(
            carrier,
            [
                renewal(request(after), load_der(given(answer, place).chain[0]).serial_number, before)
                for place, (before, after) in enumerate(zip(keys, following, strict=True))
            ],
        )
    now = door.east.clock.now()
    for place, name in enumerate(names):
        made = given(again, place)
        assert believed(made, following[place], name, door.east.authority.bundle(), now)[0] == load_der(
            made.chain[0]
        )


async def test_only_certificates_of_our_own_trust_domain_are_heard(door: Door) -> None:
    west, key = make_world().west, new_key()
    granting = granted(SpiffeId.gateway(west.trust_domain, "eastwest"))
    template = sign.leaf(granting, key.public_key(), west.forms, serial(), door.east.clock.now())
    async with door.dial(sign.sign(template, west.key).public_bytes(Encoding.PEM), key) as channel:
        code, _ = await status(issue(channel, [pb.Wish(csr=request(key))]))
        assert code is grpc.StatusCode.UNAVAILABLE
    anchors = door.east.authority.bundle().pem()
    bare = grpc.aio.secure_channel(
        str(door.address),
        grpc.ssl_channel_credentials(anchors),
        options=(("grpc.ssl_target_name_override", AGENT),),
    )
    async with bare:
        code, _ = await status(issue(bare, [pb.Wish(csr=request(key))]))
        assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_that_ends_while_its_connection_lives_is_not_heard_any_more(door: Door) -> None:
    async with await door.channel() as carrier:
        key = new_key()
        given(await issue(carrier, [pb.Wish(csr=request(key), token=await door.east.token())]))
        door.east.clock.advance(24 * 3600 + 1)
        code, details = await status(issue(carrier, [pb.Wish(csr=request(key))]))
        assert (code, "expired" in details) == (grpc.StatusCode.PERMISSION_DENIED, True)


async def test_a_gateway_cannot_become_a_workload_by_its_own_certificate(door: Door) -> None:
    async with await door.channel() as carrier:
        (outcome,) = (await issue(carrier, [pb.Wish(csr=request(new_key()))])).outcomes
        assert isinstance(outcome, Refusal)
        assert outcome.reason == f"{GATEWAY} is not a workload"


async def test_r2_every_key_that_is_named_must_be_proved(door: Door) -> None:
    key, other = new_key(), new_key()
    first = load_der((await door.east.first(key)).chain[0])
    asked = request(other)
    broken = bytearray(asked)
    broken[-1] ^= 1
    stolen = renewal(asked, first.serial_number, other)
    stolen.renewal.public_key = renewal(asked, first.serial_number, key).renewal.public_key
    replayed = renewal(asked, first.serial_number, key)
    replayed.csr = request(new_key())
    unnamed = renewal(asked, first.serial_number, key)
    unnamed.renewal.serial = b"\x01" * 21
    weak = csr_of(rsa.generate_private_key(65537, 1024))
    wishes = [
        (pb.Wish(csr=bytes(broken), token=b"x" * 32), "csr"),
        (pb.Wish(csr=asked + b"\0", token=b"x" * 32), "csr"),
        (pb.Wish(csr=b"\x30" * (16 * 1024 + 1), token=b"x" * 32), "csr"),
        (pb.Wish(csr=weak, token=b"x" * 32), "csr"),
        (pb.Wish(csr=b"", token=b"x" * 32), "csr"),
        (pb.Wish(csr=asked, token=b"x" * 65), "token"),
        (stolen, "signature"),
        (replayed, "signature"),
        (unnamed, "serial"),
    ]
    async with await door.channel() as carrier:
        answer = await issue(carrier, [asked for asked, _ in wishes])
        for outcome, (_, field) in zip(answer.outcomes, wishes, strict=True):
            assert isinstance(outcome, Refusal)
            assert (outcome.field, outcome.retry_after) == (field, 0)
        given(await issue(carrier, [renewal(asked, first.serial_number, key)]))


def csr_of(key: rsa.RSAPrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (b"\xff" * 20, "not an IssueRequest"),
        (encode_call(bytes(16), []), "0 wishes"),
        (encode_call(bytes(16), [pb.Wish(token=b"t")] * (MOST_WISHES + 1)), "65 wishes"),
        (encode_call(bytes(15), [pb.Wish()]), "request_id has 15 bytes"),
        (
            encode_call(bytes(16), [pb.Wish(), pb.Wish()]),
            "more than one wish to replace the certificate of this",
        ),
        (bytes(LONGEST_CALL + 1), "allowed are"),
    ],
)
async def test_a_call_of_another_shape_is_refused_whole(door: Door, call: bytes, said: str) -> None:
    async with await door.channel() as carrier:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = carrier.unary_unary(f"/{SERVICE}/{METHOD}")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await method(call)
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert said in (failed.value.details() or "")


async def test_r8_what_there_is_no_room_for_is_refused_with_a_time_to_wait(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One caller holds its whole share; others are still served."""
    monkeypatch.setattr(module, "MOST_OF_ONE", HELD_ONLY)
    held, wishes = asyncio.Event(), [pb.Wish(csr=b"", token=b"t")] * HELD_ONLY
    real = door.east.issuer.issue

    async def slow(demand: Demand) -> Answer:
        await held.wait()
        return await real(demand)

    monkeypatch.setattr(door.server, "_issue", slow)
    async with await door.channel() as carrier, await door.channel(CART) as other:
        first = asyncio.create_task(issue(carrier, wishes), name="first")
        while not door.server._waiting:
            await asyncio.sleep(0.001)
        with pytest.raises(FederationError) as refused:
            await issue(carrier, wishes[:1])
        cause = refused.value.__cause__
        assert isinstance(cause, grpc.aio.AioRpcError)
        assert cause.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (PUSHBACK, "500") in tuple(cause.trailing_metadata() or ())
        held.set()
        assert len((await first).outcomes) == HELD_ONLY
        assert len((await issue(other, wishes)).outcomes) == HELD_ONLY
        assert len((await issue(carrier, wishes)).outcomes) == HELD_ONLY
    assert not door.server._waiting


async def test_a_caller_that_goes_away_leaves_no_room_taken(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = asyncio.Event()

    async def never(demand: Demand) -> Answer:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(door.server, "_issue", never)
    async with await door.channel() as carrier:
        call = asyncio.create_task(issue(carrier, [pb.Wish(csr=b"", token=b"t")]), name="call")
        await arrived.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        async with asyncio.timeout(10):
            while door.server._waiting:
                await asyncio.sleep(0.005)


async def test_r9_the_same_call_twice_brings_the_same_certificate(door: Door) -> None:
    asked, number = [pb.Wish(csr=request(new_key()), token=await door.east.token())], os.urandom(16)
    async with await door.channel() as carrier:
        one, other = await issue(carrier, asked, number), await issue(carrier, asked, number)
    assert given(one) == given(other)


async def test_callers_are_verified_once_and_again_when_anchors_change(door: Door) -> None:
    key = new_key()
    presented = await leaf(door.east, key, GATEWAY, Attestation.TOKEN)
    current = [door.east.authority.bundle()]
    callers = Callers(lambda: current[0], door.east.clock.now)
    assert callers.identify(presented) is callers.identify(presented)
    current[0] = replace(make_world().west.bundle, sequence=current[0].sequence + 1)
    with pytest.raises(Untrusted):
        callers.identify(presented)


async def test_a_certificate_is_renewed_for_the_key_that_it_has_without_another_proof(door: Door) -> None:
    key, thief = new_key(), new_key()
    first = load_der((await door.east.first(key)).chain[0])
    async with await door.channel() as carrier:
        answer = await issue(
            carrier,
            [renewal(request(key), first.serial_number), renewal(request(thief), first.serial_number)],
        )
    assert load_der(given(answer).chain[0]).public_key() == key.public_key()
    stolen = answer.outcomes[1]
    assert isinstance(stolen, Refusal)
    assert stolen.field == "renewal"
