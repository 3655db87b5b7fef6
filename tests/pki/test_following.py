"""A root in a safe hands over to the next one: what a hub takes, how it goes there and back, what members believe."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pki import durable
from pki.bundle import UNNUMBERED, Accepted, Bundle, Proof, Rejected, accept_roots, decode, encode
from pki.ceremony import LONGEST_FILE, NextRoot
from pki.ceremony import encode as file_of
from pki.certificate import der
from pki.errors import CeremonyFile, KeyFileError, Refused
from pki.keys.file import FileKeyStore
from pki.offline import NEXT, OfflineRoot
from pki.root import RootAuthority
from pki.root_lineage import RootLineage
from pki.rotation import Phase, abort, advance
from pki.safe import hand_over, open_root, remembered
from pki.signer import Clock
from tests.pki.world import BASE, StoppedClock

NOBODY: frozenset[str] = frozenset()


@dataclass
class Safe:
    """The machine of the roots: each in a folder of its own."""

    folder: Path
    clock: Clock
    held: list[RootAuthority]

    def place(self, number: int) -> Path:
        return self.folder / f"root-{number}" / "root"

    def keys(self, number: int) -> FileKeyStore:
        return FileKeyStore(self.folder / f"root-{number}" / "root-keys")

    async def root(self, number: int) -> RootAuthority:
        """The root in folder `number`, made if it is not there."""
        if len(self.held) < number:
            epoch = 1
            if self.held:
                epoch = (await remembered(self.place(len(self.held)), self.held[-1])).epoch + 1
            made = await RootAuthority.create(
                self.place(number), self.keys(number), BASE, self.clock, epoch=epoch
            )
            self.held.append(made)
        return self.held[number - 1]

    async def next(self, number: int, before: int | None = None) -> NextRoot:
        """What the root in folder `before` hands over to the one in folder `number`."""
        follows = before or number - 1
        old, new = await self.root(follows), await self.root(number)
        return await hand_over(old, self.place(follows), new, self.place(number), self.clock.now())


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
async def safe(tmp_path: Path, clock: StoppedClock) -> AsyncIterator[Safe]:
    made = Safe(tmp_path / "safe", clock, [])
    yield made
    for root in made.held:
        await root.close()


@pytest.fixture
async def pinned(tmp_path: Path, safe: Safe, clock: StoppedClock) -> OfflineRoot:
    """At the hub."""
    return await OfflineRoot.pin(tmp_path / "hub" / "root", BASE, (await safe.root(1)).certificate, clock)


def taken(held: Bundle, root: OfflineRoot) -> Bundle:
    """What a member goes by that held `held` and is told of the newest set."""
    outcome = accept_roots(held, decode(encode(root.bundle()), roots=True))
    assert isinstance(outcome, Accepted), outcome
    return outcome.bundle


def member(root: OfflineRoot) -> Bundle:
    """What a member has pinned at its join."""
    return Bundle(root.trust_domain, UNNUMBERED, (root.certificate,))


async def step(root: OfflineRoot) -> Phase:
    assert root.rotation is not None
    await root.enter(advance(root.rotation, NOBODY, {}))
    return root.rotation.phase


async def turn_back(root: OfflineRoot) -> None:
    assert root.rotation is not None
    back = abort(root.rotation)
    assert back is not None
    await root.enter(back)


async def test_the_next_root_takes_the_place_of_the_one_before_and_members_follow(
    pinned: OfflineRoot, safe: Safe
) -> None:
    held = member(pinned)
    for number in (2, 3):
        before = pinned.certificate
        assert await pinned.hand_over(await safe.next(number)) == (await safe.root(number)).certificate
        await pinned.begin("ada", "")
        anchors = {}
        for _ in range(4):
            phase = await step(pinned)
            held = taken(held, pinned)
            anchors[phase] = (set(held.anchors), pinned.certificate)
        new = (await safe.root(number)).certificate
        assert anchors == {
            Phase.PUBLISHED: ({before, new}, before),
            Phase.ACTIVE: ({before, new}, new),
            Phase.RETIRING: ({new}, new),
            Phase.DONE: ({new}, new),
        }
    assert (
        taken(Bundle(pinned.trust_domain, UNNUMBERED, ((await safe.root(1)).certificate,)), pinned) == held
    ), "whoever slept through both"


async def test_it_is_turned_back_without_going_to_the_safe_and_another_one_follows_later(
    pinned: OfflineRoot, safe: Safe
) -> None:
    first, held = pinned.certificate, member(pinned)
    await pinned.hand_over(await safe.next(2))
    await pinned.begin("ada", "")
    await step(pinned)
    held = taken(held, pinned)
    await step(pinned)
    await turn_back(pinned)
    assert pinned.certificate == first
    for _ in range(2):
        await step(pinned)
        held = taken(held, pinned)
    assert held.anchors == (first,)
    with pytest.raises(Refused, match="cannot follow"):
        await pinned.begin("ada", "the same once more")
    await pinned.hand_over(await safe.next(3, before=1))
    await pinned.begin("ada", "")
    for _ in range(4):
        await step(pinned)
        held = taken(held, pinned)
    assert held.anchors == ((await safe.root(3)).certificate,)


async def test_it_goes_on_after_a_restart_in_each_phase(
    pinned: OfflineRoot, safe: Safe, tmp_path: Path, clock: StoppedClock
) -> None:
    held = member(pinned)
    await pinned.hand_over(await safe.next(2))
    await pinned.begin("ada", "")
    for _ in range(4):
        pinned = await OfflineRoot.load(tmp_path / "hub" / "root", BASE, clock)
        await step(pinned)
        held = taken(held, pinned)
    again = await OfflineRoot.load(tmp_path / "hub" / "root", BASE, clock)
    assert again.certificate == (await safe.root(2)).certificate
    assert again.bundle() == pinned.bundle()


@pytest.mark.parametrize("how", ["before", "after"])
async def test_s4_killed_at_any_write_it_converges(
    safe: Safe, tmp_path: Path, clock: StoppedClock, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each write of the hub, from the hand-over on, the process dies just before it or just after it."""

    class Died(Exception):
        pass

    countdown = 10**9

    def dying(write: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any, **more: Any) -> None:
            nonlocal countdown
            countdown -= 1
            if countdown == 0 and how == "before":
                raise Died
            write(*args, **more)
            if countdown == 0:
                raise Died

        return call

    first, file = (await safe.root(1)).certificate, await safe.next(2)
    monkeypatch.setattr(durable, "write", dying(durable.write))
    monkeypatch.setattr(durable, "create", dying(durable.create))
    point, died = 0, True
    while died:
        point, died = point + 1, False
        place = tmp_path / f"{point}" / "root"
        root = await OfflineRoot.pin(place, BASE, first, clock)
        held = member(root)
        countdown = point
        while True:
            try:
                if root.rotation is None:
                    await root.hand_over(file)
                    await root.begin("ada", "")
                elif root.rotation.over:
                    break
                else:
                    await step(root)
            except Died:
                died, countdown = True, 10**9
                root = await OfflineRoot.load(place, BASE, clock)
            held = taken(held, root)
            assert root.certificate in held.anchors
        countdown = 10**9
        assert held.anchors == ((await safe.root(2)).certificate,)
    assert point > 6


async def test_what_does_not_follow_is_not_kept(
    pinned: OfflineRoot, safe: Safe, tmp_path: Path, clock: StoppedClock
) -> None:
    evil = Safe(tmp_path / "evil", clock, [])
    good, forged = await safe.next(2), await evil.next(2)
    mixed = msgspec.structs.replace(good, versions=(*good.versions[:2], forged.versions[2], good.versions[3]))
    swapped = msgspec.structs.replace(good, versions=(*good.versions[:2], *reversed(good.versions[2:])))
    unsigned = msgspec.structs.replace(good, versions=tuple(map(without_signatures, good.versions)))
    leaf = msgspec.structs.replace(good, root=b"nonsense")
    other = msgspec.structs.replace(good, base="other.example")
    for file in (forged, mixed, swapped, unsigned, leaf, other):
        with pytest.raises(CeremonyFile):
            await pinned.hand_over(file)
    with pytest.raises(Refused, match="is not here"):
        await pinned.begin("ada", "")
    assert not (tmp_path / "hub" / "root" / NEXT).exists()
    assert pinned.rotation is None
    for root in evil.held:
        await root.close()


def without_signatures(data: bytes) -> bytes:
    version = decode(data, roots=True)
    return encode(Bundle(version.trust_domain, version.sequence, version.anchors))


async def test_no_other_one_is_handed_over_while_a_root_is_replaced(pinned: OfflineRoot, safe: Safe) -> None:
    await pinned.hand_over(await safe.next(2))
    await pinned.begin("ada", "")
    await step(pinned)
    with pytest.raises(CeremonyFile, match="is being replaced now"):
        await pinned.hand_over(await safe.next(3))
    with pytest.raises(Refused, match="running already"):
        await pinned.begin("ada", "")


async def test_no_sequence_is_given_out_twice_even_if_nobody_took_the_file(safe: Safe) -> None:
    given = [await safe.next(2), await safe.next(3, before=1), await safe.next(4)]
    sequences = [decode(each, roots=True).sequence for file in given for each in file.versions]
    assert sequences == sorted(set(sequences))
    assert [root.epoch for root in safe.held] == [1, 2, 3, 4]


async def test_nobody_goes_on_to_a_root_that_was_given_up(pinned: OfflineRoot, safe: Safe) -> None:
    """Whoever was told the way back believes nothing of what leads forth, until another root is handed over to."""
    both, forth, again, back = (decode(each, roots=True) for each in (await safe.next(2)).versions)
    held = accept_roots(member(pinned), back)
    assert isinstance(held, Accepted)
    for given_up in (both, forth, again):
        assert isinstance(accept_roots(held.bundle, given_up), Rejected)
        assert isinstance(accept_roots(held.bundle, replace(given_up, earlier=(both,))), Rejected)
    for given in (await safe.next(3, before=1)).versions:
        assert isinstance(accept_roots(held.bundle, decode(given, roots=True)), Accepted)


async def test_a_hub_that_publishes_the_sets_out_of_order_makes_nobody_believe_the_old_root_again(
    pinned: OfflineRoot, safe: Safe
) -> None:
    """Nobody goes back from the new root alone, by whichever way it was reached."""
    both, forth, again, back = (decode(each, roots=True) for each in (await safe.next(2)).versions)
    for told in (member(pinned), both):
        held = accept_roots(told, forth)
        assert isinstance(held, Accepted)
        for other in (both, again, back, replace(back, earlier=(both, again))):
            assert isinstance(accept_roots(held.bundle, other), Rejected)


async def test_a_file_that_leads_back_from_the_new_root_is_not_kept(pinned: OfflineRoot, safe: Safe) -> None:
    file = await safe.next(2)
    back = decode(file.versions[3], roots=True)
    signatures = (*back.proof.signatures, await (await safe.root(2)).sign_content(back))
    signed = encode(replace(back, proof=Proof(signatures=signatures)))
    with pytest.raises(CeremonyFile, match="leads back"):
        await pinned.hand_over(msgspec.structs.replace(file, versions=(*file.versions[:3], signed)))


async def test_a_file_fits_on_the_same_stick_as_all_others(safe: Safe) -> None:
    assert len(file_of(await safe.next(2))) < LONGEST_FILE / 4


async def test_an_online_root_that_followed_others_goes_into_a_safe(
    tmp_path: Path, clock: StoppedClock
) -> None:
    """Its folder as it is: the root that signs is not in the first of its folders."""
    keys = FileKeyStore(tmp_path / "root-keys")
    roots = await RootLineage.open(tmp_path / "root", keys, BASE, clock)
    await roots.begin("ada", "")
    with pytest.raises(KeyFileError, match="in the middle of a rotation"):
        await open_root(tmp_path / "root", keys, BASE, clock)
    while roots.rotation is not None and not roots.rotation.over:
        await roots.enter(advance(roots.rotation, NOBODY, {}))
    published = roots.bundle()
    await roots.close()
    root = await open_root(tmp_path / "root", keys, BASE, clock)
    assert root.certificate == published.anchors[0]
    assert (await remembered(tmp_path / "root", root)).sequence == published.sequence
    await root.close()
    left = await OfflineRoot.load(tmp_path / "root", BASE, clock)
    assert (left.certificate, left.bundle().version) == (root.certificate, published.version)
    new_keys = FileKeyStore(tmp_path / "2-keys")
    old = await open_root(tmp_path / "root", keys, BASE, clock)
    new = await RootAuthority.create(tmp_path / "2", new_keys, BASE, clock, epoch=3)
    file = await hand_over(old, tmp_path / "root", new, tmp_path / "2", clock.now())
    assert der(await left.hand_over(file)) == der(new.certificate)
    await old.close()
    await new.close()
