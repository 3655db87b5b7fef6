"""What is written down of authorities that follow one another: which of them is which, how far a rotation is, and what
was published last.

    <folder>/                 the first authority: its certificates and its journal
    <folder>/<epoch>/         each later one
    <folder>/lineage.json     which of them is which, and the phase
    <folder>/bundle.json      the newest version of the bundle, with those that lead to it
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from pki import bundle as bundles
from pki import durable
from pki.bundle import Bundle
from pki.errors import KeyFileError
from pki.rotation import Phase, Rotation, Side, Token

LINEAGE = "lineage.json"
BUNDLE = "bundle.json"
LONGEST_FILE = 64 * 1024


class Begun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Why a rotation runs: who asked for it and since when, for people. `ordered`: it was an operator of the hub, from
    there, and not of whoever drives it.
    """

    at: datetime
    who: str
    why: str
    ordered: bool = False

    def reason(self, what: str) -> str:
        """Why `what` is made, for a journal."""
        return f"{what}: {self.why}" if self.why else what


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """lineage.json: `epoch` is the old authority's, or the only one's; `highest` was ever given out. `sequence` is that
    of the bundle when the phase was entered.
    """

    epoch: int
    first: int
    highest: int
    following: int | None = None
    number: int = 0
    step: int = 0
    phase: Phase | None = None
    manual: bool = False
    begun: Begun | None = None
    entered: datetime | None = None
    sequence: int = 0

    @property
    def rotation(self) -> Rotation | None:
        """The rotation that runs, or the last one; None before the first."""
        return None if self.phase is None else Rotation(Token(self.number, self.step), self.phase)

    @property
    def sides(self) -> dict[Side, int]:
        """Whose keys are needed in this phase, by epoch; of a rotation that is over, the losing one may be gone."""
        if self.following is None or self.phase is Phase.ABORTED:
            return {Side.OLD: self.epoch}
        if self.phase is Phase.DONE:
            return {Side.NEW: self.following}
        return {Side.OLD: self.epoch, Side.NEW: self.following}

    @property
    def issuing(self) -> Side:
        """Who issues in this phase; one of `sides`."""
        rotation = self.rotation
        return Side.OLD if self.following is None or rotation is None else rotation.rule.issuer

    def folder(self, directory: Path, epoch: int) -> Path:
        """Where the authority of `epoch` is."""
        return directory if epoch == self.first else directory / str(epoch)


def read(directory: Path) -> Kept | None:
    """What is written down, None if nothing ever followed. Raises `KeyFileError`."""
    path = directory / LINEAGE
    try:
        return msgspec.json.decode(durable.read_private(path, LONGEST_FILE), type=Kept)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise KeyFileError(path, f"cannot be read: {error}; put a backup of the folder back") from error


def write(directory: Path, kept: Kept) -> None:
    """Make it durable. Raises `WriteError`."""
    durable.write(directory / LINEAGE, msgspec.json.encode(kept))


def published_in(directory: Path, *, roots: bool = False) -> Bundle | None:
    """The newest version of the bundle of a succession, None if nothing ever followed. Raises `KeyFileError`,
    `InvalidBundle`.
    """
    try:
        return bundles.decode(durable.read_private(directory / BUNDLE, bundles.LONGEST_ENCODED), roots=roots)
    except FileNotFoundError:
        return None


def publish(directory: Path, version: Bundle) -> None:
    """Make durable what is published from now on. Raises `WriteError`."""
    durable.write(directory / BUNDLE, bundles.encode(version))


def settled(directory: Path) -> Path:
    """The folder of the authority that signs, of a succession that nobody has open. Raises `KeyFileError` in the middle
    of a rotation.
    """
    kept = read(directory)
    if kept is None:
        return directory
    if kept.following is not None:
        raise KeyFileError(
            directory / LINEAGE, "is in the middle of a rotation; let it end, or turn it back, where it began"
        )
    return kept.folder(directory, kept.epoch)
