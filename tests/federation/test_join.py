"""Joining over real HTTPS: nothing secret to anybody who is not the pinned hub, and every interruption is survived."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from federation.api.client import Refusal
from federation.api.messages import Redeem, Redeemed
from federation.clock import ManualClock, SystemClock
from federation.errors import FederationError, Unreachable
from federation.identity import Identity
from federation.join import Membership, join, join_again, membership, open_authority
from pki.certificate import pem
from pki.errors import ClockError, InvalidToken, PinMismatch
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.profiles import epoch_of
from pki.rooted import is_rooted
from pki.spiffe import SpiffeId, TrustDomain
from pki.token import JoinToken
from tests.federation.issuers import BASE, SYNC, Issuer, issuer, redeeming

CLOCK = SystemClock()
EAST = TrustDomain.of_cluster("east", BASE)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Issuer]:
    async with issuer(tmp_path / "hub") as opened:
        yield opened


class Cluster:
    """The folder of an agent that wants to join."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder

    async def join(self, token: Path, name: str = "east") -> Membership:
        return await join(name, token, self.folder, FileKeyStore(self.folder / "keys"), CLOCK)

    async def again(self, token: Path) -> Membership:
        known = self.joined()
        assert known is not None
        keys = FileKeyStore(self.folder / "keys")
        return await join_again("east", known, token, self.folder, keys, CLOCK)

    def joined(self) -> Membership | None:
        return membership(self.folder / "membership.json")

    async def key(self) -> bytes:
        (path,) = (self.folder / "keys").glob("*.key")
        return path.read_bytes()


@pytest.fixture
def east(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path / "east")


def rewritten(token: Path, **changes: object) -> Path:
    """The same token with something else in it."""
    changed = replace(JoinToken.decode(token.read_text()), **changes)  # type: ignore[arg-type]
    token.write_text(changed.encode())
    return token


async def test_a_cluster_joins_and_remembers_it(hub: Issuer, east: Cluster, tmp_path: Path) -> None:
    assert east.joined() is None
    found = await east.join(await hub.token(tmp_path))
    assert found == east.joined()
    assert (found.base, found.sync, found.root) == (BASE, SYNC, hub.root.certificate)
    assert found.hub_bundle == hub.authority.bundle()
    assert (east.folder / "membership.json").stat().st_mode & 0o777 == 0o600
    authority = await open_authority(east.folder, FileKeyStore(east.folder / "keys"), EAST, CLOCK)
    assert authority.root_signed is not None
    assert is_rooted(authority.self_signed, authority.root_signed, hub.root.certificate)
    await authority.close()
    known = hub.hub.member("east")
    assert known is not None
    assert found.joined_at == known.member.joined_at
    assert [body.token is None for body in hub.seen] == [True, False]


async def test_the_secret_never_goes_to_a_hub_that_is_not_the_pinned_one(
    hub: Issuer, east: Cluster, tmp_path: Path
) -> None:
    token = rewritten(await hub.token(tmp_path), pin=bytes(32))
    with pytest.raises(PinMismatch):
        await east.join(token)
    assert len(hub.seen) == 1
    assert hub.secrets_seen == 0
    assert east.joined() is None
    assert not (east.folder / "authority").exists()


async def test_the_secret_never_goes_to_somebody_who_shows_the_pinned_bundle_and_has_not_its_key(
    hub: Issuer, east: Cluster, tmp_path: Path
) -> None:
    """In between, with a certificate of its own authority, passing on the true answer to the first question."""
    seen: list[Redeem] = []

    async def pass_on(body: Redeem) -> Redeemed:
        seen.append(body)
        return await hub.honest(body)

    folder = tmp_path / "between"
    async with AsyncExitStack() as stack:
        other = await Lineage.open(
            folder / "authority", FileKeyStore(folder / "keys"), TrustDomain.of_hub(BASE), CLOCK
        )
        stack.push_async_callback(other.close)
        identity = Identity(
            other,
            SpiffeId.federation(other.trust_domain),
            folder / "leaf.pem",
            timedelta(hours=1),
            CLOCK,
        )
        await identity.start()
        address = await stack.enter_async_context(redeeming(pass_on, identity, other))
        token = rewritten(await hub.token(tmp_path), url=f"https://{address}")
        with pytest.raises(Unreachable, match="certificate"):
            await east.join(token)
    assert [body.token for body in seen] == [None]
    assert east.joined() is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "ftp://127.0.0.1", "127.0.0.1:9", "https://[::1", ""])
async def test_nothing_is_sent_but_over_tls(hub: Issuer, east: Cluster, tmp_path: Path, url: str) -> None:
    with pytest.raises(Unreachable):
        await east.join(rewritten(await hub.token(tmp_path), url=url))


async def test_a_lost_answer_is_asked_for_again_with_the_same_key(
    hub: Issuer, east: Cluster, tmp_path: Path
) -> None:
    token = await hub.token(tmp_path)
    hub.answer = hub.answer_lost
    with pytest.raises(Refusal, match="lost on its way"):
        await east.join(token)
    assert east.joined() is None
    key = await east.key()
    hub.answer = hub.honest
    await east.join(token)
    assert await east.key() == key
    assert east.joined() is not None


async def test_a_cluster_joins_before_the_root_has_signed_and_shows_its_own_anchor(
    hub: Issuer, east: Cluster, tmp_path: Path
) -> None:
    async def later(body: Redeem) -> Redeemed:
        return msgspec.structs.replace(await hub.honest(body), certificates=())

    hub.answer = later
    assert await east.join(await hub.token(tmp_path)) == east.joined()
    authority = await open_authority(east.folder, FileKeyStore(east.folder / "keys"), EAST, CLOCK)
    assert authority.root_signed is None
    assert hub.seen[-1].anchor == pem([authority.self_signed]).decode()
    await authority.close()


async def test_a_cluster_that_has_lost_its_key_makes_its_next_authority_in_the_epoch_of_its_token(
    hub: Issuer, east: Cluster, tmp_path: Path
) -> None:
    await east.join(await hub.token(tmp_path))
    text, _ = await hub.admission.create_token("east", (), (), timedelta(minutes=5), replace_authority=True)
    (tmp_path / "again.token").touch(0o600)
    (tmp_path / "again.token").write_text(text)
    restored = Cluster(tmp_path / "restored")
    await restored.join(tmp_path / "again.token")
    authority = await open_authority(restored.folder, FileKeyStore(restored.folder / "keys"), EAST, CLOCK)
    assert epoch_of(authority.self_signed.subject) == 2
    await authority.close()


@pytest.mark.parametrize(
    "step",
    [
        "pki.lineage.Lineage.csr",
        "federation.join._read_answer",
        "pki.lineage.Lineage.accept_root_signed",
        "federation.join.durable.write",
    ],
)
async def test_a_join_that_died_at_any_step_goes_on_with_the_same_key_and_token(
    hub: Issuer, east: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Died(Exception):
        pass

    def die(*_: object) -> None:
        raise Died

    token = await hub.token(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(step, die)
        with pytest.raises(Died):
            await east.join(token)
    assert east.joined() is None
    key = await east.key()
    found = await east.join(token)
    assert found == east.joined()
    assert await east.key() == key


async def test_a_used_token_is_of_no_use_to_another_key(hub: Issuer, east: Cluster, tmp_path: Path) -> None:
    token = await hub.token(tmp_path)
    await east.join(token)
    impostor = Cluster(tmp_path / "impostor")
    with pytest.raises(Refusal, match="wrong, used, expired, or made for another name") as refused:
        await impostor.join(token)
    assert refused.value.status == 403
    assert impostor.joined() is None


async def test_every_cause_is_refused_in_the_same_words(hub: Issuer, east: Cluster, tmp_path: Path) -> None:
    token = await hub.token(tmp_path)
    unknown = rewritten(await hub.token(tmp_path, "west"), secret=bytes(32), subject="east")
    with pytest.raises(Refusal) as wrong:
        await east.join(unknown)
    await east.join(token)
    with pytest.raises(Refusal) as used:
        await Cluster(tmp_path / "impostor").join(token)
    for_another = rewritten(await hub.token(tmp_path, "central"), subject="south")
    with pytest.raises(Refusal) as other:
        await Cluster(tmp_path / "south").join(for_another, "south")
    answers = {
        (one.value.status, one.value.code, str(one.value), one.value.hint) for one in (wrong, used, other)
    }
    assert len(answers) == 1


async def test_an_expired_token_is_refused_in_the_same_words(tmp_path: Path, east: Cluster) -> None:
    clock = ManualClock(CLOCK.now() - timedelta(minutes=4))
    async with issuer(tmp_path / "hub", clock) as hub:
        token = await hub.token(tmp_path)
        clock.advance(timedelta(minutes=5).total_seconds())
        with pytest.raises(Refusal, match="wrong, used, expired, or made for another name"):
            await east.join(token)


async def test_clocks_too_far_apart_are_told_before_the_secret_is_sent(tmp_path: Path, east: Cluster) -> None:
    async with issuer(tmp_path / "hub", ManualClock(CLOCK.now() - timedelta(minutes=7))) as hub:
        with pytest.raises(ClockError, match=r"is 4[12]\d s ahead"):
            await east.join(await hub.token(tmp_path))
        assert hub.secrets_seen == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"certificates": ("",)},
        {"certificates": ("nonsense",)},
        {"base": "other.example"},
        {"address": "nowhere"},
        {"joined_at": None},
    ],
)
async def test_an_answer_that_makes_no_sense_is_told_and_not_remembered(
    hub: Issuer, east: Cluster, tmp_path: Path, changes: dict[str, object]
) -> None:
    async def odd(body: Redeem) -> Redeemed:
        answer = await hub.honest(body)
        return msgspec.structs.replace(answer, **changes) if body.token else answer

    hub.answer = odd
    token = await hub.token(tmp_path)
    with pytest.raises(FederationError, match="makes no sense"):
        await east.join(token)
    assert east.joined() is None
    hub.answer = hub.honest
    await east.join(token)


@pytest.mark.parametrize(
    "changes",
    [
        {"root": None},
        {"root": "nonsense"},
        {"bundle": "*"},
        {"bundle": base64.b64encode(b"nonsense").decode()},
    ],
)
async def test_an_introduction_that_cannot_be_read_ends_it(
    hub: Issuer, east: Cluster, tmp_path: Path, changes: dict[str, object]
) -> None:
    async def odd(body: Redeem) -> Redeemed:
        return msgspec.structs.replace(await hub.honest(body), **changes)

    hub.answer = odd
    with pytest.raises(FederationError, match="cannot be read"):
        await east.join(await hub.token(tmp_path))
    assert hub.secrets_seen == 0


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"", InvalidToken, "empty"),
        (b"\xff\xfe\x00", InvalidToken, "does not start with"),
        (b"fed1.abc", InvalidToken, "damaged or cut"),
        (b"fed1." + b"a" * 100_000, FederationError, "longer than"),
    ],
)
async def test_a_file_that_is_no_token_is_told(
    east: Cluster, tmp_path: Path, content: bytes, error: type[Exception], says: str
) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(error, match=says):
        await east.join(path)


async def test_a_token_that_is_not_there_or_not_ours_is_told(
    hub: Issuer, east: Cluster, tmp_path: Path
) -> None:
    with pytest.raises(FederationError, match="No such file"):
        await east.join(tmp_path / "missing")
    with pytest.raises(FederationError, match="not for cluster east") as told:
        await east.join(await hub.token(tmp_path, "west"))
    assert "federation token create east" in told.value.hint
    assert not hub.seen


async def test_a_removed_cluster_comes_back_with_a_new_token_and_its_old_key(
    hub: Issuer, east: Cluster, tmp_path: Path
) -> None:
    first = await east.join(await hub.token(tmp_path))
    key = await east.key()
    await hub.hub.remove_member("east")
    again = await east.again(await hub.token(tmp_path))
    assert again == east.joined()
    assert again.joined_at > first.joined_at
    assert again.token != first.token
    assert await east.key() == key
    known = hub.hub.member("east")
    assert known is not None
    assert known.member.joined_at == again.joined_at
    authority = await open_authority(east.folder, FileKeyStore(east.folder / "keys"), EAST, CLOCK)
    assert authority.root_signed is not None
    await authority.close()


async def test_a_token_that_was_used_here_is_not_shown_again(
    hub: Issuer, east: Cluster, tmp_path: Path
) -> None:
    token = await hub.token(tmp_path)
    first = await east.join(token)
    asked = len(hub.seen)
    assert await east.again(token) == first
    assert len(hub.seen) == asked


async def test_a_token_that_brings_nothing_keeps_nobody_from_starting(
    hub: Issuer, east: Cluster, tmp_path: Path
) -> None:
    first = await east.join(await hub.token(tmp_path))
    await hub.hub.remove_member("east")
    damaged = tmp_path / "damaged"
    damaged.write_text("fed1.abc")
    unknown = rewritten(await hub.token(tmp_path), secret=bytes(32))
    for token in (tmp_path / "missing", damaged, unknown):
        assert await east.again(token) == first
    unpinned = rewritten(await hub.token(tmp_path), pin=bytes(32))
    assert await east.again(unpinned) == first
    unreachable = rewritten(await hub.token(tmp_path), url="https://127.0.0.1:9")
    assert await east.again(unreachable) == first
    assert await east.again(await hub.token(tmp_path, "west")) == first
    assert east.joined() == first
    assert hub.hub.member("east") is None


async def test_nothing_leads_to_another_root(hub: Issuer, east: Cluster, tmp_path: Path) -> None:
    first = await east.join(await hub.token(tmp_path))
    folder = tmp_path / "other"
    folder.mkdir()
    async with issuer(tmp_path / "another-hub") as other:
        assert await east.again(await other.token(folder)) == first
    assert east.joined() == first


async def test_a_token_that_others_may_read_is_not_used(hub: Issuer, east: Cluster, tmp_path: Path) -> None:
    token = await hub.token(tmp_path)
    token.chmod(0o640)
    with pytest.raises(FederationError, match=f"run: chmod 0600 {token}"):
        await east.join(token)
    assert not hub.seen
    token.chmod(0o600)
    joined = await east.join(token)
    token.chmod(0o640)
    with capture_logs() as logs:
        assert await east.again(token) == joined
    assert [f"chmod 0600 {token}" in one["problem"] for one in logs if one["log_level"] == "info"] == [True]


@pytest.mark.parametrize("content", [b"", b"{}", b"{\xff", b'{"base": 1}'])
async def test_a_damaged_membership_is_told_and_left_as_it_is(
    hub: Issuer, east: Cluster, tmp_path: Path, content: bytes
) -> None:
    await east.join(await hub.token(tmp_path))
    path = east.folder / "membership.json"
    path.write_bytes(content)
    with pytest.raises(FederationError, match="cannot be read") as told:
        membership(path)
    assert "nothing was changed" in told.value.hint
    assert path.read_bytes() == content
