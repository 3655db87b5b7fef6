"""How gateways get certificates: once by token, then by the newest certificate of their line; instances stay bound."""

from __future__ import annotations

import asyncio
import base64
import os
import re
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from federation.api.messages import Redeem
from federation.api.routes import ApiProblem
from federation.attest import MOST_FORGOTTEN, Attestor, Instances
from federation.clock import ManualClock
from federation.errors import FederationError
from federation.listen import HostPort
from federation.store import Change, MemoryStore
from federation.store.contract import Outcome
from federation.tokens import TokenStore
from pki import bundle as bundles
from pki import csr
from pki.algorithms import spki_hash
from pki.certificate import load_pem, public_key
from pki.errors import InvalidToken
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.spiffe import SpiffeId, TrustDomain
from pki.token import JoinToken, check_pin
from pki.validate import verify_peer
from tests.pki.rules.hostile import REFUSED
from tests.pki.world import BASE, make_root, new_key

EAST = TrustDomain.of_cluster("east", BASE)
API, XDS = HostPort.of("10.1.0.2", 8445), HostPort.of("10.1.0.2", 8446)
GATEWAY = SpiffeId.gateway(EAST, "eastwest")
TEN_MINUTES = timedelta(minutes=10)


class Installation:
    """An attestor with all that it needs; its store outlives a restart."""

    def __init__(self, authority: Lineage, root: x509.Certificate, clock: ManualClock) -> None:
        self.authority, self.root, self.clock = authority, root, clock
        self.store = MemoryStore()
        self.restart()

    def restart(self) -> None:
        self.tokens = TokenStore(self.store, self.clock.now)
        self.instances = Instances(self.store)
        day = timedelta(days=1)
        self.attestor = Attestor(
            self.authority, lambda: self.root, self.tokens, self.instances, API, XDS, BASE, day, self.clock
        )

    async def token(self) -> JoinToken:
        text, _ = await self.attestor.create("eastwest", TEN_MINUTES)
        return JoinToken.decode(text)

    async def attest(
        self, token: JoinToken, key: ec.EllipticCurvePrivateKey, name: str = "gw-0"
    ) -> x509.Certificate:
        answer = await self.attestor.attest(redeem(token.secret, key, name))
        return leaf(answer.certificates[0])


def redeem(secret: bytes, key: ec.EllipticCurvePrivateKey, name: str = "gw-0") -> Redeem:
    return Redeem(token=base64.urlsafe_b64encode(secret).decode(), csr=request(key), name=name)


def request(key: ec.EllipticCurvePrivateKey) -> str:
    return csr.request(key).decode()


def leaf(chain: str) -> x509.Certificate:
    return load_pem(chain.encode())[0]


async def refusal(attempt: Awaitable[object]) -> tuple[int, str, str]:
    with pytest.raises(ApiProblem) as refused:
        await attempt
    return refused.value.status, refused.value.code, str(refused.value)


@pytest.fixture
async def east(tmp_path: Path) -> AsyncIterator[Installation]:
    clock = ManualClock()
    authority = await Lineage.open(tmp_path / "authority", FileKeyStore(tmp_path / "keys"), EAST, clock)
    _, root = make_root()
    yield Installation(authority, root, clock)
    await authority.close()


async def test_a_token_brings_what_it_pins_and_then_a_certificate(east: Installation) -> None:
    token = await east.token()
    assert (token.kind, token.url, token.subject) == ("attest", f"https://{API}", "eastwest")
    first = await east.attestor.attest(Redeem(token_hash=token.hash().hex()))
    assert first.root is not None
    bundle = bundles.decode(base64.b64decode(first.bundle))
    check_pin(token.pin, x509.load_pem_x509_certificate(first.root.encode()), bundle)
    assert (first.certificates, first.address, first.base) == ((), "", "")
    assert first.now == east.clock.now()

    key = new_key()
    second = await east.attestor.attest(redeem(token.secret, key))
    issued = leaf(second.certificates[0])
    assert verify_peer((issued,), {EAST: bundle}, east.clock.now()) == GATEWAY
    assert public_key(issued) == key.public_key()
    assert (second.base, second.address) == (BASE, XDS)
    assert east.instances.name_of(spki_hash(key.public_key())) == "gw-0"


async def test_r7_the_identity_is_that_of_the_token_whatever_the_request_says(east: Installation) -> None:
    token, key = await east.token(), new_key()
    wants_more = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(SpiffeId.agent(EAST)))]),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    body = Redeem(
        token=base64.urlsafe_b64encode(token.secret).decode(),
        csr=wants_more.public_bytes(Encoding.PEM).decode(),
        name="gw-0",
    )
    answer = await east.attestor.attest(body)
    names = leaf(answer.certificates[0]).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [str(GATEWAY)]


@pytest.mark.parametrize("what", REFUSED)
async def test_r2_r3_r4_a_hostile_request_leaves_nothing_behind_and_the_token_as_it_was(
    east: Installation, what: str
) -> None:
    data, reason = REFUSED[what]
    token, before = await east.token(), (east.authority.head, east.authority.ledger(east.clock.now()))
    body = Redeem(
        token=base64.urlsafe_b64encode(token.secret).decode(),
        csr=data.decode("ascii", "replace"),
        name="gw-0",
    )
    status, code, says = await refusal(east.attestor.attest(body))
    assert (status, code) == (400, "csr")
    if data.isascii():
        assert re.search(reason, says)
    assert (east.authority.head, east.authority.ledger(east.clock.now())) == before
    assert (await east.tokens.listed())[0].used_by is None
    await east.attest(token, new_key())


async def test_a2_a_lost_answer_can_be_had_again_by_the_same_key_and_by_no_other(east: Installation) -> None:
    token, key = await east.token(), new_key()
    first = await east.attest(token, key)
    east.restart()
    await east.instances.load()
    again = await east.attest(token, key)
    assert public_key(again) == public_key(first)
    assert (await refusal(east.attest(token, new_key())))[0] == 403


async def test_a1_every_refused_token_gets_the_same_answer(east: Installation) -> None:
    used, expired, join = await east.token(), await east.token(), await east.token()
    await east.attest(used, new_key())
    await replace_kind(east, join)
    key = new_key()
    unknown = JoinToken("attest", "", "", b"", os.urandom(32))
    refusals = [
        await refusal(east.attest(used, key)),
        await refusal(east.attest(unknown, key)),
        await refusal(east.attest(join, key)),
        await refusal(east.attestor.attest(Redeem(token="*", csr=request(key), name="gw-0"))),
        await refusal(east.attestor.attest(Redeem(token="\u00e9", csr=request(key), name="gw-0"))),
        await refusal(east.attestor.attest(Redeem(token="", csr=request(key), name="gw-0"))),
        await refusal(east.attestor.attest(Redeem(token_hash=unknown.hash().hex()))),
        await refusal(east.attestor.attest(Redeem(token_hash="nonsense"))),
        await refusal(east.attestor.attest(Redeem())),
        await refusal(east.attestor.attest(Redeem(csr=request(key), name="gw-0"))),
    ]
    east.clock.advance(TEN_MINUTES.total_seconds())
    refusals.append(await refusal(east.attest(expired, key)))
    refusals.append(await refusal(east.attestor.attest(Redeem(token_hash=expired.hash().hex()))))
    assert len(set(refusals)) == 1
    assert refusals[0][:2] == (403, "token")


async def replace_kind(east: Installation, token: JoinToken) -> None:
    """Turn a stored token into one for clusters."""
    key = f"token/{token.hash().hex()}"
    row = (await east.store.load(key)).rows[key]
    await east.store.commit(Change("kind", put={key: row.value.replace(b'"attest"', b'"join"')}))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"csr": "nonsense"}, "csr"),
        ({"csr": None}, "csr"),
        ({"name": "Gateway 1"}, "bad-body"),
        ({"name": ""}, "bad-body"),
    ],
)
async def test_a2_a_request_that_is_no_good_reads_the_same_whatever_the_token_and_uses_none_up(
    east: Installation, body: dict[str, str | None], code: str
) -> None:
    token, used, key = await east.token(), await east.token(), new_key()
    await east.attest(used, new_key())
    text, _ = await east.attestor.create("eastwest", timedelta(minutes=1))
    expired = JoinToken.decode(text)
    east.clock.advance(60)
    answers = set()
    for secret in (token.secret, used.secret, expired.secret, os.urandom(32)):
        odd = msgspec.structs.replace(redeem(secret, key), **body)
        answers.add(await refusal(east.attestor.attest(odd)))
    [(status, found, _)] = answers
    assert (status, found) == (400, code)
    await east.attest(token, key)


async def test_of_fifty_at_once_one_key_attests(east: Installation) -> None:
    token = await east.token()
    keys = [new_key() for _ in range(5)]
    outcomes = await asyncio.gather(
        *(east.attest(token, keys[number % 5]) for number in range(50)), return_exceptions=True
    )
    issued = [outcome for outcome in outcomes if isinstance(outcome, x509.Certificate)]
    assert len(issued) == 10
    assert len({spki_hash(public_key(one)) for one in issued}) == 1
    assert sum(isinstance(outcome, ApiProblem) for outcome in outcomes) == 40


async def test_a1_a_token_is_for_a_class_and_lives_ten_minutes_at_most(east: Installation) -> None:
    with pytest.raises(InvalidToken):
        await east.attestor.create("eastwest", TEN_MINUTES + timedelta(seconds=1))


async def test_a_renewal_keeps_identity_and_instance(east: Installation) -> None:
    key, newer = new_key(), new_key()
    first = await east.attest(await east.token(), key, "gw-7")
    second = leaf(await east.attestor.renew(request(newer), GATEWAY, first))
    assert public_key(second) == newer.public_key()
    assert verify_peer((second,), {EAST: east.authority.bundle()}, east.clock.now()) == GATEWAY
    for known in (key, newer):
        assert east.instances.name_of(spki_hash(known.public_key())) == "gw-7"
    east.restart()
    await east.instances.load()
    assert east.instances.name_of(spki_hash(newer.public_key())) == "gw-7"


async def test_a6_an_old_certificate_is_worth_nothing_once_its_line_went_on(east: Installation) -> None:
    first = await east.attest(await east.token(), new_key())
    second = leaf(await east.attestor.renew(request(new_key()), GATEWAY, first))
    status, code, says = await refusal(east.attestor.renew(request(new_key()), GATEWAY, first))
    assert (status, code) == (400, "csr")
    assert "replaced already" in says
    await east.attestor.renew(request(new_key()), GATEWAY, second)


async def test_a6_a_renewal_is_for_the_identity_that_was_shown(east: Installation) -> None:
    first = await east.attest(await east.token(), new_key())
    other = SpiffeId.gateway(EAST, "ingress")
    assert (await refusal(east.attestor.renew(request(new_key()), other, first)))[0] == 400
    agent = SpiffeId.agent(EAST)
    assert (await refusal(east.attestor.renew(request(new_key()), agent, first)))[:2] == (403, "denied")
    foreign = SpiffeId.gateway(TrustDomain.of_cluster("west", BASE), "eastwest")
    assert (await refusal(east.attestor.renew(request(new_key()), foreign, first)))[:2] == (403, "denied")


async def test_a_gateway_that_attests_anew_takes_its_name_over(east: Installation) -> None:
    lost, fresh, other = new_key(), new_key(), new_key()
    await east.attest(await east.token(), lost, "gw-0")
    await east.attest(await east.token(), other, "gw-1")
    await east.attest(await east.token(), fresh, "gw-0")
    names = {key: east.instances.name_of(spki_hash(key.public_key())) for key in (lost, fresh, other)}
    assert (names[fresh], names[other]) == ("gw-0", "gw-1")
    assert names[lost].startswith("key-")
    east.restart()
    await east.instances.load()
    assert {key: east.instances.name_of(spki_hash(key.public_key())) for key in names} == names


async def test_the_name_of_a_gateway_that_is_connected_is_not_given_away(east: Installation) -> None:
    first, second, token, used = new_key(), new_key(), await east.token(), await east.token()
    connected = set[str]()
    east.instances.is_connected = connected.__contains__
    await east.attest(used, first, "gw-0")
    connected.add("gw-0")
    status, code, says = await refusal(east.attest(token, second, "gw-0"))
    assert (status, code) == (409, "name-taken")
    assert "gw-0 is connected" in says
    assert east.instances.name_of(spki_hash(first.public_key())) == "gw-0"
    assert (await refusal(east.attest(used, second, "gw-0")))[:2] == (403, "token")
    await east.attest(used, first, "gw-0")
    connected.clear()
    await east.attest(token, second, "gw-0")
    assert east.instances.name_of(spki_hash(second.public_key())) == "gw-0"


async def test_bindings_do_not_grow_with_renewals(east: Installation) -> None:
    instances = Instances(east.store)
    before = None
    for number in range(3 * MOST_FORGOTTEN):
        await instances.bind(f"{number:064x}", "gw-0", instead_of=before)
        before = f"{number:064x}"
    rows = (await east.store.load("instance/")).rows
    assert len(rows) == 2
    assert instances.name_of(before or "") == "gw-0"


async def test_what_cannot_be_stored_is_not_bound(east: Installation) -> None:
    class Full(MemoryStore):
        async def commit(self, change: Change) -> Outcome:
            raise FederationError("full")

    instances = Instances(Full())
    with pytest.raises(FederationError):
        await instances.bind("a" * 64, "gw-0")
    assert instances.name_of("a" * 64) == "key-aaaaaaaaaaaa"
