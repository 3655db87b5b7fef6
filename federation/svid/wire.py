"""Calls to bytes and back, and the vetting of a wish: is it well-formed, and does its caller hold the keys it names?

Sizes are looked at before anything is parsed, and the new key's proof before the old one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from google.protobuf.message import DecodeError

from federation.svid import svid_pb2 as pb
from federation.svid.demand import (
    MOST_WISHES,
    REQUEST_ID_BYTES,
    Answer,
    Given,
    Held,
    Outcome,
    Refusal,
    Secret,
    Vetted,
)
from pki import csr
from pki.algorithms import ALL_KINDS, spki_hash
from pki.errors import Refused
from pki.possession import is_proof, load_key

SERVICE = "federation.svid.v1.Svids"
METHOD = "IssueSvid"
BUNDLE_METHOD = "GetBundle"

LONGEST_CALL = 256 * 1024
"""Bytes of one call; 64 requests for RSA keys of 4096 bits have half of it."""
LONGEST_SECRET = 64
LONGEST_SERIAL = 20
"""Bytes (RFC 5280 §4.1.2.2)."""


class Malformed(ValueError):
    """A call that cannot be answered wish by wish."""


def decode_call(data: bytes) -> pb.IssueRequest:
    """The call in `data`, of the right shape; raises `Malformed`."""
    if len(data) > LONGEST_CALL:
        raise Malformed(f"{len(data)} bytes, allowed are {LONGEST_CALL}")
    try:
        call = pb.IssueRequest.FromString(data)
    except DecodeError as error:
        raise Malformed("not an IssueRequest") from error
    if not 1 <= len(call.wishes) <= MOST_WISHES:
        raise Malformed(f"{len(call.wishes)} wishes, allowed are 1 to {MOST_WISHES}")
    if len(call.request_id) != REQUEST_ID_BYTES:
        raise Malformed(f"request_id has {len(call.request_id)} bytes, needed are {REQUEST_ID_BYTES}")
    if sum(wish.WhichOneof("proof") is None for wish in call.wishes) > 1:
        raise Malformed("more than one wish to replace the certificate of this connection")
    return call


def vet(wish: pb.Wish, connection: Held) -> Vetted | Refusal:
    """What is proved about one wish; `connection` is the certificate that the caller shows."""
    try:
        key = csr.parse(wish.csr, ALL_KINDS).spki
        proof = _proof(wish, key, connection)
    except Refused as refused:
        return Refusal(refused.field, refused.reason)
    return Vetted(key, proof, wish.lifetime if wish.HasField("lifetime") else None)


def _proof(wish: pb.Wish, requested: bytes, connection: Held) -> Held | Secret:
    match wish.WhichOneof("proof"):
        case "token":
            if len(wish.token) > LONGEST_SECRET:
                raise Refused("token", f"{len(wish.token)} bytes, allowed are {LONGEST_SECRET}")
            return Secret(wish.token)
        case "renewal":
            renewal = wish.renewal
            if not 1 <= len(renewal.serial) <= LONGEST_SERIAL:
                raise Refused("serial", f"{len(renewal.serial)} bytes, allowed are 1 to {LONGEST_SERIAL}")
            serial = f"{int.from_bytes(renewal.serial):x}"
            if not renewal.public_key:
                return Held(serial, sha256(requested).hexdigest())
            key = load_key(renewal.public_key)
            if not is_proof(key, wish.csr, renewal.signature):
                raise Refused("signature", "it is not by the key of the certificate to be replaced")
            return Held(serial, spki_hash(key))
        case _:
            return connection


def encode_answer(answer: Answer) -> bytes:
    """The bytes of an answer."""
    outcomes = [_outcome(outcome) for outcome in answer.outcomes]
    return pb.IssueAnswer(outcomes=outcomes, bundle=answer.bundle).SerializeToString()


def _outcome(outcome: Outcome) -> pb.Outcome:
    match outcome:
        case Given():
            return pb.Outcome(
                svid=pb.Svid(
                    chain=outcome.chain,
                    requested=outcome.requested,
                    granted=outcome.granted,
                    limited_by=outcome.limited_by,
                    renew_at=outcome.renew_at,
                )
            )
        case Refusal():
            wait = round(outcome.retry_after * 1000)
            return pb.Outcome(
                refusal=pb.Refusal(field=outcome.field, reason=outcome.reason, retry_after_ms=wait)
            )


def encode_call(request_id: bytes, wishes: Sequence[pb.Wish]) -> bytes:
    """The bytes of a call."""
    return pb.IssueRequest(request_id=request_id, wishes=wishes).SerializeToString()


def decode_answer(data: bytes) -> Answer:
    """The answer in `data`; raises `Malformed`."""
    try:
        found = pb.IssueAnswer.FromString(data)
    except DecodeError as error:
        raise Malformed("not an IssueAnswer") from error
    return Answer(tuple(map(_read, found.outcomes)), found.bundle)


def _read(found: pb.Outcome) -> Outcome:
    match found.WhichOneof("is"):
        case "svid":
            svid = found.svid
            requested = svid.requested if svid.HasField("requested") else None
            if not svid.chain:
                raise Malformed("a certificate that is not there")
            return Given(tuple(svid.chain), requested, svid.granted, svid.limited_by, svid.renew_at)
        case "refusal":
            return Refusal(found.refusal.field, found.refusal.reason, found.refusal.retry_after_ms / 1000)
        case _:
            raise Malformed("an outcome that is neither a certificate nor a refusal")
