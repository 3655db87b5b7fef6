"""What a policy lacks, and what it had better not give."""

from __future__ import annotations

from typing import Any

import pytest

from pki.vault.capabilities import Needs, Verdict, judge
from pki.vault.issuer import Issuer

NEEDS = Needs({"a/sign": "update", "a": "read"}, {"a/verbatim": "signs anything"})


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ({"a/sign": ["update"], "a": ["read"], "a/verbatim": ["deny"]}, Verdict((), ())),
        ({"a/sign": ["deny"], "a": ["read", "list"]}, Verdict(("a/sign needs update",), ())),
        ({}, Verdict(("a/sign needs update", "a needs read"), ())),
        ({"a/sign": "update", "a": {"read": 1}}, Verdict(("a/sign needs update", "a needs read"), ())),
        (
            {"a/sign": ["update"], "a": ["read"], "a/verbatim": ["create"]},
            Verdict((), ("a/verbatim: signs anything",)),
        ),
        ({"a/sign": ["update"], "a": ["read"], "a/verbatim": ["read", "list"]}, Verdict((), ())),
        (
            {"a/sign": ["root"], "a": ["root"], "a/verbatim": ["root"]},
            Verdict((), ("the token is a root token and may do everything",)),
        ),
    ],
)
def test_a_policy_is_judged_by_path(found: dict[str, Any], verdict: Verdict) -> None:
    assert judge(NEEDS, found) == verdict


def test_v2_a_root_needs_one_path_to_sign_and_none_that_signs_verbatim() -> None:
    needs = Issuer("mesh-root", "id").needs
    assert [path for path in needs.must if "sign" in path] == ["mesh-root/issuer/id/sign-intermediate"]
    assert {"mesh-root/sign-verbatim", "mesh-root/issuer/id/sign-verbatim"} <= set(needs.never)
