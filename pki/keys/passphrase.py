"""The passphrase that private keys are encrypted with, and where a process gets it from.

From a file of its own, from a credential that systemd hands over, from the terminal, or, as an exception, from the
environment. Never from arguments, which everybody on a machine can read. Refuses what is empty, longer than 1 KiB or
more than one line, and a file that others can read.
"""

from __future__ import annotations

import ctypes
import getpass
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from pki import durable
from pki.errors import KeyFileError, PassphraseError

LONGEST = 1024
"""Bytes."""
SHORTEST_NEW = 8
"""Characters (NIST SP 800-63B); what encrypts keys already is taken as it is."""

CREDENTIALS = "CREDENTIALS_DIRECTORY"


@dataclass(frozen=True, slots=True)
class Derivation:
    """What scrypt is given besides the passphrase; `cost`, `block` and `parallel` are its N, r and p."""

    salt: bytes
    cost: int
    block: int
    parallel: int


@dataclass(frozen=True, slots=True)
class Passphrase:
    """A secret of 1 to `LONGEST` bytes on one line, and what was derived from it. Not shown by `repr`.

    All keys that a process encrypts with it have one salt, so that it derives once: who guesses the passphrase of one
    has them all, whatever their salts. Each file has an initialisation vector of its own.
    """

    secret: bytes = field(repr=False)
    _derived: dict[Derivation, bytes] = field(default_factory=dict, repr=False, compare=False)
    _deriving: Lock = field(default_factory=Lock, repr=False, compare=False)

    def derive(self, how: Derivation) -> bytes:
        """32 bytes by scrypt (RFC 7914). The first time it takes what `how` costs: call it in a thread."""
        with self._deriving:
            if how not in self._derived:
                scrypt = Scrypt(salt=how.salt, length=32, n=how.cost, r=how.block, p=how.parallel)
                self._derived[how] = scrypt.derive(self.secret)
            return self._derived[how]

    def derived(self, cost: int, block: int, parallel: int) -> Derivation:
        """How something was derived with these numbers already, else with a new salt."""
        with self._deriving:
            for how in self._derived:
                if (how.cost, how.block, how.parallel) == (cost, block, parallel):
                    return how
        return Derivation(secrets.token_bytes(16), cost, block, parallel)

    @classmethod
    def of(cls, written: bytes, source: str) -> Passphrase:
        """What was written, without the end of its line; raises `PassphraseError`, which names `source`."""
        secret = written.removesuffix(b"\n").removesuffix(b"\r")
        if not secret:
            raise PassphraseError(source, "is empty")
        if len(secret) > LONGEST:
            raise PassphraseError(source, f"is longer than {LONGEST} bytes")
        if b"\n" in secret or b"\0" in secret:
            raise PassphraseError(source, "is not one line of text")
        return cls(secret)


def check_new(found: Passphrase, source: str) -> None:
    """Raise `PassphraseError` for one that is new and would be guessed soon, or that no terminal takes."""
    try:
        text = found.secret.decode()
    except UnicodeDecodeError:
        raise PassphraseError(source, "is not UTF-8, so nobody could type it") from None
    if len(text) < SHORTEST_NEW:
        raise PassphraseError(source, f"is shorter than {SHORTEST_NEW} characters, and would be new")


def from_file(path: Path) -> Passphrase:
    """The one line of a private file (0600, ours). Raises `PassphraseError`."""
    source = f"the passphrase file {path}"
    try:
        return Passphrase.of(durable.read_private(path, LONGEST + len("\r\n")), source)
    except FileNotFoundError as error:
        raise PassphraseError(source, "does not exist") from error
    except KeyFileError as error:
        raise PassphraseError(source, error.reason) from error


def from_credential(name: str) -> Passphrase:
    """A credential of this service: `LoadCredential=` or `SetCredentialEncrypted=` (systemd.exec(5)).

    systemd lets this process in by an access list, which shows as the mode of a group, so only the mode for all others
    must be empty. Raises `PassphraseError`.
    """
    source = f"the credential {name}"
    if not (folder := os.environ.get(CREDENTIALS, "")):
        raise PassphraseError(
            source, f"is not there: ${CREDENTIALS} is not set, see LoadCredential= in systemd.exec(5)"
        )
    path = Path(folder, name)
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
                raise PassphraseError(source, f"lets others in: {path}")
            return Passphrase.of(file.read(LONGEST + len("\r\n") + 1), source)
    except OSError as error:
        raise PassphraseError(source, f"cannot be read: {path}: {error.strerror}") from error


def from_environment(name: str) -> Passphrase:
    """The variable `name`, which is then gone: from what children inherit, and from `/proc/<pid>/environ` (proc(5)).

    Raises `PassphraseError`.
    """
    source = f"the environment variable {name}"
    if (written := os.environb.get(os.fsencode(name))) is None:
        raise PassphraseError(source, "is not set")
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    if address := libc.getenv(os.fsencode(name)):
        ctypes.memset(address, 0, len(written))
    del os.environ[name]
    return Passphrase.of(written, source)


def from_terminal(*, twice: bool) -> Passphrase:
    """What a person types at the terminal of this process, not shown; `twice` for one that is new.

    Waits without end. Raises `PassphraseError` when there is no terminal, or the second one is another.
    """
    source = "the passphrase from the terminal"
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        typed = getpass.getpass("Passphrase of the private keys: ")
        again = getpass.getpass("The same again, because it is new: ") if twice else typed
    except OSError as error:
        raise PassphraseError(source, "cannot be asked for: there is no terminal") from error
    except EOFError as error:
        raise PassphraseError(source, "was not given") from error
    if typed != again:
        raise PassphraseError(source, "was not the same twice")
    return Passphrase.of(typed.encode(), source)
