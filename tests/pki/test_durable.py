from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pki import durable
from pki.errors import KeyFileError, WriteError

SYSCALLS = ("open", "fchmod", "write", "fsync", "close", "replace", "link", "unlink")

CRASH = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from pki import durable

    calls, stop = 0, int(sys.argv[2])

    def dying(real):
        def call(*args, **kwargs):
            global calls
            calls += 1
            if calls == stop:
                if real is REAL["write"]:
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), 9)
            return real(*args, **kwargs)
        return call

    REAL = {name: getattr(os, name) for name in sys.argv[4:]}
    for name, real in REAL.items():
        setattr(os, name, dying(real))
    getattr(durable, sys.argv[3])(Path(sys.argv[1]), b"new" * 1000)
    os._exit(0)
    """
)


def run_until_crash(path: Path, call: int, function: str) -> bool:
    """Run `function` in a child that is killed at its `call`-th system call; say whether it was killed."""
    command = [sys.executable, "-c", CRASH, str(path), str(call), function, *SYSCALLS]
    child = subprocess.run(command, cwd=Path(__file__).parents[2], check=False, timeout=60)
    assert child.returncode in (0, -9)
    return child.returncode == -9


@pytest.mark.parametrize("function", ["write", "create"])
def test_k6_a_kill_at_any_system_call_leaves_the_old_bytes_or_the_new(tmp_path: Path, function: str) -> None:
    call, outcomes = 0, set[bytes | None]()
    old = b"old" if function == "write" else None
    killed = True
    while killed:
        call += 1
        path = tmp_path / str(call) / "state"
        path.parent.mkdir()
        if old is not None:
            path.write_bytes(old)
        killed = run_until_crash(path, call, function)
        found = path.read_bytes() if path.exists() else None
        assert found in (old, b"new" * 1000)
        outcomes.add(found)
        durable.sweep(path.parent)
        assert set(os.listdir(path.parent)) <= {"state"}
    assert outcomes == {old, b"new" * 1000}
    assert call > 8


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], None]]:
    def fail(name: str, code: int) -> None:
        def call(*args: Any, **kwargs: Any) -> Any:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, name, call)

    yield fail
    monkeypatch.undo()


@pytest.mark.parametrize("name", ["open", "fchmod", "write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_system_call_is_an_error_that_names_the_path(
    tmp_path: Path, failing: Callable[[str, int], None], name: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")
    failing(name, code)
    with pytest.raises(WriteError) as refused:
        durable.write(path, b"new")
    monkeypatch.undo()
    assert str(path) in str(refused.value)
    assert os.strerror(code) in str(refused.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state"]


def test_k6_a_disk_that_takes_no_more_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(WriteError, match=r"cannot write .*/state: File too large"):
            durable.write(path, b"x" * 1001)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data[:7])))
    durable.write(tmp_path / "state", b"x" * 100)
    assert (tmp_path / "state").read_bytes() == b"x" * 100


def test_k1_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = durable.private_folder(tmp_path / "a" / "keys")
        durable.write(folder / "secret", b"x")
        durable.write(folder / "public", b"x", mode=0o644)
        os.umask(0o777)
        durable.write(folder / "hidden", b"x")
    finally:
        os.umask(before)
    assert (folder.stat().st_mode & 0o777) == 0o700
    modes = {name: (folder / name).stat().st_mode & 0o777 for name in ("secret", "public", "hidden")}
    assert modes == {"secret": 0o600, "public": 0o644, "hidden": 0o600}


@pytest.mark.parametrize("replace", [durable.write, durable.create])
def test_what_is_no_file_is_not_replaced_by_one(
    tmp_path: Path, replace: Callable[[Path, bytes], None]
) -> None:
    """Whoever writes to /dev/null as root must not put a file in its place."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(WriteError, match=r"is not a plain file|File exists"):
        replace(pipe, b"x")
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_k1_create_never_replaces(tmp_path: Path) -> None:
    durable.create(tmp_path / "key", b"first")
    with pytest.raises(WriteError, match="File exists"):
        durable.create(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["key"]


def test_k1_create_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WriteError):
        durable.create(tmp_path / "key", b"secret")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("replace", [True, False])
def test_all_files_are_written_or_none(
    tmp_path: Path, replace: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: name.encode() for name in ("a", "b", "c")}
    durable.write_all(tmp_path, files, replace=replace)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    real, left = os.write, [2]

    def full(descriptor: int, data: bytes) -> int:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(WriteError, match="/b: No space left"):
        durable.write_all(tmp_path, dict.fromkeys(files, b"new"), replace=replace)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_what_is_there_is_not_replaced_and_what_came_before_it_is_taken_back(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"old")
    with pytest.raises(WriteError, match="/b: File exists"):
        durable.write_all(tmp_path, {"a": b"new", "b": b"new"}, replace=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"b": b"old"}


def test_a_place_that_is_reserved_takes_the_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with durable.reserved(path, 1000, 0o644) as publish:
        assert not path.exists()
        publish(b"signed")
    assert path.read_bytes() == b"signed"
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["answers"]
    with pytest.raises(WriteError, match="exists already"), durable.reserved(path, 10):
        raise AssertionError("there is a file")
    assert path.read_bytes() == b"signed"


def test_a_place_where_nothing_can_be_written_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none" / "x", "No such file"), (Path("/proc/x"), "/proc/x")):
        with pytest.raises(WriteError, match=why), durable.reserved(path, 10):
            raise AssertionError("nobody can write there")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(WriteError, match="File too large"), durable.reserved(tmp_path / "x", 1001):
            raise AssertionError("there is no room")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(ValueError, match="changed his mind"), durable.reserved(tmp_path / "x", 10):
        raise ValueError("changed his mind")
    assert os.listdir(tmp_path) == []


def test_a_folder_for_what_came_to_nothing_is_taken_away_and_one_that_was_there_stays(tmp_path: Path) -> None:
    def refused(path: Path, leaves: str) -> None:
        with durable.tentative_folder(path):
            if leaves:
                (path / leaves).touch()
            raise ValueError("refused")

    def fail(path: Path, leaves: str = "") -> None:
        with pytest.raises(ValueError, match="refused"):
            refused(path, leaves)

    fail(tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == []
    fail(tmp_path / "a" / "b", leaves="key")
    assert (tmp_path / "a" / "b" / "key").exists()
    (tmp_path / "there").mkdir(mode=0o700)
    fail(tmp_path / "there")
    assert (tmp_path / "there").is_dir()
    with durable.tentative_folder(tmp_path / "made") as made:
        assert made.stat().st_mode & 0o777 == 0o700
    assert made.is_dir()


def test_sweep_removes_only_what_we_left(tmp_path: Path) -> None:
    keep = [".state.partial", "state.0123456789abcdef.partial", ".hidden", "state"]
    for name in [*keep, ".state.0123456789abcdef.partial"]:
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in durable.sweep(tmp_path)] == [".state.0123456789abcdef.partial"]
    assert sorted(os.listdir(tmp_path)) == sorted(keep)


def test_what_cannot_be_swept_away_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    stuck = tmp_path / ".state.0123456789abcdef.partial"
    stuck.mkdir()
    with pytest.raises(WriteError, match=r"which a crash left, cannot be removed: Is a directory") as refused:
        durable.sweep(tmp_path)
    assert refused.value.path == tmp_path
    assert stuck.name in str(refused.value)
    with pytest.raises(WriteError, match="No such file or directory"):
        durable.sweep(tmp_path / "missing")


def test_k1_private_files_are_read_only_if_private(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with pytest.raises(FileNotFoundError):
        durable.read_private(path, 10)
    durable.write(path, b"0123456789")
    assert durable.read_private(path, 10) == b"0123456789"
    with pytest.raises(KeyFileError, match="longer than 9"):
        durable.read_private(path, 9)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match=r"mode 0640.*chmod 0600"):
        durable.read_private(path, 10)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(KeyFileError, match="symbolic link"):
        durable.read_private(tmp_path / "link", 10)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyFileError, match="not a plain file"):
        durable.read_private(tmp_path / "pipe", 10)
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(KeyFileError, match="not a plain file"):
        durable.read_private(tmp_path / "folder", 10)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_private_file_on_a_failing_disk_is_an_error_that_names_it() -> None:
    """At address 0 of a process nothing is mapped, and the kernel answers with EIO."""
    with pytest.raises(KeyFileError, match="/proc/self/mem: cannot be read: Input/output error"):
        durable.read_private(Path("/proc/self/mem"), 10)


def test_k1_loose_folders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(KeyFileError, match="chmod 0700"):
        durable.private_folder(folder)
    folder.chmod(0o700)
    assert durable.private_folder(folder) == folder
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeyFileError, match="not a folder"):
        durable.private_folder(tmp_path / "file")
