"""Name constraints in the authorities of clusters are in nobody's way: Envoys, hub and agents believe each other."""

from __future__ import annotations

import pytest
from cryptography import x509

from federation.demo.asking import until
from federation.demo.world import World
from pki.certificate import load_pem
from pki.constraints import permitting
from pki.spiffe import TrustDomain
from tests.pki.world import BASE
from tests.scenarios.changes import REMOTE, reach
from tests.scenarios.traffic import answered_by

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


async def test_c10_clusters_whose_authorities_are_constrained_serve_each_other(hasty: World) -> None:
    for name, cluster in hasty.clusters.items():
        forms = [
            load_pem(path.read_bytes())[0] for path in (cluster.folder / "agent").rglob("root-signed.pem")
        ]
        assert forms
        for form in forms:
            found = form.extensions.get_extension_for_class(x509.NameConstraints)
            assert (found.critical, found.value) == (True, permitting(TrustDomain.of_cluster(name, BASE)))
    to = await reach(hasty, "east", REMOTE)
    await until("west's answer to a client in east", answered_by(to, "west"))
