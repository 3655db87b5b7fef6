"""Takes what the root signed for our authority when it comes after the join, as the registry's record of us.

The record comes from a hub, which is not believed: it counts if it is the word of a root that we go by, for a key that
we hold. Where another root signs now, its word takes the place of the one before, and never the other way round.
Whatever fails is said, and tried again with the next record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog
from cryptography import x509

from federation.events import Event, MemberChanged, TrustTold
from pki.certificate import authority_key_id, der, load_der
from pki.errors import PkiError
from pki.lineage import Lineage

log = structlog.get_logger()


class Rooting:
    """Of the cluster `me`, which goes by `roots`; `issuing` is the key identifier of the one that signs now, empty if
    that is not known. Let it `hear` every event. `presents` is called when leaves that were issued before present
    another word than those from now on, or none.
    """

    def __init__(
        self,
        me: str,
        lineage: Lineage,
        roots: Callable[[], Sequence[x509.Certificate]],
        issuing: Callable[[], bytes] = lambda: b"",
        presents: Callable[[], None] = lambda: None,
    ) -> None:
        self._me = me
        self._lineage = lineage
        self._roots = roots
        self._issuing = issuing
        self._presents = presents
        self._told = b""
        self._wake = asyncio.Event()

    def hear(self, event: Event) -> None:
        """Note what the registry says that the root signed for us."""
        if isinstance(event, MemberChanged) and event.member.name == self._me and event.member.rooted:
            self._told = event.member.rooted
            self._wake.set()
        elif isinstance(event, TrustTold) and self._told:
            self._wake.set()

    async def run(self) -> None:
        """Take what was told, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.take(self._told)

    async def take(self, told: bytes) -> None:
        """Keep a root-signed form (DER), if it is news and one of ours."""
        authorities = self._lineage.authorities.values()
        held = {form.subject: form for each in authorities if (form := each.root_signed) is not None}
        if told in map(der, held.values()):
            return
        try:
            offered = load_der(told)
            before = held.get(offered.subject)
            if before is not None and authority_key_id(offered) != self._issuing():
                return
            await self._lineage.accept_root_signed(offered, *self._roots())
        except PkiError as error:
            log.error("what the registry says that the root signed for us is not used", reason=str(error))
            return
        log.info("the root signed our authority", trust_domain=str(self._lineage.trust_domain))
        if before is not None or offered == self._lineage.root_signed:
            self._presents()
