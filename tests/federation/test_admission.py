"""How clusters join: a token is used once, by one key, and an answer that was lost can be had again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from federation.admission import Admission, Joined
from federation.clock import SystemClock
from federation.errors import FederationError
from federation.hub import Hub
from federation.listen import HostPort
from federation.model import MemberState
from federation.registry import Registry
from federation.store import Change, MemoryStore
from federation.store.contract import Image, Outcome
from federation.telemetry import HubMetrics
from federation.tokens import TokenStore
from pki import csr
from pki.algorithms import spki_hash
from pki.certificate import der, load_der, pem, public_key
from pki.errors import InvalidName
from pki.errors import Refused as CsrRefused
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.offline import OfflineRoot
from pki.profiles import authority_subject
from pki.root import RootAuthority
from pki.rooted import is_rooted
from pki.spiffe import SpiffeId, TrustDomain
from pki.token import JoinToken, Refused, check_pin
from pki.upstream import Root

BASE = "mesh.example"
CLOCK = SystemClock()
LIFETIME = timedelta(minutes=5)


class SlowStore(MemoryStore):
    """Between asking and being answered others get their turn, as with a disk."""

    async def load(self, prefix: str) -> Image:
        for _ in range(3):
            await asyncio.sleep(0)
        return await super().load(prefix)

    async def commit(self, change: Change) -> Outcome:
        for _ in range(5):
            await asyncio.sleep(0)
        return await super().commit(change)


class Installation:
    """A hub without streams; its store outlives a restart."""

    def __init__(self, root: Root, authority: Lineage, folder: Path) -> None:
        self.root, self.authority, self.folder = root, authority, folder
        self.safe = root
        self.store: MemoryStore = SlowStore()

    async def start(self) -> None:
        metrics = HubMetrics()
        self.hub = Hub(Registry(self.store), lambda: (self.root.certificate,), BASE, CLOCK, metrics)
        await self.hub.start()
        tokens = TokenStore(self.store, CLOCK.now)
        bundle, api = self.authority.bundle(), HostPort.of("127.0.0.1", 8443)
        self.admission = Admission(self.hub, tokens, self.root, lambda: bundle, api, CLOCK, metrics)

    async def token(self, name: str) -> JoinToken:
        text, _ = await self.admission.create_token(name, ("default/*",), ("10.1.0.0/16",), LIFETIME)
        return JoinToken.decode(text)

    async def cluster(self, name: str, folder: str = "", epoch: int = 1) -> Lineage:
        place = self.folder / (folder or name)
        keys = FileKeyStore(place / "keys")
        domain = TrustDomain.of_cluster(name, BASE)
        return await Lineage.open(place / "authority", keys, domain, CLOCK, epoch)

    async def replacing(self, name: str, may_export: tuple[str, ...] = ()) -> JoinToken:
        """A token for a member that has lost its key."""
        text, _ = await self.admission.create_token(name, may_export, (), LIFETIME, replace_authority=True)
        return JoinToken.decode(text)

    async def joined(self, name: str) -> Lineage:
        """A member."""
        token, cluster = await self.token(name), await self.cluster(name)
        assert isinstance(await self.admission.redeem_join(token.secret, name, await cluster.csr()), Joined)
        return cluster


@pytest.fixture
async def offline(installation: Installation) -> Installation:
    """The same hub with its root in a safe."""
    place = installation.folder / "pinned"
    installation.root = await OfflineRoot.pin(place, BASE, installation.root.certificate, CLOCK)
    await installation.start()
    return installation


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    root = await RootAuthority.create(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, CLOCK)
    authority = await Lineage.open(
        tmp_path / "hub", FileKeyStore(tmp_path / "hub-keys"), TrustDomain.of_hub(BASE), CLOCK
    )
    installation = Installation(root, authority, tmp_path)
    await installation.start()
    yield installation
    await authority.close()
    await root.close()


async def test_a_cluster_joins_with_what_its_token_says(installation: Installation) -> None:
    token, east = await installation.token("east"), await installation.cluster("east")
    check_pin(token.pin, installation.root.certificate, installation.authority.bundle())
    outcome = await installation.admission.redeem_join(token.secret, "east", await east.csr())
    assert isinstance(outcome, Joined)
    assert is_rooted(east.self_signed, load_der(outcome.row.rooted), installation.root.certificate)
    known = installation.hub.member("east")
    assert known is not None
    assert known.member.may_export == ("default/*",)
    assert [str(network) for network in known.member.ranges] == ["10.1.0.0/16"]
    assert not known.connected
    assert installation.hub.membership.member_of(SpiffeId.agent(east.trust_domain)) == "east"
    assert installation.hub.membership.member_of(SpiffeId.gateway(east.trust_domain, "eastwest")) is None
    assert list(installation.hub.membership.bundles()) == [east.trust_domain]


async def test_the_same_key_may_ask_again_also_after_a_restart_and_no_other(
    installation: Installation,
) -> None:
    token, east = await installation.token("east"), await installation.cluster("east")
    other = await installation.cluster("east", "impostor")
    first = await installation.admission.redeem_join(token.secret, "east", await east.csr())
    assert isinstance(first, Joined)
    await installation.start()
    assert await installation.admission.redeem_join(token.secret, "east", await east.csr()) == first
    assert isinstance(
        await installation.admission.redeem_join(token.secret, "east", await other.csr()), Refused
    )


async def test_a_hub_that_died_after_the_token_was_used_lets_the_same_key_finish(
    installation: Installation,
) -> None:
    token, east = await installation.token("east"), await installation.cluster("east")
    request = await east.csr()
    await TokenStore(installation.store, CLOCK.now).redeem(token.secret, "east", csr_key(request))
    await installation.start()
    outcome = await installation.admission.redeem_join(token.secret, "east", request)
    assert isinstance(outcome, Joined)


def csr_key(request: bytes) -> str:
    return spki_hash(csr.parse(request).public_key)


async def test_of_a_hundred_at_once_one_key_wins(installation: Installation) -> None:
    token = await installation.token("east")
    rivals = [await installation.cluster("east", f"rival-{number}") for number in range(4)]
    requests = [await rival.csr() for rival in rivals]
    outcomes = await asyncio.gather(
        *(installation.admission.redeem_join(token.secret, "east", requests[n % 4]) for n in range(100))
    )
    joined = {outcome.row.key for outcome in outcomes if isinstance(outcome, Joined)}
    assert len(joined) == 1
    assert sum(isinstance(outcome, Joined) for outcome in outcomes) == 25
    assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 75
    for rival in rivals:
        await rival.close()


async def test_a2_a_wrong_secret_or_name_gets_the_one_refusal_and_uses_nothing_up(
    installation: Installation,
) -> None:
    token, east = await installation.token("east"), await installation.cluster("east")
    request, west = await east.csr(), await installation.cluster("west")
    answers = {
        str(await installation.admission.redeem_join(os.urandom(32), "east", request)),
        str(await installation.admission.redeem_join(token.secret, "west", await west.csr())),
    }
    assert answers == {str(Refused())}
    with pytest.raises(CsrRefused):
        await installation.admission.redeem_join(token.secret, "east", b"nonsense")
    assert isinstance(await installation.admission.redeem_join(token.secret, "east", request), Joined)


async def test_the_same_key_may_ask_many_times_at_once(installation: Installation) -> None:
    """A client that got no answer asks again while the first question may still be in work."""
    token, east = await installation.token("east"), await installation.cluster("east")
    request = await east.csr()
    outcomes = await asyncio.gather(
        *(installation.admission.redeem_join(token.secret, "east", request) for _ in range(20))
    )
    [joined] = set(outcomes)
    assert isinstance(joined, Joined)


async def test_of_two_tokens_for_one_name_one_wins(installation: Installation) -> None:
    tokens = [await installation.token("east") for _ in range(2)]
    rivals = [await installation.cluster("east", f"rival-{number}") for number in range(2)]
    requests = [await rival.csr() for rival in rivals]
    outcomes = await asyncio.gather(
        *(
            installation.admission.redeem_join(token.secret, "east", request)
            for token, request in zip(tokens, requests, strict=True)
        )
    )
    [joined] = [outcome for outcome in outcomes if isinstance(outcome, Joined)]
    [known] = installation.hub.members()
    assert installation.hub.registry.rows["east"] == joined.row
    assert known.member.name == "east"


@pytest.mark.parametrize("bad", ["nonsense", "no epoch", "another's name", "the root's own key"])
async def test_a_request_that_the_root_would_refuse_reads_the_same_whatever_the_token_and_uses_none_up(
    installation: Installation, bad: str
) -> None:
    used, live = await installation.token("east"), await installation.token("west")
    other, revoked = await installation.token("west"), await installation.token("west")
    east, west = await installation.cluster("east"), await installation.cluster("west")
    assert isinstance(await installation.admission.redeem_join(used.secret, "east", await east.csr()), Joined)
    tokens = TokenStore(installation.store, CLOCK.now)
    await tokens.revoke(revoked.hash().hex()[:12])
    key = await FileKeyStore(installation.folder / "root-keys").load("ca-1")
    request = {
        "nonsense": b"nonsense",
        "no epoch": csr.request(ec.generate_private_key(ec.SECP256R1())),
        "another's name": await east.csr(),
        "the root's own key": csr.request(
            key, authority_subject(west.trust_domain.name, 1, key.public_key())
        ),
    }[bad]
    before = await installation.store.load("token/")
    answers = set()
    for secret in (used.secret, live.secret, other.secret, revoked.secret, os.urandom(32), b""):
        with pytest.raises(CsrRefused) as refused:
            await installation.admission.redeem_join(secret, "west", request)
        answers.add(str(refused.value))
    assert len(answers) == 1
    assert await installation.store.load("token/") == before
    assert isinstance(await installation.admission.redeem_join(live.secret, "west", await west.csr()), Joined)


@pytest.mark.parametrize("name", ["hub", "Not a name", ""])
async def test_c11_k8_a_name_that_no_cluster_may_have_is_refused_before_the_token_is_looked_at(
    installation: Installation, name: str
) -> None:
    token, east = await installation.token("east"), await installation.cluster("east")
    for secret in (token.secret, os.urandom(32)):
        with pytest.raises(InvalidName):
            await installation.admission.redeem_join(secret, name, await east.csr())


@pytest.mark.parametrize(
    ("name", "may_export", "ranges", "says"),
    [
        ("hub", ("a/b",), ("10.0.0.0/8",), "taken by the federation service"),
        ("Not a name", ("a/b",), ("10.0.0.0/8",), "not a valid name"),
        ("east", ("everything",), ("10.0.0.0/8",), "is not a pattern"),
        ("east", ("a/b",), ("10.0.0.1/8",), "not an address range"),
    ],
)
async def test_a_token_for_what_cannot_be_a_member_is_not_made(
    installation: Installation, name: str, may_export: tuple[str, ...], ranges: tuple[str, ...], says: str
) -> None:
    with pytest.raises(FederationError, match=says):
        await installation.admission.create_token(name, may_export, ranges, LIFETIME)


async def test_a_member_needs_to_be_removed_before_it_gets_another_token(installation: Installation) -> None:
    token, east = await installation.token("east"), await installation.cluster("east")
    await installation.admission.redeem_join(token.secret, "east", await east.csr())
    with pytest.raises(FederationError, match="a member already"):
        await installation.token("east")
    assert await installation.hub.remove_member("east")
    assert not await installation.hub.remove_member("east")
    assert installation.hub.members() == ()
    assert dict(installation.hub.membership.bundles()) == {}
    await installation.token("east")


async def test_the_registry_outlives_the_hub_and_its_epoch_rises(installation: Installation) -> None:
    token, east = await installation.token("east"), await installation.cluster("east")
    await installation.admission.redeem_join(token.secret, "east", await east.csr())
    await installation.hub.membership.set("east", state=MemberState.DRAINING, may_export=("shop/*",))
    before = installation.hub.registry.epoch("hub")
    await installation.start()
    known = installation.hub.member("east")
    assert known is not None
    assert known.member.state is MemberState.DRAINING
    assert known.member.may_export == ("shop/*",)
    assert installation.hub.registry.epoch("hub") == before + 1
    with pytest.raises(FederationError, match="is not a pattern"):
        await installation.hub.membership.set("east", may_export=("*",))
    assert await installation.hub.membership.set("nobody") is None


async def test_the_token_of_a_cluster_that_was_removed_is_as_good_as_any_wrong_one(
    installation: Installation,
) -> None:
    """Else whoever was removed would come back by asking once more, with the same key."""
    spare, token = await installation.token("east"), await installation.token("east")
    other, east = await installation.token("west"), await installation.cluster("east")
    request = await east.csr()
    assert isinstance(await installation.admission.redeem_join(token.secret, "east", request), Joined)
    assert await installation.hub.remove_member("east")
    for known in (token, spare):
        assert isinstance(await installation.admission.redeem_join(known.secret, "east", request), Refused)
    assert installation.hub.members() == ()
    await installation.start()
    assert isinstance(await installation.admission.redeem_join(token.secret, "east", request), Refused)
    assert installation.hub.members() == ()
    [left] = await TokenStore(installation.store, CLOCK.now).listed()
    assert left.hash == other.hash()
    again = await installation.token("east")
    assert isinstance(await installation.admission.redeem_join(again.secret, "east", request), Joined)


async def test_a_removal_while_the_same_key_asks_again_is_not_undone(installation: Installation) -> None:
    token, east = await installation.token("east"), await installation.cluster("east")
    request = await east.csr()
    assert isinstance(await installation.admission.redeem_join(token.secret, "east", request), Joined)

    async def removed_after(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await installation.hub.remove_member("east")

    for turns in range(12):
        again = asyncio.gather(
            *(installation.admission.redeem_join(token.secret, "east", request) for _ in range(5))
        )
        await removed_after(turns)
        await again
        assert installation.hub.members() == (), turns
        token = await installation.token("east")
        assert isinstance(await installation.admission.redeem_join(token.secret, "east", request), Joined)


async def test_a_token_revoked_while_its_cluster_joins_lets_nobody_in(installation: Installation) -> None:
    token, east = await installation.token("east"), await installation.cluster("east")
    request = await east.csr()
    tokens = TokenStore(installation.store, CLOCK.now)
    await tokens.redeem(token.secret, "east", csr_key(request))
    sign = installation.root.sign_cluster_ca

    async def revoked_meanwhile(*arguments: object, **named: object) -> object:
        await tokens.revoke(token.hash().hex()[:12])
        return await sign(*arguments, **named)  # type: ignore[arg-type]

    installation.root.sign_cluster_ca = revoked_meanwhile  # type: ignore[method-assign, assignment]
    assert isinstance(await installation.admission.redeem_join(token.secret, "east", request), Refused)
    assert installation.hub.members() == ()


async def test_a_member_that_lost_its_key_comes_back_with_another_one_only_if_an_operator_says_so(
    installation: Installation,
) -> None:
    old = await installation.joined("east")
    await installation.hub.membership.set("east", state=MemberState.DRAINING, may_export=("shop/*",))
    with pytest.raises(FederationError, match="a member already") as refused:
        await installation.token("east")
    assert "--replace-authority" in refused.value.hint
    token = await installation.replacing("east")
    assert token.epoch == 2
    new = await installation.cluster("east", "restored", token.epoch)
    outcome = await installation.admission.redeem_join(token.secret, "east", await new.csr())
    assert isinstance(outcome, Joined)
    assert is_rooted(new.self_signed, load_der(outcome.row.rooted), installation.root.certificate)
    known = installation.hub.member("east")
    assert known is not None
    assert known.member.may_export == ("shop/*",)
    assert known.member.state is MemberState.DRAINING
    [bundle] = installation.hub.membership.bundles().values()
    assert spki_hash(public_key(bundle.anchors[0])) == spki_hash(public_key(new.self_signed))
    assert isinstance(
        await installation.admission.redeem_join(token.secret, "east", await old.csr()), Refused
    )
    await installation.start()
    again = await installation.admission.redeem_join(token.secret, "east", await new.csr())
    assert again == outcome


async def test_the_stream_of_a_key_that_was_replaced_is_cut_and_the_new_one_begins_beyond_it(
    installation: Installation,
) -> None:
    await installation.joined("east")
    session = await installation.hub.open("east", {}, lambda: None)
    before = installation.hub.registry.epoch("east")
    token = await installation.replacing("east")
    new = await installation.cluster("east", "restored", token.epoch)
    assert isinstance(await installation.admission.redeem_join(token.secret, "east", await new.csr()), Joined)
    assert session.closed is not None
    assert "another authority took over" in session.closed
    assert installation.hub.registry.epoch("east") > before


@pytest.mark.parametrize("removed", [False, True])
async def test_another_key_for_a_name_needs_a_higher_epoch_than_any_before(
    installation: Installation, removed: bool
) -> None:
    """Else nobody could tell which of two authorities is the newer one. Who has the key it had may come back."""
    old = await installation.joined("east")
    if removed:
        await installation.hub.remove_member("east")
        token = await installation.token("east")
    else:
        token = await installation.replacing("east")
    assert token.epoch == 2
    same = await installation.cluster("east", "elsewhere", epoch=1)
    with pytest.raises(CsrRefused, match="has had one of epoch 1 with another key"):
        await installation.admission.redeem_join(token.secret, "east", await same.csr())
    assert isinstance(await installation.admission.redeem_join(token.secret, "east", await old.csr()), Joined)


async def test_there_is_nothing_to_replace_of_who_is_no_member(installation: Installation) -> None:
    with pytest.raises(FederationError, match="east is no member"):
        await installation.replacing("east")


async def test_with_the_root_in_a_safe_a_cluster_joins_and_its_request_waits(offline: Installation) -> None:
    token, east = await offline.token("east"), await offline.cluster("east")
    request, anchor = await east.csr(), pem([east.self_signed])
    outcome = await offline.admission.redeem_join(token.secret, "east", request, anchor)
    assert isinstance(outcome, Joined)
    assert (outcome.row.rooted, outcome.row.request) == (b"", request)
    await offline.start()
    known = offline.hub.member("east")
    assert known is not None
    assert known.waits_for_root
    [bundle] = offline.hub.membership.bundles().values()
    assert bundle.anchors == (east.self_signed,)


@pytest.mark.parametrize("shown", ["nothing", "another key", "another name", "a leaf", "no certificate"])
async def test_with_the_root_in_a_safe_a_cluster_is_known_by_its_own_anchor_only(
    offline: Installation, shown: str
) -> None:
    token, east = await offline.token("east"), await offline.cluster("east")
    other, west = await offline.cluster("east", "other"), await offline.cluster("west")
    anchor = {
        "nothing": b"",
        "another key": pem([other.self_signed]),
        "another name": pem([west.self_signed]),
        "a leaf": pem([offline.root.certificate]),
        "no certificate": b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    }[shown]
    with pytest.raises(CsrRefused, match="anchor"):
        await offline.admission.redeem_join(token.secret, "east", await east.csr(), anchor)
    assert offline.hub.members() == ()


async def test_what_the_root_signed_is_kept_only_for_the_key_that_asked(offline: Installation) -> None:
    token, east = await offline.token("east"), await offline.cluster("east")
    request = await east.csr()
    joined = await offline.admission.redeem_join(token.secret, "east", request, pem([east.self_signed]))
    assert isinstance(joined, Joined)
    rooted = await offline.safe.sign_cluster_ca(request, east.trust_domain, who="", why="")
    other = await offline.cluster("east", "other", epoch=2)
    for_other = await offline.safe.sign_cluster_ca(await other.csr(), east.trust_domain, who="", why="")
    assert rooted is not None
    assert for_other is not None
    assert not await offline.hub.membership.root_signed("east", for_other)
    assert not await offline.hub.membership.root_signed("nobody", for_other)
    assert await offline.hub.membership.root_signed("east", rooted)
    assert not await offline.hub.membership.root_signed("east", rooted)
    await offline.start()
    known = offline.hub.member("east")
    assert known is not None
    assert not known.waits_for_root
    assert known.member.rooted == der(rooted)
