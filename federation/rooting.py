"""Takes what the root signed for our authority when it comes after the join, as the registry's record of us.

The record comes from a hub, which is not believed: it counts if it is the pinned root's word for a key that we hold.
Whatever fails is said, and tried again with the next record.
"""

from __future__ import annotations

import asyncio

import structlog
from cryptography import x509

from federation.events import Event, MemberChanged
from pki.certificate import der, load_der
from pki.errors import PkiError
from pki.lineage import Lineage

log = structlog.get_logger()


class Rooting:
    """Of the cluster `me`. Let it `hear` every event."""

    def __init__(self, me: str, lineage: Lineage, root: x509.Certificate) -> None:
        self._me = me
        self._lineage = lineage
        self._root = root
        self._told = b""
        self._wake = asyncio.Event()

    def hear(self, event: Event) -> None:
        """Note what the registry says that the root signed for us."""
        if isinstance(event, MemberChanged) and event.member.name == self._me and event.member.rooted:
            self._told = event.member.rooted
            self._wake.set()

    async def run(self) -> None:
        """Take what was told, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.take(self._told)

    async def take(self, told: bytes) -> None:
        """Keep a root-signed form (DER), if it is news and one of ours."""
        held = {der(each.root_signed) for each in self._lineage.authorities.values() if each.root_signed}
        if told in held:
            return
        try:
            await self._lineage.accept_root_signed(load_der(told), self._root)
        except PkiError as error:
            log.error("what the registry says that the root signed for us is not used", reason=str(error))
        else:
            log.info("the root signed our authority", trust_domain=str(self._lineage.trust_domain))
