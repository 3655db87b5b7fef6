"""What must survive and agree: the registry, tokens and the audit, behind compare-and-set on every write.

`Store` is the contract; `MemoryStore` is its reference and the double for tests, `SqliteStore` keeps it on
disk.
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
]
