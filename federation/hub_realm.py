"""Where the hub's own authority is believed: by every agent that dials it, and by operators elsewhere.

Driven by the hub. Agents say which version of its anchors they go by. Of operators nobody knows: who finds another
authority than the one that he pinned fetches the versions that lead to it, and the old authority waits until each of
their certificates is renewed, or has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import structlog

from federation.access import OperatorStore
from federation.blocking import Kind, Seen
from federation.clock import Clock
from federation.errors import FederationError
from federation.hub import Hub
from federation.identity import Identity
from federation.model import HUB
from federation.onlookers import OUTSIDERS, of_outsiders, report
from federation.rotating import own
from federation.turning import named, other, reports, survivors
from pki.bundle import Bundle
from pki.certificate import authority_key_id, load_pem, subject_key_id
from pki.errors import PkiError
from pki.ledger import Entry
from pki.lineage import Lineage
from pki.rotation import Lack, Report, Rotation, Side
from pki.spiffe import SpiffeId, TrustDomain
from pki.upstream import Root

ROOT_ASKED_EVERY = timedelta(seconds=60)
"""How long a root that could not sign for the hub is left alone."""

log = structlog.get_logger()


class HubRealm:
    """A `federation.rotating.Realm`."""

    me = HUB
    process = "the hub"
    kind: Kind = "hub"
    automatic = True

    def __init__(
        self,
        lineage: Lineage,
        identity: Identity,
        hub: Hub,
        operators: OperatorStore,
        root: Root,
        clock: Clock,
        until: Callable[[Bundle], datetime | None] = lambda _: None,
    ) -> None:
        """`until` is told by `federation.outsiders`."""
        self.lineage = lineage
        self._identity = identity
        self._hub = hub
        self._operators = operators
        self._root = root
        self._clock = clock
        self._until = until
        self._keys: frozenset[str] | None = None
        self._ask_after: datetime | None = None

    async def prepare(self) -> None:
        """Look up whose certificates count, and have the root sign what it has not signed."""
        self._keys = frozenset(one.key for one in await self._operators.listed() if one.key is not None)
        await self._ask_the_root()

    async def follow(self) -> None:
        """Our own certificate is of the authority that issues, and everybody is told of the newest anchors."""
        bundle = self.lineage.bundle()
        self._until(bundle)  # from now on it is there
        self._hub.tell_trust(bundle)
        leaf, *shown = load_pem(self._identity.current.chain)
        if authority_key_id(leaf) != subject_key_id(self.lineage.self_signed) or set(shown) != set(
            self.lineage.forms[1:]
        ):
            await self._identity.renew()

    async def renew_all(self) -> None:
        """Get a new certificate for the hub itself; operators come for theirs when they want."""
        await self._identity.renew()

    def leaves(self) -> None:
        """Nobody is asked for anything here."""

    def members(self) -> frozenset[str]:
        return self._hub.believers() | {HUB, OUTSIDERS}

    def unawaited(self) -> tuple[str, ...]:
        return self._hub.disbelieved()

    def seen(self, member: str) -> Seen:
        if member == OUTSIDERS and (until := self._until(self.lineage.bundle())) is not None:
            return Seen(True, onlooker=of_outsiders(until))
        return seen_at_hub(self._hub, member, self.lineage.trust_domain, self._clock.now())

    def reports(self, rotation: Rotation) -> dict[str, Report | Lack]:
        heard = self._hub.heard(self.lineage.bundle())
        mine = own(self.lineage, self.lineage.bundle().version, any(self._survivors(rotation)))
        looking_on = {OUTSIDERS: report(rotation, lambda: self._until(self.lineage.bundle()) is None)}
        found = reports(rotation, HUB, mine, str(self.lineage.trust_domain), heard.counted)
        return {**looking_on, **found, **heard.doubts}

    def lagging(self, rotation: Rotation) -> tuple[str, ...]:
        """Those who may still present a certificate of the authority that is not to issue in this phase."""
        return named(self._survivors(rotation))

    async def _ask_the_root(self) -> None:
        """For its word for each of our authorities, and anew where another root has taken its place. Nobody waits for
        it: members go by the anchors themselves.
        """
        root, now = self._root, self._clock.now()
        if self._ask_after is not None and now < self._ask_after:
            return
        signs = subject_key_id(root.certificate)
        for side, each in self.lineage.authorities.items():
            if each.root_signed is not None and authority_key_id(each.root_signed) == signs:
                continue
            try:
                await self._sign(root, side)
            except (PkiError, FederationError) as error:
                log.warning("the root cannot sign the hub's authority now", reason=str(error))
                self._ask_after = now + ROOT_ASKED_EVERY

    async def _sign(self, root: Root, side: Side) -> None:
        domain = self.lineage.trust_domain
        rooted = await root.sign_cluster_ca(
            await self.lineage.csr(side), domain, who=str(domain), why="the hub's authority"
        )
        if rooted is None:
            self._ask_after = self._clock.now() + ROOT_ASKED_EVERY
            return
        await self.lineage.accept_root_signed(rooted, root.certificate)

    def _survivors(self, rotation: Rotation) -> Iterator[Entry]:
        ended, now = self.lineage.authorities.get(other(rotation.rule.issuer)), self._clock.now()
        if ended is None:
            return iter(())
        still_ours = authority_key_id(self._identity.current.certificate) == subject_key_id(ended.self_signed)
        renewed = frozenset(one.spki for one in self.lineage.issuer.ledger(now))
        entries = (one for one in ended.ledger(now) if self._counts(one, renewed))
        return survivors(entries, str(self._identity.spiffe_id), still_ours, {}, now)

    def _counts(self, entry: Entry, renewed: frozenset[str]) -> bool:
        """Operators who were removed or banned are turned away whatever they present, and who has a certificate of the
        authority that issues needs none of those before it, of which some may have been lost on the way to him.
        """
        operators = str(SpiffeId.operator(self.lineage.trust_domain, "x")).removesuffix("x")
        if not entry.identity.startswith(operators):
            return True
        banned = self._hub.why_banned(SpiffeId.parse(entry.identity), entry.spki) is not None
        known = self._keys is None or entry.spki in self._keys
        return known and not banned and entry.spki not in renewed


def seen_at_hub(hub: Hub, name: str, trust_domain: TrustDomain, now: datetime) -> Seen:
    """What a hub knows of a member; `trust_domain` is that of the bundle that it is asked for."""
    held, silence = hub.held_by(name), hub.silence(name)
    return Seen(
        connected=hub.is_connected(name),
        silent_since=None if silence is None else now - timedelta(seconds=silence),
        says=held is not None,
        held=None if held is None else held.version(str(trust_domain)),
    )
