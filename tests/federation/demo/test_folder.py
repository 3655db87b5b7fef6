"""The folder of a demo: ours alone, and gone afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.demo.folder import ENDING, MARK, default_folder, private, state_of
from federation.errors import FederationError

ALL_MAY = 0o755


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A folder is made once a process, which then ends: it leaves signals held back."""
    yield
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a demo without `--directory` goes, below a short name: unix sockets in it may have 107 bytes (unix(7))."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("d")))
    return default_folder()


def refusal(folder: Path) -> FederationError:
    with pytest.raises(FederationError) as refused, private(folder):
        pass
    return refused.value


def test_it_is_made_for_us_alone_and_removed(place: Path) -> None:
    with private(place) as folder:
        assert (folder, folder.stat().st_mode & 0o777) == (place, 0o700)
        (folder / "file").touch()
    assert not place.exists()


def test_an_empty_one_of_ours_is_used(place: Path) -> None:
    place.mkdir(0o700)
    with private(place) as folder:
        assert folder == place
    assert not place.exists()


def test_one_that_lets_others_in_is_refused_and_stays(place: Path) -> None:
    place.mkdir()
    place.chmod(ALL_MAY)
    refused = refusal(place)
    assert str(refused) == f"{place} lets others in (its mode is 0755)"
    assert "choose another --directory" in refused.hint
    assert "chmod" not in str(refused) + refused.hint
    assert place.stat().st_mode & 0o777 == ALL_MAY


def test_a_link_is_refused_and_what_it_names_stays(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(0o700)
    place.symlink_to(other)
    assert "is not a folder" in str(refusal(place))
    assert other.exists()


def test_a_file_is_refused_and_stays(place: Path) -> None:
    place.touch()
    assert "is not a folder" in str(refusal(place))
    assert place.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_one_of_somebody_else_is_refused_and_stays(place: Path) -> None:
    place.mkdir(0o700)
    os.chown(place, 12345, 12345)
    refused = refusal(place)
    assert "belongs to user 12345, not to us (0)" in str(refused)
    assert "choose another --directory" in refused.hint
    assert place.exists()


def test_one_that_is_not_empty_is_refused_and_stays(place: Path) -> None:
    place.mkdir(0o700)
    (place / "hub.yaml").touch()
    refused = refusal(place)
    assert "is not empty" in str(refused)
    assert "rm -r" not in refused.hint
    assert (place / "hub.yaml").exists()
    with pytest.raises(FederationError, match="is not empty, and no demo is up there") as asked:
        state_of(place)
    assert "rm -r" not in asked.value.hint


def test_parents_that_it_made_are_removed_with_it_and_others_stay(place: Path) -> None:
    below = place / "a" / "b"
    with private(below):
        assert below.is_dir()
    assert not place.exists()
    place.mkdir()
    with private(below):
        (place / "letter").touch()
    assert [one.name for one in place.iterdir()] == ["letter"]
    (place / "file").touch()
    assert "Not a directory" in str(refusal(place / "file" / "b"))


def test_while_it_is_used_nobody_else_gets_it(place: Path) -> None:
    with private(place):
        refused = refusal(place)
        assert str(refused) == f"another demo is up in {place}"
        assert place.exists()


def test_what_a_killed_demo_left_is_refused_with_the_way_to_remove_it(place: Path) -> None:
    place.mkdir(0o700)
    (place / MARK).touch()
    refused = refusal(place)
    assert str(refused) == f"{place} is what a demo left that failed or was killed"
    assert f"rm -r {place}" in refused.hint


def test_a_failed_demo_keeps_its_logs_and_any_other_end_does_not(place: Path) -> None:
    with pytest.raises(KeyboardInterrupt), private(place):
        raise KeyboardInterrupt
    assert not place.exists()
    with pytest.raises(FederationError), private(place):
        raise FederationError("the hub stopped by itself")
    assert "is what a demo left" in str(refusal(place))


def test_the_state_is_read_while_the_demo_is_up(place: Path) -> None:
    with private(place) as folder:
        with pytest.raises(FederationError, match="has not started all of it yet"):
            state_of(place)
        state = folder / "demo.json"
        state.touch(0o600)
        state.write_bytes(b'{"hub": {}}')
        assert state_of(place) == {"hub": {}}
        state.write_bytes(b"")
        with pytest.raises(FederationError, match="cannot be read"):
            state_of(place)


def test_no_state_where_no_demo_is_up(place: Path) -> None:
    with pytest.raises(FederationError, match="no demo is up in") as missing:
        state_of(place)
    assert missing.value.hint == "start one with `federation demo up`"
    place.mkdir(0o700)
    (place / MARK).touch()
    (place / "demo.json").touch(0o600)
    with pytest.raises(FederationError, match="is what a demo left that failed or was killed") as left:
        state_of(place)
    assert f"rm -r {place}" in left.value.hint


def test_nobody_reads_the_state_that_somebody_else_prepared(place: Path, tmp_path: Path) -> None:
    with private(place) as folder:
        other = tmp_path / "prepared.json"
        other.touch(0o600)
        (folder / "demo.json").symlink_to(other)
        with pytest.raises(FederationError, match="is a symbolic link"):
            state_of(place)


def test_a_path_too_long_for_sockets_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 20)
    refused = refusal(long)
    assert "too long for the unix sockets" in str(refused)
    assert not long.exists()
