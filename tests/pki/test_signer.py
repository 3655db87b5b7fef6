"""Groups: many certificates, two writes to the journal, and for each the order of the steps as if it were alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pki import durable, issue
from pki.algorithms import PublicKey, spki_hash
from pki.errors import PkiError, Refused, Untrusted
from pki.journal import Journal
from pki.signer import LARGEST_GROUP, Job, Signer
from pki.spiffe import SpiffeId, TrustDomain
from tests.pki.world import NOW, Ca, granted, make_world, new_key

EAST = TrustDomain("east.mesh.example")
GATEWAY = SpiffeId.gateway(EAST, "eastwest")
INGRESS = SpiffeId.gateway(EAST, "ingress")


class StoppedClock:
    def now(self) -> Any:
        return NOW


@pytest.fixture(scope="module")
def ca() -> Ca:
    return make_world().east


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
async def signer(path: Path, ca: Ca) -> AsyncIterator[Signer]:
    made = open_signer(path, ca)
    yield made
    await made.close()


def open_signer(path: Path, ca: Ca) -> Signer:
    journal = Journal(path, spki_hash(ca.key.public_key()), NOW, begin=True)
    return Signer(ca.key, journal, StoppedClock())


def job(
    ca: Ca, key: PublicKey | None = None, identity: SpiffeId = GATEWAY, replaces: int | None = None
) -> Job:
    wanted = key or new_key().public_key()
    grant = granted(identity)
    return Job(
        lambda serial, now: issue.leaf(grant, wanted, ca.forms, serial, now), ca.forms, "t", "t", replaces
    )


def serials(outcomes: tuple[x509.Certificate | PkiError, ...]) -> list[int]:
    assert all(isinstance(each, x509.Certificate) for each in outcomes), outcomes
    return [each.serial_number for each in outcomes if isinstance(each, x509.Certificate)]


def records(path: Path) -> list[bytes]:
    return [line.partition(b" ")[2] for line in path.read_bytes().splitlines()]


async def test_what_waits_together_is_made_durable_together(
    signer: Signer, ca: Ca, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync

    def counting(descriptor: int) -> None:
        synced.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counting)
    many = 3 * LARGEST_GROUP
    made = await asyncio.gather(*(signer.sign_all([job(ca)]) for _ in range(many)))
    assert len({serial for outcome in made for serial in serials(outcome)}) == many
    groups = 1 + -(-(many - 1) // LARGEST_GROUP)
    assert len(synced) == 2 * groups, "the first goes alone, the others wait for it together"
    assert len(signer.journal.ledger(NOW)) == many


async def test_outcomes_come_in_the_order_of_the_jobs(signer: Signer, ca: Ca) -> None:
    keys = [new_key().public_key() for _ in range(2 * LARGEST_GROUP)]
    made = await signer.sign_all([job(ca, key) for key in keys])
    assert [each.public_key() for each in made if isinstance(each, x509.Certificate)] == keys
    assert await signer.sign_all([]) == ()


async def test_every_intent_of_a_group_is_on_disk_before_the_key_is_used_and_every_result_before_release(
    signer: Signer, ca: Ca, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = issue.sign
    seen: list[list[bytes]] = []

    def spying(template: issue.Template, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        seen.append(records(path))
        return real(template, key)

    monkeypatch.setattr(issue, "sign", spying)
    made = serials(await signer.sign_all([job(ca) for _ in range(5)]))
    assert len(seen) == 5
    for found in seen:
        assert [b'"type":"intent"' in line for line in found[-5:]] == [True] * 5
        assert not any(b'"released"' in line for line in found)
    for line, serial in zip(records(path)[-5:], made, strict=True):
        assert b'"type":"released"' in line
        assert f"{serial:x}".encode() in line


async def test_one_that_is_refused_or_fails_the_second_look_does_not_harm_the_others_of_its_group(
    signer: Signer, ca: Ca, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, bad = issue.sign, new_key().public_key()

    def wrong(template: issue.Template, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        other = replace(template, uri="spiffe://west.mesh.example/agent")
        return real(other if template.public_key == bad else template, key)

    monkeypatch.setattr(issue, "sign", wrong)
    first, refused, failed, last = await signer.sign_all(
        [job(ca), job(ca, ca.key.public_key()), job(ca, bad), job(ca)]
    )
    assert isinstance(refused, Refused)
    assert "key of the authority itself" in str(refused)
    assert isinstance(failed, Untrusted)
    assert "the identity" in str(failed)
    assert serials((first, last)) == [entry.serial for entry in signer.journal.ledger(NOW)]
    assert sum(b'"type":"failed"' in line for line in records(path)) == 1
    assert sum(b'"type":"intent"' in line for line in records(path)) == 3


async def test_two_of_one_group_cannot_share_a_key_for_two_identities(signer: Signer, ca: Ca) -> None:
    key = new_key().public_key()
    first, same, other = await signer.sign_all([job(ca, key), job(ca, key), job(ca, key, INGRESS)])
    assert len(serials((first, same))) == 2
    assert isinstance(other, Refused)
    assert f"it belongs to {GATEWAY} already" in str(other)


async def test_two_of_one_group_cannot_both_replace_a_certificate(signer: Signer, ca: Ca) -> None:
    (old,) = serials(await signer.sign_all([job(ca)]))
    key = new_key().public_key()
    first, again, second = await signer.sign_all(
        [job(ca, key, replaces=old), job(ca, key, replaces=old), job(ca, replaces=old)]
    )
    assert len(serials((first, again))) == 2, "the same key asks for what it may have lost"
    assert isinstance(second, Refused)
    assert "replaced already" in str(second)
    (late,) = await signer.sign_all([job(ca, replaces=old)])
    assert isinstance(late, Refused)


async def test_a_key_that_breaks_releases_nothing_of_its_group(
    signer: Signer, ca: Ca, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = issue.sign, iter(range(100))

    def breaking(template: issue.Template, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        if next(calls) == 2:
            raise OSError("the token was pulled out")
        return real(template, key)

    monkeypatch.setattr(issue, "sign", breaking)
    with pytest.raises(OSError, match="pulled out"):
        await signer.sign_all([job(ca) for _ in range(4)])
    assert signer.journal.ledger(NOW) == ()
    assert [b'"type":"failed"' in line for line in records(path)[-4:]] == [True] * 4
    assert len(serials(await signer.sign_all([job(ca)]))) == 1


async def test_closing_waits_for_all_that_wait(ca: Ca, path: Path) -> None:
    signer = open_signer(path, ca)
    tasks = [
        asyncio.create_task(signer.sign_all([job(ca)]), name=f"sign {n}") for n in range(2 * LARGEST_GROUP)
    ]
    await asyncio.sleep(0)
    await signer.close()
    made = {serial for outcome in await asyncio.gather(*tasks) for serial in serials(outcome)}
    again = open_signer(path, ca)
    assert {entry.serial for entry in again.journal.ledger(NOW)} == made
    await again.close()


KILLED = textwrap.dedent(
    """
    import asyncio, os, sys
    from pathlib import Path
    from cryptography import x509
    from tests.pki import test_signer as world
    from tests.pki.test_signer import job, open_signer
    from tests.pki.world import make_world
    from pki import issue

    calls, stop, folder = 0, int(sys.argv[2]), Path(sys.argv[1])

    def dying(module, name):
        real = getattr(module, name)
        def call(*args, **kwargs):
            global calls
            calls += 1
            if calls == stop:
                if name == "pwrite":
                    real(args[0], bytes(args[1])[: len(args[1]) * 2 // 3], args[2])
                os.kill(os.getpid(), 9)
            return real(*args, **kwargs)
        setattr(module, name, call)

    async def main():
        ca = make_world().east
        print("ca", world.spki_hash(ca.key.public_key()), flush=True)
        signer = open_signer(folder / "journal", ca)
        for module, name in ((os, "pwrite"), (os, "fsync"), (issue, "sign")):
            dying(module, name)
        async def ask():
            for made in await signer.sign_all([job(ca), job(ca)]):
                print("got", made.serial_number, flush=True)
        await asyncio.gather(ask(), ask(), ask())
        os._exit(0)

    asyncio.run(main())
    """
)


@pytest.mark.live
def test_a_kill_at_any_step_of_a_group_releases_nothing_that_the_ledger_lacks(tmp_path: Path) -> None:
    """The steps are writes, syncs and signatures: two certificates go alone, then four as one group."""
    step, killed, halfway = 0, True, 0
    while killed:
        step += 1
        folder = tmp_path / str(step)
        folder.mkdir(mode=0o700)
        child = subprocess.run(
            [sys.executable, "-c", KILLED, str(folder), str(step)],
            cwd=Path(__file__).parents[2],
            check=False,
            timeout=60,
            capture_output=True,
            text=True,
        )
        assert child.returncode in (0, -9), child.stderr
        killed = child.returncode == -9
        words = [line.split() for line in child.stdout.splitlines()]
        authority = next(word[1] for word in words if word[0] == "ca")
        released = {int(word[1]) for word in words if word[0] == "got"}
        durable.sweep(folder)
        journal = Journal(folder / "journal", authority, NOW)
        found = {entry.serial for entry in journal.ledger(NOW)}
        journal.close()
        assert released <= found
        intents = sum(b'"type":"intent"' in line for line in records(folder / "journal"))
        results = sum(
            b'"type":"released"' in line or b'"type":"failed"' in line for line in records(folder / "journal")
        )
        assert intents == results, "what was interrupted is closed when the journal is opened again"
        halfway += 0 < len(found) < 6
    assert len(found) == 6
    assert step == 1 + 2 * (2 + 2) + 6, "every write, sync and signature of two groups was a place to die"
    assert halfway >= 6
