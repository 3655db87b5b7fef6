from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import sys
import termios
import textwrap
from pathlib import Path

import pytest

from pki import durable
from pki.errors import PassphraseError
from pki.keys import passphrase
from pki.keys.passphrase import LONGEST, Passphrase

ROOT = Path(__file__).parents[3]
CANARY = "canary-7f3a"


def written(path: Path, data: bytes, mode: int = 0o600) -> Path:
    durable.write(path, data, mode)
    return path


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_passphrase_is_the_one_line_of_a_private_file(tmp_path: Path, end: bytes) -> None:
    for secret in (b"a", b" two words ", b"\xff\x01", b"x" * LONGEST):
        assert passphrase.from_file(written(tmp_path / "file", secret + end)).secret == secret


@pytest.mark.parametrize(
    ("data", "mode", "reason"),
    [
        (b"", 0o600, "is empty"),
        (b"\n", 0o600, "is empty"),
        (b"x" * (LONGEST + 1), 0o600, "is longer than 1024 bytes"),
        (b"x" * (LONGEST + 100), 0o600, "is longer than"),
        (b"one\ntwo\n", 0o600, "is not one line of text"),
        (b"one\0two", 0o600, "is not one line of text"),
        (b"fine", 0o640, "chmod 0600"),
        (b"fine", 0o604, "chmod 0600"),
    ],
)
def test_k1_a_file_that_is_no_passphrase_or_open_to_others_is_refused_by_name(
    tmp_path: Path, data: bytes, mode: int, reason: str
) -> None:
    path = written(tmp_path / "secret", data, mode)
    with pytest.raises(PassphraseError, match=reason) as refused:
        passphrase.from_file(path)
    assert str(path) in str(refused.value)
    assert "fine" not in str(refused.value)


def test_k1_a_file_that_is_missing_or_elsewhere_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PassphraseError, match="does not exist") as refused:
        passphrase.from_file(tmp_path / "missing")
    assert str(tmp_path / "missing") in str(refused.value)
    written(tmp_path / "there", b"x")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with pytest.raises(PassphraseError, match="is a symbolic link"):
        passphrase.from_file(tmp_path / "link")
    with pytest.raises(PassphraseError, match="is not a plain file"):
        passphrase.from_file(tmp_path)


def test_a_credential_is_read_from_the_folder_that_systemd_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(PassphraseError, match="LoadCredential="):
        passphrase.from_credential("keys")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(PassphraseError, match=r"the credential keys cannot be read: .*No such file"):
        passphrase.from_credential("keys")
    path = written(tmp_path / "keys", b"secret\n", 0o440)
    assert passphrase.from_credential("keys") == Passphrase(b"secret")
    for loose in (0o444, 0o460):
        path.chmod(loose)
        with pytest.raises(PassphraseError, match="lets others in"):
            passphrase.from_credential("keys")
    (tmp_path / "folder").mkdir(0o700)
    with pytest.raises(PassphraseError, match="cannot be read"):
        passphrase.from_credential("folder")
    written(tmp_path / "keys", b"x" * 3000)
    with pytest.raises(PassphraseError, match="longer than"):
        passphrase.from_credential("keys")


def test_k5_a_passphrase_from_the_environment_is_gone_from_it() -> None:
    program = textwrap.dedent(
        """
        import os, subprocess
        from pathlib import Path
        from pki.keys import passphrase
        before = Path("/proc/self/environ").read_bytes()
        secret = passphrase.from_environment("SECRET").secret
        assert secret in before
        assert secret not in Path("/proc/self/environ").read_bytes()
        assert "SECRET" not in os.environ and os.getenv("OTHER") == "stays"
        child = subprocess.run(["env"], capture_output=True, check=True).stdout
        assert secret not in child and b"OTHER=stays" in child
        print(secret.decode())
        """
    )
    environment = {**os.environ, "SECRET": CANARY, "OTHER": "stays"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (f"{CANARY}\n", "")


def test_a_variable_that_is_missing_or_empty_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET", raising=False)
    with pytest.raises(PassphraseError, match="SECRET is not set"):
        passphrase.from_environment("SECRET")
    monkeypatch.setenv("SECRET", "")
    with pytest.raises(PassphraseError, match="SECRET is empty"):
        passphrase.from_environment("SECRET")


TERMINAL = textwrap.dedent(
    """
    import fcntl, sys, termios
    from pki.errors import PkiError
    from pki.keys import passphrase
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    try:
        print("got", passphrase.from_terminal(twice=sys.argv[1] == "twice").secret.decode())
    except PkiError as error:
        print("error", error)
    """
)


def asked(*answers: str) -> tuple[str, str]:
    """What the process says, and what is seen at its terminal, for these answers to its questions."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", TERMINAL, "twice" if len(answers) > 1 else "once"]
    child = subprocess.Popen(
        command, cwd=ROOT, stdin=theirs, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    kept = os.dup(theirs)  # a terminal without a reader forgets what was written to it
    os.close(theirs)
    try:
        seen = b""
        for answer in answers:
            while not seen.endswith(b": "):
                assert child.poll() is None, seen
                seen += at_once(ours)
            os.write(ours, f"{answer}\n".encode())
            seen += b"|"
        out, _ = child.communicate(timeout=60)
        return out, (seen + at_once(ours)).decode()
    finally:
        os.close(ours)
        os.close(kept)


def at_once(terminal: int) -> bytes:
    """What can be read now."""
    waiting = fcntl.ioctl(terminal, termios.FIONREAD, bytes(4))
    return os.read(terminal, 1000) if any(waiting) else b""


def test_a_passphrase_from_the_terminal_is_not_shown_and_a_new_one_is_asked_for_twice() -> None:
    out, seen = asked(CANARY)
    assert out == f"got {CANARY}\n"
    assert "Passphrase" in seen
    assert CANARY not in seen
    assert asked(CANARY, CANARY)[0] == f"got {CANARY}\n"
    assert asked(CANARY, "other")[0] == "error the passphrase from the terminal was not the same twice\n"
    assert asked("")[0] == "error the passphrase from the terminal is empty\n"


def test_without_a_terminal_nobody_is_asked() -> None:
    program = "from pki.keys import passphrase; passphrase.from_terminal(twice=False)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        input=f"{CANARY}\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        start_new_session=True,
    )
    assert "there is no terminal" in done.stderr


def test_k5_a_passphrase_does_not_show() -> None:
    assert CANARY not in repr(Passphrase(CANARY.encode()))
    assert CANARY not in str(Passphrase(CANARY.encode()))
