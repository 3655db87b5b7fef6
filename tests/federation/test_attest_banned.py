"""Nobody who is banned gets a certificate: not with a token, which is not used up, and not by an older certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from federation.attest import Attestor
from federation.banned import Ban, BanKind, banned
from federation.clock import ManualClock
from pki.algorithms import spki_hash
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.spiffe import SpiffeId
from tests.federation.test_attest import API, EAST, GATEWAY, XDS, Installation, redeem, refusal, request
from tests.pki.world import BASE, make_root, new_key


class Banning(Installation):
    """An attestor that hears of bans."""

    def restart(self) -> None:
        super().restart()
        self.bans: dict[str, Ban] = {}
        self.attestor = Attestor(
            self.authority,
            lambda: self.root,
            self.tokens,
            self.instances,
            API,
            XDS,
            BASE,
            timedelta(days=1),
            self.clock,
            lambda identity, key: self.why(identity, key),
        )

    def why(self, identity: SpiffeId, key: str) -> str | None:
        found = banned(self.bans, identity, key, BASE)
        return None if found is None else str(found)

    def ban(self, kind: BanKind, subject: str) -> None:
        made = Ban(kind, subject, "stolen", self.clock.now())
        self.bans[made.key] = made


@pytest.fixture
async def east(tmp_path: Path) -> AsyncIterator[Banning]:
    clock = ManualClock()
    authority = await Lineage.open(tmp_path / "authority", FileKeyStore(tmp_path / "keys"), EAST, clock)
    _, root = make_root()
    yield Banning(authority, root, clock)
    await authority.close()


@pytest.mark.parametrize("kind", list(BanKind))
async def test_a6_whoever_is_banned_gets_none_until_the_ban_is_taken_back(
    east: Banning, kind: BanKind
) -> None:
    token, key = await east.token(), new_key()
    subjects = {
        BanKind.CLUSTER: "east",
        BanKind.IDENTITY: str(GATEWAY),
        BanKind.KEY: spki_hash(key.public_key()),
    }
    lines = east.authority.head.lines
    east.ban(kind, subjects[kind])
    status, code, message = await refusal(east.attestor.attest(redeem(token.secret, key)))
    assert (status, code) == (403, "banned")
    assert f"{kind.value} {subjects[kind]} is banned: stolen" in message
    assert east.authority.head.lines == lines, "nothing was signed"
    east.bans.clear()
    current = await east.attest(token, key)
    east.ban(kind, subjects[kind])
    renewed = await refusal(east.attestor.renew(request(key), GATEWAY, current))
    assert renewed[:2] == (403, "banned")
    east.bans.clear()
    assert await east.attestor.renew(request(new_key()), GATEWAY, current)


async def test_a6_a_banned_key_gets_none_by_the_certificate_of_another_one(east: Banning) -> None:
    key, stolen = new_key(), new_key()
    current = await east.attest(await east.token(), key)
    east.ban(BanKind.KEY, spki_hash(stolen.public_key()))
    assert (await refusal(east.attestor.renew(request(stolen), GATEWAY, current)))[:2] == (403, "banned")
    assert await east.attestor.renew(request(key), GATEWAY, current)


async def test_who_has_no_token_learns_nothing_of_bans(east: Banning) -> None:
    east.ban(BanKind.CLUSTER, "east")
    stranger = await refusal(east.attestor.attest(redeem(b"x" * 32, new_key())))
    assert stranger[:2] == (403, "token")
