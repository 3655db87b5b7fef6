from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki import chain, durable
from pki.errors import JournalError, KeyFileError
from pki.journal import Head, Journal, earlier_parts, examine, records, verify
from pki.ledger import Banned, Continued, Failed, Intent, Ledger, Listed, Record, Released, Revoked, Unbanned
from pki.skew import MOST_SKEW
from tests.pki.world import NOW

OURS = "aa" * 32
DAY = timedelta(days=1)


def intent(
    serial: int, identity: str = "spiffe://a/x", spki: str = "11", replaces: int | None = None
) -> Intent:
    return Intent(
        at=NOW,
        serial=f"{serial:x}",
        digest="00",
        profile="gateway",
        identity=identity,
        spki=spki,
        not_after=NOW + DAY,
        who="tester",
        why="test",
        replaces=None if replaces is None else f"{replaces:x}",
    )


def released(serial: int) -> Released:
    return Released(NOW, f"{serial:x}", "ff")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    made = Journal(path, OURS, NOW, begin=True)
    yield made
    made.close()


def fill(path: Path, count: int = 5) -> Head:
    journal = Journal(path, OURS, NOW, begin=True)
    for serial in range(1, count + 1):
        journal.append(intent(serial, spki=f"{serial:x}"))
        journal.append(released(serial))
    journal.close()
    return journal.head


def test_what_was_written_is_found_again(path: Path) -> None:
    head = fill(path)
    assert head.lines == 11
    assert verify(path, OURS) == head
    assert verify(path, OURS, head) == head
    again = Journal(path, OURS, NOW)
    assert again.head == head
    assert {entry.serial for entry in again.ledger(NOW)} == {1, 2, 3, 4, 5}
    assert again.last == NOW
    again.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_s3_the_ledger_forgets_only_what_no_clock_takes_for_valid(journal: Journal) -> None:
    journal.append(intent(7, "spiffe://a/x", "kk"))
    assert journal.ledger(NOW) == ()
    assert journal.uses(7)
    journal.append(released(7))
    assert journal.holder("kk") == "spiffe://a/x"
    assert [entry.serial for entry in journal.ledger(NOW + DAY + MOST_SKEW)] == [7]
    ended = NOW + DAY + MOST_SKEW + timedelta(seconds=1)
    assert journal.ledger(ended) == ()
    journal.forget(ended)
    assert journal.holder("kk") is None
    assert journal.ledger(NOW) == ()


def test_a_look_with_a_clock_that_is_wrong_forgets_nothing(journal: Journal) -> None:
    journal.append(intent(7, "spiffe://a/x", "kk"), released(7))
    before = journal.ledger(NOW)
    assert journal.ledger(NOW + 10 * DAY) == ()
    assert journal.ledger(NOW) == before
    assert journal.entry(7) == before[0], "so that its holder may renew"
    assert journal.holder("kk") == "spiffe://a/x"


def test_s3_what_failed_is_not_in_the_ledger(journal: Journal) -> None:
    journal.append(intent(7))
    journal.append(Failed(NOW, "7", "no"))
    assert journal.ledger(NOW) == ()


def test_successors_are_recorded(journal: Journal) -> None:
    for record in (intent(1, spki="aa"), released(1), intent(2, spki="bb", replaces=1), released(2)):
        journal.append(record)
    first, second = journal.ledger(NOW)
    assert first.successors == {"bb"}
    assert second.successors == frozenset()


@pytest.mark.parametrize(
    "records",
    [[released(1)], [intent(1), intent(1)], [intent(1), released(1), intent(1)], [Failed(NOW, "1", "")]],
)
def test_results_follow_intents_and_serials_are_used_once(journal: Journal, records: list[Record]) -> None:
    for record in records[:-1]:
        journal.append(record)
    head = journal.head
    with pytest.raises(JournalError):
        journal.append(records[-1])
    assert journal.head == head


@pytest.mark.parametrize(
    "records",
    [
        [intent(1), released(1), released(1)],
        [intent(1), intent(1)],
        [intent(1), released(2)],
        [intent(1), Failed(NOW, "1", ""), intent(1)],
    ],
)
def test_of_records_that_cannot_come_together_none_is_written(
    path: Path, journal: Journal, records: list[Record]
) -> None:
    head, before = journal.head, path.read_bytes()
    with pytest.raises(JournalError):
        journal.append(*records)
    assert journal.head == head
    assert path.read_bytes() == before
    assert not journal.uses(1)


def test_many_records_cost_one_fsync_and_are_the_lines_that_they_are_one_by_one(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [
        record for serial in range(1, 9) for record in (intent(serial, spki=f"{serial:x}"), released(serial))
    ]
    one_by_one, together = (
        Journal(tmp_path / "one", OURS, NOW, begin=True),
        Journal(path, OURS, NOW, begin=True),
    )
    for record in records:
        one_by_one.append(record)
    calls: list[int] = []
    real = os.fsync

    def counted(file: int) -> None:
        calls.append(file)
        real(file)

    monkeypatch.setattr(os, "fsync", counted)
    together.append(*records)
    assert len(calls) == 1
    assert together.head == one_by_one.head
    assert path.read_bytes() == (tmp_path / "one").read_bytes()
    assert together.ledger(NOW) == one_by_one.ledger(NOW)
    together.close()
    one_by_one.close()


changes = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 10**6), st.integers(1, 255)),
    st.tuples(st.just("cut line"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("swap"), st.integers(0, 9), st.integers(0, 9)),
    st.tuples(st.just("repeat"), st.integers(0, 10), st.just(0)),
    st.tuples(st.just("truncate"), st.integers(0, 10**6), st.just(0)),
)


@given(changes)
def test_s1_no_change_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, change: tuple[str, int, int]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    head = fill(path)
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    kind, where, what = change
    match kind:
        case "flip":
            at = where % len(data)
            changed = data[:at] + bytes([data[at] ^ what]) + data[at + 1 :]
        case "cut line":
            changed = b"".join(lines[:where] + lines[where + 1 :])
        case "swap":
            lines[where], lines[what] = lines[what], lines[where]
            changed = b"".join(lines)
        case "repeat":
            changed = b"".join(lines[: where + 1] + lines[where:])
        case _:
            changed = data[: where % len(data)]
    path.write_bytes(changed)
    if changed == data:
        assert verify(path, OURS, head) == head
    else:
        with pytest.raises(JournalError):
            verify(path, OURS, head)


# ---- in parts --------------------------------------------------------------------------------------------------------

SHORT = 2000
"""Bytes; a part of so many holds three or four certificates."""


def fill_parts(path: Path, count: int = 20, fresh: int = 5) -> Head:
    """As `fill` does, in short parts; all but the last `fresh` certificates end at `NOW`."""
    journal = Journal(path, OURS, NOW - 2 * DAY, begin=True, longest_part=SHORT)
    for serial in range(1, count + 1):
        ends = NOW - DAY if serial <= count - fresh else NOW + DAY
        made = msgspec.structs.replace(intent(serial, spki=f"{serial:x}"), not_after=ends)
        journal.append(made, released(serial))
    journal.close()
    return journal.head


def test_a_long_journal_goes_on_in_another_file_that_needs_none_before_it(path: Path) -> None:
    head = fill_parts(path)
    parts = earlier_parts(path)
    assert len(parts) > 3
    assert all(part.stat().st_size <= SHORT for part in parts)
    assert all(part.stat().st_mode & 0o777 == 0o600 for part in parts)
    assert verify(path, OURS, head) == head
    for part in parts:
        part.rename(path.parent / f"elsewhere-{part.name}")
    again = Journal(path, OURS, NOW)
    assert again.head == head
    assert {entry.serial for entry in again.ledger(NOW)} == {16, 17, 18, 19, 20}
    again.append(intent(99, spki="99"), released(99))
    again.close()
    assert examine(path, OURS, (head,)).since.lines > 0


@pytest.mark.parametrize("opened_again", [False, True])
def test_a_part_holds_as_much_again_as_it_carries_over(path: Path, opened_again: bool) -> None:
    """Else every record would begin a part, and copy all that lives, once what lives is as long as a part."""
    journal = Journal(path, OURS, NOW, begin=True, longest_part=SHORT)
    for serial in range(1, 201):
        journal.append(intent(serial, spki=f"{serial:x}"), released(serial))
        if opened_again and serial % 10 == 0:
            journal.close()
            journal = Journal(path, OURS, NOW, longest_part=SHORT)
    journal.close()
    first, *others = (part.read_bytes() for part in earlier_parts(path))
    assert len(first) <= SHORT
    assert len(others) > 3
    for part in others:
        carried = part.index(b"\n") + 1
        assert carried <= len(part) - carried + 1000
    assert len(others) < 20


def test_a_long_journal_is_read_part_by_part_with_those_set_aside_meanwhile(path: Path) -> None:
    fill_parts(path)
    reading = records(path)
    first = next(reading)
    journal = Journal(path, OURS, NOW, longest_part=SHORT)
    for serial in range(100, 110):
        journal.append(intent(serial, spki=f"{serial:x}"), released(serial))
    journal.close()
    told = [first, *reading]
    assert told == list(records(path))
    asked = [record.serial for record in told if isinstance(record, Intent)]
    assert asked == [f"{serial:x}" for serial in (*range(1, 21), *range(100, 110))]


def test_a_part_that_is_taken_away_while_it_is_read_is_left_out(path: Path) -> None:
    fill_parts(path)
    reading = records(path)
    next(reading)
    gone = earlier_parts(path)[1]
    gone.unlink()
    assert list(reading) == list(records(path))[1:]


def test_what_is_in_force_is_carried_over(path: Path) -> None:
    journal = Journal(path, OURS, NOW, begin=True, longest_part=SHORT)
    journal.append(intent(1, spki="aa"), released(1), intent(2, spki="bb", replaces=1), released(2))
    journal.append(Revoked(NOW, "2", "cessation_of_operation", "ada", "test"))
    journal.append(Listed(NOW, 7, NOW + DAY))
    journal.append(Banned(NOW, "cluster", "west", "x"), Banned(NOW, "cluster", "east", "x"))
    journal.append(Unbanned(NOW, "cluster", "west"))
    for serial in range(3, 12):
        journal.append(intent(serial, "spiffe://a/y", spki=f"{serial:x}"), released(serial))
    journal.close()
    for part in earlier_parts(path):
        part.unlink()
    again = Journal(path, OURS, NOW)
    assert again.entry(1) is not None
    assert again.entry(1).successors == {"bb"}  # type: ignore[union-attr]
    assert again.holder("bb") == "spiffe://a/x"
    assert again.revoked() == (Revoked(NOW, "2", "cessation_of_operation", "ada", "test"),)
    assert again.number == 7
    assert again.bans() == (Banned(NOW, "cluster", "east", "x"), Unbanned(NOW, "cluster", "west"))
    with pytest.raises(JournalError, match="a second time"):
        again.append(intent(11))
    again.close()


@pytest.mark.parametrize("kind", ["missing", "exchanged", "cut", "edited"])
def test_a_change_of_an_earlier_part_is_found(path: Path, kind: str) -> None:
    head = fill_parts(path)
    parts = earlier_parts(path)
    match kind:
        case "missing":
            parts[1].unlink()
        case "exchanged":
            first, second = parts[0].read_bytes(), parts[1].read_bytes()
            parts[0].write_bytes(second)
            parts[1].write_bytes(first)
        case "cut":
            parts[1].write_bytes(parts[1].read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[0] + b"\n")
        case _:
            parts[1].write_bytes(parts[1].read_bytes().replace(b'"ff"', b'"fe"', 1))
    with pytest.raises(JournalError, match=r"journal\.0|journal:1:"):
        verify(path, OURS, head)
    Journal(path, OURS, NOW).close()


def test_what_is_carried_over_must_be_what_the_part_before_adds_up_to(path: Path) -> None:
    fill_parts(path)
    (first, *rest) = path.read_bytes().splitlines(keepends=True)
    carried = msgspec.json.decode(first.partition(b" ")[2], type=Continued)
    forged = msgspec.structs.replace(carried, living=carried.living[1:])
    begin, head = chain.seal(Head(carried.lines, carried.hash), forged)
    records = [msgspec.json.decode(line.partition(b" ")[2], type=Record) for line in rest]
    durable.write(path, begin + chain.seal(head, *records)[0])
    with pytest.raises(
        JournalError, match="journal:1: carries over what the part before it does not add up to"
    ):
        verify(path, OURS)


def test_a_head_from_before_the_parts_at_hand_asks_for_them(path: Path) -> None:
    fill_parts(path)
    oldest, second = earlier_parts(path)[:2]
    before = Head(
        *msgspec.json.decode(second.read_bytes().split(b"\n")[0].partition(b" ")[2], type=Continued).kept
    )
    oldest.unlink()
    assert verify(path, OURS, before).lines > before.lines
    with pytest.raises(JournalError, match="does not go on from the line"):
        verify(path, OURS, Head(before.lines, "00" * 32))
    with pytest.raises(JournalError, match="put the parts set aside beside it"):
        verify(path, OURS, Head(before.lines - 1, "00" * 32))


def test_a_part_that_cannot_be_begun_stops_issuance_until_it_can(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(path, OURS, NOW, begin=True, longest_part=SHORT)
    journal.append(intent(1, spki="1"), released(1))

    def failing(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", failing)
    more = [
        record for serial in range(2, 6) for record in (intent(serial, spki=f"{serial:x}"), released(serial))
    ]
    head = journal.head
    with pytest.raises(
        JournalError, match="cannot be continued: No space left on device; nothing was signed"
    ):
        journal.append(*more)
    assert journal.head == head
    assert "cannot be continued: No space left" in (journal.problem or "")
    assert earlier_parts(path) == ()
    monkeypatch.undo()
    journal.append(*more)
    assert journal.problem is None
    assert len(earlier_parts(path)) == 1
    journal.close()
    assert verify(path, OURS).lines > head.lines


def test_s1_an_edit_names_the_line(path: Path) -> None:
    fill(path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b'"ff"', b'"fe"')
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match=r"journal:5: does not follow") as refused:
        Journal(path, OURS, NOW)
    assert refused.value.line == 5


def test_s1_a_rewritten_journal_does_not_match_the_head_that_was_kept(path: Path, tmp_path: Path) -> None:
    kept = fill(path)
    other = tmp_path / "other"
    fill(other, 9)
    path.write_bytes(other.read_bytes())
    assert verify(path, OURS, kept).lines == 19
    journal = Journal(tmp_path / "third", OURS, NOW, begin=True)
    for serial in range(1, 9):
        journal.append(intent(serial, f"spiffe://a/{serial}"))
        journal.append(released(serial))
    journal.close()
    with pytest.raises(JournalError, match="not the line that was here"):
        verify(tmp_path / "third", OURS, kept)


def test_another_authoritys_journal_is_refused(path: Path) -> None:
    fill(path)
    with pytest.raises(JournalError, match="another authority"):
        Journal(path, "bb" * 32, NOW)
    with pytest.raises(JournalError, match="does not exist"):
        verify(path.with_name("none"), OURS)


def test_a_journal_that_is_gone_is_not_begun_anew(path: Path) -> None:
    with pytest.raises(JournalError, match="does not exist; restore it"):
        Journal(path, OURS, NOW)
    assert not path.exists()
    for left in (b"", b"what was saved in its place"):
        durable.write(path, left)
        with pytest.raises(JournalError, match="has no whole line; restore it"):
            Journal(path, OURS, NOW)
        assert path.read_bytes() == left


def test_a_line_cut_short_by_a_crash_is_dropped_and_intents_are_closed(path: Path) -> None:
    journal = Journal(path, OURS, NOW, begin=True)
    journal.append(intent(1))
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[-1][:50])
    again = Journal(path, OURS, NOW + DAY)
    assert again.ledger(NOW) == ()
    again.close()
    assert path.read_bytes().startswith(whole)
    assert b'"failed"' in path.read_bytes().splitlines()[-1]
    assert verify(path, OURS).lines == 3


def test_k7_only_one_process_writes(path: Path, journal: Journal) -> None:
    with pytest.raises(JournalError, match="in use by another process"):
        Journal(path, OURS, NOW)
    journal.close()
    Journal(path, OURS, NOW).close()


def test_a_loose_or_linked_journal_is_refused(path: Path, tmp_path: Path) -> None:
    fill(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 0600"):
        Journal(path, OURS, NOW)
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(tmp_path / "link", OURS, NOW)


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_s2_a_full_disk_refuses_and_recovers(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    head = fill(path)
    journal = Journal(path, OURS, NOW)
    real, failures = getattr(os, call), iter([True])

    def failing(*args: Any) -> Any:
        if next(failures, False):
            if call == "pwrite":
                real(args[0], bytes(args[1])[:20], args[2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(JournalError, match="No space left on device; nothing was signed"):
        journal.append(intent(99))
    assert journal.head == head
    assert verify(path, OURS) == head
    journal.append(intent(99))
    journal.append(released(99))
    journal.close()
    assert verify(path, OURS, head).lines == head.lines + 2


FULL = textwrap.dedent(
    """
    import resource, sys
    from datetime import datetime, timezone
    from pathlib import Path
    from pki.errors import JournalError
    from pki.journal import Journal
    from pki.ledger import Intent, Released

    now = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)
    journal = Journal(Path(sys.argv[1]), sys.argv[2], now, begin=True)
    room = Path(sys.argv[1]).stat().st_size + 1000
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    signed = 0
    try:
        for serial in map(str, range(9)):
            journal.append(Intent(now, serial, "00", "gateway", "spiffe://a/x", serial, now, "tester", "test"))
            journal.append(Released(now, serial, "ff"))
            signed += 1
    except JournalError as error:
        print(signed, error.reason, journal.problem is not None, sep="|")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    journal.append(Intent(now, "aa", "00", "gateway", "spiffe://a/x", "aa", now, "tester", "test"))
    print(journal.problem)
    """
)


def test_s2_a_file_that_may_not_grow_stops_issuance_and_is_whole(path: Path) -> None:
    """A real limit of the kernel (setrlimit(2), RLIMIT_FSIZE), under which a write ends in the middle of a line."""
    child = subprocess.run(
        [sys.executable, "-c", FULL, str(path), OURS],
        cwd=Path(__file__).parents[2],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    refused, after = child.stdout.splitlines()
    assert refused.split("|")[1:] == ["cannot be written: File too large; nothing was signed", "True"]
    assert 1 <= int(refused.split("|")[0]) < 9
    assert after == "None"
    verify(path, OURS)


def test_s2_a_disk_that_is_gone_stops_issuance_for_good(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)
    journal = Journal(path, OURS, NOW)

    def failing(*args: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(JournalError, match="Input/output error"):
        journal.append(intent(99))
    monkeypatch.undo()
    with pytest.raises(JournalError, match="closed"):
        journal.append(intent(99))
    journal.close()
    Journal(path, OURS, NOW).close()


KILLED = textwrap.dedent(
    """
    import os, sys
    from datetime import datetime, timezone
    from pathlib import Path
    from pki.journal import Journal
    from pki.ledger import Intent, Released

    calls, stop = 0, int(sys.argv[2])

    def dying(name, real):
        def call(*args, **kwargs):
            global calls
            calls += 1
            if calls == stop:
                if name == "pwrite":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2], args[2])
                os.kill(os.getpid(), 9)
            return real(*args, **kwargs)
        return call

    for name in ("open", "pwrite", "fsync", "ftruncate", "link", "unlink", "write"):
        setattr(os, name, dying(name, getattr(os, name)))
    now = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)
    journal = Journal(Path(sys.argv[1]), sys.argv[3], now, begin=True)
    for serial in ("1", "2"):
        journal.append(Intent(now, serial, "00", "gateway", "spiffe://a/x", serial, now, "tester", "test"))
        journal.append(Released(now, serial, "ff"))
        print(serial, flush=True)
    os._exit(0)
    """
)
IN_PARTS = KILLED.replace("begin=True)", "begin=True, longest_part=700)").replace(
    '"write"', '"write", "replace"'
)


@pytest.mark.parametrize("program", [KILLED, IN_PARTS], ids=["one part", "parts"])
def test_s1_a_kill_at_any_system_call_loses_no_acknowledged_line(tmp_path: Path, program: str) -> None:
    call, killed = 0, True
    while killed:
        call += 1
        path = tmp_path / str(call) / "journal"
        path.parent.mkdir()
        command = [sys.executable, "-c", program, str(path), str(call), OURS]
        child = subprocess.run(
            command, cwd=Path(__file__).parents[2], check=False, timeout=60, capture_output=True, text=True
        )
        assert child.returncode in (0, -9), child.stderr
        killed = child.returncode == -9
        acknowledged = {int(line) for line in child.stdout.split()}
        durable.sweep(path.parent)
        journal = Journal(path, OURS, NOW, begin=True)
        found = {entry.serial for entry in journal.ledger(NOW)}
        assert acknowledged <= found <= {1, 2}
        journal.append(intent(3, spki="3"))
        journal.append(released(3))
        journal.close()
        verify(path, OURS, journal.head)
    assert call > 12
    assert (program is IN_PARTS) == bool(earlier_parts(path))


LIVES = st.tuples(st.integers(0, 50), st.integers(1, 40), st.sampled_from(["11", "22", "33"]))
"""Hours since the one before, hours until it ends, and its key."""


@given(st.lists(LIVES, max_size=40), st.booleans())
def test_forgetting_as_it_goes_is_the_same_as_looking_at_all_that_was_ever_handed_out(
    issued: list[tuple[int, int, str]], looks_ahead: bool
) -> None:
    ledger, now = Ledger(), NOW
    ever: dict[int, tuple[str, datetime]] = {}
    for serial, (wait, life, spki) in enumerate(issued, start=1):
        now += timedelta(hours=wait)
        ends = now + timedelta(hours=life)
        made = intent(serial, f"spiffe://a/{spki}", spki)
        ledger.add(msgspec.structs.replace(made, at=now, not_after=ends))
        ledger.add(released(serial))
        ever[serial] = (spki, ends)
        if looks_ahead:
            soon = now + timedelta(hours=20)
            later = {one for one, (_, end) in ever.items() if soon <= end + MOST_SKEW}
            assert {entry.serial for entry in ledger.living(soon)} == later
        ledger.forget(now)
        living = {one: key for one, (key, end) in ever.items() if now <= end + MOST_SKEW}
        assert {entry.serial for entry in ledger.living(now)} == living.keys()
        for key in ("11", "22", "33"):
            assert ledger.holder(key) == (f"spiffe://a/{key}" if key in living.values() else None)
        for one in ever:
            assert ledger.uses(one) == (one in living)


def test_with_which_bundle_a_leaf_was_given_is_known_after_a_restart_and_in_a_later_part(path: Path) -> None:
    journal = Journal(path, OURS, NOW, begin=True, longest_part=2000)
    for serial in range(1, 9):
        journal.append(msgspec.structs.replace(intent(serial), bundle=serial // 2))
        journal.append(released(serial))
    expected = {serial: serial // 2 for serial in range(1, 9)}
    assert {entry.serial: entry.bundle for entry in journal.ledger(NOW)} == expected
    journal.close()
    assert earlier_parts(path)
    assert verify(path, OURS).lines == journal.head.lines
    again = Journal(path, OURS, NOW)
    assert {entry.serial: entry.bundle for entry in again.ledger(NOW)} == expected
    again.close()
