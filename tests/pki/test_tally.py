"""What is counted is a whole outcome, under names of closed sets."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pki import errors
from pki.errors import PkiError, Refused
from pki.tally import FIELDS, Tally, reason_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PATH = Path("file")

REASONS: dict[str, PkiError] = {
    "key": Refused("key", "it belongs to somebody else"),
    "request": Refused("trust domain", "it is another one"),
    "journal": errors.JournalError(PATH, 3, "no space left"),
    "clock": errors.ClockError(NOW, NOW, "the hub"),
    "second_look": errors.Untrusted(errors.Distrust.KEY),
    "key_store": errors.VaultError("https://vault", errors.VaultFault.SEALED, "sign"),
    "other": errors.InvalidBundle("empty"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_every_error_has_one_class(reason: str) -> None:
    assert reason_of(REASONS[reason]) == reason


@pytest.mark.parametrize("error", [errors.KeyMissing(PATH), errors.WriteError(PATH, "full")])
def test_a_file_that_cannot_be_used_is_the_key_stores(error: PkiError) -> None:
    assert reason_of(error) == "key_store"


def test_words_of_strangers_are_no_labels() -> None:
    tally = Tally()
    for field in (*sorted(FIELDS), "x" * 1000, "another"):
        tally.refuse("svid", field)
    assert {reason for _, reason in tally.refused} == {*FIELDS, "request"}
    assert tally.refused["svid", "request"] == 2


def test_a_block_is_counted_once_however_it_ends() -> None:
    tally = Tally()
    with tally.counting("intermediate"):
        pass
    with pytest.raises(Refused), tally.counting("intermediate"):
        raise REASONS["key"]
    with pytest.raises(ZeroDivisionError), tally.counting("intermediate"):
        raise ZeroDivisionError
    assert tally.issued == {"intermediate": 1}
    assert tally.refused == {("intermediate", "key"): 1}
