"""Who gets a workload's certificate: by a token once, then by the newest certificate of the line, within its quota."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from federation import issuer as module
from federation.svid.demand import Held, Refusal, Secret, Vetted
from federation.svid.quota import Quota
from pki import bundle, token
from pki.algorithms import spki, spki_hash
from pki.certificate import load_der
from pki.errors import JournalError, Refused
from pki.limits import Limits, NameTemplate
from pki.policy import Attestation, Attested, Grant, decide
from pki.renewal import renew_at
from pki.spiffe import SpiffeId
from pki.validate import verify_peer
from tests.federation.svid.world import CART, EAST, Cluster, cluster, given, held, new_key, wish

PAYMENT = SpiffeId.workload(EAST, "shop", "payment")


@pytest.fixture
async def east(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path) as made:
        yield made


async def refusal(east: Cluster, asked: Vetted) -> Refusal:
    (outcome,) = (await east.ask(asked)).outcomes
    assert isinstance(outcome, Refusal), outcome
    return outcome


async def test_a_token_brings_a_certificate_and_all_that_it_takes_to_use_it(east: Cluster) -> None:
    key = new_key()
    answer = await east.ask(wish(key, Secret(await east.token())))
    made = given(answer)
    certificate = load_der(made.chain[0])
    assert verify_peer((certificate,), {EAST: bundle.decode(answer.bundle)}, east.clock.now()) == CART
    assert certificate.public_key() == key.public_key()
    assert (made.requested, made.granted, made.limited_by) == (None, 3600, "")
    assert made.renew_at == int(renew_at(certificate).timestamp())
    assert load_der(made.chain[1]) == east.authority.root_signed


async def test_what_was_asked_for_given_and_what_limited_it_is_said(tmp_path: Path) -> None:
    async with cluster(tmp_path, Limits(longest=timedelta(minutes=10))) as east:
        made = given(await east.ask(wish(new_key(), Secret(await east.token()), 86_400)))
        assert (made.requested, made.granted, made.limited_by) == (86_400, 600, "issuing.longest")


@pytest.mark.parametrize("lifetime", [0, 1, 4_294_967_295])
async def test_r6_a_life_that_is_none_is_refused_and_uses_no_token_up(east: Cluster, lifetime: int) -> None:
    secret, key = await east.token(), new_key()
    assert (await refusal(east, wish(key, Secret(secret), lifetime))).field == "lifetime"
    given(await east.ask(wish(new_key(), Secret(secret))))


async def test_a2_a_token_that_policy_denies_is_not_used_up(tmp_path: Path) -> None:
    async with cluster(tmp_path, Limits(names=(NameTemplate("/ns/other/sa/*"),))) as east:
        secret = await east.token()
        refused = await refusal(east, wish(new_key(), Secret(secret)))
        assert "issuing.names allows /ns/other/sa/*" in refused.reason
        (record,) = await east.tokens.listed()
        assert record.used_by is None


async def test_a_token_is_good_once_and_again_for_the_same_key(east: Cluster) -> None:
    secret, key = await east.token(), new_key()
    first = given(await east.ask(wish(key, Secret(secret))))
    again = given(await east.ask(wish(key, Secret(secret))))
    assert first.chain != again.chain
    refused = await refusal(east, wish(new_key(), Secret(secret)))
    assert (refused.field, refused.reason) == ("token", str(token.Refused()))


async def test_of_many_that_use_one_token_at_once_one_gets_a_certificate(east: Cluster) -> None:
    secret = await east.token()
    answers = await asyncio.gather(*(east.ask(wish(new_key(), Secret(secret))) for _ in range(100)))
    outcomes = [answer.outcomes[0] for answer in answers]
    assert sum(not isinstance(outcome, Refusal) for outcome in outcomes) == 1
    reasons = {outcome.reason for outcome in outcomes if isinstance(outcome, Refusal)}
    assert reasons == {str(token.Refused())}


async def test_a_token_of_another_kind_or_none_at_all_says_nothing(east: Cluster) -> None:
    for secret in (b"x" * 32, b"", await east.token(kind="attest")):
        assert (await refusal(east, wish(new_key(), Secret(secret)))).reason == str(token.Refused())


async def test_a6_only_the_latest_certificate_of_a_line_is_replaced(east: Cluster) -> None:
    keys = [new_key() for _ in range(4)]
    first = await east.first(keys[0])
    second = given(await east.ask(wish(keys[1], held(first, keys[0]))))
    again = given(await east.ask(wish(keys[1], held(first, keys[0]))))
    assert again.chain != second.chain, "the answer to the first call may have been lost"
    stolen = await refusal(east, wish(keys[2], held(first, keys[0])))
    assert (stolen.field, "replaced already" in stolen.reason) == ("renewal", True)
    given(await east.ask(wish(keys[2], held(second, keys[1]))))


async def test_a6_two_calls_at_once_cannot_both_replace_a_certificate(east: Cluster) -> None:
    key = new_key()
    first = await east.first(key)
    answers = await asyncio.gather(*(east.ask(wish(new_key(), held(first, key))) for _ in range(20)))
    outcomes = [answer.outcomes[0] for answer in answers]
    assert sum(not isinstance(outcome, Refusal) for outcome in outcomes) == 1


async def test_a6_one_call_cannot_fork_a_line(east: Cluster) -> None:
    key = new_key()
    proof = held(await east.first(key), key)
    answer = await east.ask(*(wish(new_key(), proof) for _ in range(3)))
    assert sum(not isinstance(outcome, Refusal) for outcome in answer.outcomes) == 1


async def test_a_certificate_of_another_key_unknown_or_ended_is_not_replaced(east: Cluster) -> None:
    key = new_key()
    first = await east.first(key)
    proof = held(first, key)
    for wrong in (
        Held(proof.serial, spki_hash(new_key().public_key())),
        Held("ab12", proof.spki),
        Held("0", proof.spki),
    ):
        assert "not in our ledger" in (await refusal(east, wish(new_key(), wrong))).reason
    east.clock.advance(3601)
    assert "has ended" in (await refusal(east, wish(new_key(), proof))).reason


async def test_what_is_no_workload_gets_nothing_here(east: Cluster) -> None:
    key = new_key()
    granted = decide(Attested(SpiffeId.gateway(EAST, "eastwest"), Attestation.TOKEN), EAST)
    assert isinstance(granted, Grant)
    issued = await east.authority.issue(key.public_key(), granted, who="t", why="t")
    proof = Held(f"{issued.certificate.serial_number:x}", spki_hash(key.public_key()))
    refused = await refusal(east, wish(new_key(), proof))
    assert refused.reason == f"{SpiffeId.gateway(EAST, 'eastwest')} is not a workload"


async def test_r5_the_key_of_another_identity_is_refused(east: Cluster) -> None:
    key = new_key()
    await east.first(key)
    refused = await refusal(east, wish(key, Secret(await east.token(PAYMENT))))
    assert refused.reason == f"it belongs to {CART} already; make a new one"


async def test_wishes_of_one_call_are_granted_and_refused_one_by_one(east: Cluster) -> None:
    good, bad = Secret(await east.token()), Secret(b"no such token".ljust(32))
    answer = await east.ask(wish(new_key(), good), wish(new_key(), bad), wish(new_key(), Held("1", "")))
    kinds = [type(outcome).__name__ for outcome in answer.outcomes]
    assert kinds == ["Given", "Refusal", "Refusal"]


async def test_r8_an_identity_that_asks_too_often_is_told_when_to_ask_again(tmp_path: Path) -> None:
    async with cluster(tmp_path, quota=Quota(rate=2.0, burst=3.0)) as east:
        key = new_key()
        proof = held(await east.first(key), key)
        again = wish(new_key(), proof)
        for _ in range(2):
            given(await east.ask(again))
        refused = await refusal(east, again)
        assert (refused.field, refused.retry_after) == ("rate", 0.5)
        given(await east.ask(wish(new_key(), Secret(await east.token(PAYMENT)))))
        east.clock.advance(0.5)
        given(await east.ask(again))


async def test_r8_a_token_is_not_used_up_by_one_too_many(tmp_path: Path) -> None:
    async with cluster(tmp_path, quota=Quota(rate=0.1, burst=1.0)) as east:
        await east.first(new_key())
        secret, key = await east.token(), new_key()
        assert (await refusal(east, wish(key, Secret(secret)))).field == "rate"
        east.clock.advance(10)
        given(await east.ask(wish(new_key(), Secret(secret))))


async def test_r8_what_is_remembered_is_bounded(east: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_REMEMBERED", 10)
    monkeypatch.setattr(module, "MOST_IDENTITIES", 5)
    for number in range(30):
        await east.first(new_key(), SpiffeId.workload(EAST, "shop", f"n{number}"))
    assert len(east.issuer._remembered) == 10
    assert len(east.issuer._levels) == 5


async def test_r9_a_call_that_is_repeated_gets_the_same_certificate(east: Cluster) -> None:
    key = new_key()
    first = await east.first(key)
    asked, number = wish(new_key(), held(first, key)), bytes(16)
    one, other = await asyncio.gather(*(east.ask(asked, request_id=number) for _ in range(2)))
    third = await east.ask(asked, request_id=number)
    assert given(one) == given(other) == given(third)
    assert len(east.authority.ledger(east.clock.now())) == 3, "the authority, the first and the second"


async def test_r9_the_number_of_a_call_is_no_key_to_what_another_identity_got(east: Cluster) -> None:
    number, key = bytes(16), new_key()
    await east.ask(wish(key, Secret(await east.token())), request_id=number)
    answer = await east.ask(wish(key, Secret(await east.token(PAYMENT))), request_id=number)
    assert isinstance(answer.outcomes[0], Refusal)


async def test_r9_a_caller_that_gave_up_finds_its_certificate_when_it_asks_again(east: Cluster) -> None:
    asked, number = wish(new_key(), Secret(await east.token())), bytes(16)
    call = asyncio.create_task(east.ask(asked, request_id=number), name="call")
    while not east.issuer._tasks:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    made = given(await east.ask(asked, request_id=number))
    serials = {entry.serial for entry in east.authority.ledger(east.clock.now())}
    assert load_der(made.chain[0]).serial_number in serials
    assert len(serials) == 2


async def test_s2_a_journal_that_cannot_be_written_gives_nothing_and_says_when_to_ask_again(
    east: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret, key = await east.token(), new_key()

    async def full(orders: object) -> None:
        raise JournalError(tmp_path, 3, "cannot be written: No space left on device")

    monkeypatch.setattr(east.authority, "issue_all", full)
    refused = await refusal(east, wish(key, Secret(secret)))
    assert (refused.field, refused.retry_after) == ("authority", 1.0)
    assert str(tmp_path) not in refused.reason
    monkeypatch.undo()
    given(await east.ask(wish(key, Secret(secret))))


async def test_an_operator_gives_within_the_limits(tmp_path: Path) -> None:
    async with cluster(tmp_path, Limits(names=(NameTemplate("/ns/shop/sa/*"),))) as east:
        key = spki(new_key().public_key())
        made = await east.issuer.give("unix:0", CART, key, 60)
        assert made.granted == 60
        for wrong in (SpiffeId.workload(EAST, "bank", "vault"), SpiffeId.agent(EAST)):
            with pytest.raises(Refused) as refused:
                await east.issuer.give("unix:0", wrong, key, None)
            assert refused.value.field == "identity"
