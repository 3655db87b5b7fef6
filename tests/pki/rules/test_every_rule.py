"""The rules by which certificates, requests, tokens, files, records and peers are judged, and that each has a test.

`pytest -k c8` runs what shows rule C8. A test carries the numbers of its rules at the front of its name.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]

RULES = {
    "c1": "serial numbers are positive, random, of 64 to 159 bits, and used once",
    "c2": "a leaf has exactly one URI SAN, and it is a SPIFFE ID in its narrowest form",
    "c3": "a leaf is no authority, signs no certificates, and plays both TLS roles",
    "c4": "the SAN is critical exactly where the subject is empty",
    "c5": "an authority is marked as one, signs certificates and lists only, and has no extended key usage",
    "c6": "every certificate names its key and its issuer's key, by key identifier only",
    "c7": "no two keys of authorities have one subject",
    "c8": "a leaf lives within every form of its authority, and says so when that cuts it short",
    "c9": "times are UTC in whole seconds, and both ends are inclusive",
    "c10": "name constraints, where they are on, are critical and name exactly one trust domain",
    "c11": "no trust domain lies below another one in DNS",
    "c12": "short-lived leaves say that there is no revocation, authorities never do",
    "c13": "keys and signatures are of the few accepted kinds",
    "c14": "a certificate that is not as planned is not released; others and a linter agree with us",
    "r1": "of a request only the key counts",
    "r2": "whoever asks proves to have the private key",
    "r3": "only good keys get certificates",
    "r4": "limits on size and form come before parsing",
    "r5": "a key has one identity, and an authority's key none besides",
    "r6": "a life is within its limits, and nothing strange is a life",
    "r7": "the identity comes from the attestation and the policy",
    "r8": "quotas are bounded, and who is over them is told when to try again",
    "r9": "a request that is repeated is not fulfilled twice",
    "a1": "a token is long, hashed, bound, short-lived and used once",
    "a2": "a failed attempt uses no token up, a successful one does, and the same key may ask again",
    "a6": "only the latest certificate of a living line is renewed",
    "a7": "the first contact is verified with the pin of the token",
    "k1": "private keys are private files, made safely and encrypted",
    "k2": "a hub whose root is offline never has its key",
    "k3": "a key is durable before anything is asked or signed for it",
    "k5": "no secret shows in errors, logs, arguments or the environment",
    "k6": "a crash leaves the old file or the new one, and what does not belong together is refused",
    "k7": "one process at a time signs with a key",
    "k8": "names pass one narrow list before they become files, hosts or objects",
    "v1": "a Vault is verified, and its token renewed and no more powerful than needed",
    "v2": "a Vault is never asked to sign a request as it is",
    "v3": "what a Vault returns is compared with what was asked for",
    "v4": "what is handed to the Vault's client is not changed by it",
    "v5": "a Vault that is away stops nothing but the renewal of authorities",
    "v6": "answers of a Vault are bounded in size and time",
    "s1": "the intent is durable before a signature, the result before release, and every change is found",
    "s2": "what cannot be written down is not signed",
    "s3": "every living leaf is in the ledger",
    "s4": "a rotation is safe in every state that crashes and offline clusters can lead to",
    "s5": "versions of a bundle only rise, each signed by the one before",
    "s6": "nothing is signed by a clock that cannot be right",
    "s7": "a used token that a restored database brings back is worth nothing ten minutes after it was made",
    "f1": "a peer is verified with the bundle of its own trust domain, never with several",
    "f2": "bundles are fetched over verified connections, within limits, for the configured trust domain",
    "f3": "of a foreign bundle only well-formed authorities are taken",
    "f4": "a federation that is removed is gone at once",
}


def numbers_of_tests() -> set[str]:
    named = re.compile(r"def test((?:_[a-z]\d{1,2})+)_")
    found: set[str] = set()
    for path in TESTS.rglob("test_*.py"):
        for match in named.finditer(path.read_text()):
            found.update(match[1].strip("_").split("_"))
    return found


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_test(rule: str) -> None:
    assert rule in numbers_of_tests(), RULES[rule]
