"""What a hub or an agent asks the root for, and what it does with the answer, when the root is in a safe.

Nothing is kept here: who waits is read from the authority and the registry at each question, so a ceremony can be
begun anew at any time. An answer is looked through whole before the first certificate of it is kept, and one that was
kept already does no harm. Nobody is believed who brings a file: a certificate counts for the key that asked, by the
root that is pinned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog
from cryptography import x509

from federation.clock import Clock
from federation.hub import Hub
from pki.ceremony import (
    MOST_REQUESTS,
    Answers,
    NextRoot,
    Request,
    Requests,
    fingerprint_of,
    now_in_seconds,
    open_answers,
)
from pki.certificate import authority_key_id, der, subject_key_id
from pki.errors import CeremonyFile
from pki.lineage import Lineage
from pki.offline import OfflineRoot
from pki.rooted import is_rooted
from pki.rotation import Side
from pki.spiffe import TrustDomain
from pki.upstream import Root

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Gathered:
    """A file of requests, None if nobody waits; and how many more wait than fit into one."""

    requests: Requests | None
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Installed:
    """For whom certificates were kept, and for whom not, because nobody here asked for them."""

    root: x509.Certificate
    kept: tuple[TrustDomain, ...]
    unasked: tuple[TrustDomain, ...]


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The root that is to follow, and the one that it follows."""

    root: x509.Certificate
    follows: x509.Certificate


class Ceremony(Protocol):
    """What the commands `federation ca request` and `install` ask a process for."""

    @property
    def pinned(self) -> x509.Certificate | None: ...

    async def gather(self) -> Gathered: ...

    async def install(self, answers: Answers) -> Installed:
        """Keep what was asked for. Raises CeremonyFile, then nothing was; WriteError, StoreError."""
        ...

    async def hand_over(self, file: NextRoot) -> HandedOver:
        """Keep the root that is to follow. Raises CeremonyFile, then nothing was; WriteError."""
        ...


class NoCeremony:
    """Of a hub whose root signs at once: nobody ever waits."""

    def __init__(self, root: Root) -> None:
        self._root = root

    @property
    def pinned(self) -> x509.Certificate | None:
        return self._root.certificate

    async def gather(self) -> Gathered:
        return Gathered(None)

    async def install(self, answers: Answers) -> Installed:
        raise CeremonyFile(_NOT_OFFLINE)

    async def hand_over(self, file: NextRoot) -> HandedOver:
        raise CeremonyFile(_NOT_OFFLINE)


_NOT_OFFLINE = "the root of this hub is not offline: it signs at once"


class HubCeremony:
    """A hub's: for its own authority, and, once it runs, for every cluster that waits."""

    def __init__(
        self, base: str, place: Path, authority: Lineage, root: OfflineRoot | None, clock: Clock
    ) -> None:
        self.root = root
        self.hub: Hub | None = None
        self.done = asyncio.Event()
        """Set when root and own root-signed form are here."""
        self._base = base
        self._place = place
        self._authority = authority
        self._clock = clock
        self._check_done()

    @property
    def pinned(self) -> x509.Certificate | None:
        return None if self.root is None else self.root.certificate

    async def pin(self, certificate: x509.Certificate) -> None:
        """Pin the root before anything it has signed arrives. Raises CeremonyFile, WriteError."""
        if self.root is not None:
            if der(self.root.certificate) != der(certificate):
                raise CeremonyFile(
                    "another root is pinned here",
                    "all members pin it; the one that follows it comes with `federation ca install`",
                )
            return
        self.root = await OfflineRoot.pin(self._place, self._base, certificate, self._clock)
        log.info("the root is pinned", fingerprint=fingerprint_of(certificate))

    async def hand_over(self, file: NextRoot) -> HandedOver:
        if self.root is None:
            raise CeremonyFile("no root is pinned here yet, so none follows", _ASK)
        certificate = await self.root.hand_over(file)
        log.info("the next root is here", fingerprint=fingerprint_of(certificate))
        return HandedOver(certificate, self.root.certificate)

    async def gather(self) -> Gathered:
        wanted = await _own_requests(self._authority, self.pinned)
        if self.hub is not None:
            wanted += [
                Request(TrustDomain.of_cluster(row.name, self._base).name, row.wanted)
                for row in self.hub.registry.rows.values()
                if row.waits
            ]
        return _file(self._base, wanted, self.pinned, self._clock)

    async def install(self, answers: Answers) -> Installed:
        opened = open_answers(answers, self._base, self.pinned, self._clock.now())
        own = opened.signed.pop(self._authority.trust_domain, None)
        if own is None and self._authority.root_signed is None:
            raise CeremonyFile("it has nothing for this hub, whose own authority comes first", _ASK)
        if own is not None:
            _check_own(self._authority, own, opened.root)
        await self.pin(opened.root)
        kept = []
        if own is not None:
            await _keep_own(self._authority, own, opened.root)
            kept.append(self._authority.trust_domain)
        for domain, certificate in opened.signed.items():
            if await self._keep(domain, certificate):
                kept.append(domain)
        self._check_done()
        unasked = tuple(domain for domain in opened.signed if domain not in kept)
        if not kept:
            raise CeremonyFile("nobody here asked for what is in it", _ASK)
        return Installed(opened.root, tuple(kept), unasked)

    async def _keep(self, domain: TrustDomain, certificate: x509.Certificate) -> bool:
        name = domain.cluster(self._base)
        if self.hub is None or name is None:
            return False
        row = self.hub.registry.find(name)
        held = row is not None and der(certificate) in (row.rooted, row.next_rooted)
        return held or await self.hub.membership.root_signed(name, certificate)

    def _check_done(self) -> None:
        if self.root is not None and self._authority.root_signed is not None:
            self.done.set()


class AgentCeremony:
    """An agent's: for its own authority, when nobody does it at the hub. `presents` is called when leaves are to
    present another word of the root than they do, or their first one.
    """

    def __init__(
        self,
        base: str,
        root: Callable[[], x509.Certificate],
        authority: Lineage,
        clock: Clock,
        presents: Callable[[], None] = lambda: None,
    ) -> None:
        self._base = base
        self._root = root
        self._authority = authority
        self._clock = clock
        self._presents = presents

    @property
    def pinned(self) -> x509.Certificate | None:
        return self._root()

    async def gather(self) -> Gathered:
        wanted = await _own_requests(self._authority, self.pinned)
        return _file(self._base, wanted, self.pinned, self._clock)

    async def hand_over(self, file: NextRoot) -> HandedOver:
        raise CeremonyFile("a root is replaced at the hub, not at an agent", "install the file there")

    async def install(self, answers: Answers) -> Installed:
        opened = open_answers(answers, self._base, self.pinned, self._clock.now())
        own = opened.signed.pop(self._authority.trust_domain, None)
        if own is None:
            raise CeremonyFile(f"it has nothing for {self._authority.trust_domain}", _ASK)
        _check_own(self._authority, own, opened.root)
        await _keep_own(self._authority, own, opened.root)
        self._presents()
        return Installed(opened.root, (self._authority.trust_domain,), tuple(opened.signed))


def _file(base: str, wanted: list[Request], pinned: x509.Certificate | None, clock: Clock) -> Gathered:
    if not wanted:
        return Gathered(None)
    requests = Requests(
        base=str(base),
        made_at=now_in_seconds(clock.now()),
        root="" if pinned is None else fingerprint_of(pinned),
        requests=tuple(wanted[:MOST_REQUESTS]),
    )
    return Gathered(requests, len(wanted) - len(requests.requests))


async def _own_requests(authority: Lineage, root: x509.Certificate | None) -> list[Request]:
    """What our own authorities ask `root` for: it signs one key for a name, and none that is older than one that it has
    signed. So the oldest comes first, by which others believe what follows it.
    """
    waiting: list[Side] = []
    for side, one in authority.authorities.items():
        if _has_word(one.root_signed, root):
            waiting.clear()
        else:
            waiting.append(side)
    return [Request(authority.trust_domain.name, await authority.csr(side)) for side in waiting[:1]]


def _has_word(form: x509.Certificate | None, root: x509.Certificate | None) -> bool:
    return form is not None and (root is None or authority_key_id(form) == subject_key_id(root))


def _check_own(authority: Lineage, rooted: x509.Certificate, root: x509.Certificate) -> None:
    if not any(is_rooted(one.self_signed, rooted, root) for one in authority.authorities.values()):
        raise CeremonyFile(f"what it has for {authority.trust_domain} is over another key than ours", _ASK)


async def _keep_own(authority: Lineage, rooted: x509.Certificate, root: x509.Certificate) -> None:
    held = {der(one.root_signed) for one in authority.authorities.values() if one.root_signed is not None}
    if der(rooted) not in held:
        await authority.accept_root_signed(rooted, root)
        log.info("the root signed our authority", trust_domain=str(authority.trust_domain))


_ASK = "take the answer to the newest file of `federation ca request`"
