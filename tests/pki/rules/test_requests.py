"""R1 to R7: what a request may be, and what it cannot bring about. R8 and R9 stand where requests come in."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pki import csr, issue
from pki.algorithms import ALL_KINDS, KeyKind
from pki.errors import Refused
from tests.pki.rules.classes import IDENTITIES
from tests.pki.rules.hostile import ED25519_KEY, GOOD, IGNORED, KEY, REFUSED, RSA_KEY, AnyKey, signed
from tests.pki.world import NOW, World, granted, serial


@pytest.mark.parametrize("what", IGNORED)
def test_r1_whatever_a_request_asks_for_its_certificate_is_that_of_a_bare_one(
    world: World, what: str
) -> None:
    number = serial()
    plans = [
        issue.leaf(granted(IDENTITIES["gateway"]), csr.parse(each).public_key, world.east.forms, number, NOW)
        for each in (IGNORED[what], GOOD)
    ]
    one, other = (issue.sign(plan, world.east.key) for plan in plans)
    assert one.tbs_certificate_bytes == other.tbs_certificate_bytes


@pytest.mark.parametrize("what", REFUSED)
def test_r2_r3_r4_a_hostile_request_is_refused_and_told_why(what: str) -> None:
    request, reason = REFUSED[what]
    with pytest.raises(Refused, match=reason) as refused:
        csr.parse(request)
    assert refused.value.field == "csr"
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("what", REFUSED)
def test_r4_no_hostile_request_costs_much_more_than_an_honest_one(what: str) -> None:
    """Processor time, measured beside each other, best of five; none was seen to cost more than an honest one."""
    request, _ = REFUSED[what]

    def hostile() -> None:
        with pytest.raises(Refused):
            csr.parse(request)

    assert best_of_five(hostile) < 5 * best_of_five(lambda: csr.parse(GOOD))


def best_of_five(work: Callable[[], object]) -> float:
    """Seconds of processor time."""
    spent = []
    for _ in range(5):
        begun = time.process_time()
        work()
        spent.append(time.process_time() - begun)
    return min(spent)


def test_r3_ed25519_is_taken_where_the_operator_names_it_and_only_for_leaves(world: World) -> None:
    request = signed(ED25519_KEY)
    assert csr.parse(request, {KeyKind.ED25519}).public_key == ED25519_KEY.public_key()
    with pytest.raises(Refused, match="ecdsa-p256 is not among the allowed keys: ed25519"):
        csr.parse(GOOD, {KeyKind.ED25519})


@pytest.mark.parametrize(
    ("key", "kind"),
    [(KEY, KeyKind.P256), (RSA_KEY, KeyKind.RSA), (ED25519_KEY, KeyKind.ED25519)],
    ids=["P-256", "RSA", "Ed25519"],
)
def test_r3_each_kind_can_be_left_out(key: AnyKey, kind: KeyKind) -> None:
    request = signed(key)
    assert csr.parse(request, {kind}).public_key == key.public_key()
    with pytest.raises(Refused, match=f"{kind} is not among the allowed keys"):
        csr.parse(request, ALL_KINDS - {kind})
