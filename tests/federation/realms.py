"""A cluster whose authority is replaced, with one other member that a test holds by the hand."""

from __future__ import annotations

from datetime import timedelta

from federation.api.messages import LeavesStatus
from federation.blocking import Kind, Seen
from pki.lineage import Lineage
from pki.rotation import Report, Rotation
from tests.federation.world import NOW


class Realm:
    """A cluster whose only other member does at once what a phase says, unless it is `away`."""

    me = "west"
    process = "the agent"
    kind: Kind = "cluster"
    automatic = False

    def __init__(self, lineage: Lineage) -> None:
        self.lineage = lineage
        self.away = False
        self.asked = False
        self.renewed = 0

    async def prepare(self) -> None: ...

    async def follow(self) -> None: ...

    async def renew_all(self) -> None:
        self.asked = True

    def leaves(self) -> LeavesStatus | None:
        waiting = ("gateway gw-0, connected", "gateway gw-1, connected")[self.renewed :]
        return LeavesStatus(asked_at=NOW, renewed=self.renewed, waiting=waiting) if self.asked else None

    def members(self) -> frozenset[str]:
        return frozenset({"west", "central"})

    def unawaited(self) -> tuple[str, ...]:
        return ("north: it is quarantined",)

    def reports(self, rotation: Rotation) -> dict[str, Report]:
        rule = rotation.rule
        obeyed = Report(rotation.token, rule.anchors, rule.issuer, frozenset({rule.issuer}))
        return {"west": obeyed} if self.away else {"west": obeyed, "central": obeyed}

    def seen(self, member: str) -> Seen:
        return Seen(connected=False, silent_since=NOW - timedelta(hours=1))

    def lagging(self, rotation: Rotation) -> tuple[str, ...]:
        return ()
