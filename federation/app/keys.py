"""How the private keys of a process lie on its disk, from what its settings say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from federation.app.vaults import Vaults
from federation.config import AuthorityKeys, Keys
from pki.errors import KeyFileError
from pki.keys import KeyStore, passphrase
from pki.keys.file import SUFFIX, FileKeyStore
from pki.keys.passphrase import Passphrase

log = structlog.get_logger()


def passphrase_of(keys: Keys, folder: Path) -> Passphrase | None:
    """What the keys of a process in `folder` are encrypted with; None, with a warning, if they lie in the clear.

    Before anything runs: it may ask at the terminal, twice if there is no key yet. Raises PassphraseError.
    """
    source = keys.passphrase
    if source is None:
        log.warning("private keys lie in the clear on disk (keys.plain): whoever has a backup has them")
        return None
    if source.file is not None:
        return passphrase.from_file(Path(source.file))
    if source.credential is not None:
        return passphrase.from_credential(source.credential)
    if source.environment is not None:
        log.warning(
            "the passphrase of the keys comes from the environment, which leaks easily;"
            " a file, a systemd credential or the terminal are better",
            variable=source.environment,
        )
        return passphrase.from_environment(source.environment)
    return passphrase.from_terminal(twice=not any(folder.rglob(f"*{SUFFIX}")))


async def authority_keys(
    folder: Path, secret: Passphrase | None, keys: AuthorityKeys, vaults: Vaults, prefix: str = ""
) -> KeyStore:
    """The store of an authority's keys, for its only writer: in `folder`, or in Vault with the public halves there.

    In Vault the names begin with `prefix`. Raises KeyFileError or WriteError.
    """
    if keys.vault is None:
        return await key_store(folder, secret)
    if found := await asyncio.to_thread(lambda: sorted(folder.glob(f"*{SUFFIX}"))):
        raise KeyFileError(
            found[0],
            "is a key on disk, and the settings say that keys are in Vault (keys.vault), which takes over none; begin"
            " with an empty folder",
        )
    return await vaults.keys(keys.vault, folder, prefix)


async def key_store(folder: Path, secret: Passphrase | None) -> FileKeyStore:
    """The store in `folder`, for its only writer; what lay there in the clear and must not is encrypted, and told.

    Raises KeyFileError or WriteError.
    """
    store = FileKeyStore(folder, secret)
    for name in sorted(await store.protect()):
        log.warning(
            "a key that lay in the clear is encrypted now; copies of it in backups are not",
            key=name,
            folder=str(folder),
        )
    return store
