"""Attestation and renewal against a real authority behind real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from federation.clock import ManualClock, SystemClock
from federation.errors import FederationError
from gateway import names
from gateway.credential import Credential
from gateway.identity import LATEST_RETRY, LONGEST_WAIT, GatewayIdentity, retry_after
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from gateway.report_pb2 import ReportAck
from pki import bundle as bundles
from pki import durable
from pki.bundle import Proof
from pki.certificate import subject_key_id
from pki.errors import PkiError, WriteError, WrongPassphrase
from pki.keys import pkcs8
from pki.keys.passphrase import Passphrase
from pki.lineage import Lineage
from pki.profiles import BACKDATE
from pki.rotation import Phase, advance
from pki.token import JoinToken
from tests.gateway.agent_api import agent_api
from tests.gateway.certificates import ca

CLOCK = SystemClock()
XDS = "127.0.0.1:4444"


async def test_a_token_brings_a_certificate_that_outlives_restarts(tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        identity = GatewayIdentity("gateway-1", folder, CLOCK)
        await identity.start(await api.token(tmp_path))
    found = identity.current
    assert str(found.spiffe_id) == "spiffe://east.mesh.example/gateway/eastwest"
    assert (found.cluster, found.gateway_class, found.attested.xds) == ("east", "eastwest", XDS)
    assert found.server_name == "agent.east.mesh.example"
    secret = Secret.FromString(found.secret().body)
    assert secret.name == names.IDENTITY
    assert secret.tls_certificate.certificate_chain.inline_bytes == found.chain
    assert b"PRIVATE KEY" not in repr(found).encode() + repr(identity.dial()).encode()
    for path in (folder / "keys" / "gateway.key", folder / "chain.pem", folder / "attested.json"):
        assert path.stat().st_mode & 0o777 == 0o600
    again = GatewayIdentity("gateway-1", folder, CLOCK)
    await again.start(None)
    assert again.current.chain == found.chain


async def test_a_renewal_is_for_the_same_key_and_on_disk_before_it_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        identity = GatewayIdentity("gateway-1", folder, CLOCK)
        await identity.start(await api.token(tmp_path))
        before = identity.current
        told: list[bytes] = []
        identity.listener = lambda credential: told.append((folder / "chain.pem").read_bytes())
        await identity.renew()
        assert told == [identity.current.chain]
        assert identity.current.certificate.serial_number != before.certificate.serial_number
        assert identity.current.key == before.key
        api.failing = True
        with pytest.raises(FederationError):
            await identity.renew()
        assert told == [identity.current.chain]


async def test_a_used_token_is_refused_to_another_key(tmp_path: Path) -> None:
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        token = await api.token(tmp_path)
        await GatewayIdentity("gateway-1", tmp_path / "one", CLOCK).start(token)
        with pytest.raises(FederationError, match="token"):
            await GatewayIdentity("gateway-2", tmp_path / "two", CLOCK).start(token)
        assert not (tmp_path / "two" / "attested.json").exists()


async def test_a7_certificates_that_are_not_the_pinned_ones_end_it(tmp_path: Path) -> None:
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        token = JoinToken.decode((await api.token(tmp_path)).read_text())
        other = JoinToken(token.kind, token.url, token.subject, bytes(32), token.secret)
        (tmp_path / "token").write_text(other.encode())
        with pytest.raises(PkiError):
            await GatewayIdentity("gateway-1", tmp_path / "gateway", CLOCK).start(tmp_path / "token")


async def test_a_token_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        token = await api.token(tmp_path)
        token.chmod(0o644)
        identity = GatewayIdentity("gateway-1", tmp_path / "gateway", CLOCK)
        with pytest.raises(FederationError, match=f"run: chmod 0600 {token}"):
            await identity.start(token)
        token.chmod(0o600)
        await identity.start(token)


async def test_without_certificate_and_token_it_says_what_to_do(tmp_path: Path) -> None:
    identity = GatewayIdentity("gateway-1", tmp_path / "gateway", CLOCK)
    with pytest.raises(FederationError, match="no token") as caught:
        await identity.start(None)
    assert "federation token create --gateway" in caught.value.hint
    with pytest.raises(FederationError, match="cannot be read"):
        await identity.start(tmp_path / "missing")


async def test_a_damaged_identity_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        token = await api.token(tmp_path)
        await GatewayIdentity("gateway-1", folder, CLOCK).start(token)
        chain = folder / "chain.pem"
        chain.write_bytes(chain.read_bytes()[:100])
        with pytest.raises(FederationError, match="cannot be read"):
            await GatewayIdentity("gateway-1", folder, CLOCK).start(token)
        assert len(chain.read_bytes()) == 100


async def test_k1_with_a_passphrase_the_key_is_encrypted_on_disk_and_serves_as_before(tmp_path: Path) -> None:
    folder, secret = tmp_path / "gateway", Passphrase(b"correct horse")
    path = folder / "keys" / "gateway.key"
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        plain = GatewayIdentity("gateway-1", folder, CLOCK)
        await plain.start(await api.token(tmp_path))
        assert not pkcs8.is_encrypted(path.read_bytes())
        sealed = GatewayIdentity("gateway-1", folder, CLOCK, secret)
        await sealed.start(None)
        assert sealed.current.key == plain.current.key
        content = path.read_bytes()
        assert pkcs8.is_encrypted(content)
        await sealed.renew()
        assert sealed.current.certificate != plain.current.certificate
        assert path.read_bytes() == content
        with pytest.raises(WrongPassphrase, match=r"gateway\.key"):
            await GatewayIdentity("gateway-1", folder, CLOCK, Passphrase(b"another")).start(None)
        with pytest.raises(WrongPassphrase, match="no passphrase is set"):
            await GatewayIdentity("gateway-1", folder, CLOCK).start(None)
        assert path.read_bytes() == content


def spoil_key(folder: Path) -> None:
    (folder / "keys" / "gateway.key").unlink()


def spoil_key_mode(folder: Path) -> None:
    (folder / "keys" / "gateway.key").chmod(0o644)


def spoil_key_kind(folder: Path) -> None:
    spoil_key(folder)
    (folder / "keys" / "gateway.key").mkdir(mode=0o700)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (spoil_key, "gateway.key"),
        (spoil_key_mode, "chmod 0600"),
        (spoil_key_kind, "is not a plain file"),
    ],
)
async def test_a_renewal_without_what_it_needs_on_disk_is_said_and_tried_again(
    tmp_path: Path, spoil: Callable[[Path], None], named: str
) -> None:
    folder = tmp_path / "gateway"
    clock = ManualClock(CLOCK.now())
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        identity = GatewayIdentity("gateway-1", folder, clock)
        await identity.start(await api.token(tmp_path))
        before = identity.current
        path = folder / "keys" / "gateway.key"
        kept = path.read_bytes()
        spoil(folder)
        clock.advance(timedelta(hours=13).total_seconds())
        async with renewing(identity, clock):
            assert identity.problem.startswith("the certificate cannot be renewed: ")
            assert named in identity.problem
            assert identity.current is before
            if path.is_dir():
                path.rmdir()
            durable.write(path, kept)
            clock.advance(LATEST_RETRY)
            await at_rest(clock)
            assert identity.problem == ""
            assert identity.current.certificate.serial_number != before.certificate.serial_number


async def test_a_gateway_whose_certificate_has_ended_starts_all_the_same_and_asks_for_a_token(
    tmp_path: Path,
) -> None:
    clock = ManualClock(CLOCK.now())
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        before = GatewayIdentity("gateway-1", tmp_path / "gateway", clock)
        await before.start(await api.token(tmp_path))
        clock.advance(timedelta(hours=25).total_seconds())
        identity = GatewayIdentity("gateway-1", tmp_path / "gateway", clock)
        await identity.start(None)
        assert identity.current.chain == before.current.chain
        async with renewing(identity, clock):
            assert "no valid certificate, and no token" in identity.problem


async def test_a_gateway_whose_authority_is_believed_no_more_takes_a_new_token_long_before_its_certificate_ends(
    tmp_path: Path,
) -> None:
    """It was away while the authority was replaced: neither believes the other."""
    clock, folder = ManualClock(CLOCK.now()), tmp_path / "gateway"
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        identity = GatewayIdentity("gateway-1", folder, clock)
        await identity.start(await api.token(tmp_path))
        before = identity.current
        await rotate(api.authority, Phase.DONE)
        await api.serve_anew()
        async with renewing(identity, clock):
            clock.advance(LONGEST_WAIT)
            await at_rest(clock)
            assert identity.current is before, "half of its life is left"
            with pytest.raises(FederationError):
                await identity.renew()
            (tmp_path / "token").write_text("nonsense")
            clock.advance(LONGEST_WAIT)
            await at_rest(clock)
            assert identity.current is before
            await api.token(tmp_path)
            clock.advance(LONGEST_WAIT)
            await eventually(lambda: identity.current.issuer != before.issuer)
            await at_rest(clock)
        assert identity.problem == ""
        assert identity.current.issuer == subject_key_id(api.authority.self_signed)
        assert identity.current.bundle.anchors == api.authority.bundle().anchors
        assert identity.current.key == before.key
        await identity.renew()


async def test_a_token_that_was_used_replaces_no_certificate_that_lives(tmp_path: Path) -> None:
    """Else whoever has an authority that was replaced, and keeps the agent away, brings its anchor back with it."""
    clock = ManualClock(CLOCK.now())
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        identity = GatewayIdentity("gateway-1", tmp_path / "gateway", clock)
        await identity.start(await api.token(tmp_path))
        before = identity.current
        api.failing = True
        await identity.told(ReportAck(issuer=b"another"))
        async with renewing(identity, clock):
            assert identity.problem
            assert identity.current is before
        (tmp_path / "gateway" / "chain.pem").unlink()
        await GatewayIdentity("gateway-1", tmp_path / "gateway", clock).start(tmp_path / "token")


async def test_a_new_token_is_not_used_while_the_certificate_is_believed(tmp_path: Path) -> None:
    clock = ManualClock(CLOCK.now())
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        identity = GatewayIdentity("gateway-1", tmp_path / "gateway", clock)
        await identity.start(await api.token(tmp_path))
        told: list[Credential] = []
        identity.listener = told.append
        await api.token(tmp_path)
        async with renewing(identity, clock):
            assert len(told) == 1, "it has renewed, to see that it is believed"
            for _ in range(3):
                clock.advance(LONGEST_WAIT)
                await at_rest(clock)
            assert len(told) == 1
        other = GatewayIdentity("gateway-2", tmp_path / "other", CLOCK)
        await other.start(tmp_path / "token")


async def test_a_new_token_that_is_no_good_leaves_everything_as_it_is_and_is_said(tmp_path: Path) -> None:
    clock, folder = ManualClock(CLOCK.now()), tmp_path / "gateway"
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        identity = GatewayIdentity("gateway-1", folder, clock)
        await identity.start(await api.token(tmp_path))
        before = identity.current
        await GatewayIdentity("gateway-2", tmp_path / "other", CLOCK).start(await api.token(tmp_path))
        api.failing = True
        async with renewing(identity, clock):
            assert "used" in identity.problem
        assert identity.current is before


async def test_an_identity_that_an_earlier_version_wrote_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        await GatewayIdentity("gateway-1", folder, CLOCK).start(await api.token(tmp_path))
    kept = msgspec.json.decode((folder / "attested.json").read_bytes())
    assert len(kept.pop("token")) == 64
    durable.write(folder / "attested.json", msgspec.json.encode(kept))
    again = GatewayIdentity("gateway-1", folder, CLOCK)
    await again.start(None)
    assert again.current.attested.token == ""


async def test_a_clock_that_is_ahead_does_not_renew_without_a_pause(tmp_path: Path) -> None:
    """Every certificate looks due at once to it."""
    clock = ManualClock(CLOCK.now())
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        identity = GatewayIdentity("gateway-1", tmp_path / "gateway", clock)
        await identity.start(await api.token(tmp_path))
        told: list[Credential] = []
        identity.listener = told.append
        clock.advance(timedelta(hours=13).total_seconds())
        async with renewing(identity, clock):
            assert len(told) == 1


# ---- what the agent says of its authorities --------------------------------------------------------------------------


async def rotate(lineage: Lineage, until: Phase) -> None:
    """Nobody else holds it up."""
    rotation = await lineage.begin("ada", "")
    while rotation.phase is not until:
        rotation = advance(rotation, frozenset(), {})
        await lineage.enter(rotation)


def word(lineage: Lineage, **more: Any) -> ReportAck:
    issuer = subject_key_id(lineage.self_signed)
    return ReportAck(issuer=issuer, bundle=bundles.encode(lineage.bundle()), **more)


async def test_a_newer_bundle_is_on_disk_before_it_is_used_and_outlives_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        identity = GatewayIdentity("gateway-1", folder, CLOCK)
        await identity.start(await api.token(tmp_path))
        first = api.authority.bundle()
        await rotate(api.authority, Phase.PUBLISHED)
        await identity.told(word(api.authority))
        assert identity.current.bundle.anchors == api.authority.bundle().anchors
        assert identity.dial().roots == api.authority.bundle().pem()
        again = GatewayIdentity("gateway-1", folder, CLOCK)
        await again.start(None)
        assert again.current.bundle == identity.current.bundle
        await identity.told(ReportAck(bundle=bundles.encode(first)))
        assert identity.current.bundle == again.current.bundle, "an older one changes nothing"


async def test_a_bundle_that_does_not_follow_from_ours_is_not_believed(tmp_path: Path) -> None:
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        identity = GatewayIdentity("gateway-1", tmp_path / "gateway", CLOCK)
        await identity.start(await api.token(tmp_path))
        before = identity.current
        await rotate(api.authority, Phase.PUBLISHED)
        good = api.authority.bundle()
        foreign = ca("west").bundle
        for bundle in (
            replace(good, proof=Proof()),
            replace(good, anchors=good.anchors[1:]),
            replace(good, generation=2, anchors=good.anchors[1:]),
            foreign,
        ):
            await identity.told(ReportAck(bundle=bundles.encode(bundle)))
            assert identity.current is before
        await identity.told(ReportAck(bundle=b"nonsense"))
        assert identity.current is before


async def test_a_bundle_that_cannot_be_stored_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        identity = GatewayIdentity("gateway-1", tmp_path / "gateway", CLOCK)
        await identity.start(await api.token(tmp_path))
        before = identity.current
        await rotate(api.authority, Phase.PUBLISHED)

        def full(path: Path, data: bytes) -> None:
            raise WriteError(path, "no space left")

        with monkeypatch.context() as patch:
            patch.setattr(durable, "write", full)
            await identity.told(word(api.authority))
        assert identity.current is before
        await identity.told(word(api.authority))
        assert identity.current.bundle.sequence == 2


async def test_a_certificate_of_an_authority_that_has_ceased_to_issue_is_renewed_soon_and_once(
    tmp_path: Path,
) -> None:
    clock = ManualClock(CLOCK.now())
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        identity = GatewayIdentity("gateway-1", tmp_path / "gateway", clock)
        await identity.start(await api.token(tmp_path))
        told: list[Credential] = []
        identity.listener = told.append
        async with renewing(identity, clock):
            await identity.told(word(api.authority, within_s=10))
            assert told == [], "it is of the authority that issues"
            await rotate(api.authority, Phase.ACTIVE)
            for _ in range(3):
                await identity.told(word(api.authority, within_s=10))
            clock.advance(10)
            await eventually(lambda: len(told) == 1)
            assert told[0].issuer == subject_key_id(api.authority.self_signed)
            await identity.told(word(api.authority, within_s=10))
            clock.advance(10)
            await at_rest(clock)
            assert len(told) == 1


async def test_all_certificates_from_before_a_moment_are_renewed_once(tmp_path: Path) -> None:
    clock = ManualClock(CLOCK.now())
    async with agent_api(tmp_path / "agent", XDS, CLOCK) as api:
        identity = GatewayIdentity("gateway-1", tmp_path / "gateway", clock)
        await identity.start(await api.token(tmp_path))
        told: list[Credential] = []
        identity.listener = told.append
        began = identity.current.certificate.not_valid_before_utc + BACKDATE
        async with renewing(identity, clock):
            for moment, renewals in ((began, 0), (began + timedelta(seconds=1), 1)):
                milliseconds = int(moment.timestamp() * 1000)
                await asyncio.sleep(1.1)  # what is renewed now begins later than the moment, in whole seconds
                await identity.told(word(api.authority, issued_after_ms=milliseconds))
                await eventually(lambda wanted=renewals: len(told) == wanted)  # type: ignore[misc]
            await identity.told(word(api.authority, issued_after_ms=milliseconds))
            await at_rest(clock)
            assert len(told) == 1


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def renewing(identity: GatewayIdentity, clock: ManualClock) -> AsyncIterator[None]:
    """`identity` runs for the life of the context, and has done what was due when it begins."""
    task = asyncio.create_task(identity.run(), name="renewal")
    try:
        await at_rest(clock)
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def at_rest(clock: ManualClock) -> None:
    async with asyncio.timeout(20):
        while not clock.sleepers:
            await asyncio.sleep(0.01)


def test_failed_renewals_come_closer_towards_the_end() -> None:
    day = timedelta(hours=12).total_seconds()
    assert retry_after(day) == 600
    assert retry_after(3600) == 180
    assert retry_after(60) == 10
    assert retry_after(-60) == 10
