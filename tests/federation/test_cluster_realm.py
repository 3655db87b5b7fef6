"""What leaves present follows what the root has signed."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from pki import issue
from pki.certificate import load_pem, public_key
from tests.federation.east import EAST, East
from tests.federation.world import NOW
from tests.pki.world import make_world, serial


async def test_when_the_root_has_signed_for_the_first_time_every_leaf_is_renewed_once(tmp_path: Path) -> None:
    world = make_world()
    east = await East.new(tmp_path, world)
    try:
        key = public_key(east.lineage.self_signed)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        form = issue.sign(issue.rooted_authority(EAST, 1, key, world.root, serial(), NOW), world.root_key)
        await east.rotating.look()
        assert east.realm.word_for("gw-0").issued_after_ms == 0
        assert form not in load_pem(east.identity.current.chain)
        await east.lineage.accept_root_signed(form, world.root)
        east.realm.rooted_anew()
        await east.rotating.look()
        assert form in load_pem(east.identity.current.chain)
        word = east.realm.word_for("gw-0")
        assert word.issued_after_ms == int(NOW.timestamp() * 1000)
        assert word.within_s == 1
        renewed = east.identity.current
        await east.rotating.look()
        assert east.identity.current is renewed
    finally:
        await east.lineage.close()
