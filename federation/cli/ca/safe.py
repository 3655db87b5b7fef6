"""The folder of an offline root, as the commands on its machine see it: `root` has certificate and journal, `root-keys`
the key. A hub with an online root has the same two in its own folder, so a root moves to a safe by moving both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from federation.cli.paths import GivenPath

KEYS = "root-keys"


def passphrase_option(command: Any) -> Any:
    """Adds `--passphrase-file`; without it the terminal is asked."""
    return click.option(
        "--passphrase-file",
        type=GivenPath(dir_okay=False, path_type=Path),
        help="A file (0600) with the passphrase of the root's key; without it you are asked.",
    )(command)


def keys(folder: Path, passphrase_file: Path | None, *, new: bool = False) -> Any:
    """The keys of the root in `folder`, always encrypted; from now on nobody may look into this process.

    Raises PassphraseError, KeyFileError.
    """
    from federation.hardening import harden
    from pki.durable import private_folder
    from pki.keys.file import FileKeyStore
    from pki.keys.passphrase import check_new, from_file, from_terminal

    harden()
    passphrase = from_terminal(twice=new) if passphrase_file is None else from_file(passphrase_file)
    if new:
        source = "from the terminal" if passphrase_file is None else f"file {passphrase_file}"
        check_new(passphrase, f"the passphrase {source}")
    return FileKeyStore(private_folder(folder) / KEYS, passphrase)


def place(folder: Path) -> Path:
    """Where certificate and journal are."""
    return folder / "root"
