"""A Vault as the settings say: how to log in to it, what is told of it, the root or the keys that are there.

While a Vault is away, what exists goes on: certificates are served and renewed by authorities whose keys are here.
Only what its key signs waits.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from federation.clock import Clock
from federation.vault_settings import VaultEngine, VaultIssuer, VaultLogin, VaultPlace
from pki.errors import PkiError
from pki.keys.transit import Engine, TransitKeyStore
from pki.vault.capabilities import Needs
from pki.vault.issuer import Issuer
from pki.vault.login import AppRole, Certificate, Jwt, Kubernetes, Method, Token
from pki.vault.root import VaultRoot
from pki.vault.session import Session
from pki.vault.wire import ClientCertificate, Place

log = structlog.get_logger()


def session_of(settings: VaultPlace, use: str, folder: Path, clock: Clock) -> Session:
    """A session for one use, which tells of its own troubles; a wrapped secret id is kept in `folder`."""

    def tell(problem: str) -> None:
        if problem:
            log.error("Vault is of no use now; what exists goes on", use=use, problem=problem)
        else:
            log.info("Vault is of use again", use=use)

    if settings.auth.token is not None:
        log.warning(
            "logging in to Vault with a token that somebody made: once it has ended, nothing here can get another"
            " one; a role (approle, kubernetes, jwt, certificate) can",
            use=use,
        )
    place = Place(settings.address, Path(settings.ca), settings.namespace or "", float(settings.timeout))
    return Session(place, method(settings.auth, folder / f"vault-{use}"), clock, tell)


async def open_root(
    settings: VaultIssuer, session: Session, folder: Path, base: str, clock: Clock
) -> VaultRoot:
    """The root whose key is there. Raises PkiError, as `VaultRoot.open` does."""
    issuer = Issuer(settings.mount, settings.issuer)
    root = await VaultRoot.open(folder, session, issuer, base, clock)
    await _look_at_policy(session, issuer.needs)
    return root


async def open_keys(settings: VaultEngine, session: Session, folder: Path, prefix: str) -> TransitKeyStore:
    """The store of keys there. Vault may be away."""
    engine = Engine(settings.mount, f"{settings.prefix}{prefix}")
    await _look_at_policy(session, engine.needs)
    return TransitKeyStore(session, engine, folder)


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


async def _look_at_policy(session: Session, needs: Needs) -> None:
    """Say what ours lacks, and what it had better not give."""
    address = session.vault.place.address
    try:
        verdict = await session.examine(needs)
    except PkiError as error:
        log.warning("our policy in Vault cannot be looked at now", vault=address, problem=str(error))
        return
    for sentence in verdict.lacking:
        log.error("our policy in Vault lacks something", vault=address, lacks=sentence)
    for sentence in verdict.excess:
        log.warning("our policy in Vault gives more than we need", vault=address, gives=sentence)
