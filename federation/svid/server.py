"""`IssueSvid` and `GetBundle` over gRPC with mutual TLS: who calls, is the call of the right shape, is there room?

The certificate of the connection is verified here again by our own trust domain alone, and counts at each call, not
once a connection. What is asked for beyond `MOST_WAITING` certificates at once is refused with a time to wait, so that
memory stays bounded; one caller, which is one key, has at most a quarter of that.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

import grpc
import grpc.aio
import structlog

from federation.svid import svid_pb2 as pb
from federation.svid.demand import Answer, Demand, Held, Refusal, Vetted
from federation.svid.wire import (
    BUNDLE_METHOD,
    LONGEST_CALL,
    METHOD,
    SERVICE,
    Malformed,
    decode_call,
    encode_answer,
    vet,
)
from pki.algorithms import spki_hash
from pki.bundle import Bundle
from pki.certificate import load_pem, presented_chain, public_key
from pki.errors import PkiError
from pki.validate import verify_peer

MOST_WAITING = 4096
"""Certificates that are asked for and not answered yet; a few KiB each."""
MOST_OF_ONE = MOST_WAITING // 4
RETRY_AFTER_MS = 500
PIECE = 8
"""Wishes that are vetted at a stretch, about 1 ms; then it is the turn of others."""
MOST_KNOWN = 4096
"""Certificates of callers that were verified once and are remembered."""

PUSHBACK = "grpc-retry-pushback-ms"
"""The trailer by which a server says when to try again (gRPC proposal A6)."""

OPTIONS = (
    ("grpc.so_reuseport", 1),
    ("grpc.max_receive_message_length", LONGEST_CALL + 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

log = structlog.get_logger()

Issue = Callable[[Demand], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end: its identity and the certificate that it shows, for as long as that is valid."""

    identity: str
    held: Held
    ends: datetime


class Callers:
    """Tells who calls from the chain that is presented; what was verified under a bundle is not verified again."""

    def __init__(self, bundle: Callable[[], Bundle], now: Callable[[], datetime]) -> None:
        self._bundle = bundle
        self._now = now
        self._known: dict[bytes, Caller] = {}
        self._under = (0, 0)

    def identify(self, chain: bytes) -> Caller:
        """The caller that presented `chain` (PEM). Raises PkiError if it is not of our trust domain or has ended."""
        bundle, now = self._bundle(), self._now()
        if bundle.version != self._under:
            self._known, self._under = {}, bundle.version
        if (known := self._known.get(chain)) is not None and now <= known.ends:
            return known
        certificates = load_pem(chain)
        identity = verify_peer(certificates, {bundle.trust_domain: bundle}, now)
        leaf = certificates[0]
        held = Held(f"{leaf.serial_number:x}", spki_hash(public_key(leaf)))
        caller = Caller(str(identity), held, min(each.not_valid_after_utc for each in certificates))
        if len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[chain] = caller
        return caller


class SvidServer:
    """The methods for one server; `issue` decides and signs."""

    def __init__(self, callers: Callers, issue: Issue) -> None:
        self._callers = callers
        self._issue = issue
        self._waiting: Counter[str] = Counter()

    def handler(self) -> grpc.GenericRpcHandler:
        """What to add to a server."""
        issuing: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._serve)
        telling: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._tell)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: issuing, BUNDLE_METHOD: telling})

    async def _tell(self, _: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        caller = await self._identified(context)
        return encode_answer(await self._issue(_demand(caller, b"", ())))

    async def _identified(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> Caller:
        try:
            return self._callers.identify(presented_chain(context.auth_context()))
        except PkiError as error:
            log.warning("no certificates for this caller", peer=context.peer(), reason=str(error))
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))

    async def _serve(self, data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        caller = await self._identified(context)
        try:
            call = decode_call(data)
        except Malformed as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        size = len(call.wishes)
        if not self._has_room(caller.held.spki, size):
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._waiting.total()} certificates are waited for; try again in {RETRY_AFTER_MS} ms",
                ((PUSHBACK, str(RETRY_AFTER_MS)),),
            )
        self._waiting[caller.held.spki] += size
        try:
            wishes = await _vetted(call, caller.held)
            return encode_answer(await self._issue(_demand(caller, call.request_id, wishes)))
        finally:
            self._waiting[caller.held.spki] -= size
            if not self._waiting[caller.held.spki]:
                del self._waiting[caller.held.spki]

    def _has_room(self, caller: str, size: int) -> bool:
        return self._waiting.total() + size <= MOST_WAITING and self._waiting[caller] + size <= MOST_OF_ONE


def _demand(caller: Caller, request_id: bytes, wishes: tuple[Vetted | Refusal, ...]) -> Demand:
    return Demand(caller.identity, caller.held.spki, request_id, wishes, caller.held.serial)


def new_server(svids: SvidServer) -> grpc.aio.Server:
    """A server for nothing else, which shares its port with other processes; the caller adds that, and starts it."""
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((svids.handler(),))
    return server


async def _vetted(call: pb.IssueRequest, connection: Held) -> tuple[Vetted | Refusal, ...]:
    found: list[Vetted | Refusal] = []
    for number, wish in enumerate(call.wishes, start=1):
        found.append(vet(wish, connection))
        if number % PIECE == 0:
            await asyncio.sleep(0)
    return tuple(found)
