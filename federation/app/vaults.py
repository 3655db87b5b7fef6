"""The Vaults that a process uses, each under what it is used for: `root` or `keys`. Mostly there are none.

What speaks to them is imported when one is opened: it costs a fifth of a second, and most processes do without.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from federation.clock import Clock
from federation.vault_settings import VaultEngine, VaultIssuer

if TYPE_CHECKING:
    from pki.keys.transit import TransitKeyStore
    from pki.vault.root import VaultRoot
    from pki.vault.session import Session


class Labelled(Protocol):
    def set_function(self, f: Callable[[], float]) -> None: ...


class Gauge(Protocol):
    """A gauge of prometheus_client with one label."""

    def labels(self, use: str, /) -> Labelled: ...


class Vaults:
    """The Vaults of the process whose folder is `folder`; `stack` closes them."""

    def __init__(self, folder: Path, clock: Clock, stack: AsyncExitStack) -> None:
        self.sessions: dict[str, Session] = {}
        self.folder = folder
        self.clock = clock
        self._stack = stack

    def watch(self, gauge: Gauge) -> None:
        """Let `gauge`, by use, say how long each token lasts."""
        for use, session in self.sessions.items():
            gauge.labels(use).set_function(partial(_left, session))

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each Vault that is of no use now."""
        return tuple(f"{use}: {session.problem}" for use, session in self.sessions.items() if session.problem)

    async def root(self, issuer: VaultIssuer, base: str) -> VaultRoot:
        """The root whose key is there, pinned at the first start. Raises PkiError, as `VaultRoot.open` does."""
        from federation.app import vault

        session = self._keep("root", vault.session_of(issuer, "root", self.folder, self.clock))
        root = await vault.open_root(issuer, session, self.folder / "root", base, self.clock)
        self._stack.push_async_callback(root.close)
        return root

    async def keys(self, place: VaultEngine, folder: Path, prefix: str = "") -> TransitKeyStore:
        """A store of keys in Vault, whose names begin with `prefix`; the public halves lie in `folder`."""
        from federation.app import vault

        session = self.sessions.get("keys")
        if session is None:
            session = self._keep("keys", vault.session_of(place, "keys", self.folder, self.clock))
        return await vault.open_keys(place, session, folder, prefix)

    def _keep(self, use: str, session: Session) -> Session:
        self.sessions[use] = session
        self._stack.push_async_callback(session.close)
        return session


def _left(session: Session) -> float:
    return session.standing.token_left
