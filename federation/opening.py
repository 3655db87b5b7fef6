"""Whom an agent must have heard before its own word may take anything away.

A gateway takes what is missing from its configuration for gone, and so does a peer with what we say of ourselves. An
agent that has served its gateways from the memory that is on its disk serves them again at once, also with no hub:
what this memory lacks, they lack already. One without such a memory hears first the registry, and every member in it;
meanwhile its gateways go on with what they have on disk. In the same way it tells others at once where it is reached,
if it has told them from this memory; if it spoke in an earlier epoch only, it waits for one of its gateways.

A member that nobody has heard for long cannot be waited for without end. The wait is `PATIENCE`, counted while the hub
is connected and the registry known: with no hub nobody can be heard, so nothing is concluded from silence. For the
registry itself the wait has no end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from federation.model import HUB, View

PATIENCE = 30.0
"""Seconds. Others need about half of it at most to find a hub that has just returned, and to tell it all again."""

LONGEST_STEP = 2.0
"""Seconds that count of one step: a process that was stopped for longer has heard nobody meanwhile."""


@dataclass(frozen=True, slots=True)
class Known:
    """`owners` are those whose word we have in full, `epoch` is the one in which we speak: the first is 1."""

    owners: frozenset[str]
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Opening:
    """`served` and `told`: our gateways, and the others, have had a whole word that came from the memory on our disk.
    `waited` is in seconds."""

    served: bool = False
    told: bool = False
    unheard: frozenset[str] = frozenset({HUB})
    no_gateway: bool = False
    waited: float = 0.0

    @property
    def may_serve(self) -> bool:
        """Whether our gateways may be told what there is, and what there is not."""
        return self.served or not self.unheard

    @property
    def may_tell(self) -> bool:
        """Whether the others may be told where we are reached."""
        return self.told or not self.no_gateway

    def advance(self, view: View, known: Known, elapsed: float) -> Opening:
        """How things stand with `view`, `elapsed` seconds later."""
        unheard = frozenset({HUB, *view.members}) - {view.me.name} - known.owners
        forgot = known.epoch > 1 and not any(one.serving for one in view.gateways.values())
        counts = view.hub_up and HUB not in unheard
        waited = self.waited + min(elapsed, LONGEST_STEP) if counts else self.waited
        if waited >= PATIENCE:
            unheard, forgot = unheard & {HUB}, False
        return replace(self, unheard=unheard, no_gateway=forgot, waited=waited)

    def reasons(self) -> tuple[str, ...]:
        """What is waited for, and for how long still, as people read it."""
        left = f"at most {max(0.0, PATIENCE - self.waited):.0f} s more with the hub connected"
        found: list[str] = []
        if not self.may_serve:
            if HUB in self.unheard:
                found.append("the registry from the hub")
            if members := sorted(self.unheard - {HUB}):
                found.append(f"the first word of {', '.join(members)} ({left})")
        if not self.may_tell:
            found.append(f"a gateway of this cluster, which others still know of ({left})")
        return tuple(found)
