"""What we encode by hand is what protobuf reads, and the other way round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pb.envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse
from gateway.snapshot import TYPES, Resource
from gateway.xds.messages import Request, Response
from gateway.xds.wire import Malformed, decode_request, decode_response, encode_request, encode_response

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
types = st.sampled_from(TYPES)


@st.composite
def responses(draw: st.DrawFn) -> Response:
    kind = draw(types)
    put = draw(st.lists(st.tuples(names, names, st.binary(max_size=300)), max_size=5))
    return Response(
        kind,
        draw(names),
        tuple(Resource(kind, *each) for each in put),
        tuple(draw(st.lists(names, max_size=5))),
    )


@given(responses())
def test_a_response_is_read_as_it_was_written(response: Response) -> None:
    data = encode_response(response)
    assert decode_response(data) == response
    read = DeltaDiscoveryResponse.FromString(data)
    assert [r.resource.type_url for r in read.resources] == [response.type_url] * len(response.put)
    assert DeltaDiscoveryResponse.FromString(read.SerializeToString()) == read


requests = st.builds(
    Request,
    types,
    names,
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50),
    st.lists(names, max_size=5).map(tuple),
    st.lists(names, max_size=5).map(tuple),
    st.dictionaries(names, names, max_size=5),
)


@given(requests)
def test_a_request_is_read_as_it_was_written(request: Request) -> None:
    assert decode_request(encode_request(request))[0] == request


def test_a_refusal_without_words_is_a_refusal() -> None:
    request, _ = decode_request(encode_request(Request(TYPES[0], "1", error="")))
    assert request.error == "refused without a reason"


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x22\xff", b"\x0a\x05ab"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode_request(data)
    with pytest.raises(Malformed):
        decode_response(data)


def test_a_resource_of_another_type_is_refused() -> None:
    odd = Response(TYPES[0], "1", (Resource(TYPES[1], "a", "1", b""),))
    with pytest.raises(Malformed, match="a is a"):
        decode_response(encode_response(odd))
