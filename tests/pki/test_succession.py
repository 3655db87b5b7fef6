"""A step that is written down and cannot be taken now: none begins over it, and whoever issues is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pki import csr, durable, lineage_file
from pki.errors import KeyMissing, Refused, WriteError
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.rotation import Phase, Side
from pki.spiffe import SpiffeId, TrustDomain
from tests.pki.rotations import begun, go_on, phase, turn_back
from tests.pki.world import BASE, StoppedClock, granted, new_key

EAST = TrustDomain.of_cluster("east", BASE)
GATEWAY = SpiffeId.gateway(EAST, "eastwest")
VAULT = Path("vault")

Opener = Callable[[], Awaitable[Lineage]]


class Failing(FileKeyStore):
    """Makes or removes no key unless it may; `half`: one is gone though its removal fails."""

    makes = removes = True
    half = False

    async def create(self, name: str) -> ec.EllipticCurvePrivateKey:
        if not self.makes:
            raise WriteError(VAULT, "makes no key now")
        return await super().create(name)

    async def remove(self, name: str) -> None:
        if self.half:
            await super().remove(name)
        if not self.removes:
            raise WriteError(VAULT, "removes no key now")
        await super().remove(name)


@pytest.fixture
def keys(tmp_path: Path) -> Failing:
    return Failing(tmp_path / "keys")


@pytest.fixture
async def opened(tmp_path: Path, keys: Failing) -> AsyncIterator[Opener]:
    """Opens the same lineage again, as after a restart."""
    held: list[Lineage] = []

    async def again() -> Lineage:
        while held:
            await held.pop().close()
        held.append(await Lineage.open(tmp_path / "authority", keys, EAST, StoppedClock()))
        return held[0]

    yield again
    while held:
        await held.pop().close()


@pytest.fixture
async def lineage(opened: Opener) -> Lineage:
    return await opened()


async def issues(lineage: Lineage) -> bool:
    """Whether a leaf is of the issuer, and that is believed."""
    made = await lineage.issue(csr.request(new_key()), granted(GATEWAY), who="test", why="test")
    return made.certificate.issuer in {anchor.subject for anchor in lineage.bundle().anchors}


async def at(lineage: Lineage, wanted: Phase) -> None:
    while phase(lineage) is not wanted:
        await go_on(lineage)


@pytest.mark.parametrize("half", [False, True], ids=["key there", "key gone"])
@pytest.mark.parametrize("there", [True, False], ids=["done", "aborted"])
async def test_none_begins_before_the_last_one_has_ended(
    lineage: Lineage, opened: Opener, keys: Failing, there: bool, half: bool
) -> None:
    await begun(lineage)
    await at(lineage, Phase.RETIRING if there else Phase.PUBLISHED)
    if not there:
        await turn_back(lineage)
    keys.removes, keys.half = False, half
    with pytest.raises(WriteError):
        await go_on(lineage)
    staying, before = lineage.issuer.epoch, (lineage.rotation, lineage.bundle())
    assert staying == (2 if there else 1)
    for _ in range(2):
        with pytest.raises(
            Refused, match="the last one has not ended yet: cannot write vault: removes no key"
        ):
            await lineage.begin("ada", "too early")
        assert (lineage.issuer.epoch, lineage.rotation, lineage.bundle()) == (staying, *before)
        assert await issues(lineage)
        lineage = await opened()
    keys.removes = True
    await lineage.begin("ada", "now it can")
    assert {side: each.epoch for side, each in lineage.authorities.items()} == {
        Side.OLD: staying,
        Side.NEW: 3,
    }
    assert (lineage.issuer.epoch, lineage.bundle()) == (staying, before[1])
    assert await keys.names() == {f"ca-{staying}", "ca-3"}


async def test_none_begins_before_the_end_of_the_last_one_is_written_down(
    lineage: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key has gone, and the disk is full."""
    await begun(lineage)
    await at(lineage, Phase.RETIRING)
    write = lineage_file.write

    def full(directory: Path, kept: lineage_file.Kept) -> None:
        if kept.following is None:
            raise WriteError(directory, "No space left on device")
        write(directory, kept)

    with monkeypatch.context() as patch:
        patch.setattr(lineage_file, "write", full)
        with pytest.raises(WriteError):
            await go_on(lineage)
        with pytest.raises(Refused, match="has not ended yet"):
            await lineage.begin("ada", "too early")
    assert lineage.issuer.epoch == 2
    await lineage.begin("ada", "now it can")
    assert lineage.issuer.epoch == 2


async def test_the_issuer_is_there_though_the_key_of_the_next_one_cannot_be_made(
    lineage: Lineage, opened: Opener, keys: Failing
) -> None:
    keys.makes = False
    with pytest.raises(WriteError):
        await begun(lineage)
    for _ in range(2):
        lineage = await opened()
        assert (phase(lineage), lineage.issuer.epoch) == (Phase.PREPARED, 1)
        assert await issues(lineage)
        with pytest.raises(WriteError):
            await lineage.realise()
    keys.makes = True
    await lineage.realise()
    assert [each.epoch for each in lineage.authorities.values()] == [1, 2]
    await at(lineage, Phase.DONE)
    assert lineage.issuer.epoch == 2


async def test_the_issuer_is_there_though_nothing_can_be_written(
    lineage: Lineage, opened: Opener, keys: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the phase before its bundle is published, too."""

    def full(path: Path, *_: Any, **more: Any) -> None:
        raise WriteError(path, "No space left on device")

    keys.makes = False
    with pytest.raises(WriteError):
        await begun(lineage)
    keys.makes = True
    for step, written, published in (
        (Phase.PREPARED, Phase.PREPARED, 1),
        (Phase.PREPARED, Phase.PUBLISHED, 1),
        (Phase.ACTIVE, Phase.RETIRING, 2),
    ):
        if written is not Phase.PREPARED:
            await lineage.realise()
            await at(lineage, step)
            with monkeypatch.context() as patch:
                patch.setattr(lineage_file, "publish", full)
                with pytest.raises(WriteError):
                    await go_on(lineage)
        with monkeypatch.context() as patch:
            patch.setattr(durable, "write", full)
            patch.setattr(durable, "create", full)
            lineage = await opened()
            with pytest.raises(WriteError):
                await lineage.realise()
        assert (phase(lineage), lineage.bundle().sequence) == (written, published)
        assert await issues(lineage)
        await lineage.realise()
    await at(lineage, Phase.DONE)
    assert (lineage.issuer.epoch, lineage.bundle().sequence) == (2, 3)


@pytest.mark.parametrize("there", [True, False], ids=["done", "aborted"])
async def test_the_issuer_is_there_though_the_key_of_the_other_one_cannot_be_removed(
    lineage: Lineage, opened: Opener, keys: Failing, there: bool
) -> None:
    await begun(lineage)
    if there:
        await at(lineage, Phase.RETIRING)
    keys.removes = False
    with pytest.raises(WriteError):
        await (go_on if there else turn_back)(lineage)
    lineage = await opened()
    assert await issues(lineage)
    with pytest.raises(WriteError):
        await lineage.realise()
    keys.removes = True
    await lineage.realise()
    assert await keys.names() == {f"ca-{lineage.issuer.epoch}"} == {"ca-2" if there else "ca-1"}


async def test_the_issuer_is_there_without_the_one_that_nobody_is_to_believe_any_more(
    lineage: Lineage, opened: Opener, keys: Failing
) -> None:
    await begun(lineage)
    await at(lineage, Phase.RETIRING)
    await keys.remove("ca-1")
    lineage = await opened()
    assert await issues(lineage)
    assert list(lineage.authorities) == [Side.NEW]
    with pytest.raises(KeyMissing):
        await lineage.realise()


@pytest.mark.parametrize("until", [Phase.PUBLISHED, Phase.ACTIVE])
@pytest.mark.parametrize("gone", ["ca-1", "ca-2"])
async def test_without_an_authority_that_is_believed_nothing_opens(
    lineage: Lineage, opened: Opener, keys: Failing, until: Phase, gone: str
) -> None:
    """What the ledger of the other one has a say in would be given out without it."""
    await begun(lineage)
    await at(lineage, until)
    await keys.remove(gone)
    for _ in range(2):
        with pytest.raises(KeyMissing):
            await opened()


async def test_the_order_of_the_authorities_is_the_same_after_a_restart(
    lineage: Lineage, opened: Opener
) -> None:
    await begun(lineage)
    await at(lineage, Phase.ACTIVE)
    assert list((await opened()).authorities) == [Side.OLD, Side.NEW]
