"""Who may open a stream: the agent of a member, proved by the anchors of its own trust domain, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from federation.sync.client import Credentials
from pki import issue
from pki.certificate import pem
from pki.policy import Attestation, Attested, Grant, decide
from pki.spiffe import SpiffeId, TrustDomain
from tests.federation.sync.world import BASE, Agent, HubWorld, Member, eventually, hub_world, running

pytestmark = pytest.mark.live

EAST = SpiffeId.agent(TrustDomain.of_cluster("east", BASE))
WEST = SpiffeId.agent(TrustDomain.of_cluster("west", BASE))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[HubWorld]:
    async with hub_world(tmp_path) as world:
        yield world


async def issued(cluster: Member, identity: SpiffeId, by: Attestation) -> Credentials:
    """Another certificate of the cluster's own authority."""
    grant = decide(Attested(identity, by), cluster.authority.trust_domain)
    assert isinstance(grant, Grant)
    key = ec.generate_private_key(ec.SECP256R1())
    made = await cluster.authority.issue(key.public_key(), grant, who="test", why="test")
    return Credentials(cluster.world.authority.bundle().pem(), made.pem(), _private(key))


async def forged(cluster: Member, uris: tuple[SpiffeId, ...]) -> Credentials:
    """What a cluster that misuses its own key can make: any URI SANs, correct in every other respect."""
    authority_key = await cluster.keys.load(next(iter(await cluster.keys.names())))
    own = decide(
        Attested(SpiffeId.agent(cluster.authority.trust_domain), Attestation.SELF),
        cluster.authority.trust_domain,
    )
    assert isinstance(own, Grant)
    key = ec.generate_private_key(ec.SECP256R1())
    template = issue.leaf(own, key.public_key(), cluster.authority.forms, 1 << 100, datetime.now(UTC))
    honest = issue.sign(replace(template, uri=str(uris[0])), authority_key)
    if len(uris) == 1:
        certificate = honest
    else:
        builder = x509.CertificateBuilder(
            issuer_name=honest.issuer,
            subject_name=honest.subject,
            public_key=key.public_key(),
            serial_number=honest.serial_number,
            not_valid_before=honest.not_valid_before_utc,
            not_valid_after=honest.not_valid_after_utc,
        )
        for extension in honest.extensions:
            value = extension.value
            if isinstance(value, x509.SubjectAlternativeName):
                value = x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier(str(uri)) for uri in uris]
                )
            builder = builder.add_extension(value, extension.critical)
        certificate = builder.sign(authority_key, hashes.SHA256())
    chain = pem([certificate, *cluster.authority.forms[1:]])
    return Credentials(cluster.world.authority.bundle().pem(), chain, _private(key))


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


async def refusal(member: Member, credentials: Credentials) -> str:
    """What the hub answers to these credentials; the same agent with its own ones is let in."""
    async with running(Agent(member, lambda: credentials)) as agent:
        await eventually(lambda: agent.client.problem != "not connected yet")
        assert not agent.client.connected
        return agent.client.problem or ""


async def test_a_forged_certificate_of_another_trust_domain_is_refused(world: HubWorld) -> None:
    east, west = await world.join("east"), await world.join("west")
    answer = await refusal(east, await forged(west, (EAST,)))
    assert "PERMISSION_DENIED" in answer
    assert "no path to an anchor of the leaf's own trust domain" in answer
    async with running(Agent(east)) as agent:
        await eventually(lambda: agent.client.connected)


@pytest.mark.parametrize("uris", [(EAST, WEST), (WEST, EAST)], ids=["victim-first", "own-first"])
async def test_two_identities_in_one_certificate_are_refused(
    world: HubWorld, uris: tuple[SpiffeId, SpiffeId]
) -> None:
    await world.join("east")
    west = await world.join("west")
    assert "a leaf needs exactly one URI SAN" in await refusal(west, await forged(west, uris))


async def test_a_gateway_is_not_an_agent(world: HubWorld) -> None:
    east = await world.join("east")
    gateway = SpiffeId.gateway(east.authority.trust_domain, "eastwest")
    credentials = await issued(east, gateway, Attestation.TOKEN)
    assert "not the agent of a member" in await refusal(east, credentials)


async def test_a_stranger_does_not_get_past_the_handshake(world: HubWorld, tmp_path: Path) -> None:
    east = await world.join("east")
    async with hub_world(tmp_path / "other") as other:
        stranger = await other.join("east")
        theirs = stranger.credentials()
    mixed = replace(theirs, anchors=east.credentials().anchors)
    assert "UNAVAILABLE" in await refusal(east, mixed)


async def test_an_agent_does_not_talk_to_a_hub_of_another_trust_domain(world: HubWorld) -> None:
    east = await world.join("east")
    own = east.credentials()
    wrong = replace(own, anchors=east.authority.bundle().pem())
    assert "UNAVAILABLE" in await refusal(east, wrong)
    assert world.hub.member("east") is not None
    assert not any(known.connected for known in world.hub.members())
