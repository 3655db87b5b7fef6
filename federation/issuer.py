"""Who asks for a workload's certificate, may it have one, and has it been given one for this call already?

An identity comes from a one-time token or from the ledger entry of the certificate whose key the caller has proved to
hold; only the latest of a line is replaced. Policy and quota are asked before a token is used up. A call that is
repeated, because its answer was lost, gets the certificates of the first one, and in each case the newest bundle.

Nothing here waits in a queue without a bound: each identity has a quota, and whoever calls bounds the number of calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from math import ceil
from typing import Protocol

import structlog
from cryptography import x509

from federation.banned import WhyBanned, nobody_is_banned
from federation.clock import Clock
from federation.svid.arrivals import Arrivals
from federation.svid.demand import Answer, Demand, Given, Held, Outcome, Refusal, Secret, Vetted
from federation.svid.quota import Level, Quota, spend
from federation.tokens import TokenStore
from pki import bundle, token
from pki.authority import Issued, Order
from pki.bundle import Bundle
from pki.certificate import der
from pki.errors import PkiError, Refused
from pki.ledger import Entry
from pki.limits import Limits, lifetime_of
from pki.policy import Attestation, Attested, Denied, Grant, decide
from pki.possession import load_key
from pki.profiles import SVID
from pki.renewal import renew_at
from pki.spiffe import SpiffeId, TrustDomain
from pki.tally import Tally

MOST_REMEMBERED = 4096
"""Outcomes that are kept for whoever repeats a call."""
MOST_IDENTITIES = 65_536
"""Identities whose quota is kept; the one that was quiet for longest is let go first."""
MOST_DECIDED = 4096
"""Decisions that are remembered; they depend on nothing but who asks for what."""
RETRY_AFTER = 1.0
"""Seconds after which to try again what the authority could not do now."""

log = structlog.get_logger()


class IssuingAuthority(Protocol):
    """What is needed of an authority."""

    @property
    def trust_domain(self) -> TrustDomain: ...

    def entry(self, serial: int) -> Entry | None: ...

    def bundle(self) -> Bundle: ...

    async def issue_all(self, orders: Sequence[Order]) -> tuple[Issued | PkiError, ...]: ...


@dataclass(frozen=True, slots=True)
class _Line:
    """An identity that is proved, with serial number and key (SPKI hash) of the certificate that is replaced."""

    identity: SpiffeId
    by: Attestation
    replaces: int | None = None
    key: str = ""


_Key = tuple[str, bytes, str]
"""Identity, number of the call, and hash of the new key: what makes a call the same as another."""


@dataclass(frozen=True, slots=True)
class _Begun:
    key: _Key
    order: Order
    outcome: asyncio.Future[Outcome]


class Issuer:
    """Issues to the workloads of one cluster. Who is refused before the authority is asked is counted in `tally`."""

    def __init__(
        self,
        authority: IssuingAuthority,
        tokens: TokenStore,
        limits: Limits,
        quota: Quota,
        clock: Clock,
        why_banned: WhyBanned = nobody_is_banned,
        tally: Tally | None = None,
    ) -> None:
        self._tally = tally or Tally()
        self._authority = authority
        self._tokens = tokens
        self._limits = limits
        self._quota = quota
        self._clock = clock
        self._why_banned = why_banned
        self._decided = lru_cache(maxsize=MOST_DECIDED)(decide)
        self._levels: dict[str, Level] = {}
        self._remembered: dict[_Key, asyncio.Future[Outcome]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._bundle: tuple[Bundle, bytes] | None = None
        self._above: tuple[tuple[x509.Certificate, ...], tuple[bytes, ...]] = ((), ())
        self._arrivals = Arrivals()

    @property
    def gone(self) -> Set[int]:
        """The serial numbers of certificates that their holders have done with (`federation.svid.arrivals`)."""
        return self._arrivals.gone

    async def issue(self, demand: Demand) -> Answer:
        """An outcome for each wish. What the authority's key raises goes through."""
        if demand.key and (reason := self._why_banned(SpiffeId.parse(demand.caller), demand.key)) is not None:
            for _ in demand.wishes:
                self._tally.refuse(SVID.name, "caller")
            return Answer((Refusal("caller", reason),) * len(demand.wishes), self._encoded_bundle())
        if demand.serial:
            self._arrivals.came(int(demand.serial, 16))
        outcomes: list[Refusal | asyncio.Future[Outcome]] = []
        begun: list[_Begun] = []
        for wish in demand.wishes:
            step = wish if isinstance(wish, Refusal) else await self._begin(demand, wish)
            if isinstance(step, _Begun):
                begun.append(step)
                outcomes.append(step.outcome)
            else:
                if isinstance(step, Refusal):
                    self._tally.refuse(SVID.name, step.field)
                outcomes.append(step)
        if begun:
            await asyncio.shield(self._started(begun))
        if waiting := [one for one in outcomes if isinstance(one, asyncio.Future) and not one.done()]:
            await asyncio.wait(waiting)
        found = tuple(one if isinstance(one, Refusal) else one.result() for one in outcomes)
        return Answer(found, self._encoded_bundle())

    def check(self, identity: SpiffeId) -> None:
        """Raise `Refused` if this identity could get no certificate by a token."""
        self._decide(_Line(identity, Attestation.TOKEN), None)

    async def give(self, who: str, identity: SpiffeId, key: bytes, lifetime: float | None) -> Given:
        """A certificate that an operator, `who`, asks for; `key` as in a wish. Raises `Refused` or PkiError."""
        granted = self._decide(_Line(identity, Attestation.ADMINISTRATOR), lifetime)
        self._refuse_banned(identity, sha256(key).hexdigest())
        order = Order(load_key(key), granted, who, Attestation.ADMINISTRATOR.value)
        (issued,) = await self._authority.issue_all((order,))
        if isinstance(issued, PkiError):
            raise issued
        return self._given(order, issued)

    # ---- one wish ------------------------------------------------------------------------------------------------

    async def _begin(self, demand: Demand, wish: Vetted) -> Refusal | asyncio.Future[Outcome] | _Begun:
        try:
            line = await self._line(wish.proof)
            key = (line.identity.path, demand.request_id, sha256(wish.key).hexdigest())
            for spki in (key[2], line.key):
                self._refuse_banned(line.identity, spki)
            if (known := self._remembered.get(key)) is not None:
                return known
            granted = self._decide(line, wish.lifetime)
            if (wait := self._spend(line.identity)) > 0:
                return Refusal("rate", f"{line.identity} has asked for too many certificates", wait)
            if isinstance(wish.proof, Secret):
                await self._use_up(wish.proof, line.identity, key[2])
            order = Order(load_key(wish.key), granted, demand.caller, line.by.value, line.replaces)
        except Refused as refused:
            log.warning("no certificate", caller=demand.caller, field=refused.field, reason=refused.reason)
            return Refusal(refused.field, refused.reason)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._remember(key, future)
        return _Begun(key, order, future)

    async def _line(self, proof: Held | Secret) -> _Line:
        match proof:
            case Held(serial=serial, spki=spki):
                return self._held(int(serial, 16), spki)
            case Secret(secret=secret):
                record = await self._tokens.find(sha256(secret).digest())
                if record is None or record.kind != "workload":
                    raise Refused("token", str(token.Refused()))
                return _Line(SpiffeId(self._authority.trust_domain, record.subject), Attestation.TOKEN)

    def _held(self, serial: int, spki: str) -> _Line:
        """The line that goes on. That nothing has replaced this certificate yet is looked at when it is signed."""
        entry = self._authority.entry(serial)
        if entry is None or entry.spki != spki or entry.not_after < self._clock.now():
            raise Refused(
                "renewal", "the current certificate is not in our ledger, or has ended; attest again"
            )
        if entry.profile != SVID.name:
            raise Refused("renewal", f"{entry.identity} is not a workload")
        self._arrivals.came(serial)
        return _Line(SpiffeId.parse(entry.identity), Attestation.RENEWAL, serial, spki)

    def _decide(self, line: _Line, lifetime: float | None) -> Grant:
        wanted = None if lifetime is None else lifetime_of(lifetime)
        who = Attested(line.identity, line.by, wanted)
        outcome = self._decided(who, self._authority.trust_domain, self._limits)
        if isinstance(outcome, Denied):
            raise Refused("identity", str(outcome))
        return outcome

    def _refuse_banned(self, identity: SpiffeId, spki: str) -> None:
        if (reason := self._why_banned(identity, spki)) is not None:
            raise Refused("identity", reason)

    def _spend(self, identity: SpiffeId) -> float:
        """Seconds to wait; 0 if one more was taken from the quota of this identity."""
        spent = spend(self._levels.pop(identity.path, None), self._quota, self._clock.monotonic())
        self._levels[identity.path] = spent.level
        if len(self._levels) > MOST_IDENTITIES:
            del self._levels[next(iter(self._levels))]
        return spent.wait

    async def _use_up(self, proof: Secret, identity: SpiffeId, spki: str) -> None:
        if isinstance(await self._tokens.redeem(proof.secret, identity.path, spki), token.Refused):
            raise Refused("token", str(token.Refused()))

    # ---- many together -------------------------------------------------------------------------------------------

    def _remember(self, key: _Key, outcome: asyncio.Future[Outcome]) -> None:
        self._remembered[key] = outcome
        if len(self._remembered) > MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def _started(self, begun: Sequence[_Begun]) -> asyncio.Task[None]:
        """The signing, which goes on if its caller gives up: the answer is there when he asks again."""
        task = asyncio.create_task(self._fulfil(begun), name="issue")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _fulfil(self, begun: Sequence[_Begun]) -> None:
        try:
            issued = await self._authority.issue_all([one.order for one in begun])
            for one, made in zip(begun, issued, strict=True):
                if isinstance(made, Issued):
                    if one.order.replaces is not None:
                        self._arrivals.given(made.certificate.serial_number, one.order.replaces)
                    one.outcome.set_result(self._given(one.order, made))
                elif isinstance(made, Refused):
                    one.outcome.set_result(Refusal(made.field, made.reason))
        except PkiError as error:
            log.error("certificates cannot be signed", reason=str(error))
        finally:
            for one in begun:
                if not one.outcome.done():
                    one.outcome.set_result(
                        Refusal("authority", "it cannot sign now; its log has the reason", RETRY_AFTER)
                    )
                if isinstance(one.outcome.result(), Refusal):
                    self._remembered.pop(one.key, None)

    def _given(self, order: Order, issued: Issued) -> Given:
        certificate, requested = issued.certificate, order.grant.requested
        return Given(
            (der(certificate), *self._encoded_above(issued.chain[1:])),
            None if requested is None else int(requested.total_seconds()),
            _seconds_left(certificate.not_valid_after_utc, self._clock.now()),
            issued.limited_by or "",
            int(renew_at(certificate).timestamp()),
        )

    def _encoded_above(self, chain: tuple[x509.Certificate, ...]) -> tuple[bytes, ...]:
        """What is presented above the certificate: the same for all, until the root signs anew."""
        if self._above[0] != chain:
            self._above = (chain, tuple(map(der, chain)))
        return self._above[1]

    def _encoded_bundle(self) -> bytes:
        current = self._authority.bundle()
        if self._bundle is None or self._bundle[0] != current:
            self._bundle = (current, bundle.encode(current))
        return self._bundle[1]


def _seconds_left(end: datetime, now: datetime) -> int:
    """Certificates count in whole seconds, from the last one."""
    return ceil((end - now).total_seconds())
