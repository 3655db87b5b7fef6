"""Which services a change of the view touches, and what they need before they are looked at again.

It says what may have to be computed anew, and never less than that; it computes nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Literal

from federation import ports
from federation.exports import services_of
from federation.inputs import is_peer, standing, wanted_ports
from federation.model import Service, View


class Everything(Enum):
    """Every service may have changed."""

    EVERYTHING = "everything"


EVERYTHING: Literal[Everything.EVERYTHING] = Everything.EVERYTHING
NOTHING: frozenset[Service] = frozenset()

Touched = frozenset[Service] | Everything
"""The services whose `inputs` may differ from before. That of all others are equal."""


def touched_by_cluster(before: View, after: View, name: str) -> frozenset[Service]:
    """Its exports if its standing with us changed, ours if it became, or ceased to be, one who may reach them."""
    touched: frozenset[Service] = NOTHING
    if standing(before, name) != standing(after, name):
        touched = touched.union(services_of(after, name))
    if is_peer(before, name) != is_peer(after, name):
        touched = touched.union(services_of(after, after.me.name))
    return touched


def settled(view: View, services: Iterable[Service]) -> tuple[View, Touched]:
    """The view with listen ports given and released as the exports of these services want them now."""
    touched = frozenset(services)
    for service in sorted(touched):
        view = ports.settle(view, service, wanted_ports(view, service))
    return view, touched
