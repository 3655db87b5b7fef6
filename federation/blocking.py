"""Why somebody holds a rotation up, and what to do about it, in words for people.

Pure. `pki.rotation` says who it is and what is missing of him; with what else is known of him that becomes a sentence,
and a way out. Whoever cannot be helped can be let go of: nobody is waited for without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, assert_never

from federation.api.messages import Blocking
from federation.held import Version
from federation.model import HUB
from federation.onlookers import MINUTES_TO_LOOK
from pki.rotation import Blocker, Lack

Kind = Literal["root", "hub", "cluster"]
"""Whose authority is replaced."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the driver knows of another member: whether it is heard (None: nobody can say, as the hub is not), since
    when if it is not, whether it says at all which anchors it goes by, and by which version of the driver's.
    """

    connected: bool | None
    silent_since: datetime | None = None
    says: bool = False
    held: Version | None = None
    onlooker: Blocking | None = None
    """Of somebody who is no member (`federation.onlookers`): all there is to say."""


def of_another(blocker: Blocker, seen: Seen, published: Version, entered: datetime | None = None) -> Blocking:
    """Of a member that the driver only hears of. `published` is the newest version of the driver's bundle; the phase
    was `entered` then.
    """
    name = blocker.member
    if seen.onlooker is not None:
        return seen.onlooker
    if not seen.connected:
        return _away(name, seen)
    match blocker.reason:
        case Lack.REPORT if not seen.says:
            return Blocking(
                member=name,
                reason="is heard, and does not say which anchors it goes by: its version is too old for that",
                todo=f"bring the agent of {name} to this version",
            )
        case Lack.REPORT | Lack.OBEDIENCE | Lack.ANCHORS:
            return _behind(name, seen, published, entered)
        case Lack.LEAVES:
            return Blocking(
                member=name,
                reason="presents its authority with the word of the other root",
                todo=f"its agent asks for a new one by itself; if this stays, its log and `federation check` at the "
                f"agent of {name} say why; {_SAFE}",
            )
        case Lack.ISSUER:
            return Blocking(
                member=name, reason=str(blocker.reason), todo=f"see the log of the agent of {name}"
            )
        case Lack.SIGNATURE:
            return Blocking(
                member=name,
                reason="does not sign what it holds: its version is too old for that, or its key cannot sign now",
                todo=f"bring the agent of {name} to this version; its log says if it cannot sign",
            )
        case Lack.CONTENT:
            return Blocking(member=name, reason=f"{blocker.reason}: this folder is an old copy", todo=_NEWEST)
        case Lack.BUNDLE | Lack.PROOF | Lack.NEWS:
            return Blocking(
                member=name,
                reason=str(blocker.reason),
                todo=f"see at the agent of {name} itself whether it is connected and what it holds; if the hub tells "
                "something else for longer than a minute, it is not what it should be",
            )
        case _:
            assert_never(blocker.reason)


def of_the_driver(
    blocker: Blocker, kind: Kind, who: tuple[str, ...], entered: datetime | None = None
) -> Blocking:
    """Of the driver itself; `who` names those of its own that it waits for, since the phase was `entered`."""
    match blocker.reason:
        case Lack.LEAVES:
            reason, todo = "certificates of the other authority may still be presented", _LEAVES[kind]
        case Lack.ANCHORS if who:
            reason = "not all of its gateways have acknowledged the anchors of this phase"
            todo = (
                "start those that are silent; one that is gone for good is waited for until its certificate has ended, "
                "or forgotten at once by DELETE /v1/gateways/NAME at the socket of its agent"
            )
        case Lack.ISSUER:
            reason, todo = "cannot issue with the other authority yet", _OWN_LOG
        case Lack.SIGNATURE | Lack.BUNDLE | Lack.PROOF | Lack.NEWS | Lack.CONTENT:
            reason, todo = str(blocker.reason), _OWN_LOG
        case Lack.REPORT | Lack.OBEDIENCE | Lack.ANCHORS:
            reason, todo = "has not published the anchors of this phase yet", _OWN_LOG
        case _:
            assert_never(blocker.reason)
    return Blocking(member=blocker.member, reason=reason, who=who, since=entered, todo=todo)


_NEWEST = "put the newest copy of the folder back"
_OWN_LOG = "it is tried again each second; the status and the log of the process say what fails"

_SAFE = "for a root in a safe a ceremony does it: `federation ca request`, `ca sign` by the next root, `ca install`"

_LEAVES = {
    "cluster": "a gateway renews within seconds, a workload when it comes, at half the life of its certificate; one "
    "that will not come back is waited for until then, or let go of by its key: federation ca ban KEY --reason gone "
    "(a gateway also by its name: DELETE /v1/gateways/NAME at the socket of its agent)",
    "hub": "ask them for `federation operator renew`, or take their access away: federation operator remove NAME",
    "root": f"it has its authority signed anew by itself; the status and the log of the hub say what fails; {_SAFE}",
}


def _away(name: str, seen: Seen) -> Blocking:
    if name == HUB:
        return Blocking(
            member=name,
            reason="is not connected, so what it holds is not known",
            since=seen.silent_since,
            todo="`federation status` at this agent says why; the rotation goes on when it is back",
        )
    if seen.connected is None:
        return Blocking(
            member=name,
            reason="is not heard while the hub is not connected",
            todo="`federation status` at this agent says why the hub is not connected",
        )
    return Blocking(
        member=name,
        reason="its agent is not connected",
        since=seen.silent_since,
        todo=f"start the agent of {name}, or see in its log why it does not reach the hub; if it stays away: "
        f"federation ca rotate quarantine {name}; if it is gone for good: federation cluster remove {name}",
    )


def _behind(name: str, seen: Seen, published: Version, entered: datetime | None) -> Blocking:
    if seen.held is not None and seen.held > published:
        return Blocking(
            member=name,
            reason=f"holds version {_number(seen.held)} of the anchors, and {_number(published)} is the newest here: "
            "this folder is an old copy",
            todo=_NEWEST,
        )
    has = "" if seen.held is None else f"; it goes by {_number(seen.held)}"
    if name == HUB:
        return Blocking(
            member=name,
            reason=f"has not taken up version {_number(published)} of the anchors{has}",
            since=entered,
            todo=f"where trust domains outside fetch bundles from the hub, they get {MINUTES_TO_LOOK} minutes from "
            "when this one was there; else `federation status` and the log of the hub say why: its store, or a bundle "
            "that it refused",
        )
    return Blocking(
        member=name,
        reason=f"not all of its gateways have acknowledged version {_number(published)} of the anchors{has}",
        since=entered,
        todo=f"`federation check` names them, under the gateways of {name}: start those that are silent; if that takes "
        f"long: federation ca rotate quarantine {name}",
    )


def _number(version: Version) -> str:
    """As people count them: the generation only tells apart what began anew."""
    generation, sequence = version
    return str(sequence) if generation == 1 else f"{generation}.{sequence}"


def command(kind: Kind, cluster: str, verb: str) -> str:
    """What an operator types about the rotation of such an authority; the same at the hub and at the agent."""
    words = f"cluster {verb} {cluster}" if kind == "cluster" else f"{kind} {verb}"
    return f"federation ca rotate {words}"
