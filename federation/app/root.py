"""The root of a hub, opened where the settings say that its key is: here, or in a safe.

A hub whose root is in a safe starts without it. Until a ceremony has brought the root's certificate and its signature
for the hub's own authority, it answers at its unix socket alone, and nothing but what the ceremony needs: there is
nothing yet by which anybody could recognise it.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from cryptography import x509

from federation.access import HubAccess, OperatorStore
from federation.api.ceremony_routes import CeremonyRoutes
from federation.api.messages import Check, CheckGroup, HubStatus
from federation.api.routes import Access, ApiProblem, Call, Route
from federation.api.server import (
    TcpDoor,
    UnixDoor,
    api_application,
    health_application,
    serving,
    with_health,
)
from federation.app.vaults import Vaults
from federation.ceremony import Ceremony, HubCeremony, NoCeremony
from federation.clock import Clock
from federation.config import HubSettings
from federation.errors import FederationError
from federation.store import Store
from federation.telemetry import HubMetrics
from federation.vault_settings import VaultIssuer
from pki.folder import SELF_SIGNED
from pki.keys import KeyStore
from pki.lineage import Lineage
from pki.offline import OfflineRoot, refuse_keys
from pki.root_lineage import RootLineage
from pki.upstream import Root

WAITS = "the root, which is offline, has to sign this hub's authority"
HINT = "`federation ca request` here, `federation ca sign` on the machine of the root, `federation ca install` here"

if TYPE_CHECKING:
    from pki.vault.root import VaultRoot

log = structlog.get_logger()


async def vault_root(
    folder: Path, settings: HubSettings, issuer: VaultIssuer, vaults: Vaults, store: Store
) -> tuple[VaultRoot, Ceremony]:
    """The root whose key is in Vault. One that has its key here is not left behind by a change of the settings."""
    refuse_keys(folder / "root-keys")
    if not (folder / "root" / SELF_SIGNED).exists():
        await _refuse_another(folder, store, f"put {folder / 'root'} back from the backup")
    root = await vaults.root(issuer, settings.base)
    return root, NoCeremony(root)


async def online_root(
    folder: Path, settings: HubSettings, keys: KeyStore, store: Store, clock: Clock
) -> tuple[RootLineage, Ceremony]:
    """The root of this hub, made at its first start only: all members pin it, and another one is none of theirs."""
    place = folder / "root"
    base, constrained = settings.base, settings.name_constraints
    if RootLineage.exists(place):
        root = await RootLineage.open(place, keys, base, clock, constrained)
        return root, NoCeremony(root)
    await _refuse_another(folder, store, f"put {place} and {folder / 'root-keys'} back from the backup")
    if settings.keys.vault is None:
        log.warning(
            "making a root whose key stays on this machine: whoever holds it holds the federation",
            folder=str(place),
        )
    root = await RootLineage.open(place, keys, base, clock, constrained)
    return root, NoCeremony(root)


async def offline_root(
    folder: Path, settings: HubSettings, authority: Lineage, store: Store, clock: Clock
) -> tuple[OfflineRoot, Ceremony]:
    """The root of this hub, once a ceremony has brought it: at once, if that was before."""
    refuse_keys(folder / "root-keys")
    place = folder / "root"
    pinned = OfflineRoot.exists(place)
    if not pinned and (authority.root_signed is not None or (await store.load("")).rows):
        await _refuse_another(folder, store, f"put {place} back from the backup")
    root = await OfflineRoot.load(place, settings.base, clock) if pinned else None
    ceremony = HubCeremony(settings.base, place, authority, root, clock)
    if not ceremony.done.is_set():
        log.warning("waiting for a ceremony", reason=WAITS, hint=HINT)
        await _Waiting(folder, settings, authority, store, ceremony, clock).run()
    assert ceremony.root is not None
    return ceremony.root, ceremony


def roots_of(root: Root) -> tuple[x509.Certificate, ...]:
    """All that members go by now: two of them while one takes the place of the other."""
    return root.bundle().anchors if isinstance(root, RootLineage | OfflineRoot) else (root.certificate,)


async def _refuse_another(folder: Path, store: Store, remedy: str) -> None:
    if Lineage.exists(folder / "authority") or (await store.load("")).rows:
        raise FederationError(
            f"{folder / 'root' / SELF_SIGNED}: the certificate of the root is missing in the folder of a hub that had "
            "one",
            f"{remedy}; a new root would need an empty folder, and every cluster to join again",
        )


class _Waiting:
    """A hub that nobody could recognise yet."""

    def __init__(
        self,
        folder: Path,
        settings: HubSettings,
        authority: Lineage,
        store: Store,
        ceremony: HubCeremony,
        clock: Clock,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.authority = authority
        self.store = store
        self.ceremony = ceremony
        self.clock = clock
        self.metrics = HubMetrics()

    async def run(self) -> None:
        """Serve until the ceremony is over."""
        see = Access.VIEWER
        routes = (
            *CeremonyRoutes(self.ceremony, self.clock).routes(),
            Route("GET", "/v1/status", "State of the hub", see, self.status, HubStatus),
            Route("GET", "/v1/checks", "What is right and wrong", see, self.checks, tuple[CheckGroup, ...]),
        )
        access = HubAccess(OperatorStore(self.store), self.authority.bundle, self.clock.now)
        waits = ApiProblem(503, "waiting", f"this hub waits: {WAITS}", HINT)
        api = api_application("federation hub", version("federation"), routes, access, waits)
        async with (
            serving(with_health(api, self._health()), UnixDoor(self.folder / "api.sock")),
            serving(self._health(), TcpDoor(self.settings.listen.telemetry)),
        ):
            await self.ceremony.done.wait()

    async def status(self, _: Call) -> HubStatus:
        return HubStatus(
            version=version("federation"),
            pid=os.getpid(),
            base=self.settings.base,
            root="offline",
            clusters=(),
            problems=(f"{WAITS}: {HINT}",),
            certificate_expires_at=self.authority.self_signed.not_valid_after_utc,
            root_expires_at=None,
        )

    async def checks(self, _: Call) -> tuple[CheckGroup, ...]:
        waits = Check(result="failure", name=WAITS, hint=HINT)
        return (CheckGroup(name="hub", checks=(waits,)),)

    def _health(self) -> Any:
        return health_application(self._healthy, self._ready, self._exposition)

    async def _healthy(self) -> tuple[bool, dict[str, Any]]:
        return True, {"healthy": True}

    async def _ready(self) -> tuple[bool, dict[str, Any]]:
        return False, {"ready": False, "waiting_for": [WAITS]}

    async def _exposition(self) -> bytes:
        return self.metrics.render()
