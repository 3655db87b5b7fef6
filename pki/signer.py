"""The one way to a certificate: intent on disk, signature, second look, result on disk, release.

A `Signer` is one key, the journal of what it signed and the clock. The steps run in a thread of its own, because
the key may be slow or remote. Whatever waits when the thread is free goes through them as one group, so that the
journal is made durable twice a group and not twice a certificate; the order of the steps holds for each
certificate of the group as it would alone. It does not decide who gets what: it is handed plans.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pki import issue
from pki.algorithms import spki_hash
from pki.errors import PkiError, Refused
from pki.issue import Template
from pki.journal import Journal
from pki.ledger import Entry, Failed, Intent, Released, Superseded
from pki.profiles import epoch_of
from pki.skew import Course, Reading, check_course, check_forward, follow
from pki.validate import check_signed

T = TypeVar("T")

SERIAL_BYTES = 20
LEAST_SERIAL_BITS = 64

LARGEST_GROUP = 64
"""Certificates that are signed as one group; about 20 ms of work, for which the next one waits."""

Plan = Callable[[int, datetime], Template]
"""Makes the template, given a fresh serial number and the time."""


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    def running(self) -> float:
        """Seconds since some fixed moment, also those while the machine slept. Nobody can set it."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """One certificate as planned; `issuer` are the forms of this authority, none for its own anchor.

    `who` asked for it and `why` it is given are for the journal. `replaces` is the serial number of the
    certificate whose place it takes. `again`: a subordinate may be signed that was signed before, though not as the
    newest of its name. `bundle` as in `Intent`.
    """

    plan: Plan
    issuer: tuple[x509.Certificate, ...]
    who: str
    why: str
    replaces: int | None = None
    again: bool = False
    bundle: int = 0


Outcome = x509.Certificate | PkiError
"""What became of one job of a group: a refusal by its plan or for its key, or a failed second look, is its own."""


@dataclass(frozen=True, slots=True)
class _Planned:
    template: Template
    intent: Intent
    issuer: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class _Signed:
    """What passed the second look, with the SHA-256 of its DER, hex."""

    certificate: x509.Certificate
    digest: str


@dataclass(slots=True)
class _Ahead:
    """What a group means to sign and the journal does not know yet: holders of keys, and successors by serial."""

    holders: dict[str, str] = field(default_factory=dict)
    successors: dict[int, set[str]] = field(default_factory=dict)

    def add(self, intent: Intent, replaces: int | None) -> None:
        self.holders[intent.spki] = intent.identity
        if replaces is not None:
            self.successors.setdefault(replaces, set()).add(intent.spki)


_Waiting = tuple[tuple[Job, ...], "asyncio.Future[tuple[Outcome, ...]]"]


class Signer:
    """Signs with `key`; owns `journal`, and closes it. `key` may block and may live elsewhere."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, journal: Journal, clock: Clock) -> None:
        self.public_key = key.public_key()
        self.journal = journal
        self.private_key = key
        self._clock = clock
        self._own = spki_hash(self.public_key)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="signer")
        self._waiting: deque[_Waiting] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._course: Course | None = None

    async def sign(
        self,
        plan: Plan,
        issuer: Sequence[x509.Certificate],
        *,
        who: str,
        why: str,
        replaces: x509.Certificate | None = None,
        again: bool = False,
    ) -> x509.Certificate:
        """One certificate as planned; `issuer` are the forms of this authority, none for its own anchor.

        Raises `Refused` (by the plan, or a key that belongs to somebody else), `JournalError`, `ClockError`,
        `Untrusted` (the second look), or what the key raises. Then nothing was released.
        """
        serial = None if replaces is None else replaces.serial_number
        (outcome,) = await self.sign_all((Job(plan, tuple(issuer), who, why, serial, again),))
        if isinstance(outcome, PkiError):
            raise outcome
        return outcome

    async def sign_all(self, jobs: Sequence[Job]) -> tuple[Outcome, ...]:
        """Certificates as planned, in the order of `jobs`, together with whatever else waits to be signed.

        Raises `JournalError`, `ClockError`, or what the key raises; then nothing of the group was released.
        """
        future: asyncio.Future[tuple[Outcome, ...]] = asyncio.get_running_loop().create_future()
        self._waiting.append((tuple(jobs), future))
        if self._idle.is_set():
            self._next_group()
        return await future

    async def check(self, plan: Plan, *, newest: bool = False) -> None:
        """Raise `Refused` if `sign` would now refuse the plan of a subordinate's first certificate, or its key.

        With `newest` also if it is not newer than what was signed for its name: to strangers that would tell too much.
        """

        def look() -> None:
            now = self._clock.now()
            intent = intent_of(plan(self.fresh_serial(), now), now, "", "")
            self._check_key(intent, _Ahead(), own=False)
            if newest:
                check_newer(intent, self.journal.newest(intent.identity))

        await self.run(look)

    async def supersede(self, serial: int, identity: str, key: str) -> None:
        """Note that a living certificate of `identity` is replaced by one for `key` (SPKI hash) that another authority
        of the same trust domain is about to issue. Raises `Refused` as a renewal here would, or `JournalError`.
        """

        def note() -> None:
            self._check_latest(serial, identity, key, frozenset())
            self.journal.append(Superseded(self._clock.now(), f"{serial:x}", key))

        await self.run(note)

    async def run(self, work: Callable[[], T]) -> T:
        """Do something else with the key, in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def fresh_serial(self) -> int:
        """159 random bits from the operating system, never used before (RFC 5280 §4.1.2.2)."""
        return next(self.fresh_serials(1))

    def fresh_serials(self, count: int) -> Iterator[int]:
        """As many; the random bits for `count` of them are fetched at once."""
        while True:
            drawn = secrets.token_bytes(SERIAL_BYTES * count)
            for start in range(0, len(drawn), SERIAL_BYTES):
                serial = int.from_bytes(drawn[start : start + SERIAL_BYTES]) >> 1
                if serial.bit_length() >= LEAST_SERIAL_BITS and not self.journal.uses(serial):
                    yield serial

    async def close(self) -> None:
        """Finish what waits to be signed, then let go of the journal."""
        await self._idle.wait()
        await asyncio.to_thread(self._thread.shutdown)
        self.journal.close()

    def _next_group(self) -> None:
        """Hand the thread what waits, whole calls of at most `LARGEST_GROUP` certificates together."""
        group: list[_Waiting] = []
        size = 0
        while self._waiting and (not group or size + len(self._waiting[0][0]) <= LARGEST_GROUP):
            group.append(self._waiting.popleft())
            size += len(group[-1][0])
        if not group:
            self._idle.set()
            return
        self._idle.clear()
        jobs = [job for asked, _ in group for job in asked]
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._sign_group, jobs)
        work.add_done_callback(partial(self._deliver, group))

    def _deliver(self, group: list[_Waiting], work: asyncio.Future[list[Outcome]]) -> None:
        """Callers that gave up get nothing; what was signed for them is in the journal all the same."""
        error = work.exception()
        outcomes = iter(()) if error is not None else iter(work.result())
        for jobs, future in group:
            if error is not None:
                if not future.done():
                    future.set_exception(error)
                continue
            found = tuple(next(outcomes) for _ in jobs)
            if not future.done():
                future.set_result(found)
        self._next_group()

    # ---- in the thread -----------------------------------------------------------------------------------------

    def _sign_group(self, jobs: Sequence[Job]) -> list[Outcome]:
        now = self._now()
        self.journal.forget(now)
        ahead = _Ahead()
        serials = self.fresh_serials(len(jobs))
        steps = [self._plan(job, next(serials), now, ahead) for job in jobs]
        planned = [step for step in steps if isinstance(step, _Planned)]
        if planned:
            self.journal.append(*(step.intent for step in planned))
        signed = iter(self._finish(planned) if planned else ())
        return [next(signed) if isinstance(step, _Planned) else step for step in steps]

    def _signed_before(self, intent: Intent) -> bool:
        """Whether a living certificate says the same of this very key."""
        return any(
            (one.identity, one.spki, one.epoch) == (intent.identity, intent.spki, intent.epoch)
            for one in self.journal.ledger(intent.at)
        )

    def _plan(self, job: Job, serial: int, now: datetime, ahead: _Ahead) -> _Planned | PkiError:
        try:
            template = job.plan(serial, now)
            intent = intent_of(template, now, job.who, job.why, job.replaces, job.bundle)
            self._check_key(intent, ahead, own=not job.issuer)
            if intent.epoch and job.issuer and not (job.again and self._signed_before(intent)):
                check_newer(intent, self.journal.newest(intent.identity))
            if job.replaces is not None:
                successors = ahead.successors.get(job.replaces, set())
                self._check_latest(job.replaces, intent.identity, intent.spki, successors)
        except PkiError as error:
            return error
        ahead.add(intent, job.replaces)
        return _Planned(template, intent, job.issuer)

    def _now(self) -> datetime:
        """The time, unless it cannot be right; raises `ClockError`."""
        reading = Reading(self._clock.now(), self._clock.running())
        if self.journal.last is not None:
            check_forward(reading.wall, self.journal.last, "the last entry of our own journal")
        self._course = follow(self._course, reading)
        check_course(self._course, reading)
        return reading.wall

    def _finish(self, planned: Sequence[_Planned]) -> list[Outcome]:
        """Sign, look again, write the results down; if that cannot be done for all, it is done for none."""
        released = False
        try:
            signed = [self._signed(step) for step in planned]
            now = self._clock.now()
            self.journal.append(*map(partial(_result, now), planned, signed))
            released = True
        finally:
            if not released:
                now = self._clock.now()
                self.journal.append(*(Failed(now, step.intent.serial, "not signed") for step in planned))
        return [one.certificate if isinstance(one, _Signed) else one for one in signed]

    def _signed(self, step: _Planned) -> _Signed | PkiError:
        try:
            data = issue.signed(step.template, self.private_key)
            certificate = check_signed(data, step.template, step.issuer)
        except PkiError as error:
            return error
        return _Signed(certificate, hashlib.sha256(data).hexdigest())

    def _check_key(self, intent: Intent, ahead: _Ahead, own: bool) -> None:
        """A key has one identity for as long as a certificate lives, and an authority's key is no one else's."""
        if not own and intent.spki == self._own:
            raise Refused("key", "it is the key of the authority itself")
        holder = self.journal.holder(intent.spki) or ahead.holders.get(intent.spki)
        if holder is not None and holder != intent.identity:
            raise Refused("key", f"it belongs to {holder} already; make a new one")

    def _check_latest(self, replaces: int, identity: str, key: str, ahead: Set[str]) -> None:
        """Only the latest certificate of a holder is renewed; a copy of an older one is of no use.

        A successor with the same key does not count: then the answer to an earlier request was lost.
        """
        entry = self.journal.entry(replaces)
        if entry is None:
            raise Refused("renewal", "the current certificate is not in our ledger; attest again")
        if entry.identity != identity:
            raise Refused("renewal", f"the current certificate is for {entry.identity}")
        if (entry.successors | ahead) - {key}:
            raise Refused("renewal", "the current certificate has been replaced already; attest again")


def _result(now: datetime, step: _Planned, signed: _Signed | PkiError) -> Released | Failed:
    if isinstance(signed, PkiError):
        return Failed(now, step.intent.serial, "not signed, or not as planned")
    return Released(now, step.intent.serial, signed.digest)


def check_newer(intent: Intent, newest: Entry | None) -> None:
    """Raise `Refused` for another key of a trust domain that is not newer than the newest that was signed for it.

    Else nobody could tell which of two authorities took the place of the other.
    """
    if newest is not None and newest.spki != intent.spki and intent.epoch <= newest.epoch:
        raise Refused(
            "epoch",
            f"it is {intent.epoch}, and another key was signed for {intent.identity} in epoch {newest.epoch}; "
            "an authority that takes the place of another one has a higher epoch",
        )


def identity_of(template: Template) -> str:
    """Whose certificate it will be, as the journal names it."""
    return template.uri or template.subject.rfc4514_string()


def intent_of(
    template: Template, now: datetime, who: str, why: str, replaces: int | None = None, bundle: int = 0
) -> Intent:
    """What the journal records before `template` is signed; `replaces` is a serial number."""
    return Intent(
        at=now,
        serial=f"{template.serial:x}",
        digest=template.digest().hex(),
        profile=template.profile.name,
        identity=identity_of(template),
        spki=hashlib.sha256(template.key_bytes).hexdigest(),
        not_after=template.not_after,
        who=who,
        why=why,
        replaces=None if replaces is None else f"{replaces:x}",
        epoch=(epoch_of(template.subject) or 0) if template.profile.authority else 0,
        bundle=bundle,
    )
