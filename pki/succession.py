"""Authorities that follow one another: the one that signs, the one that is to follow it, and what is published of them.

A rotation (`pki.rotation`) is first written down, then realised: each step brings the folder to what the phase says,
and may be repeated after a crash at any point. Whoever decides the phases calls `enter`. What an authority signs is not
known here: those of a trust domain are a `pki.lineage.Lineage`, the roots of a federation a
`pki.root_lineage.RootLineage`. What lies in the folder is in `pki.lineage_file`. The key of an authority that has ended
is destroyed; its certificates and its journal stay.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Generic, Protocol, Self, TypeVar

import msgspec
from cryptography import x509

from pki import bundle as bundles
from pki import lineage_file
from pki.bundle import MOST_EARLIER, MOST_EPOCHS, Bundle, Proof
from pki.errors import PkiError, Refused
from pki.folder import key_name
from pki.journal import Head, Journal
from pki.keys import KeyStore
from pki.ledger import Entry
from pki.lineage_file import Begun, Kept
from pki.profiles import HIGHEST_EPOCH
from pki.rotation import Barrier, Phase, Rotation, Side
from pki.signer import Clock
from pki.spiffe import TrustDomain
from pki.tally import Tally

LONGEST_REASON = 500
"""Characters."""


class Successor(Protocol):
    """An authority, whatever it signs."""

    @property
    def self_signed(self) -> x509.Certificate: ...

    @property
    def epoch(self) -> int: ...

    @property
    def head(self) -> Head: ...

    @property
    def journals(self) -> tuple[Journal, ...]: ...

    def ledger(self, now: datetime) -> tuple[Entry, ...]: ...

    def bundle(self) -> Bundle: ...

    async def sign_content(self, version: Bundle) -> bytes: ...

    async def close(self) -> None: ...


A = TypeVar("A", bound=Successor)


@dataclass(frozen=True, slots=True)
class Place(Generic[A]):
    """Where a succession is: its folder, its keys, and how the authority of an epoch is made or opened in a folder; for
    one that follows another, with the reason.
    """

    directory: Path
    keys: KeyStore
    clock: Clock
    authority: Callable[[Path, int, Begun | None], Awaitable[A]]


class Succession(Generic[A]):
    """Made by `opened`; has one user at a time; to be closed. `rotation` is None before the first one.

    `tally` counts what was given out and refused, by whichever of the authorities.
    """

    roots: ClassVar[bool] = False
    """Whether what is published are roots, which speak for no trust domain of their own."""

    def __init__(
        self,
        trust_domain: TrustDomain,
        place: Place[A],
        kept: Kept,
        authorities: Mapping[Side, A],
        bundle: Bundle,
    ) -> None:
        self.trust_domain = trust_domain
        self._place = place
        self._kept = kept
        self._authorities = dict(authorities)
        self._bundle = bundle
        self.tally = Tally()
        self._changing = asyncio.Lock()
        self._busy = Counter[int]()

    @classmethod
    async def opened(cls, trust_domain: TrustDomain, place: Place[A], epoch: int) -> Self:
        """What is in the folder, brought to the phase that is written there; a first authority of `epoch` if it is
        empty. Raises `KeyFileError`, `WriteError`, `JournalError`, `VaultError`.

        A step that cannot be taken now keeps nobody from what is whole: if the issuer is there, and everybody whose
        anchor is published, `realise` is left to say what is wrong.
        """
        kept = await asyncio.to_thread(lineage_file.read, place.directory)
        if kept is None:
            authority = await place.authority(place.directory, epoch, None)
            kept = Kept(epoch=authority.epoch, first=authority.epoch, highest=authority.epoch)
            return cls(trust_domain, place, kept, {Side.OLD: authority}, authority.bundle())
        published = await asyncio.to_thread(lineage_file.published_in, place.directory, roots=cls.roots)
        number = kept.sides[kept.issuing]
        issuer = await place.authority(kept.folder(place.directory, number), number, kept.begun)
        made = cls(trust_domain, place, kept, {kept.issuing: issuer}, published or issuer.bundle())
        async with AsyncExitStack() as undo:
            undo.push_async_callback(made.close)
            try:
                await made._realise()
            except PkiError:
                here = {each.self_signed for each in made._authorities.values()}
                if not here.issuperset(made._bundle.anchors):
                    raise
            undo.pop_all()
        return made

    # ---- what is now -----------------------------------------------------------------------------------------------

    @property
    def rotation(self) -> Rotation | None:
        """The rotation that runs, or the last one."""
        return self._kept.rotation

    @property
    def begun(self) -> Begun | None:
        return self._kept.begun

    @property
    def manual(self) -> bool:
        """Whether each step of this rotation waits for a person."""
        return self._kept.manual

    @property
    def entered(self) -> datetime | None:
        """When the phase began."""
        return self._kept.entered

    @property
    def authorities(self) -> Mapping[Side, A]:
        """Those that can sign. Outside a rotation there is the old one only."""
        return dict(self._authorities)

    @property
    def issuer(self) -> A:
        """The only one that issues."""
        return self._authorities[self._kept.issuing]

    @property
    def head(self) -> Head:
        """The head of the issuer's journal, for somebody else to keep."""
        return self.issuer.head

    @property
    def journals(self) -> tuple[Journal, ...]:
        """What was signed, and why, by each that can sign."""
        return tuple(journal for each in self._authorities.values() for journal in each.journals)

    @property
    def witnessed(self) -> frozenset[str]:
        """The authorities (hashes of keys) whose journals others are to keep the heads of: those that everybody has the
        anchor of, and that sign, or have just ceased to.
        """
        rotation = self.rotation
        both = rotation is not None and rotation.rule.barrier is Barrier.SWITCHED
        signing = self._authorities.values() if both else (self.issuer,)
        return frozenset(journal.authority for each in signing for journal in each.journals)

    def ledger(self, now: datetime) -> tuple[Entry, ...]:
        """Every certificate that was handed out, by whichever of the authorities, and has not ended."""
        return tuple(entry for authority in self._authorities.values() for entry in authority.ledger(now))

    def bundle(self) -> Bundle:
        """The newest version of the bundle."""
        return self._bundle

    def is_signing(self, side: Side) -> bool:
        """Whether an authority still works on something that it was asked for, also before it ceased to issue."""
        authority = self._authorities.get(side)
        return authority is not None and self._busy[authority.epoch] > 0

    # ---- rotating --------------------------------------------------------------------------------------------------

    async def begin(self, who: str, why: str, *, manual: bool = False, ordered: bool = False) -> Rotation:
        """Begin a rotation: the authority that follows is made, and nobody hears of it yet.

        Raises `Refused`, also where the last one is over and cannot end: which of its two authorities everybody goes by
        is known until then by nothing but its phase. Else as `enter`.

        `manual` is for whoever decides the phases: each step waits for a person. `ordered` as in `Begun`.
        """
        async with self._changing:
            before = self.rotation
            if before is not None and not before.over:
                raise Refused("rotation", f"one is running already (phase {before.phase.value})")
            try:
                await self._realise()
            except PkiError as error:
                raise Refused("rotation", f"the last one has not ended yet: {error}") from error
            last = min(HIGHEST_EPOCH, self._bundle.generation + MOST_EPOCHS - 1)
            if self._kept.highest >= last:
                raise Refused("rotation", f"epoch {last} is the last one before another generation")
            epoch, now = self._kept.highest + 1, self._place.clock.now()
            await self._write(
                msgspec.structs.replace(
                    self._kept,
                    highest=epoch,
                    following=epoch,
                    number=self._kept.number + 1,
                    step=1,
                    phase=Phase.PREPARED,
                    manual=manual,
                    begun=Begun(now, who, why[:LONGEST_REASON], ordered),
                    entered=now,
                )
            )
            await self._realise()
            rotation = self.rotation
            assert rotation is not None
            return rotation

    async def enter(self, rotation: Rotation) -> None:
        """Go to a phase that follows from the one of now, or back. An older word changes nothing.

        Raises `Refused` for one that was decided on while another was being obeyed.
        """
        async with self._changing:
            now = self.rotation
            if now is None or now.over or rotation.token.rotation != now.token.rotation:
                raise Refused("rotation", "it is not the one that runs")
            if rotation.token < now.token or rotation == now:
                return
            follows = rotation.phase in (now.rule.next, now.rule.back)
            if rotation.token.step != now.token.step + 1 or not follows:
                raise Refused("rotation", f"it has moved on to the phase {now.phase.value} meanwhile")
            entered = self._place.clock.now()
            await self._write(
                msgspec.structs.replace(
                    self._kept,
                    step=rotation.token.step,
                    phase=rotation.phase,
                    entered=entered,
                    sequence=self._bundle.sequence,
                )
            )
            await self._realise()

    async def realise(self) -> None:
        """Bring the folder to what is written down, where an attempt to do so had failed. Raises as `enter`."""
        async with self._changing:
            await self._realise()

    async def close(self) -> None:
        """Finish what is being signed and release the journals."""
        for authority in self._authorities.values():
            await authority.close()

    async def _realise(self) -> None:
        """Bring keys, certificates and bundle to what is written down. Idempotent."""
        rotation = self.rotation
        if rotation is None or self._kept.following is None:
            return
        for side, epoch in self._kept.sides.items():
            if side not in self._authorities:
                folder = self._kept.folder(self._place.directory, epoch)
                self._authorities[side] = await self._place.authority(folder, epoch, self._kept.begun)
        self._authorities = {side: self._authorities[side] for side in Side if side in self._authorities}
        anchors = [self._authorities[side].self_signed for side in Side if side in rotation.rule.anchors]
        anew = rotation.rule.anew and self._bundle.sequence == self._kept.sequence
        if anew or set(anchors) != set(self._bundle.anchors):
            await self._publish(anchors)
        if rotation.over:
            await self._end(rotation)

    async def _publish(self, anchors: Sequence[x509.Certificate]) -> None:
        version = await self._next_version(anchors)
        bundles.check_bundle(version, roots=self.roots)
        await asyncio.to_thread(lineage_file.publish, self._place.directory, version)
        self._bundle = version

    async def _next_version(self, anchors: Sequence[x509.Certificate]) -> Bundle:
        """Signed by whoever of us may: by both authorities, who holds either of them believes it."""
        held = self._bundle
        draft = Bundle(
            self.trust_domain,
            held.sequence + 1,
            tuple(anchors),
            generation=held.generation,
            earlier=(*held.earlier, replace(self.bundle(), earlier=()))[-MOST_EARLIER:],
        )
        bundles.check_bundle(draft, roots=self.roots)
        signatures = [await each.sign_content(draft) for each in self._authorities.values()]
        return replace(draft, proof=Proof(signatures=tuple(signatures)))

    async def _end(self, rotation: Rotation) -> None:
        """One of the two has ended: its key goes, and then the word of it."""
        kept = self._kept
        assert kept.following is not None
        done = rotation.phase is Phase.DONE
        losing, staying = (Side.OLD, Side.NEW) if done else (Side.NEW, Side.OLD)
        if (ended := self._authorities.pop(losing, None)) is not None:
            await ended.close()
        await self._place.keys.remove(key_name(kept.epoch if done else kept.following))
        await self._write(
            msgspec.structs.replace(kept, epoch=kept.following if done else kept.epoch, following=None)
        )
        self._authorities = {Side.OLD: self._authorities[staying]}

    async def _write(self, kept: Kept) -> None:
        await asyncio.to_thread(lineage_file.write, self._place.directory, kept)
        self._kept = kept
