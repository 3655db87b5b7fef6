"""What a hub or an agent asks a root in a safe for, and what it keeps of the answer: what it asked for, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from federation.admission import Admission, Joined
from federation.ceremony import AgentCeremony, HubCeremony, NoCeremony
from federation.clock import SystemClock
from federation.events import MemberChanged
from federation.hub import Hub
from federation.listen import HostPort
from federation.registry import Registry
from federation.rooting import Rooting
from federation.store import MemoryStore
from federation.telemetry import HubMetrics
from federation.tokens import TokenStore
from pki.ceremony import Answers, NextRoot, Requests, asked, fingerprint_of, now_in_seconds
from pki.certificate import der, pem
from pki.errors import CeremonyFile
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.offline import OfflineRoot
from pki.root import RootAuthority
from pki.rooted import is_rooted
from pki.rotation import advance
from pki.safe import hand_over
from pki.spiffe import TrustDomain
from pki.token import JoinToken

BASE = "mesh.example"
CLOCK = SystemClock()
HUB = TrustDomain.of_hub(BASE)
EAST, WEST = (TrustDomain.of_cluster(name, BASE) for name in ("east", "west"))


class Federation:
    """A hub without streams, whose root is in `safe`."""

    def __init__(self, folder: Path, safe: RootAuthority, authority: Lineage) -> None:
        self.folder = folder
        self.safe = safe
        self.authority = authority
        self.ceremony = HubCeremony(BASE, folder / "root", authority, None, CLOCK)

    async def lineage(self, domain: TrustDomain, folder: str = "") -> Lineage:
        place = self.folder / (folder or domain.name)
        return await Lineage.open(place / "authority", FileKeyStore(place / "keys"), domain, CLOCK)

    async def sign(self, requests: Requests | None) -> Answers:
        """What the root makes of a file."""
        assert requests is not None
        return await sign(self.safe, requests)

    async def run(self) -> None:
        """The first ceremony, and what comes after it."""
        await self.ceremony.install(await self.sign((await self.ceremony.gather()).requests))
        assert self.ceremony.root is not None
        store, metrics = MemoryStore(), HubMetrics()
        self.hub = Hub(Registry(store), lambda: (self.safe.certificate,), BASE, CLOCK, metrics)
        await self.hub.start()
        self.ceremony.hub = self.hub
        bundle, api = self.authority.bundle(), HostPort.of("127.0.0.1", 8443)
        tokens = TokenStore(store, CLOCK.now)
        self.admission = Admission(self.hub, tokens, self.ceremony.root, lambda: bundle, api, CLOCK, metrics)

    async def join(self, domain: TrustDomain) -> Lineage:
        name = domain.cluster(BASE) or ""
        lineage = await self.lineage(domain)
        text, _ = await self.admission.create_token(name, ("a/*",), ("10.0.0.0/8",), timedelta(minutes=5))
        request, anchor = await lineage.csr(), pem([lineage.self_signed])
        secret = JoinToken.decode(text).secret
        assert isinstance(await self.admission.redeem_join(secret, name, request, anchor), Joined)
        return lineage


async def sign(safe: RootAuthority, requests: Requests) -> Answers:
    certificates = [
        await safe.sign_cluster_ca(one.csr, one.subordinate.trust_domain, who="", why="")
        for one in asked((requests,), safe.certificate, BASE)
    ]
    return Answers(
        base=BASE,
        made_at=now_in_seconds(CLOCK.now()),
        root=der(safe.certificate),
        certificates=tuple(map(der, certificates)),
    )


async def root(folder: Path) -> RootAuthority:
    return await RootAuthority.create(folder / "root", FileKeyStore(folder / "root-keys"), BASE, CLOCK)


@pytest.fixture
async def waiting(tmp_path: Path) -> AsyncIterator[Federation]:
    """A hub that has no root yet."""
    safe = await root(tmp_path / "safe")
    place = tmp_path / "hub"
    authority = await Lineage.open(place / "authority", FileKeyStore(place / "keys"), HUB, CLOCK)
    yield Federation(tmp_path / "hub", safe, authority)
    await authority.close()
    await safe.close()


@pytest.fixture
async def federation(waiting: Federation) -> Federation:
    await waiting.run()
    return waiting


async def test_the_first_ceremony_brings_the_root_and_its_word_for_the_hub(waiting: Federation) -> None:
    ceremony = waiting.ceremony
    assert ceremony.pinned is None
    gathered = await ceremony.gather()
    assert gathered.requests is not None
    assert gathered.requests.root == ""
    done = await ceremony.install(await waiting.sign(gathered.requests))
    assert done.kept == (HUB,)
    assert ceremony.done.is_set()
    assert ceremony.pinned == waiting.safe.certificate
    assert waiting.authority.root_signed is not None
    assert (await ceremony.gather()).requests is None
    again = HubCeremony(BASE, waiting.folder / "root", waiting.authority, ceremony.root, CLOCK)
    assert again.done.is_set(), "after a restart nobody has to come again"


async def test_a_root_may_be_pinned_before_anything_that_it_signed_arrives(
    waiting: Federation, tmp_path: Path
) -> None:
    other = await root(tmp_path / "other")
    requests = (await waiting.ceremony.gather()).requests
    assert requests is not None
    await waiting.ceremony.pin(waiting.safe.certificate)
    assert not waiting.ceremony.done.is_set()
    with pytest.raises(CeremonyFile, match="pinned here is"):
        await waiting.ceremony.install(await sign(other, requests))
    asking = (await waiting.ceremony.gather()).requests
    assert asking is not None
    assert asking.root == fingerprint_of(waiting.safe.certificate)
    with pytest.raises(CeremonyFile, match="has pinned the root"):
        await sign(other, asking)
    await waiting.ceremony.install(await waiting.sign(asking))
    await other.close()


async def test_what_does_not_belong_to_the_hub_leaves_it_as_it_was(waiting: Federation) -> None:
    stranger = await waiting.lineage(HUB, "stranger")
    theirs = HubCeremony(BASE, waiting.folder / "none", stranger, None, CLOCK)
    for_a_stranger = await waiting.sign((await theirs.gather()).requests)
    with pytest.raises(CeremonyFile, match="over another key than ours"):
        await waiting.ceremony.install(for_a_stranger)
    east = await waiting.lineage(EAST)
    for_east = AgentCeremony(BASE, lambda: waiting.safe.certificate, east, CLOCK)
    with pytest.raises(CeremonyFile, match="whose own authority comes first"):
        await waiting.ceremony.install(await waiting.sign((await for_east.gather()).requests))
    assert waiting.ceremony.pinned is None
    assert waiting.authority.root_signed is None
    assert not (waiting.folder / "root").exists()
    for lineage in (stranger, east):
        await lineage.close()


async def test_one_file_carries_every_cluster_that_waits_and_each_gets_its_own(
    federation: Federation,
) -> None:
    east, west = [await federation.join(domain) for domain in (EAST, WEST)]
    gathered = await federation.ceremony.gather()
    assert gathered.requests is not None
    assert [one.trust_domain for one in gathered.requests.requests] == [str(EAST), str(WEST)]
    answers = await federation.sign(gathered.requests)
    done = await federation.ceremony.install(answers)
    assert set(done.kept) == {EAST, WEST}
    assert (await federation.ceremony.install(answers)).kept == done.kept, (
        "what is there already does no harm"
    )
    assert (await federation.ceremony.gather()).requests is None
    for lineage, name in ((east, "east"), (west, "west")):
        known = federation.hub.member(name)
        assert known is not None
        rooting = Rooting(name, lineage, lambda: (federation.safe.certificate,))
        await rooting.take(known.member.rooted)
        assert lineage.root_signed is not None
        assert is_rooted(lineage.self_signed, lineage.root_signed, federation.safe.certificate)
        assert lineage.bundle().proof.rooted == (lineage.root_signed,)
        await lineage.close()


async def test_nobody_gets_what_another_one_asked_for(federation: Federation) -> None:
    """The certificate of a removed cluster, and one for a key that the member does not have."""
    east, west = [await federation.join(domain) for domain in (EAST, WEST)]
    answers = await federation.sign((await federation.ceremony.gather()).requests)
    await federation.hub.remove_member("west")
    done = await federation.ceremony.install(answers)
    assert (done.kept, done.unasked) == ((EAST,), (WEST,))
    known = federation.hub.member("east")
    assert known is not None
    rooting = Rooting("west", west, lambda: (federation.safe.certificate,))
    await rooting.take(known.member.rooted)
    assert west.root_signed is None, "a hub that mixes them up changes nothing"
    for lineage in (east, west):
        await lineage.close()


async def test_a_hub_cannot_make_an_agent_take_the_word_of_another_root(
    federation: Federation, tmp_path: Path
) -> None:
    east = await federation.join(EAST)
    other = await root(tmp_path / "other")
    forged = await other.sign_cluster_ca(await east.csr(), EAST, who="", why="")
    rooting = Rooting("east", east, lambda: (federation.safe.certificate,))
    await rooting.take(der(forged))
    await rooting.take(b"nonsense")
    assert east.root_signed is None
    await other.close()
    await east.close()


async def test_an_agent_takes_what_it_hears_of_itself(federation: Federation) -> None:
    east, west = [await federation.join(domain) for domain in (EAST, WEST)]
    rooting = Rooting("east", east, lambda: (federation.safe.certificate,))
    await federation.ceremony.install(await federation.sign((await federation.ceremony.gather()).requests))
    task = asyncio.create_task(rooting.run(), name="rooting")
    try:
        for known in federation.hub.members():
            rooting.hear(MemberChanged(known.member))
        async with asyncio.timeout(20):
            while east.root_signed is None:
                await asyncio.sleep(0.005)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert is_rooted(east.self_signed, east.root_signed, federation.safe.certificate)
    assert west.root_signed is None, "it was told of west as well"
    for lineage in (east, west):
        await lineage.close()


async def test_an_agent_asks_for_itself(federation: Federation) -> None:
    east, west = [await federation.join(domain) for domain in (EAST, WEST)]
    presented: list[bool] = []
    mine, other = [
        AgentCeremony(
            BASE, lambda: federation.safe.certificate, lineage, CLOCK, lambda: presented.append(True)
        )
        for lineage in (east, west)
    ]
    requests = (await mine.gather()).requests
    answers = await federation.sign(requests)
    with pytest.raises(CeremonyFile, match=f"nothing for {WEST}"):
        await other.install(answers)
    assert presented == []
    assert (await mine.install(answers)).kept == (EAST,)
    assert east.root_signed is not None
    assert presented == [True], "its leaves are to present it"
    assert (await mine.gather()).requests is None
    for lineage in (east, west):
        await lineage.close()


async def test_with_the_root_online_nobody_waits(federation: Federation) -> None:
    never = NoCeremony(federation.safe)
    assert (await never.gather()).requests is None
    east = await federation.join(EAST)
    answers = await federation.sign((await federation.ceremony.gather()).requests)
    with pytest.raises(CeremonyFile, match="is not offline"):
        await never.install(answers)
    await east.close()


async def next_root(federation: Federation, folder: Path) -> tuple[RootAuthority, NextRoot]:
    """The root that is to follow the one in the safe, and the file in which that hands over to it."""
    keys = FileKeyStore(folder / "root-keys")
    made = await RootAuthority.create(folder / "root", keys, BASE, CLOCK, epoch=2)
    place = federation.folder.parent / "safe" / "root"
    return made, await hand_over(federation.safe, place, made, folder / "root", CLOCK.now())


async def go_on(root: OfflineRoot) -> None:
    assert root.rotation is not None
    await root.enter(advance(root.rotation, frozenset(), {}))


async def test_when_another_root_signs_everybody_asks_for_its_word(
    federation: Federation, tmp_path: Path
) -> None:
    """East at the hub, west at its own agent; what the root before signs is refused from now on."""
    east, west = [await federation.join(domain) for domain in (EAST, WEST)]
    ceremony, root = federation.ceremony, federation.ceremony.root
    assert root is not None
    await ceremony.install(await federation.sign((await ceremony.gather()).requests))
    known = federation.hub.member("west")
    assert known is not None
    await Rooting("west", west, lambda: (federation.safe.certificate,)).take(known.member.rooted)
    new, file = await next_root(federation, tmp_path / "2")
    done = await ceremony.hand_over(file)
    assert (done.root, done.follows) == (new.certificate, federation.safe.certificate)
    await root.begin("ada", "")
    await go_on(root)
    assert (await ceremony.gather()).requests is None, "the one before still signs"
    await go_on(root)
    asked_for = (await ceremony.gather()).requests
    assert asked_for is not None
    assert asked_for.root == fingerprint_of(new.certificate)
    assert [one.trust_domain for one in asked_for.requests] == [str(HUB)], "clusters ask for themselves"
    with pytest.raises(CeremonyFile, match="has pinned the root"):
        await federation.sign(asked_for)
    assert (await ceremony.install(await sign(new, asked_for))).kept == (HUB,)
    assert (await ceremony.gather()).requests is None
    with pytest.raises(CeremonyFile, match="another root is pinned"):
        await ceremony.pin(federation.safe.certificate)
    replaced: list[str] = []
    agent = AgentCeremony(BASE, lambda: root.certificate, west, CLOCK, lambda: replaced.append("west"))
    requests = (await agent.gather()).requests
    assert requests is not None
    await agent.install(await sign(new, requests))
    assert replaced == ["west"], "its leaves are to present the new word"
    assert (await agent.gather()).requests is None
    await new.close()
    for lineage in (east, west):
        await lineage.close()


async def test_a_root_is_handed_over_at_a_hub_whose_root_is_in_a_safe_and_nowhere_else(
    waiting: Federation, tmp_path: Path
) -> None:
    new, file = await next_root(waiting, tmp_path / "2")
    with pytest.raises(CeremonyFile, match="no root is pinned here yet"):
        await waiting.ceremony.hand_over(file)
    with pytest.raises(CeremonyFile, match="is not offline"):
        await NoCeremony(waiting.safe).hand_over(file)
    agent = AgentCeremony(BASE, lambda: waiting.safe.certificate, waiting.authority, CLOCK)
    with pytest.raises(CeremonyFile, match="at the hub"):
        await agent.hand_over(file)
    await new.close()
