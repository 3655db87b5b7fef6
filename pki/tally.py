"""What an authority has given out and refused since its process started, counted for whoever watches it.

Counted are whole outcomes, so that nothing here knows how a certificate comes about. Both keys of a count come from
closed sets: profiles are ours, and reasons are classes, never the words of a message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from pki.errors import (
    ClockError,
    JournalError,
    KeyFileError,
    PkiError,
    Refused,
    Untrusted,
    VaultError,
    WriteError,
)

FIELDS = frozenset({"caller", "csr", "epoch", "identity", "key", "lifetime", "rate", "renewal", "token"})
"""What may be wrong with a request, as `Refused.field` has it; all else counts as `request`."""


class Tally:
    """Counts, for as long as a process lives. `issued` is by profile, `refused` by profile and reason."""

    def __init__(self) -> None:
        self.issued = Counter[str]()
        self.refused = Counter[tuple[str, str]]()

    def add(self, profile: str, error: PkiError | None) -> None:
        """One certificate of `profile` was given out, or refused because of `error`."""
        if error is None:
            self.issued[profile] += 1
        else:
            self.refused[profile, reason_of(error)] += 1

    def refuse(self, profile: str, field: str) -> None:
        """One was refused before an authority was asked, because of `field` in the request."""
        self.refused[profile, _field(field)] += 1

    @contextmanager
    def counting(self, profile: str) -> Iterator[None]:
        """Count one certificate: given out if the block ends well, refused if it raises a `PkiError`."""
        try:
            yield
        except PkiError as error:
            self.add(profile, error)
            raise
        self.add(profile, None)


def reason_of(error: PkiError) -> str:
    """The class that an error counts as."""
    match error:
        case Refused(field=field):
            return _field(field)
        case JournalError():
            return "journal"
        case ClockError():
            return "clock"
        case Untrusted():
            return "second_look"
        case VaultError() | KeyFileError() | WriteError():
            return "key_store"
        case _:
            return "other"


def _field(field: str) -> str:
    return field if field in FIELDS else "request"


@runtime_checkable
class Tallied(Protocol):
    """Whoever signs, and counts what it signs."""

    @property
    def tally(self) -> Tally: ...
