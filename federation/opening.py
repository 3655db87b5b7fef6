"""Whom an agent must have heard before its own word may take anything away.

A gateway takes what is missing from its configuration for gone, and so does a peer with what we say of ourselves. An
agent that remembers may speak at once, also with no hub. One that lost its memory hears first: the registry, and every
member in it, before its gateways are served, who meanwhile go on with what they have on disk; and its own gateways,
before it tells others where it is reached.

A member that nobody has heard for long cannot be waited for without end. The wait is `PATIENCE`, counted while the
hub's stream is up without a break: with no hub nobody can be heard, so nothing is concluded from silence. For the
registry itself the wait has no end.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.model import HUB, View

PATIENCE = 30.0
"""Seconds. Others need about half of it at most to find a hub that has just returned, and to tell it all again."""


@dataclass(frozen=True, slots=True)
class Known:
    """`owners` are those whose word we have in full. `forgot`: the hub remembers an earlier life of ours, our disk
    does not."""

    owners: frozenset[str]
    forgot: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    """`without` are the members that are not waited for (any more), `waited` is in seconds."""

    without: frozenset[str] = frozenset()
    unheard: frozenset[str] = frozenset({HUB})
    no_gateway: bool = False
    waited: float = 0.0

    @property
    def may_serve(self) -> bool:
        """Whether our gateways may be told what there is, and what there is not."""
        return not self.unheard

    @property
    def may_tell(self) -> bool:
        """Whether the others may be told where we are reached."""
        return not self.no_gateway

    def advance(self, view: View, known: Known, elapsed: float) -> Opening:
        """How things stand with `view`, `elapsed` seconds later."""
        waited = self.waited + elapsed if view.hub_up else 0.0
        unheard = frozenset({HUB, *view.members}) - {view.me.name} - known.owners - self.without
        no_gateway = known.forgot and not any(one.serving for one in view.gateways.values())
        if waited < PATIENCE or HUB in unheard:
            return Opening(self.without, unheard, no_gateway and waited < PATIENCE, waited)
        return Opening(self.without | unheard, frozenset(), False, waited)

    def reasons(self) -> tuple[str, ...]:
        """What is waited for, and for how long still, as people read it."""
        left = f"at most {max(0.0, PATIENCE - self.waited):.0f} s more with the hub connected"
        found = ["the registry from the hub"] if HUB in self.unheard else []
        if members := sorted(self.unheard - {HUB}):
            found.append(f"the first word of {', '.join(members)} ({left})")
        if self.no_gateway:
            found.append(f"a gateway of this cluster, which others still know of ({left})")
        return tuple(found)
