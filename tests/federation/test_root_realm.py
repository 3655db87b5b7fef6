"""Another root takes the place of the one before when everybody holds it and nobody presents the other one's word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from federation.admission import Admission, Joined
from federation.banned import BanKind
from federation.clock import ManualClock
from federation.errors import FederationError
from federation.held import Held, content, digest
from federation.hub import Hub
from federation.listen import HostPort
from federation.model import HUB, MemberState
from federation.registry import Registry
from federation.root_realm import RootRealm
from federation.root_request import RootRequest
from federation.rotating import Rotating
from federation.store import MemoryStore
from federation.successors import Successors
from federation.telemetry import HubMetrics
from federation.tokens import TokenStore
from pki import bundle as bundles
from pki.certificate import authority_key_id, der, load_der, subject_key_id
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.offline import OfflineRoot
from pki.root_lineage import RootLineage
from pki.spiffe import TrustDomain
from pki.statement import Kind
from pki.token import JoinToken
from tests.federation.lives import eventually
from tests.federation.world import BASE, NOW

EAST = TrustDomain.of_cluster("east", BASE)


@dataclass
class Site:
    """A hub, its root and its one member, whose words a test says."""

    root: RootLineage
    authority: Lineage
    hub: Hub
    east: Lineage
    successors: Successors
    rotating: Rotating
    told: dict[str, Held] = field(default_factory=dict)

    async def say(self, *roots: bytes) -> None:
        """East says, signed, that it holds the newest set, and presents the word of `roots`."""
        before = self.told.get("east")
        stamp = (1, 1 if before is None else before.stamp[1] + 1)
        bundle = self.root.bundle()
        held = Held(
            "east",
            ((BASE, *bundle.version),),
            tuple(sorted(roots)),
            digests=((BASE, digest(bundle)),),
            stamp=stamp,
        )
        signature = await self.east.issuer.sign_statement(Kind.HELD, content(held, EAST))
        self.told["east"] = replace(held, signature=signature)

    async def look(self, times: int = 4) -> str | None:
        for _ in range(times):
            await self.rotating.look()
        return self.rotating.status().phase

    def waits_for(self) -> set[str]:
        return {each.member for each in self.rotating.status().blocking}

    @property
    def signs(self) -> bytes:
        return subject_key_id(self.root.certificate) or b""

    async def sign_the_hub_anew(self) -> None:
        domain = self.authority.trust_domain
        form = await self.root.sign_cluster_ca(await self.authority.csr(), domain, who="hub", why="test")
        await self.authority.accept_root_signed(form, self.root.certificate)

    async def sign_east_anew(self) -> None:
        """As when its agent asks."""
        self.successors.hear(RootRequest("east", await self.east.csr(), der(self.east.self_signed)))
        await eventually(self._is_registered)

    def _is_registered(self) -> bool:
        row = self.hub.registry.find("east")
        return row is not None and authority_key_id(load_der(row.rooted)) == self.signs


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    clock = ManualClock(NOW)
    root = await RootLineage.open(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock)
    authority = await Lineage.open(
        tmp_path / "hub", FileKeyStore(tmp_path / "hub-keys"), TrustDomain.of_hub(BASE), clock
    )
    store, metrics = MemoryStore(), HubMetrics()
    hub = Hub(Registry(store), lambda: root.bundle().anchors, BASE, clock, metrics)
    await hub.start()
    tokens = TokenStore(store, clock.now)
    admission = Admission(hub, tokens, root, authority.bundle, HostPort("127.0.0.1:1"), clock, metrics)
    text, _ = await admission.create_token("east", ("*/*",), ("10.0.0.0/8",), timedelta(minutes=5))
    east = await Lineage.open(tmp_path / "east", FileKeyStore(tmp_path / "keys"), EAST, clock)
    outcome = await admission.redeem_join(JoinToken.decode(text).secret, "east", await east.csr())
    assert isinstance(outcome, Joined)
    realm = RootRealm(root, hub, authority, clock)
    successors = Successors(BASE, hub.registry, root, hub.membership.keep_successor, clock)
    site = Site(root, authority, hub, east, successors, Rotating(realm, clock))
    monkeypatch.setattr(hub, "held", lambda: site.told)
    await site.sign_the_hub_anew()
    yield site
    await successors.close()
    for each in (east, authority, root):
        await each.close()


async def test_a_root_is_replaced_when_everybody_presents_the_word_of_the_next(site: Site) -> None:
    old = site.signs
    await site.rotating.start("ada", "", manual=False)
    assert await site.look() == "published"
    assert site.waits_for() == {"east"}
    await site.say(old)
    assert await site.look() == "active"
    assert site.signs != old
    assert site.waits_for() == {HUB, "east"}, "the hub's own authority is to be signed anew, too"
    await site.sign_the_hub_anew()
    assert site.waits_for() == {"east"}
    await site.say(old, site.signs)
    assert await site.look() == "active"
    await site.say(site.signs)
    assert await site.look() == "active", "everybody is told the word of the one before still"
    await site.sign_east_anew()
    assert await site.look() == "retiring"
    await site.say(site.signs)
    assert await site.look() == "done"
    assert len(site.root.bundle().anchors) == 1


async def test_a_look_decodes_no_bundle_and_once_it_is_over_nobody_is_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members may be many, and to decode what each has published is to verify every signature in it."""

    def none(*_: object, **__: object) -> object:
        raise AssertionError("decoded, or asked")

    await site.hub.membership.offered("east", site.east.bundle())
    await site.rotating.start("ada", "", manual=False)
    await site.look()
    await site.say(site.signs)
    with monkeypatch.context() as watched:
        watched.setattr(bundles, "decode", none)
        assert await site.look() == "active"
        assert site.waits_for() == {HUB, "east"}
    await site.sign_the_hub_anew()
    await site.sign_east_anew()
    await site.say(site.signs)
    assert await site.look() == "retiring"
    await site.say(site.signs)
    assert await site.look() == "done"
    monkeypatch.setattr(RootRealm, "reports", none)
    assert not site.rotating.status().blocking


async def test_who_does_not_say_whose_word_it_presents_may_present_anybodys(site: Site) -> None:
    await site.rotating.start("ada", "", manual=False)
    await site.look()
    await site.say()
    assert await site.look() == "active"
    await site.sign_the_hub_anew()
    await site.sign_east_anew()
    assert await site.look() == "active"
    await site.say(site.signs)
    assert await site.look() == "retiring"


async def test_turned_back_what_was_said_before_does_not_count(site: Site) -> None:
    old = site.signs
    await site.rotating.start("ada", "", manual=False)
    await site.look()
    await site.say(old)
    assert await site.look() == "active"
    await site.sign_east_anew()
    number = site.rotating.status().number
    await site.rotating.abort(number, "active")
    await site.sign_east_anew()
    assert site.signs == old
    assert await site.look() == "reverting", "east may have taken the next root's word since it said so"
    assert site.waits_for() == {"east"}
    await site.say(old)
    assert await site.look() == "withdrawing"
    await site.say(old)
    assert await site.look() == "aborted"


async def test_nobody_waits_for_whom_nobody_believes(site: Site) -> None:
    realm = RootRealm(site.root, site.hub, site.authority, ManualClock(NOW))
    assert realm.members() == {HUB, "east"}
    await site.hub.bans.ban(BanKind.CLUSTER, "east", "stolen")
    assert realm.members() == {HUB}
    assert realm.unawaited() == ("east: it is banned",)
    await site.hub.bans.unban(BanKind.CLUSTER, "east")
    await site.hub.membership.set("east", state=MemberState.QUARANTINED)
    assert realm.members() == {HUB}
    assert realm.unawaited() == ("east: it is quarantined",)


async def test_only_a_root_of_ours_is_replaced_by_itself(site: Site, tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    assert RootRealm(site.root, site.hub, site.authority, clock).automatic
    pinned = await OfflineRoot.pin(tmp_path / "pinned", BASE, site.root.certificate, clock)
    try:
        assert not RootRealm(pinned, site.hub, site.authority, clock).automatic, "its key is in a safe"
    finally:
        await pinned.close()


async def test_a_root_has_no_leaves(site: Site) -> None:
    with pytest.raises(FederationError, match="a root has no leaves") as refused:
        await site.rotating.renew_all()
    assert "federation ca rotate leaves" in refused.value.hint


async def test_a_root_is_replaced_by_itself_when_two_thirds_of_its_life_are_over(site: Site) -> None:
    assert await site.look() is None
    ends = site.root.certificate.not_valid_after_utc
    clock = ManualClock(ends - timedelta(days=300))
    late = Rotating(RootRealm(site.root, site.hub, site.authority, clock), clock)
    await late.look()
    assert late.status().running
    assert late.status().who == "the hub"
