"""What ends a sync stream. Whatever concerns one entry only is a refusal, which is a value."""

from __future__ import annotations

from federation.errors import FederationError


class SyncError(FederationError):
    """Base of the errors of this package; `peer` is who was at the other end."""

    def __init__(self, peer: str, problem: str, hint: str = "") -> None:
        super().__init__(problem, hint)
        self.peer = peer

    def __str__(self) -> str:
        return f"sync with {self.peer}: {self.problem}"


class ProtocolViolation(SyncError):
    """The other side broke the rules of the stream, so that nothing more of it can be believed."""


class PeerRefused(SyncError):
    """The other side's certificate does not prove an identity that may be here."""
