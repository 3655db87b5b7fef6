"""What is right and what is wrong with an agent or a hub, from their own status: pure, so that each line has a test.

A failure needs somebody to act; a warning will, or might, become one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from federation.api.messages import (
    AgentStatus,
    Check,
    CheckGroup,
    ClusterInfo,
    GatewayStatus,
    HubStatus,
    PeerStatus,
    RotationStatus,
)
from federation.blocking import command
from federation.sync.protocol import REMOVED

SOON = 0.25
"""The share of a certificate's life below which its end is near: renewal at half of it has been failing."""

AUTHORITY_SOON = timedelta(days=30)

HELD_UP_FOR = timedelta(minutes=10)
"""How long a phase of a rotation may wait before somebody should look: all that is there is ready within seconds."""
DEADLINE_SOON = timedelta(days=14)
"""Before the deadline of a rotation: time to bring back whoever is away, or to quarantine him."""


def agent_checks(status: AgentStatus, now: datetime, leaf_life: timedelta) -> tuple[CheckGroup, ...]:
    """The checks of one agent."""
    overdue = f"its rotation is held up: {command('cluster', status.cluster, 'status')}"
    return (
        CheckGroup(
            name=f"agent {status.cluster}",
            checks=(
                _hub(status),
                *(Check(result="failure", name=problem, hint=_PROBLEM_HINT) for problem in status.problems),
                _expiry("own certificate", status.certificate_expires_at, now, leaf_life * SOON),
                _expiry("authority", status.authority_expires_at, now, AUTHORITY_SOON, overdue),
                *(check for rotation in status.rotations for check in _rotation(rotation, now)),
            ),
        ),
        CheckGroup(
            name=f"gateways of {status.cluster}",
            checks=(
                *_gateways(status.gateways, now, leaf_life),
                *(Check(result="warning", name=behind, hint=_BEHIND_HINT) for behind in status.behind),
            ),
        ),
        CheckGroup(name=f"peers of {status.cluster}", checks=tuple(_peer(peer) for peer in status.peers)),
    )


def _hub(status: AgentStatus) -> Check:
    name, me = f"connected to the hub {status.hub}", status.cluster
    if REMOVED in status.hub_problem:
        hint = (
            f"to join again: on the hub `federation token create {me} --may-export … --range …`, "
            "then put the token into the file of `join_token`, and start the agent again"
        )
        return Check(result="failure", name=name, detail=status.hub_problem, hint=hint)
    hint = (
        "what is known goes on being served; see that the hub runs, that its sync address is reachable, "
        f"and that `federation cluster list` there still has {me}"
    )
    return _one(status.hub_connected, name, "warning", status.hub_problem, hint)


_LEAF_HINT = "its renewal has been failing; the log of its process says why"
_AUTHORITY_HINT = "it is not renewed by itself: plan for a new one before it ends"
_BEHIND_HINT = (
    "a rotation there waits for it; start it if it is silent. One that is gone for good is waited for until its "
    "certificate has ended, or forgotten at once by DELETE /v1/gateways/NAME at the socket of its agent"
)
_BANNED_HINT = "an operator of the hub may take it back: federation ca unban"
_PROBLEM_HINT = "the rest goes on; mend this and it is taken up by itself"


def _one(
    fine: bool, name: str, otherwise: Literal["warning", "failure"], detail: str = "", hint: str = ""
) -> Check:
    return Check(result="ok" if fine else otherwise, name=name, detail=detail, hint="" if fine else hint)


def _expiry(what: str, ends: datetime, now: datetime, soon: timedelta, hint: str = _LEAF_HINT) -> Check:
    left = ends - now
    detail = f"{_span(left)} left"
    if left <= timedelta(0):
        return Check(result="failure", name=f"{what} has ended", hint=hint)
    return _one(left > soon, f"{what} is valid", "warning", detail, hint)


def _rotation(rotation: RotationStatus, now: datetime) -> Iterable[Check]:
    """Of one that runs: one line for how it stands, one for each who has held it up for long, and its deadline."""
    look = command(rotation.kind, rotation.cluster, "status")
    since = now - (rotation.entered_at or now)
    name = f"rotation {rotation.number} of {rotation.trust_domain}"
    detail = f"{rotation.phase} since {_span(since)}"
    if rotation.problem is not None:
        yield Check(result="failure", name=name, detail=f"{detail}: {rotation.problem}", hint=look)
    elif rotation.ready:
        step = command(rotation.kind, rotation.cluster, "advance")
        yield _one(since <= HELD_UP_FOR, name, "warning", f"{detail}, waits for an operator", step)
    else:
        waits = f", waits for {len(rotation.blocking)}" if rotation.blocking else ""
        yield _one(since <= HELD_UP_FOR, name, "warning", detail + waits, look)
    if since > HELD_UP_FOR:
        for each in rotation.blocking:
            who = f" ({', '.join(each.who)})" if each.who else ""
            yield Check(
                result="warning",
                name=f"the rotation waits for {each.member}",
                detail=each.reason + who,
                hint=each.todo,
            )
    left = rotation.deadline - now
    if left <= DEADLINE_SOON:
        until = f"the rotation may wait until {rotation.deadline.isoformat(timespec='minutes')}"
        yield Check(
            result="failure" if left <= timedelta(0) else "warning",
            name=until,
            detail="that is over" if left <= timedelta(0) else f"{_span(left)} left",
            hint=f"bring back or quarantine whoever it waits for: {look}",
        )


def _gateways(gateways: Iterable[GatewayStatus], now: datetime, life: timedelta) -> Iterable[Check]:
    gateways = tuple(gateways)
    if not gateways:
        hint = "make a token with `federation token create --gateway` and start `federation gateway` with it"
        yield Check(result="failure", name="there is no gateway", hint=hint)
    for gateway in gateways:
        name = f"{gateway.name} at {gateway.address}"
        if gateway.connected or gateway.state == "silent":
            hint = "it serves from its disk meanwhile; see that its process runs and reaches the agent"
            yield _one(gateway.connected, f"{name} is connected", "failure", gateway.state, hint)
        else:
            hint = "wait a moment, and look again; what it had before stays in use"
            text = f"{name} reports, and has not asked for its configuration yet"
            yield Check(result="warning", name=text, detail=gateway.state, hint=hint)
        if gateway.connected:
            current = gateway.acknowledged == gateway.snapshot
            detail = f"snapshot {gateway.acknowledged} of {gateway.snapshot}"
            yield _one(
                current,
                f"{name} has the newest configuration",
                "warning",
                detail,
                "wait a moment, and look again",
            )
        for rejected in gateway.rejected:
            text = f"{name}: its Envoy refused {rejected.type} {rejected.name}"
            hint = (
                "what it had before stays in use; when the cause is gone (such as a port that was taken), "
                "it is offered again as soon as it changes, or the agent or the gateway starts again"
            )
            yield Check(result="failure", name=text, detail=rejected.error, hint=hint)
        if gateway.certificate_expires_at is not None:
            yield _expiry(f"certificate of {gateway.name}", gateway.certificate_expires_at, now, life * SOON)


def _peer(peer: PeerStatus) -> Check:
    """Two signals: the lease says whether its word is current, the path whether its gateways are reached."""
    if peer.banned:
        return Check(result="warning", name=peer.banned, hint=_BANNED_HINT)
    if not peer.trusted:
        hint = "it appears by itself once the peer's agent has published its bundle"
        return Check(result="warning", name=f"{peer.name} cannot be verified yet", hint=hint)
    detail = f"lease {peer.lease}, path {peer.path}"
    if peer.path == "down":
        hint = f"traffic has moved; see that the gateways of {peer.name} run and that the network lets us through"
        return Check(result="failure", name=f"{peer.name} is not reached", detail=detail, hint=hint)
    hint = f"what it said last is still used; see that the agent of {peer.name} runs and reaches the hub"
    return _one(peer.lease == "fresh", f"{peer.name} is reached", "warning", detail, hint)


def hub_checks(status: HubStatus, now: datetime, leaf_life: timedelta) -> tuple[CheckGroup, ...]:
    """The checks of the hub itself and of the registry; those of the agents are asked for one by one."""
    own = (
        *(Check(result="failure", name=problem, hint=_PROBLEM_HINT) for problem in status.problems),
        _expiry("own certificate", status.certificate_expires_at, now, leaf_life * SOON),
        *(
            (_expiry("root", status.root_expires_at, now, AUTHORITY_SOON * 6, _AUTHORITY_HINT),)
            if status.root_expires_at is not None
            else ()
        ),
        *(check for rotation in status.rotations for check in _rotation(rotation, now)),
    )
    clusters = tuple(check for cluster in status.clusters for check in _cluster(cluster))
    return CheckGroup(name="hub", checks=own), CheckGroup(name="clusters", checks=clusters)


def _cluster(cluster: ClusterInfo) -> Iterable[Check]:
    if cluster.banned:
        yield Check(result="warning", name=cluster.banned, hint=_BANNED_HINT)
        return
    hint = f"others go on with what they know of {cluster.name}; see that its agent runs and reaches the hub"
    yield _one(cluster.connected, f"{cluster.name}'s agent is connected", "failure", "", hint)
    if cluster.waits_for_root:
        hint = "the others do not believe its newest authority before; see docs/ceremony.md"
        yield Check(result="warning", name=f"{cluster.name} waits for the root to sign", hint=hint)
    for refused in cluster.refused:
        hint = f"change what it publishes, or `federation cluster set {cluster.name}`"
        yield Check(result="warning", name=f"{cluster.name}: {refused}", hint=hint)


def _span(left: timedelta) -> str:
    hours = left.total_seconds() / 3600
    if hours < 1:
        return f"{hours * 60:.0f} minutes"
    return f"{left.days} days" if hours >= 72 else f"{hours:.1f} hours"
