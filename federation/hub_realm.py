"""Where the hub's own authority is believed: by every agent that dials it, and by operators elsewhere.

Driven by the hub. Agents say which version of its anchors they go by. Of operators nobody knows: who finds another
authority than the one that he pinned fetches the versions that lead to it, and the old authority waits until each of
their certificates is renewed, or has ended.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from federation.access import OperatorStore
from federation.clock import Clock
from federation.errors import FederationError
from federation.hub import Hub
from federation.identity import Identity
from federation.model import HUB
from federation.rotating import own
from federation.turning import lives, other, reports, survivors
from pki.certificate import authority_key_id, load_pem, subject_key_id
from pki.errors import PkiError
from pki.ledger import Entry
from pki.lineage import Lineage
from pki.rotation import Report, Rotation, Side
from pki.spiffe import SpiffeId
from pki.upstream import Root

ROOT_ASKED_EVERY = timedelta(seconds=60)
"""How long a root that could not sign for the hub is left alone."""

log = structlog.get_logger()


class HubRealm:
    """A `federation.rotating.Realm`."""

    me = HUB
    process = "the hub"
    automatic = True

    def __init__(
        self,
        lineage: Lineage,
        identity: Identity,
        hub: Hub,
        operators: OperatorStore,
        root: Root,
        clock: Clock,
    ) -> None:
        self.lineage = lineage
        self._identity = identity
        self._hub = hub
        self._operators = operators
        self._root = root
        self._clock = clock
        self._keys: frozenset[str] = frozenset()
        self._ask_after: datetime | None = None

    async def prepare(self) -> None:
        """Look up whose certificates count, and have the root sign what it has not signed."""
        self._keys = frozenset(one.key for one in await self._operators.listed() if one.key is not None)
        await self._ask_the_root()

    async def follow(self) -> None:
        """Our own certificate is of the authority that issues, and everybody is told of the newest anchors."""
        self._hub.tell_trust(self.lineage.bundle())
        leaf, *shown = load_pem(self._identity.current.chain)
        if authority_key_id(leaf) != subject_key_id(self.lineage.self_signed) or set(shown) != set(
            self.lineage.forms[1:]
        ):
            await self._identity.renew()

    async def renew_all(self) -> None:
        """Get a new certificate for the hub itself; operators come for theirs when they want."""
        await self._identity.renew()

    def members(self) -> frozenset[str]:
        return self._hub.believers() | {HUB}

    def reports(self, rotation: Rotation) -> dict[str, Report]:
        mine = own(self.lineage, self.lineage.bundle().version, bool(self._survivors(rotation)))
        return reports(rotation, HUB, mine, str(self.lineage.trust_domain), self._hub.held())

    def lagging(self, rotation: Rotation) -> tuple[str, ...]:
        """Those who may still present a certificate of the authority that is not to issue in this phase."""
        return tuple(map(lives, self._survivors(rotation)))

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

    def _survivors(self, rotation: Rotation) -> tuple[Entry, ...]:
        ended = self.lineage.authorities.get(other(rotation.rule.issuer))
        if ended is None:
            return ()
        still_ours = authority_key_id(self._identity.current.certificate) == subject_key_id(ended.self_signed)
        entries = (one for one in ended.ledger(self._clock.now()) if self._counts(one))
        return survivors(entries, str(self._identity.spiffe_id), still_ours, {}, self._clock.now())

    def _counts(self, entry: Entry) -> bool:
        """Operators who were removed are turned away whatever they present."""
        operator = str(SpiffeId.operator(self.lineage.trust_domain, "x")).removesuffix("x")
        return not entry.identity.startswith(operator) or entry.spki in self._keys
