"""`python -m tests.scenarios.hostile ARGUMENTS`: the program of somebody who holds a hub, has changed it, and runs a
cluster of his own making with it. He has everything but the key of the root.

His hub passes on whatever bundle it is told, his cluster proves its bundle by a root that he made himself, under the
name of the true one.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from federation.admit import Refused
from federation.cli.main import main
from federation.hub import Hub
from pki import issue
from pki.bundle import Bundle, Proof
from pki.lineage import Lineage
from pki.profiles import epoch_of
from tests.scenarios.lone_hub import BASE

_KEY = ec.generate_private_key(ec.SECP256R1())
_HONEST = Lineage.bundle


def _root() -> x509.Certificate:
    now = datetime.now(UTC)
    return issue.sign(
        issue.root_authority(BASE, 1, _KEY.public_key(), x509.random_serial_number(), now), _KEY
    )


def _forged(lineage: Lineage) -> Bundle:
    bundle = _HONEST(lineage)
    if bundle.proof.rooted:
        return bundle
    anchor = bundle.anchors[0]
    template = issue.rooted_authority(
        lineage.trust_domain,
        epoch_of(anchor.subject) or 1,
        lineage.issuer.self_signed.public_key(),  # type: ignore[arg-type]
        _root(),
        x509.random_serial_number(),
        datetime.now(UTC),
    )
    return replace(bundle, proof=Proof(rooted=(issue.sign(template, _KEY),)))


def _vouch_for_all(_: Hub, __: str, ___: object) -> Refused | None:
    return None


if __name__ == "__main__":
    Hub._vouch = _vouch_for_all  # type: ignore[method-assign, assignment]
    Lineage.bundle = _forged  # type: ignore[method-assign, assignment]
    main()
