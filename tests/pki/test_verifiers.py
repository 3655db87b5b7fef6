"""The model of each verifier against the verifier itself, chain by chain; and what the model says for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest

from pki.verifiers import (
    BEHAVIOURS,
    Behaviour,
    Eku,
    Role,
    UriConstraints,
    Verdict,
    Verifier,
    judge,
)
from tests.pki.verifying import real
from tests.pki.verifying.cases import cases
from tests.pki.verifying.envoy import envoy
from tests.pki.verifying.real import Case

CASES = cases()
UNSEEN = {(verifier, "prefers_valid") for verifier in (Verifier.GO, Verifier.JAVA, Verifier.PYCA)} | {
    (Verifier.JAVA, "judges_anchor_length")
}
"""What shows in no case: one that tries every issuer has no use for an order, and Java judges no anchor at all."""

Asked = Callable[[Sequence[Case], Path], list[str]]


def judged(verifier: Verifier, case: Case) -> Verdict:
    return judge(verifier, case.presented, case.anchors, case.trust_domain, case.now, case.role)


def disagreements(verifier: Verifier, said: Sequence[str], asked: Sequence[Case]) -> list[str]:
    assert len(said) == len(asked)
    return [
        f"{case.name}: the model says {verdict.believed} ({verdict.reason}), it says {reason or 'believed'}"
        for case, reason in zip(asked, said, strict=True)
        for verdict in (judged(verifier, case),)
        if verdict.believed != (reason == "")
    ]


@pytest.mark.parametrize(("verifier", "ask"), [(Verifier.OPENSSL, real.openssl), (Verifier.PYCA, real.pyca)])
def test_the_model_agrees_with_the_verifier(verifier: Verifier, ask: Asked, tmp_path: Path) -> None:
    found = disagreements(verifier, ask(CASES, tmp_path), CASES)
    assert not found, "\n".join(found)


@pytest.mark.live
@pytest.mark.parametrize(("verifier", "ask"), [(Verifier.GO, real.go), (Verifier.JAVA, real.java)])
def test_the_model_agrees_with_a_verifier_that_is_compiled(
    verifier: Verifier, ask: Asked, tmp_path: Path
) -> None:
    found = disagreements(verifier, ask(CASES, tmp_path), CASES)
    assert not found, "\n".join(found)


@pytest.mark.live
@pytest.mark.parametrize("verifier", [Verifier.ENVOY, Verifier.ENVOY_CA])
def test_the_model_agrees_with_a_real_envoy(verifier: Verifier, tmp_path: Path) -> None:
    asked = [case for case in CASES if case.role is Role.CLIENT]
    found = disagreements(verifier, envoy(asked, tmp_path, spiffe=verifier is Verifier.ENVOY), asked)
    assert not found, "\n".join(found)


DIFFERENCES = [
    (verifier, name)
    for verifier, behaviour in BEHAVIOURS.items()
    for name in (field.name for field in fields(Behaviour))
    if getattr(behaviour, name) is not None
]


def changed(behaviour: Behaviour, name: str) -> Behaviour:
    """The same verifier, but for one thing."""
    value = getattr(behaviour, name)
    match value:
        case bool():
            other: object = not value
        case UriConstraints():
            other = UriConstraints.REFUSED if value is not UriConstraints.REFUSED else UriConstraints.EXACT
        case Eku():
            other = Eku.CHAIN if value is not Eku.CHAIN else Eku.LEAF
        case _:
            other = None if value else 100
    return replace(behaviour, **{name: other})  # type: ignore[arg-type]


@pytest.mark.parametrize(("verifier", "name"), DIFFERENCES)
def test_a_model_that_were_different_in_one_thing_would_not_agree(
    verifier: Verifier, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the comparisons above say something about each field."""
    before = [judged(verifier, case).believed for case in CASES]
    monkeypatch.setitem(BEHAVIOURS, verifier, changed(BEHAVIOURS[verifier], name))
    after = [judged(verifier, case).believed for case in CASES]
    assert (before != after) != ((verifier, name) in UNSEEN)


def test_a_verdict_says_why_in_a_sentence_and_which_path_it_took() -> None:
    case = next(one for one in CASES if one.name == "the dual form for a holder of the root")
    verdict = judged(Verifier.OPENSSL, case)
    assert verdict.believed
    assert verdict.path[:2] == (
        "spiffe://east.mesh.example/gateway/eastwest",
        "authority spiffe://east.mesh.example",
    )
    assert "is reached in 2 steps" in verdict.reason


@pytest.mark.parametrize(
    "name",
    [
        "forged by another cluster, for a holder of the root",
        "two URIs, ours first",
        "two URIs, ours last",
        "a client below an authority for servers",
        "URIs are constrained to what is above the trust domain",
        "the issuer may not sign certificates",
    ],
)
def test_f1_our_own_second_look_refuses_what_others_believe(name: str) -> None:
    [case] = [one for one in CASES if one.name == name]
    others = [one for one in Verifier if one is not Verifier.FEDERATION and judged(one, case).believed]
    assert others, "then there would be nothing to guard against"
    assert not judged(Verifier.FEDERATION, case).believed


def test_nothing_presented_is_not_believed_by_anybody() -> None:
    case = CASES[0]
    for verifier in Verifier:
        assert not judge(verifier, (), case.anchors, case.trust_domain, case.now).believed
