"""Bundles of trust domains outside, kept up to date: fetched, compared, written to disk, each under its own name.

What is configured is what is kept: the file of a trust domain that is no longer configured is removed at the start,
before anybody could use it. A look that fails, or brings what is not followed, changes nothing but the problem that is
shown; what is held grows stale and says so. Nothing here says who may do what with such a bundle.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog
from cryptography import x509

from federation.api.authority_info import ForeignInfo, key_ids
from federation.bundle_settings import Federated
from federation.clock import Clock
from federation.errors import BundleUnavailable, InputError
from pki import durable
from pki.errors import InvalidBundle, KeyFileError, PkiError
from pki.spiffe import SpiffeId, TrustDomain
from pki.spiffe_bundle import LONGEST_DOCUMENT, NotFollowed, SpiffeBundle, follow, parse, write

RETRY_AFTER = timedelta(seconds=60)
"""After a look that failed."""

SUFFIX = ".json"

log = structlog.get_logger()

Fetch = Callable[[Federated, Sequence[x509.Certificate]], Awaitable[bytes]]
"""Looks at the endpoint of one of them; the anchors are those of the endpoint's trust domain, none for https_web."""


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fetched_at: datetime
    document: bytes


@dataclass(slots=True)
class Relation:
    """One trust domain outside. `pinned` is of the endpoint's own trust domain, which is usually the same."""

    wanted: Federated
    trust_domain: TrustDomain
    pinned: SpiffeBundle | None = None
    held: SpiffeBundle | None = None
    fetched_at: datetime | None = None
    problem: str = ""
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Foreign:
    """Everything in `federates`. `load` it before anything else; bundles lie in `folder`."""

    def __init__(self, wanted: Sequence[Federated], folder: Path, fetch: Fetch, clock: Clock) -> None:
        self._relations: dict[str, Relation] = {
            one.trust_domain: Relation(one, TrustDomain.parse(one.trust_domain)) for one in wanted
        }
        self._folder = folder
        self._fetch = fetch
        self._clock = clock

    def load(self) -> None:
        """Take up what is on disk and forget what is not configured. Raises InputError, PkiError."""
        durable.private_folder(self._folder)
        durable.sweep(self._folder)
        for file in sorted(self._folder.glob(f"*{SUFFIX}")):
            if file.name.removesuffix(SUFFIX) not in self._relations:
                file.unlink()
                log.info("a trust domain outside is forgotten", trust_domain=file.name.removesuffix(SUFFIX))
        for relation in self._relations.values():
            self._load(relation)

    async def run(self) -> None:
        """Look at each of them as often as its publisher wants, for ever."""
        async with asyncio.TaskGroup() as group:
            for relation in self._relations.values():
                group.create_task(self._keep(relation), name=f"bundle of {relation.trust_domain}")

    async def look(self, trust_domain: str) -> ForeignInfo | None:
        """Look now. None if it is not configured."""
        relation = self._relations.get(trust_domain)
        if relation is None:
            return None
        await self._look(relation)
        return self._told(relation)

    def told(self) -> tuple[ForeignInfo, ...]:
        """How each of them is."""
        return tuple(self._told(relation) for _, relation in sorted(self._relations.items()))

    def problems(self) -> Iterator[str]:
        """What somebody should look after."""
        for info in self.told():
            if info.stale:
                yield f"the bundle of {info.trust_domain} is stale: {info.problem or 'not looked at yet'}"

    async def _keep(self, relation: Relation) -> None:
        while True:
            await self._look(relation)
            usual = RETRY_AFTER if relation.problem or relation.held is None else relation.held.refresh
            await self._clock.sleep(usual.total_seconds() * random.uniform(0.9, 1.0))

    async def _look(self, relation: Relation) -> None:
        async with relation.looking:
            try:
                document = await self._fetch(relation.wanted, self._anchors(relation))
                outcome = follow(relation.held, parse(relation.trust_domain, document))
                if isinstance(outcome, NotFollowed):
                    raise BundleUnavailable(relation.wanted.url, outcome.reason)
                await self._take(relation, outcome.bundle, outcome.changed)
            except (BundleUnavailable, PkiError) as error:
                if relation.problem != str(error):
                    log.warning(
                        "a bundle outside is not brought up to date",
                        trust_domain=relation.trust_domain.name,
                        reason=str(error),
                    )
                relation.problem = str(error)

    async def _take(self, relation: Relation, bundle: SpiffeBundle, changed: bool) -> None:
        now = self._clock.now()
        stored = _Stored(now, base64.b64encode(write(bundle)))
        await asyncio.to_thread(durable.write, self._file(relation), msgspec.json.encode(stored))
        relation.held, relation.fetched_at, relation.problem = bundle, now, ""
        if changed:
            log.info(
                "a bundle outside is taken",
                trust_domain=bundle.trust_domain.name,
                sequence=bundle.sequence,
                authorities=len(bundle.anchors),
            )

    def _anchors(self, relation: Relation) -> Sequence[x509.Certificate]:
        """Of the endpoint's trust domain: the newest that is held, else what the operator pinned."""
        if relation.wanted.spiffe_id is None:
            return ()
        endpoint = SpiffeId.parse(relation.wanted.spiffe_id).trust_domain
        serving = self._relations.get(endpoint.name)
        held = serving.held if serving is not None else None
        newest = held or relation.pinned
        return () if newest is None else newest.anchors

    def _load(self, relation: Relation) -> None:
        wanted = relation.wanted
        if wanted.first_bundle is not None and wanted.spiffe_id is not None:
            domain = SpiffeId.parse(wanted.spiffe_id).trust_domain
            relation.pinned = _pinned(Path(wanted.first_bundle), domain)
        try:
            data = durable.read_private(self._file(relation), 2 * LONGEST_DOCUMENT)
            stored = msgspec.json.decode(data, type=_Stored)
            relation.held = parse(relation.trust_domain, base64.b64decode(stored.document))
            relation.fetched_at = stored.fetched_at
        except FileNotFoundError:
            pass
        except (msgspec.MsgspecError, ValueError, InvalidBundle) as error:
            raise KeyFileError(
                self._file(relation), f"is not a bundle: {error}; remove it, it is fetched again"
            ) from error
        if relation.pinned is not None and relation.pinned.trust_domain == relation.trust_domain:
            newer = follow(relation.held, relation.pinned)
            if not isinstance(newer, NotFollowed):
                relation.held = newer.bundle

    def _file(self, relation: Relation) -> Path:
        return self._folder / f"{relation.trust_domain.name}{SUFFIX}"

    def _told(self, relation: Relation) -> ForeignInfo:
        held, at = relation.held, relation.fetched_at
        oldest = self._clock.now() - timedelta(seconds=relation.wanted.stale_after)
        return ForeignInfo(
            trust_domain=relation.trust_domain.name,
            url=str(relation.wanted.url),
            profile=relation.wanted.profile,
            sequence=None if held is None else held.sequence,
            anchors=() if held is None else key_ids(held.anchors),
            fetched_at=at,
            stale=at is None or at < oldest,
            problem=relation.problem,
            pem="" if held is None else held.pem().decode(),
        )


def _pinned(path: Path, trust_domain: TrustDomain) -> SpiffeBundle:
    try:
        with path.open("rb") as file:
            return parse(trust_domain, file.read(LONGEST_DOCUMENT + 1))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=str(path), field="first_bundle") from error
    except InvalidBundle as error:
        raise InputError(
            error.reason,
            file=str(path),
            field="first_bundle",
            hint="export it with `federation ca export spiffe`",
        ) from error
