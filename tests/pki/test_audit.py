from __future__ import annotations

from datetime import timedelta

from pki.audit import Outcome, history, selected
from pki.ledger import Continued, Failed, Opened, Revoked
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
    assert [one.intent.serial for one in selected(told, identity="spiffe://a/y")] == ["2"]
    assert selected(told, since=NOW) == told
    assert selected(told, since=NOW + timedelta(seconds=1)) == ()


def test_of_what_was_carried_over_only_what_goes_on_is_told() -> None:
    first = Continued(NOW, OURS, 9, "00" * 32, (), (intent(7),), (), 0)
    told = history((first, released(6), released(7), Revoked(NOW, "6", "unspecified", "ada", "x")))
    assert [(one.intent.serial, one.outcome) for one in told] == [("7", Outcome.RELEASED)]
    assert history((intent(7), first)) == history((intent(7),))
