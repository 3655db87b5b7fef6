"""The workload's side of `IssueSvid` and `GetBundle`: what to ask with a new key, and what to believe of the answer.

A new private key never leaves its holder. A certificate is taken only if it is for that key and for the identity that
was to be had, whatever the answer says.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from federation.errors import FederationError, Unreachable
from federation.svid import svid_pb2 as pb
from federation.svid.demand import REQUEST_ID_BYTES, Answer, Given
from federation.svid.wire import (
    BUNDLE_METHOD,
    LONGEST_CALL,
    METHOD,
    SERVICE,
    Malformed,
    decode_answer,
    encode_call,
)
from pki import csr
from pki.algorithms import spki
from pki.bundle import Bundle
from pki.certificate import load_der
from pki.errors import Distrust, Untrusted
from pki.possession import PrivateKey, prove
from pki.spiffe import SpiffeId
from pki.validate import verify_peer

DEADLINE = 30.0
"""Seconds for one call."""

OPTIONS = (
    ("grpc.max_receive_message_length", 4 * LONGEST_CALL),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Agent:
    """Where an agent is and how it is verified: PEM anchors of its trust domain, and its DNS SAN."""

    address: str
    server_name: str
    anchors: bytes

    def channel(self, chain: bytes, key: bytes) -> grpc.aio.Channel:
        """A channel over mutual TLS with a certificate (PEM) of our own."""
        credentials = grpc.ssl_channel_credentials(self.anchors, key, chain)
        options = (*OPTIONS, ("grpc.ssl_target_name_override", self.server_name))
        return grpc.aio.secure_channel(self.address, credentials, options=options)


def request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request (DER) for a certificate over `key`."""
    return x509.load_pem_x509_csr(csr.request(key)).public_bytes(Encoding.DER)


def renewal(asked: bytes, serial: int, key: PrivateKey | None = None) -> pb.Wish:
    """A wish to replace the certificate with this serial number, whose private key is `key`; None if the request is for
    the same key again.
    """
    proof = pb.Renewal(serial=serial.to_bytes((serial.bit_length() + 7) // 8))
    if key is not None:
        proof.public_key, proof.signature = spki(key.public_key()), prove(key, asked)
    return pb.Wish(csr=asked, renewal=proof)


async def issue(
    channel: grpc.aio.Channel, wishes: Sequence[pb.Wish], request_id: bytes | None = None
) -> Answer:
    """One call. Raises Unreachable if the agent is not there, FederationError if it refuses the whole call.

    Who repeats a call gives the `request_id` of the first one, and gets the same certificates.
    """
    return await _called(channel, METHOD, encode_call(request_id or os.urandom(REQUEST_ID_BYTES), wishes))


async def newest_bundle(channel: grpc.aio.Channel) -> bytes:
    """The encoded bundle of now, for whoever is connected with the certificate that it uses from now on: its agent
    knows then that the one before, and what was believed with it, is done with. Raises as `issue`.
    """
    return (await _called(channel, BUNDLE_METHOD, b"")).bundle


async def _called(channel: grpc.aio.Channel, name: str, call: bytes) -> Answer:
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/{name}")
    try:
        return decode_answer(await method(call, timeout=DEADLINE))
    except Malformed as error:
        raise FederationError(f"the agent does not speak this version: {error}", "upgrade both") from error
    except grpc.aio.AioRpcError as error:
        said = f"{error.code().name}: {error.details()}"
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise Unreachable("the agent", said) from error
        raise FederationError(f"the agent refuses: {said}") from error
    except asyncio.InvalidStateError as error:
        raise Unreachable("the agent", "the connection was lost") from error


def believed(
    given: Given, key: PrivateKey, identity: SpiffeId, bundle: Bundle, now: datetime
) -> tuple[x509.Certificate, ...]:
    """What is presented from now on, if it is for `key` and `identity`. Raises `Untrusted`."""
    chain = tuple(map(load_der, given.chain))
    if verify_peer(chain, {bundle.trust_domain: bundle}, now) != identity:
        raise Untrusted(Distrust.NOT_AS_PLANNED, f"it is not for {identity}")
    if chain[0].public_key() != key.public_key():
        raise Untrusted(Distrust.NOT_AS_PLANNED, "it is not for our key")
    return chain
