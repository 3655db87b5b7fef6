"""Where the roots are believed: by every agent, when it first hears of a cluster, and by whoever trusts a root besides.

Driven by the hub, whether it has their keys or a safe has. Every cluster's authority, and the hub's own, is signed anew
by the root that follows before the one before it is let go of.
"""

from __future__ import annotations

from federation import root_word
from federation.blocking import Kind, Seen
from federation.clock import Clock
from federation.errors import FederationError
from federation.hub import Hub
from federation.hub_realm import seen_at_hub
from federation.model import HUB
from federation.roots import Roots
from federation.rotating import own
from federation.turning import reports
from pki.certificate import authority_key_id, load_der, subject_key_id
from pki.lineage import Lineage
from pki.offline import OfflineRoot
from pki.profiles import epoch_of
from pki.root_lineage import RootLineage
from pki.rotation import Lack, Report, Rotation, Side


class RootRealm:
    """A `federation.rotating.Realm`; `authority` is the hub's own."""

    me = HUB
    process = "the hub"
    kind: Kind = "root"

    def __init__(
        self, lineage: RootLineage | OfflineRoot, hub: Hub, authority: Lineage, clock: Clock
    ) -> None:
        self.lineage = lineage
        self._hub = hub
        self._authority = authority
        self._clock = clock

    @property
    def automatic(self) -> bool:
        """Not of a root that somebody else has made, or has in a safe: he decides what follows it."""
        here = isinstance(self.lineage, RootLineage)
        return here and epoch_of(self.lineage.certificate.subject) is not None

    async def prepare(self) -> None:
        """Everything that is missing here is asked for by those who need it signed."""

    async def follow(self) -> None:
        """Everybody is told of the newest set, and of the root that signs."""
        self._hub.tell_trust(Roots(self.lineage.bundle(), subject_key_id(self.lineage.certificate)))

    async def renew_all(self) -> None:
        raise FederationError(
            "a root has no leaves", "renew those of the clusters: federation ca rotate leaves start CLUSTER"
        )

    def leaves(self) -> None:
        """Nobody is asked for anything here."""

    def members(self) -> frozenset[str]:
        return self._hub.believers() | {HUB}

    def unawaited(self) -> tuple[str, ...]:
        return self._hub.disbelieved()

    def seen(self, member: str) -> Seen:
        return seen_at_hub(self._hub, member, self.lineage.trust_domain, self._clock.now())

    def reports(self, rotation: Rotation) -> dict[str, Report | Lack]:
        bundle = self.lineage.bundle()
        heard = self._hub.heard(bundle)
        mine = own(self.lineage, bundle.version, self._others_live(_forms_of(self._authority)))
        living = {
            name: self._sides({*each.roots, *self._registered(name)}) if each.roots else frozenset(Side)
            for name, each in heard.counted.items()
        }
        found = reports(rotation, HUB, mine, str(self.lineage.trust_domain), heard.counted, living)
        return {**found, **heard.doubts}

    def lagging(self, rotation: Rotation) -> tuple[str, ...]:
        """The hub's own authority is the only one here."""
        return (f"the authority of {self._authority.trust_domain}",)

    def _registered(self, name: str) -> set[bytes]:
        """The key identifiers of the roots whose word for its authorities is told and exported."""
        row = self._hub.registry.find(name)
        if row is None:
            return set()
        anchors = self._hub.membership.authorities(name)
        forms = [load_der(form) for key in anchors if (form := root_word.form_of(row, key))]
        return {key for form in forms if (key := authority_key_id(form)) is not None}

    def _sides(self, keys: set[bytes]) -> frozenset[Side]:
        roots = self.lineage.authorities.items()
        return frozenset(side for side, each in roots if subject_key_id(each.certificate) in keys)

    def _others_live(self, keys: set[bytes]) -> bool:
        signs = subject_key_id(self.lineage.certificate)
        return any(key != signs for key in keys)


def _forms_of(authority: Lineage) -> set[bytes]:
    forms = [each.root_signed for each in authority.authorities.values()]
    return {authority_key_id(form) or b"" for form in forms if form is not None}
