"""A process that is hardened leaves nothing of its memory, and shows nothing of it to others of its user.

Each test does the same to a process that is not hardened, and finds the canary there.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]

ORDINARY = textwrap.dedent(
    """
    import ctypes, os
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    """
)
"""Root may read everybody, so it would prove nothing: become a user, and dumpable as a user's processes are."""

VICTIM = textwrap.dedent(
    """
    import ctypes, sys
    from federation.hardening import harden
    if sys.argv[1] == "hardened":
        harden()
    canary = ctypes.create_string_buffer(b"canary-" + b"7f3a")
    print(ctypes.addressof(canary), flush=True)
    sys.stdin.read()
    """
)

READER = textwrap.dedent(
    """
    import os, sys
    try:
        with open(f"/proc/{sys.argv[1]}/mem", "rb", buffering=0) as memory:
            memory.seek(int(sys.argv[2]))
            print(memory.read(11))
    except OSError as error:
        print(error.strerror)
    try:
        open(f"/proc/{sys.argv[1]}/environ", "rb").close()
        print("environ is readable")
    except OSError as error:
        print(error.strerror)
    """
)


def python(program: str, *arguments: str, folder: Path) -> subprocess.Popen[str]:
    """`program`, as an ordinary user in `folder`, with what the project consists of."""
    modules = "import federation.api.tls, federation.hardening"
    return subprocess.Popen(
        [sys.executable, "-c", f"{modules}\n{ORDINARY}\n{program}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=without_limit,
    )


def said(program: str, *arguments: str, folder: Path) -> list[str]:
    """The lines that `program` writes."""
    process = python(program, *arguments, folder=folder)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.splitlines()


def without_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


@contextmanager
def victim(how: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process with a canary in its memory, and where that is."""
    process = python(VICTIM, how, folder=folder)
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate(timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that anybody may write to who is in it."""
    tmp_path.chmod(0o777)
    return tmp_path


@pytest.mark.parametrize(("how", "dumped"), [("plain", True), ("hardened", False)])
def test_k5_a_process_that_is_aborted_leaves_no_core(how: str, dumped: bool, folder: Path) -> None:
    with victim(how, folder) as (process, _):
        process.send_signal(signal.SIGABRT)
        _, status = os.waitpid(process.pid, 0)
        process.returncode = -os.WTERMSIG(status)
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert os.WCOREDUMP(status) is dumped
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" not in pattern and "|" not in pattern:
        cores = [path.read_bytes() for path in folder.iterdir()]
        assert [b"canary-7f3a" in core for core in cores] == ([True] if dumped else [])


@pytest.mark.parametrize(
    ("how", "seen"),
    [
        ("plain", ["b'canary-7f3a'", "environ is readable"]),
        ("hardened", ["Permission denied", "Permission denied"]),
    ],
)
def test_k5_another_process_of_the_same_user_cannot_read_its_memory(
    how: str, seen: list[str], folder: Path
) -> None:
    with victim(how, folder) as (process, address):
        assert said(READER, str(process.pid), str(address), folder=folder) == seen


def test_children_inherit_that_they_leave_no_core(folder: Path) -> None:
    program = textwrap.dedent(
        """
        import subprocess
        from federation.hardening import harden
        harden()
        files = ["/proc/self/limits", "/proc/self/coredump_filter"]
        print(subprocess.run(["cat", *files], capture_output=True, check=True, text=True).stdout.rstrip())
        """
    )
    *limits, dumped = said(program, folder=folder)
    (core,) = [line.split() for line in limits if line.startswith("Max core file size")]
    assert core[4:6] == ["0", "0"]
    assert int(dumped, 16) == 0


def test_a_hardened_process_takes_its_own_certificate_from_memory(folder: Path) -> None:
    """`/proc/self` belongs to root in a process that is not dumpable; its own descriptors stay its own."""
    program = textwrap.dedent(
        """
        from federation.api.tls import in_memory
        from federation.hardening import harden
        harden()
        with in_memory(b"words") as file:
            print(file.read_bytes())
        """
    )
    assert said(program, folder=folder) == ["b'words'"]
