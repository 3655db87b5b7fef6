"""Where journals, and those who keep their heads, are joined to a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rpds import HashTrieMap

from federation.api.routes import not_found
from federation.clock import Clock
from federation.events import HeadsAccepted
from federation.heads import JournalHead, Kept
from federation.hub import Hub
from federation.questions import Answer, Question

if TYPE_CHECKING:
    from federation.agent import Agent

TELL_EVERY = 5.0
"""Seconds between two looks at how far our journals have come: what is cut from their end is noticed from then on."""


async def tell_heads(
    heads: Callable[[], tuple[JournalHead, ...]], tell: Callable[[tuple[JournalHead, ...]], Any], clock: Clock
) -> None:
    """Tell others how far our journals have come, for ever."""
    while True:
        tell(heads())
        await clock.sleep(TELL_EVERY)


class ConnectedAgents:
    """Those who can be asked at the hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    @property
    def connected(self) -> tuple[str, ...]:
        return tuple(known.member.name for known in self._hub.members() if known.connected)

    async def ask(self, cluster: str, path: str, seconds: float) -> Answer:
        """Raises FederationError, also for somebody who is no member."""
        if self._hub.member(cluster) is None:
            raise not_found("cluster", cluster, "see `federation cluster list`")
        return await self._hub.ask(cluster, Question(path), seconds)


class KeptByAgent:
    """The heads of others, as one agent has heard them."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def kept(self) -> Mapping[tuple[str, str], Kept]:
        heads: HashTrieMap[tuple[str, str], Kept] = self._agent.view.heads
        return dict(heads.items())

    def problems(self) -> Iterator[str]:
        for (owner, _), kept in sorted(self.kept().items()):
            if (problem := kept.problem(owner)) is not None:
                yield problem

    async def accept(self, owner: str) -> int:
        """How many journals are taken for right as they are."""
        doubted = sum(name == owner and kept.doubt is not None for (name, _), kept in self.kept().items())
        self._agent.submit(HeadsAccepted(owner))
        return doubted
