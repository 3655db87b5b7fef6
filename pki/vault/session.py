"""A Vault that we are logged in to, and stay logged in to.

`call` is for whoever needs something of it; `run` does in time what a token needs, and finds out whether another one
could be had, so that a role that is gone is known before the token is. There is one line of alarm, said once when it
begins. Everything that speaks to Vault blocks, and is run in threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pki.errors import PkiError, VaultError, VaultFault
from pki.vault.capabilities import Needs, Verdict, judge
from pki.vault.lease import SHORTEST_RETRY, Act, Lease, due, retry_in
from pki.vault.login import Certificate, Method, Token, log_in, revoke
from pki.vault.wire import Place, Vault, part

T = TypeVar("T")

REHEARSAL = 300.0
"""Seconds between two rehearsals of a login."""

LONGEST_WAIT = 5.0
"""Seconds after which is looked again at what is due: what others found out may have changed it."""

THREADS = 2


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        ...

    async def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """How it is with us at a Vault. `token_left`: seconds that the token lasts, infinite for one that never ends."""

    address: str
    token_left: float
    problem: str


class Session:
    """Logs in at the first call. `tell` hears each problem when it begins, and an empty text when it is over."""

    def __init__(
        self, place: Place, method: Method, clock: Clock, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        certificate = method.certificate if isinstance(method, Certificate) else None
        self.vault = Vault(place, certificate)
        self._certificate = certificate
        self._method = method
        self._clock = clock
        self._tell = tell
        self._lease: Lease | None = None
        self._rehearse_at = float("inf")
        self._token_problem = ""
        self._call_problem = ""
        self._entering = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="vault")

    def __repr__(self) -> str:
        return f"Session({self.vault!r}, {type(self._method).__name__})"

    @property
    def problem(self) -> str:
        """What is wrong, in one line; empty while nothing is known to be."""
        return self._token_problem or self._call_problem

    @property
    def standing(self) -> Standing:
        lease = self._lease
        left = 0.0 if lease is None else lease.left(self._clock.monotonic())
        return Standing(self.vault.place.address, left, self.problem)

    def call(self, ask: Callable[[Vault], T]) -> T:
        """What `ask` gets from Vault, after a login where one is needed. Blocks; raises `VaultError`, `KeyFileError`.

        What is denied is asked once more with a new token, since the old one may have been revoked.
        """
        try:
            token = self._token()
            try:
                found = ask(self.vault)
            except VaultError as error:
                if error.fault is not VaultFault.DENIED:
                    raise
                self._enter(instead_of=token)
                found = ask(self.vault)
        except PkiError as error:
            self._note(self._token_problem, str(error))
            self._rehearse_at = min(self._rehearse_at, self._clock.monotonic() + SHORTEST_RETRY)
            raise
        self._note(self._token_problem, "")
        return found

    async def ask(self, ask: Callable[[Vault], T]) -> T:
        """`call`, in a thread."""
        return await self._in_thread(lambda: self.call(ask))

    async def examine(self, needs: Needs) -> Verdict:
        """What the policy of our token lacks, and what it has too much of. Raises as `call` does."""
        body = {"paths": list(needs.paths)}
        found = await self.ask(lambda vault: vault.post("sys/capabilities-self", body))
        return judge(needs, part(found, "data"))

    async def run(self) -> None:
        """Keep the token alive until cancelled."""
        while True:
            wait = await self._in_thread(self.tend)
            await self._clock.sleep(wait)

    def tend(self) -> float:
        """Do what is due, and return the seconds until the next look. Blocks; what fails is told, and tried again."""
        now = self._clock.monotonic()
        act, at = due(self._lease, self._rehearse_at, now)
        if at > now:
            return min(at - now, LONGEST_WAIT)
        try:
            match act:
                case Act.LOG_IN:
                    self._enter(instead_of=self.vault.token)
                case Act.RENEW:
                    self._renew()
                case Act.REHEARSE:
                    self._rehearse()
        except PkiError as error:
            self._note(f"{error}; to {act.value} failed", self._call_problem)
            asked = error.retry_after if isinstance(error, VaultError) else None
            return retry_in(self._lease, asked, now)
        self._note("", "")
        return self.tend()

    async def close(self) -> None:
        """Let go of the connections. The token ends by itself: others may still use what it made."""
        await asyncio.to_thread(self._threads.shutdown)
        self.vault.close()

    def _token(self) -> str:
        lease, token = self._lease, self.vault.token
        if lease is None or lease.left(self._clock.monotonic()) == 0:
            self._enter(instead_of=token)
        return self.vault.token

    def _enter(self, instead_of: str) -> None:
        """Log in, unless somebody else has meanwhile."""
        with self._entering:
            if self.vault.token != instead_of:
                return
            token, granted = log_in(self.vault, self._method)
            now = self._clock.monotonic()
            self.vault.token, self._lease = token, Lease.of(granted, now)
            self._rehearse_at = now + REHEARSAL

    def _renew(self) -> None:
        try:
            granted = part(self.vault.post("auth/token/renew-self"), "auth")
        except VaultError as error:
            if error.fault is not VaultFault.DENIED:
                raise
            self._enter(instead_of=self.vault.token)
            return
        with self._entering:
            if self._lease is not None:
                self._lease = self._lease.renewed(granted, self._clock.monotonic())

    def _rehearse(self) -> None:
        """On a way of its own, so that nobody who asks meanwhile does it with the rehearsed token."""
        stage = Vault(self.vault.place, self._certificate)
        try:
            token, _ = log_in(stage, self._method)
            if not isinstance(self._method, Token):
                revoke(stage, token)
        finally:
            stage.close()
        self._rehearse_at = self._clock.monotonic() + REHEARSAL

    def _note(self, token_problem: str, call_problem: str) -> None:
        """What is wrong with the token, and with what was asked; told once, however often it is tried."""
        before = self.problem
        self._token_problem, self._call_problem = token_problem, call_problem
        if bool(before) != bool(self.problem):
            self._tell(self.problem)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
