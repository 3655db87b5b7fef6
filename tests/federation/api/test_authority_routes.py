"""What the hub answers about authorities, and for whom it has one signed: a real hub that a cluster has joined."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from federation.api.authority_info import NewIntermediate
from federation.api.authority_routes import AgentAuthorityRoutes, HubAuthorityRoutes, Own
from federation.api.routes import Access, ApiProblem, Call, Principal
from federation.attest import spki_of
from federation.banned import Ban, BanKind
from federation.clock import SystemClock
from federation.events import BanChanged, BanGone
from federation.join import join
from pki import csr
from pki.certificate import load_pem, signed_by
from pki.keys.file import FileKeyStore
from pki.offline import OfflineRoot
from tests.federation.issuers import BASE, Issuer, issuer
from tests.federation.lives import speaking
from tests.pki.world import new_key

CLOCK = SystemClock()
ADA = Principal("ada", Access.OPERATOR)


@pytest.fixture
async def joined(tmp_path: Path) -> AsyncIterator[Issuer]:
    """A hub with the cluster east."""
    async with issuer(tmp_path) as found:
        state = tmp_path / "east"
        state.mkdir(mode=0o700)
        await join("east", await found.token(tmp_path), state, FileKeyStore(state / "keys"), CLOCK)
        yield found


def routes(hub: Issuer, root: object | None = None, mode: str = "online") -> HubAuthorityRoutes:
    own = Own("hub", hub.authority, hub.identity, lambda: (hub.root.certificate,), "file", tuple, CLOCK)
    return HubAuthorityRoutes(own, hub.hub, hub.root if root is None else root, mode)


def asked(name: str = "east", **changed: Any) -> Call:
    given: dict[str, Any] = {"consumer": "istio", "csr": csr.request(new_key()).decode()}
    return Call(ADA, {"name": name}, {}, NewIntermediate(**(given | changed)))


async def test_what_is_signed_is_below_the_root_that_comes_along_and_noted_for_whoever_asked(
    joined: Issuer,
) -> None:
    made = await routes(joined).sign(asked())
    [certificate], [root] = load_pem(made.certificate.encode()), load_pem(made.roots.encode())
    assert signed_by(certificate, root)
    assert (made.cluster, made.trust_domain) == ("east", "cluster.local")
    entry = next(one for one in joined.root.ledger(CLOCK.now()) if f"{one.serial:x}" == made.serial)
    assert entry.identity == "spiffe://cluster.local"


async def test_a_cluster_that_is_not_a_member_gets_none(joined: Issuer) -> None:
    with pytest.raises(ApiProblem) as refused:
        await routes(joined).sign(asked("west"))
    assert refused.value.status == 404


@pytest.mark.parametrize("kind", list(BanKind))
async def test_who_is_banned_gets_no_authority_for_another_system(joined: Issuer, kind: BanKind) -> None:
    call, before = asked(), joined.root.head
    subject = {
        BanKind.CLUSTER: "east",
        BanKind.IDENTITY: "spiffe://east.mesh.example/agent",
        BanKind.KEY: spki_of(call.body.csr),
    }[kind]
    await joined.hub.bans.ban(kind, subject, "its nodes were broken into")
    with pytest.raises(ApiProblem, match="is banned: its nodes were broken into") as refused:
        await routes(joined).sign(call)
    assert refused.value.status == 403
    assert joined.root.head == before
    await joined.hub.bans.unban(kind, subject)
    assert (await routes(joined).sign(call)).cluster == "east"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"trust_domain": "east.mesh.example"}, "trust domain: "),
        ({"trust_domain": "spiffe://x"}, "not a valid SPIFFE identity"),
        ({"lifetime": 60.0}, "lifetime: requested"),
        ({"lifetime": 1e300}, ""),
        ({"lifetime": -1e300}, ""),
        ({"csr": ""}, "csr: "),
        ({"csr": "x" * 20_000}, "csr: 20000 bytes"),
        ({"csr": csr.request(ec.generate_private_key(ec.SECP384R1())).decode()}, "P-256"),
        ({"consumer": "consul"}, "/v1/connect/ca/roots"),
    ],
)
async def test_what_the_rule_does_not_allow_is_a_bad_request_that_names_the_field(
    joined: Issuer, changed: dict[str, Any], reason: str
) -> None:
    before = joined.root.head
    with pytest.raises(ApiProblem) as refused:
        await routes(joined).sign(asked(**changed))
    assert refused.value.status == 400
    assert reason in str(refused.value)
    assert joined.root.head == before


async def test_a_hub_whose_root_is_in_a_safe_signs_none_and_says_so(joined: Issuer, tmp_path: Path) -> None:
    offline = await OfflineRoot.pin(tmp_path / "pinned", BASE, joined.root.certificate, CLOCK)
    with pytest.raises(ApiProblem, match="the key of the root is not here") as refused:
        await routes(joined, offline, "offline").sign(asked())
    assert refused.value.status == 409


async def test_of_a_cluster_whose_agent_is_away_the_tree_tells_what_the_hub_knows(joined: Issuer) -> None:
    tree = await routes(joined).tree(Call(ADA))
    [east] = tree.clusters
    assert east.problem == "its agent is not connected"
    assert east.own is None
    [authority] = east.authorities
    assert [form.form for form in authority.forms] == ["root-signed"], (
        "its agent has not published its anchor yet"
    )
    assert east.bundle.trust_domain == "east.mesh.example"
    assert [one.name for one in tree.hub.trusts] == ["east"]


async def test_a_banned_cluster_is_told_as_such_and_believed_by_nobody_who_heard_of_it(
    joined: Issuer,
) -> None:
    await joined.hub.bans.ban(BanKind.CLUSTER, "east", "stolen")
    tree = await routes(joined).tree(Call(ADA))
    assert [one.banned for one in tree.clusters] == ["cluster east is banned: stolen"]
    assert tree.hub.trusts == ()
    await joined.hub.bans.unban(BanKind.CLUSTER, "east")
    tree = await routes(joined).tree(Call(ADA))
    assert [one.banned for one in tree.clusters] == [""]
    assert [one.name for one in tree.hub.trusts] == ["east"]


async def test_an_agent_trusts_no_peer_that_is_banned(joined: Issuer) -> None:
    life = await speaking()
    own = Own("east", joined.authority, joined.identity, tuple, "file", tuple, CLOCK)
    agent = AgentAuthorityRoutes(own, life.agent, joined.authority.bundle)

    async def trusted() -> list[str]:
        return [one.name for one in (await agent.held(Call(ADA))).trusts]

    assert await trusted() == ["central", "hub", "west"]
    ban = Ban(BanKind.CLUSTER, "west", "stolen", CLOCK.now())
    life.agent.step([BanChanged(ban)])
    assert await trusted() == ["central", "hub"]
    life.agent.step([BanGone(ban.key)])
    assert await trusted() == ["central", "hub", "west"]


async def test_an_agent_that_is_away_is_not_spoken_for(joined: Issuer) -> None:
    with pytest.raises(ApiProblem) as refused:
        await routes(joined).one(Call(ADA, {"name": "east"}))
    assert refused.value.status == 503
    with pytest.raises(ApiProblem) as unknown:
        await routes(joined).one(Call(ADA, {"name": "west"}))
    assert unknown.value.status == 404
    assert (await routes(joined).one(Call(ADA, {"name": "hub"}))).kind == "hub"
