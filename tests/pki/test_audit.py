from __future__ import annotations

from datetime import timedelta

import msgspec

from pki.audit import Outcome, history, told
from pki.ledger import (
    Banned,
    Continued,
    Failed,
    Listed,
    Living,
    Opened,
    Record,
    Released,
    Revoked,
    Superseded,
    Unbanned,
)
from tests.pki.test_journal import OURS, intent, released
from tests.pki.world import NOW


def test_each_certificate_is_told_once_with_what_came_of_it() -> None:
    records = (
        Opened(NOW, OURS),
        intent(1),
        intent(2, "spiffe://a/y"),
        released(1),
        Failed(NOW, "2", "no"),
        intent(3),
        intent(4),
        released(4),
        Revoked(NOW, "4", "key_compromise", "ada", "stolen"),
    )
    told = history(records)
    assert [(one.intent.serial, one.outcome, one.note) for one in told] == [
        ("1", Outcome.RELEASED, ""),
        ("2", Outcome.FAILED, "no"),
        ("3", Outcome.OPEN, ""),
        ("4", Outcome.REVOKED, "key_compromise, by ada: stolen"),
    ]
    assert [one.certificate for one in told] == ["ff", None, None, "ff"]
    assert [one.intent.serial for one in history(records, identity="spiffe://a/y")] == ["2"]
    assert history(records, since=NOW) == told
    assert history(records, since=NOW + timedelta(seconds=1)) == ()
    for most in range(1, 6):
        assert history(records, most=most) == told[-most:]


def test_of_what_was_carried_over_only_what_goes_on_is_told() -> None:
    first = Continued(NOW, OURS, 9, "00" * 32, (), (intent(7),), (), 0)
    told = history((first, released(6), released(7), Revoked(NOW, "6", "unspecified", "ada", "x")))
    assert [(one.intent.serial, one.outcome) for one in told] == [("7", Outcome.RELEASED)]
    assert history((intent(7), first)) == history((intent(7),))


def test_every_kind_of_record_is_told_with_whom_it_is_about() -> None:
    records: tuple[Record, ...] = (
        Opened(NOW, OURS),
        intent(1),
        released(1),
        intent(2, "spiffe://a/y"),
        Failed(NOW, "2", "no"),
        intent(3),
        Released(NOW, "3", "ff", numbered="abc"),
        Revoked(NOW, "abc", "superseded", "ada", ""),
        Superseded(NOW, "1", "ee"),
        Listed(NOW, 4, NOW + timedelta(days=7)),
        Banned(NOW, "cluster", "west", "stolen"),
        Unbanned(NOW, "cluster", "west"),
    )
    lines = list(told(records))
    assert [(one.line, one.record) for one in lines] == list(enumerate(records, 1))
    x, y = "spiffe://a/x", "spiffe://a/y"
    asked = f"until {intent(1).not_after:%Y-%m-%d %H:%M}, asked for by {intent(1).who}: {intent(1).why}"
    week = f"{NOW + timedelta(days=7):%Y-%m-%d %H:%M}"
    assert [(one.about, one.says) for one in lines] == [
        (OURS, "the journal of the authority with this key begins"),
        (x, f"gateway 1 {asked}"),
        (x, "1 is handed out"),
        (y, f"gateway 2 {asked}"),
        (y, "2 is not handed out: no"),
        (x, f"gateway 3 {asked}"),
        (x, "3 is handed out under the number abc"),
        (x, "abc is revoked by ada, superseded"),
        (x, "1 is replaced by one for the key ee"),
        ("list 4", f"of what is revoked, good until {week}"),
        ("cluster west", "is banned: stolen"),
        ("cluster west", "the ban is taken back"),
    ]


def test_a_part_of_a_journal_is_told_with_its_own_line_numbers_and_who_lives_there() -> None:
    living = (Living("a", "gateway", "spiffe://a/x", "ff", NOW),)
    first = Continued(NOW, OURS, 9, "00" * 32, living, (), (), 0)
    carried, revoked, unknown = told(
        (first, Revoked(NOW, "a", "unspecified", "ada", "x"), Superseded(NOW, "b", "ee"))
    )
    assert (carried.line, carried.says) == (
        10,
        "goes on after line 9, and carries over 1 certificates that live, 0 bans",
    )
    assert (revoked.line, revoked.about) == (11, "spiffe://a/x")
    assert unknown.about == "serial b"


def test_the_newest_are_told_by_the_time_at_which_they_were_asked_for() -> None:
    times = {"1": NOW, "2": NOW + timedelta(hours=2), "3": NOW + timedelta(hours=1), "4": NOW, "5": NOW}
    asked = [msgspec.structs.replace(intent(int(serial)), at=at) for serial, at in times.items()]
    first = Continued(NOW, OURS, 9, "00" * 32, (), (asked[0],), (), 0)
    newest = history((*asked, first, released(1), released(2)), most=2)
    assert [(one.intent.serial, one.outcome) for one in newest] == [
        ("3", Outcome.OPEN),
        ("2", Outcome.RELEASED),
    ]


def test_who_had_a_certificate_that_had_ended_before_a_part_is_not_kept_in_mind() -> None:
    first = Continued(NOW, OURS, 2, "00" * 32, (), (), (), 0)
    *_, late = told((Opened(NOW, OURS), intent(1), first, Superseded(NOW, "1", "ee")))
    assert late.about == "serial 1"
