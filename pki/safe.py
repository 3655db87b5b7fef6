"""The folder of a root on its own machine, without any process: opened to sign, and to hand over to the next one.

What was handed over is remembered beside the certificate, before anybody gets it: a set of roots once signed stays
believable for ever, so no later one may have its sequence.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec

from pki import bundle as bundles
from pki import durable
from pki.bundle import FIRST_SEQUENCE, Proof
from pki.ceremony import NextRoot, now_in_seconds
from pki.certificate import der
from pki.errors import KeyFileError
from pki.following import SIGNED_BY_BOTH, drafts
from pki.keys import KeyStore
from pki.lineage_file import published_in, settled
from pki.profiles import epoch_of
from pki.root import RootAuthority, base_of
from pki.signer import Clock

HANDED_OVER = "handed-over.json"
LONGEST_FILE = 1024


class HandedOver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The highest sequence of a set of roots that was signed here, and the highest epoch of a root in one."""

    sequence: int
    epoch: int


async def open_root(
    directory: Path, keys: KeyStore, base: str, clock: Clock, constrained: bool = False
) -> RootAuthority:
    """The root in `directory`, which may have been a hub's before, and have followed others there. Raises as
    `RootAuthority.load`.
    """
    folder = await asyncio.to_thread(settled, directory)
    return await RootAuthority.load(folder, keys, base, clock, constrained)


async def base_at(directory: Path) -> str:
    """The federation that the root in `directory` says it is for. Raises `KeyFileError`."""
    return await base_of(await asyncio.to_thread(settled, directory))


async def remembered(directory: Path, root: RootAuthority) -> HandedOver:
    """What was handed over to others so far. Raises `KeyFileError`."""
    return await asyncio.to_thread(_remembered, directory, root)


async def hand_over(
    old: RootAuthority, old_place: Path, new: RootAuthority, new_place: Path, now: datetime
) -> NextRoot:
    """All that a hub needs to replace `old` by `new`, signed as `pki.following` says.

    Raises `KeyFileError`, `WriteError`, or what the keys raise.
    """
    before = await remembered(old_place, old)
    versions = drafts(old.base, old.certificate, new.certificate, before.sequence)
    epoch = max(before.epoch, epoch_of(new.certificate.subject) or before.epoch + 1)
    memory = msgspec.json.encode(HandedOver(versions[-1].sequence, epoch))
    for place in (old_place, new_place):
        await asyncio.to_thread(durable.write, place / HANDED_OVER, memory)
    signed = []
    for number, each in enumerate(versions):
        signers = (old, new) if number < SIGNED_BY_BOTH else (old,)
        proof = Proof(signatures=tuple([await signer.sign_content(each) for signer in signers]))
        signed.append(replace(each, proof=proof))
    return NextRoot(
        base=old.base,
        made_at=now_in_seconds(now),
        root=der(new.certificate),
        versions=tuple(map(bundles.encode, signed)),
    )


def _remembered(directory: Path, root: RootAuthority) -> HandedOver:
    path = directory / HANDED_OVER
    try:
        return msgspec.json.decode(durable.read_private(path, LONGEST_FILE), type=HandedOver)
    except FileNotFoundError:
        published = published_in(directory, roots=True)
        return HandedOver(FIRST_SEQUENCE if published is None else published.sequence, root.epoch)
    except msgspec.MsgspecError as error:
        raise KeyFileError(path, f"cannot be read: {error}; put a copy of the folder back") from error
