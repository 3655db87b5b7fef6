from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.bundle import Proof
from pki.errors import InvalidToken, PinMismatch
from pki.spiffe import SpiffeId
from pki.token import (
    LONGEST_LIFE,
    JoinToken,
    Redeemed,
    Refused,
    Resumed,
    TokenRecord,
    check_pin,
    mint,
    pin_of,
    redeem,
)
from tests.pki.world import NOW, World, make_root

SECRET = bytes(range(100, 132))
PIN = b"\x07" * 32
KEY, OTHER_KEY = "aa" * 32, "bb" * 32


def made(secret: bytes = SECRET) -> tuple[JoinToken, TokenRecord]:
    return mint(
        secret,
        NOW,
        kind="join",
        url="https://127.0.0.1:8443",
        subject="east",
        pin=PIN,
        may_export=("default/*",),
        ranges=("127.1.0.0/16",),
    )


def test_the_text_form_keeps_everything() -> None:
    token, _ = made()
    text = token.encode()
    assert text.startswith("fed1.")
    assert len(text.split()) == 1
    assert JoinToken.decode(text) == token
    assert JoinToken.decode(f"  {text}\n") == token


def test_a1_the_secret_is_only_in_the_text_form() -> None:
    token, record = made()
    stored = msgspec.json.encode(record) + msgspec.msgpack.encode(record)
    for shown in (repr(token), str(token), repr(record), stored.decode(errors="replace")):
        assert SECRET.hex() not in shown
        assert repr(SECRET)[2:-1] not in shown
        assert token.encode() not in shown
    assert token.hash() != SECRET
    assert record.id == token.hash().hex()[:12]


@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda b: "fed1." + b.hex()))
def test_what_is_not_a_token_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(InvalidToken) as refused:
        JoinToken.decode(text)
    body = text.strip().removeprefix("fed1.")
    if len(body) > 12:
        assert body not in str(refused.value)


def test_a_damaged_token_does_not_leak() -> None:
    text = made()[0].encode()
    for damaged in (
        text[:-3],
        text[:40],
        text + "AAAA",
        text.replace("fed1.", "fed2."),
        "x" + text,
        text[:60] + "!" + text[60:],
    ):
        with pytest.raises(InvalidToken) as refused:
            JoinToken.decode(damaged)
        assert refused.value.__cause__ is None
        assert text[10:40] not in str(refused.value)
    with pytest.raises(InvalidToken, match="longer"):
        JoinToken.decode("fed1." + "A" * 5000)
    with pytest.raises(InvalidToken, match="empty"):
        JoinToken.decode(" \n")


@pytest.mark.parametrize(
    "lifetime",
    [timedelta(0), timedelta(seconds=-1), timedelta(milliseconds=999), LONGEST_LIFE + timedelta(seconds=1)],
)
def test_a1_lifetimes_are_bounded(lifetime: timedelta) -> None:
    with pytest.raises(InvalidToken, match="lifetime"):
        mint(SECRET, NOW, kind="attest", url="", subject="eastwest", pin=PIN, lifetime=lifetime)
    with pytest.raises(InvalidToken, match="31 bytes"):
        mint(SECRET[:31], NOW, kind="attest", url="", subject="eastwest", pin=PIN)


def test_a2_first_use_binds_the_key_and_the_same_key_may_resume() -> None:
    _, record = made()
    first = redeem(record, SECRET, "east", KEY, NOW)
    assert first == Redeemed(msgspec.structs.replace(record, used_by=KEY))
    assert isinstance(first, Redeemed)
    assert redeem(first.record, SECRET, "east", KEY, NOW) == Resumed(first.record)
    assert redeem(first.record, SECRET, "east", OTHER_KEY, NOW) == Refused()


def test_a1_every_refusal_is_the_same() -> None:
    _, record = made()
    used = msgspec.structs.replace(record, used_by=OTHER_KEY)
    late = record.not_after
    outcomes = [
        redeem(None, SECRET, "east", KEY, NOW),
        redeem(None, b"", "", "", NOW),
        redeem(record, SECRET[::-1], "east", KEY, NOW),
        redeem(record, SECRET[:-1], "east", KEY, NOW),
        redeem(record, SECRET, "west", KEY, NOW),
        redeem(record, SECRET, "", KEY, NOW),
        redeem(used, SECRET, "east", KEY, NOW),
        redeem(record, SECRET, "east", KEY, late),
        redeem(used, SECRET, "east", OTHER_KEY, late),
    ]
    assert {(outcome, str(outcome)) for outcome in outcomes} == {(Refused(), str(Refused()))}
    assert isinstance(redeem(record, SECRET, "east", KEY, late - timedelta(seconds=1)), Redeemed)


def test_nobody_is_not_a_secret_that_can_be_guessed() -> None:
    assert redeem(None, b"no such token", "", KEY, NOW) == Refused()


def test_a_record_survives_storage() -> None:
    _, record = made()
    assert msgspec.json.decode(msgspec.json.encode(record), type=TokenRecord) == record
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(
            b'{"hash":"","kind":"root","subject":"a","not_after":"2026-01-01T00:00:00Z"}', type=TokenRecord
        )


async def test_a1_of_a_hundred_at_once_one_wins() -> None:
    """Each attempt reads, decides and compares-and-sets, with a switch of tasks between any two steps."""
    token, record = made(secrets.token_bytes(32))
    row = [(1, record)]

    async def attempt(key: str) -> bool:
        while True:
            revision, found = row[0]
            await asyncio.sleep(0)
            outcome = redeem(found, token.secret, "east", key, NOW)
            await asyncio.sleep(0)
            if not isinstance(outcome, Redeemed):
                return False
            if row[0][0] == revision:
                row[0] = (revision + 1, outcome.record)
                return True

    won = await asyncio.gather(*(attempt(f"{number:064x}") for number in range(100)))
    assert won.count(True) == 1
    assert row[0][1].used_by == f"{won.index(True):064x}"
    assert row[0][0] == 2


def test_a7_the_pin_covers_root_and_bundle_and_nothing_that_may_change(world: World) -> None:
    hub = world.hub.bundle
    pin = pin_of(world.root, hub)
    check_pin(pin, world.root, hub)
    check_pin(pin, world.root, replace(hub, proof=Proof()))
    _, stranger = make_root()
    for root, bundle in (
        (stranger, hub),
        (world.root, world.east.bundle),
        (world.root, replace(hub, sequence=2)),
        (world.root, replace(hub, anchors=(world.east.self_signed,))),
        (world.root, replace(hub, anchors=(*hub.anchors, world.east.self_signed))),
        (world.hub.leaf(SpiffeId.federation(world.hub.trust_domain)), hub),
    ):
        with pytest.raises(PinMismatch, match="somebody is in between"):
            check_pin(pin, root, bundle)


def test_a_name_in_other_letters_is_refused_like_any_other() -> None:
    _, record = made()
    assert redeem(record, SECRET, "öst", KEY, NOW) == Refused()
