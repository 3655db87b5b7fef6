"""A statement counts for the anchors of who made it, and a signature of one thing is never one of another."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from pki import csr
from pki.algorithms import digest_for
from pki.bundle import Bundle, Proof, Rejected, Rejection, accept, sign_content
from pki.bundle import content as content_of_bundle
from pki.spiffe import SpiffeId
from pki.statement import LONGEST_SIGNATURE, Kind, content, is_said, sign
from tests.pki.world import make_ca, make_world

WORLD = make_world()
EAST, WEST = WORLD.east, WORLD.west
NEXT = make_ca(EAST.trust_domain, WORLD.root_key, WORLD.root, epoch=2)
SAID = b'{"holds":"everything"}'


@given(st.binary(max_size=200))
def test_whoever_holds_one_of_the_anchors_believes_it(said: bytes) -> None:
    signature = sign(Kind.HELD, said, EAST.key)
    assert len(signature) <= LONGEST_SIGNATURE
    assert is_said(Kind.HELD, said, signature, [EAST.self_signed])
    assert is_said(Kind.HELD, said, signature, [NEXT.self_signed, EAST.self_signed])
    assert not is_said(Kind.HELD, said, signature, [WEST.self_signed])
    assert not is_said(Kind.HELD, said, signature, [])
    assert not is_said(Kind.HELD, said + b" ", signature, [EAST.self_signed])


@given(st.binary(max_size=100))
def test_what_is_no_signature_at_all_counts_for_nobody(signature: bytes) -> None:
    assert not is_said(Kind.HELD, SAID, signature, [EAST.self_signed])


def test_the_longest_signature_of_ours_is_one() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    signature = sign(Kind.HELD, SAID, key)
    key.public_key().verify(signature, content(Kind.HELD, SAID), ec.ECDSA(digest_for(key.public_key())))
    assert len(signature) <= LONGEST_SIGNATURE


def verified(signature: bytes, signed: bytes) -> bool:
    """Whether the key of east has signed exactly these bytes."""
    public = EAST.key.public_key()
    try:
        public.verify(signature, signed, ec.ECDSA(digest_for(public)))
    except InvalidSignature:
        return False
    return True


def rest() -> dict[str, tuple[bytes, bytes]]:
    """What else the key of an authority signs: the bytes, and a signature of them."""
    leaf = EAST.leaf(SpiffeId.gateway(EAST.trust_domain, "eastwest"))
    request = x509.load_pem_x509_csr(csr.request(EAST.key, EAST.self_signed.subject, EAST.trust_domain.uri))
    version = Bundle(EAST.trust_domain, 2, (EAST.self_signed, NEXT.self_signed))
    return {
        "certificate": (leaf.tbs_certificate_bytes, leaf.signature),
        "anchor": (EAST.self_signed.tbs_certificate_bytes, EAST.self_signed.signature),
        "request": (request.tbs_certrequest_bytes, request.signature),
        "bundle": (content_of_bundle(version), sign_content(version, EAST.key)),
    }


@pytest.mark.parametrize("what", ["certificate", "anchor", "request", "bundle"])
def test_no_signature_of_one_thing_is_one_of_another(what: str) -> None:
    signed, signature = rest()[what]
    assert verified(signature, signed)
    assert not is_said(Kind.HELD, signed, signature, [EAST.self_signed])
    for said in (signed, b"", SAID):
        assert not verified(sign(Kind.HELD, said, EAST.key), signed)
    assert not signed.startswith(content(Kind.HELD, b"").partition(b"\n")[0])


def test_a_bundle_is_not_believed_for_a_statement_of_its_content() -> None:
    version = Bundle(EAST.trust_domain, 2, (EAST.self_signed, NEXT.self_signed))
    statement = sign(Kind.HELD, content_of_bundle(version), EAST.key)
    outcome = accept(EAST.bundle, replace(version, proof=Proof(signatures=(statement,))), WORLD.root)
    assert isinstance(outcome, Rejected)
    assert outcome.reason is Rejection.NOT_SIGNED
