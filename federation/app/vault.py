"""Vaults that a process uses, from what its settings say: one session each, kept alive, with one alarm.

While a Vault is away, what exists goes on: certificates are served and renewed by authorities whose keys are here.
Only what its key signs waits.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from federation.clock import Clock
from federation.vault_settings import VaultEngine, VaultIssuer, VaultLogin, VaultPlace
from pki.errors import PkiError
from pki.keys.transit import Engine, TransitKeyStore
from pki.vault.capabilities import Verdict
from pki.vault.issuer import Issuer
from pki.vault.login import AppRole, Certificate, Jwt, Kubernetes, Method, Token
from pki.vault.root import VaultRoot
from pki.vault.session import Session
from pki.vault.wire import ClientCertificate, Place

log = structlog.get_logger()


class Labelled(Protocol):
    def set_function(self, f: Callable[[], float]) -> None: ...


class Gauge(Protocol):
    """A gauge of prometheus_client with one label."""

    def labels(self, use: str, /) -> Labelled: ...


class Vaults:
    """The Vaults of one process in `folder`, each under what it is used for: `root` or `keys`."""

    def __init__(self, folder: Path, clock: Clock, stack: AsyncExitStack) -> None:
        self.sessions: dict[str, Session] = {}
        self._folder = folder
        self._clock = clock
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
        session = self._open("root", issuer)
        place = self._folder / "root"
        root = await VaultRoot.open(place, session, Issuer(issuer.mount, issuer.issuer), base, self._clock)
        self._stack.push_async_callback(root.close)
        try:
            _tell(issuer, await root.examine())
        except PkiError as error:
            log.warning("the policy in Vault cannot be looked at now", problem=str(error))
        return root

    async def keys(self, place: VaultEngine, folder: Path, prefix: str = "") -> TransitKeyStore:
        """A store of keys in Vault, whose names begin with `prefix`; the public halves lie in `folder`."""
        engine = Engine(place.mount, f"{place.prefix}{prefix}")
        known = self.sessions.get("keys")
        session = known or self._open("keys", place)
        if known is None:
            try:
                _tell(place, await session.examine(engine.needs))
            except PkiError as error:
                log.warning("the policy in Vault cannot be looked at now", problem=str(error))
        return TransitKeyStore(session, engine, folder)

    def _open(self, use: str, settings: VaultPlace) -> Session:
        def tell(problem: str) -> None:
            if problem:
                log.error("Vault is of no use now; what exists goes on", use=use, problem=problem)
            else:
                log.info("Vault is of use again", use=use)

        if settings.auth.token is not None:
            log.warning(
                "logging in to Vault with a token that somebody made: once it has ended, nothing here can get"
                " another one; a role (approle, kubernetes, jwt, certificate) can",
                use=use,
            )
        place = Place(settings.address, Path(settings.ca), settings.namespace or "", float(settings.timeout))
        session = Session(place, method(settings.auth, self._folder / f"vault-{use}"), self._clock, tell)
        self._stack.push_async_callback(session.close)
        self.sessions[use] = session
        return session


def method(auth: VaultLogin, keep: Path) -> Method:
    """How to log in; an unwrapped secret id is kept at `keep`."""
    if auth.approle is not None:
        one = auth.approle
        return AppRole(one.role_id, Path(one.secret_id), keep if one.wrapped else None, one.mount)
    if auth.kubernetes is not None:
        return Kubernetes(auth.kubernetes.role, Path(auth.kubernetes.token), auth.kubernetes.mount)
    if auth.jwt is not None:
        return Jwt(auth.jwt.role, Path(auth.jwt.token), auth.jwt.mount)
    if auth.certificate is not None:
        shown = ClientCertificate(Path(auth.certificate.certificate), Path(auth.certificate.key))
        return Certificate(auth.certificate.role, shown, auth.certificate.mount)
    assert auth.token is not None
    return Token(Path(auth.token.file))


def _left(session: Session) -> float:
    return session.standing.token_left


def _tell(place: VaultPlace, verdict: Verdict) -> None:
    for sentence in verdict.lacking:
        log.error("our policy in Vault lacks something", vault=place.address, lacks=sentence)
    for sentence in verdict.excess:
        log.warning("our policy in Vault gives more than we need", vault=place.address, gives=sentence)
