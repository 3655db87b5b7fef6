"""A Vault that is sealed, silent, gone, busy or strange: what is signed waits, is told by name, and goes on later."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from federation.clock import SystemClock
from federation.demo.openbao import Server
from federation.listen import HostPort
from pki import csr, journal
from pki.algorithms import spki_hash
from pki.certificate import public_key
from pki.errors import VaultError, VaultFault
from pki.folder import JOURNAL
from pki.profiles import authority_subject
from pki.spiffe import TrustDomain
from pki.vault.root import VaultRoot
from pki.vault.session import Session
from pki.vault.wire import Place
from tests.pki.vault.prepared import BASE, Prepared, prepare
from tests.pki.vault.server import Bao, unused
from tests.pki.world import new_key

pytestmark = pytest.mark.live

CLOCK = SystemClock()
EAST = TrustDomain.of_cluster("east", BASE)
KEY = new_key()

Outage = Callable[[Prepared], AbstractContextManager[None]]


@contextmanager
def sealed(prepared: Prepared) -> Iterator[None]:
    prepared.bao.seal()
    yield
    prepared.bao.unseal()


@contextmanager
def frozen(prepared: Prepared) -> Iterator[None]:
    prepared.bao.freeze()
    yield
    prepared.bao.thaw()


@contextmanager
def busy(prepared: Prepared) -> Iterator[None]:
    """A quota of one request in ten minutes for the mount, which is used up."""
    quota = f"sys/quotas/rate-limit/{prepared.mount}"
    prepared.bao.write(quota, path=f"{prepared.mount}/", rate=1, interval="10m")
    prepared.bao.call("LIST", f"{prepared.mount}/issuers")
    yield
    prepared.bao.call("DELETE", quota)


@contextmanager
def without_role(prepared: Prepared) -> Iterator[None]:
    """The policy is taken away; what was a right a moment ago is none."""
    policy = prepared.bao.call("GET", f"sys/policies/acl/{prepared.role}")["data"]["policy"]
    prepared.bao.call("DELETE", f"sys/policies/acl/{prepared.role}")
    yield
    prepared.bao.write(f"sys/policies/acl/{prepared.role}", policy=policy)


@contextmanager
def moved(prepared: Prepared) -> Iterator[None]:
    """Somebody gives the mount another name."""
    away = f"{prepared.mount}-moved"
    _move(prepared, prepared.mount, away)
    yield
    _move(prepared, away, prepared.mount)


def _move(prepared: Prepared, here: str, there: str) -> None:
    """It is done later than it is answered."""
    prepared.bao.call("POST", "sys/remount", {"from": here, "to": there})
    deadline = time.monotonic() + 30
    while f"{there}/" not in prepared.bao.call("GET", "sys/mounts")["data"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@asynccontextmanager
async def signing(prepared: Prepared, folder: Path) -> AsyncIterator[tuple[VaultRoot, Session, list[str]]]:
    """A root that has signed once, its session, and what was told of it."""
    told: list[str] = []
    session = prepared.session(tell=told.append)
    root = await VaultRoot.open(folder, session, prepared.issuer, BASE, CLOCK)
    try:
        await sign(root)
        yield root, session, told
    finally:
        await root.close()
        await session.close()


async def sign(root: VaultRoot) -> None:
    request = csr.request(KEY, authority_subject(EAST.name, 1, KEY.public_key()), EAST.uri)
    await root.sign_cluster_ca(request, EAST, who="east", why="a test")


@pytest.mark.parametrize(
    ("outage", "fault"),
    [
        (sealed, VaultFault.SEALED),
        (frozen, VaultFault.SILENT),
        (busy, VaultFault.BUSY),
        (without_role, VaultFault.DENIED),
        (moved, VaultFault.MISSING),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_v5_signing_waits_for_vault_and_goes_on(
    outage: Outage, fault: VaultFault, own_bao: Bao, tmp_path: Path
) -> None:
    prepared = prepare(own_bao, "root", tmp_path)
    async with signing(prepared, tmp_path / "root") as (root, session, told):
        before = root.ledger(CLOCK.now())
        with outage(prepared):
            for _ in range(2):
                with pytest.raises(VaultError) as caught:
                    await sign(root)
                assert caught.value.fault is fault, caught.value
            assert root.ledger(CLOCK.now()) == before
            assert session.problem == str(caught.value)
            assert told == [told[0]]
        await sign(root)
        assert len(root.ledger(CLOCK.now())) == len(before) + 1
        assert (told[-1], session.problem) == ("", "")
        head, authority = root.head, spki_hash(public_key(root.certificate))
    assert journal.verify(tmp_path / "root" / JOURNAL, authority, head) == head


async def test_v5_a_wrong_ca_is_told_as_such(own_bao: Bao, tmp_path: Path) -> None:
    prepared = prepare(own_bao, "root", tmp_path)
    other = Server(tmp_path / "other", HostPort.of("127.0.0.1", 1))
    other.write()
    session = prepared.session(place=Place(own_bao.url, other.ca))
    with pytest.raises(VaultError) as caught:
        await VaultRoot.open(tmp_path / "root", session, prepared.issuer, BASE, CLOCK)
    await session.close()
    assert caught.value.fault is VaultFault.UNTRUSTED
    assert "`ca`" in caught.value.hint


async def test_v5_a_wrong_issuer_is_told_as_such(own_bao: Bao, tmp_path: Path) -> None:
    prepared = prepare(own_bao, "root", tmp_path)
    own_bao.write(
        f"sys/policies/acl/{prepared.role}", policy=f'path "{prepared.mount}/*" {{ capabilities = ["read"] }}'
    )
    session = prepared.session()
    wrong = replace(prepared.issuer, id="00000000-0000-0000-0000-000000000000")
    with pytest.raises(VaultError) as caught:
        await VaultRoot.open(tmp_path / "root", session, wrong, BASE, CLOCK)
    await session.close()
    assert caught.value.fault in (VaultFault.MISSING, VaultFault.FAILING), caught.value
    assert wrong.id in str(caught.value)


async def test_v5_an_address_where_somebody_listens_and_nobody_speaks(own_bao: Bao, tmp_path: Path) -> None:
    """As behind a firewall that lets a connection in, and drops what comes after."""
    prepared = prepare(own_bao, "root", tmp_path)
    address = unused()
    with socket.create_server((address.host, address.port)):
        session = prepared.session(place=Place(f"https://{address}", own_bao.ca, timeout=1.0))
        with pytest.raises(VaultError) as caught:
            await session.ask(lambda vault: vault.get("sys/health"))
        assert caught.value.fault is VaultFault.SILENT
        await session.close()


async def test_v5_a_token_that_is_revoked_is_replaced_without_anybody_noticing(
    bao: Bao, tmp_path: Path
) -> None:
    prepared = prepare(bao, "root", tmp_path)
    async with signing(prepared, tmp_path / "root") as (root, session, told):
        token = session.vault.token
        bao.write("auth/token/revoke", token=token)
        await sign(root)
        assert session.vault.token != token
        assert told == []


async def test_v5_a_secret_id_that_is_gone_is_an_alarm_while_the_token_lives(
    bao: Bao, tmp_path: Path
) -> None:
    """Nothing fails yet; the rehearsal of a login does."""
    prepared = prepare(bao, "root", tmp_path)
    async with signing(prepared, tmp_path / "root") as (root, session, told):
        secret = prepared.secret_id.read_text().strip()
        bao.write(f"auth/approle/role/{prepared.role}/secret-id/destroy", secret_id=secret)
        session._rehearse_at = 0.0  # as if five minutes had gone by
        wait = session.tend()
        assert 0 < wait <= 60
        assert "to rehearse a login failed" in session.problem
        assert told == [session.problem]
        assert secret not in session.problem
        await sign(root)
        assert "to rehearse a login failed" in session.problem, "one success does not end another alarm"
        made = bao.write(f"auth/approle/role/{prepared.role}/secret-id")
        prepared.secret_id.write_text(made["secret_id"])
        session.tend()
        assert session.problem == ""
        assert told[1:] == [""]
