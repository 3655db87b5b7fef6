"""What must survive and agree: the registry, tokens and the audit, behind compare-and-set on every write.

`Store` is the contract; `MemoryStore` is its reference and the double for tests, `SqliteStore` keeps it on
disk, and `WatchedStore` knows whether the one that it stands before works.
"""

from federation.store.contract import (
    Change,
    ChangeRefused,
    Committed,
    Conflict,
    Fenced,
    Image,
    Outcome,
    Row,
    Store,
    Term,
    Unknown,
)
from federation.store.memory import MemoryStore
from federation.store.sqlite import SqliteStore
from federation.store.watched import WatchedStore

__all__ = [
    "Change",
    "ChangeRefused",
    "Committed",
    "Conflict",
    "Fenced",
    "Image",
    "MemoryStore",
    "Outcome",
    "Row",
    "SqliteStore",
    "Store",
    "Term",
    "Unknown",
    "WatchedStore",
]
