"""Between protocol values and the bytes of DeltaDiscoveryRequest and DeltaDiscoveryResponse.

A response is put together from the bodies as they are: they were encoded once, when the snapshot was made, and are
copied for each stream instead of being parsed and serialised again.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from gateway.pb.envoy.service.discovery.v3 import discovery_pb2 as pb
from gateway.snapshot import Resource
from gateway.xds.messages import Request, Response

_RESOURCES, _TYPE_URL, _NONCE, _REMOVED = 2, 4, 5, 6
"""Fields of envoy.service.discovery.v3.DeltaDiscoveryResponse."""
_VERSION, _RESOURCE, _NAME = 1, 2, 3
"""Fields of envoy.service.discovery.v3.Resource."""
_ANY_TYPE, _ANY_VALUE = 1, 2


class Malformed(ValueError):
    """Bytes that are no message of the expected type."""


def encode_response(response: Response) -> bytes:
    return b"".join(_response(response))


def decode_request(data: bytes) -> tuple[Request, pb.DeltaDiscoveryRequest]:
    """The request, and the message as it came for whoever needs its node; raises `Malformed`."""
    try:
        message = pb.DeltaDiscoveryRequest.FromString(data)
    except DecodeError as error:
        raise Malformed("not a DeltaDiscoveryRequest") from error
    refused = message.HasField("error_detail")
    request = Request(
        message.type_url,
        message.response_nonce,
        message.error_detail.message or "refused without a reason" if refused else None,
        tuple(message.resource_names_subscribe),
        tuple(message.resource_names_unsubscribe),
        dict(message.initial_resource_versions),
    )
    return request, message


def encode_request(request: Request, node: pb.DeltaDiscoveryRequest | None = None) -> bytes:
    """`node` is a message whose node goes along, on the first request of a stream."""
    message = pb.DeltaDiscoveryRequest(
        type_url=request.type_url,
        response_nonce=request.nonce,
        resource_names_subscribe=request.subscribe,
        resource_names_unsubscribe=request.unsubscribe,
        initial_resource_versions=request.initial,
    )
    if request.error is not None:
        message.error_detail.code = _INVALID_ARGUMENT
        message.error_detail.message = request.error
    if node is not None:
        message.node.CopyFrom(node.node)
    return message.SerializeToString()


_INVALID_ARGUMENT = 3
"""google.rpc.Code, as Envoy gives it with a refusal."""


def decode_response(data: bytes) -> Response:
    """Raises `Malformed`; a resource whose type is not that of the response is malformed too."""
    try:
        message = pb.DeltaDiscoveryResponse.FromString(data)
    except DecodeError as error:
        raise Malformed("not a DeltaDiscoveryResponse") from error
    for entry in message.resources:
        if entry.resource.type_url != message.type_url:
            raise Malformed(f"{entry.name} is a {entry.resource.type_url} among {message.type_url}")
    put = tuple(Resource(message.type_url, r.name, r.version, r.resource.value) for r in message.resources)
    return Response(message.type_url, message.nonce, put, tuple(message.removed_resources))


def _response(response: Response) -> Iterator[bytes]:
    for resource in response.put:
        yield from _field(_RESOURCES, b"".join(_resource(resource)))
    yield from _field(_TYPE_URL, response.type_url.encode())
    yield from _field(_NONCE, response.nonce.encode())
    for name in response.removed:
        yield from _field(_REMOVED, name.encode())


def _resource(resource: Resource) -> Iterator[bytes]:
    yield from _field(_VERSION, resource.version.encode())
    payload = (*_field(_ANY_TYPE, resource.type_url.encode()), *_field(_ANY_VALUE, resource.body))
    yield from _field(_RESOURCE, b"".join(payload))
    yield from _field(_NAME, resource.name.encode())


def _field(number: int, value: bytes) -> tuple[bytes, bytes]:
    """A length-delimited field (Protocol Buffers, "Encoding": wire type 2)."""
    return _varint(number << 3 | 2) + _varint(len(value)), value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
