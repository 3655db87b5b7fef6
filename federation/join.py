"""Joining a federation once, with a one-time token, and remembering it.

The cluster's authority and its key are made before the token is used, and belong to it from its first use: a join that
was interrupted anywhere goes on with the same key and the same token.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import structlog
from cryptography import x509

from federation.api.redeem import redeem
from federation.clock import Clock
from federation.errors import FederationError
from federation.listen import HostPort
from pki import bundle as bundles
from pki import durable
from pki.authority import Authority
from pki.bundle import Bundle
from pki.certificate import load_pem, pem
from pki.errors import PkiError
from pki.keys import KeyStore
from pki.spiffe import HUB, TrustDomain
from pki.token import JoinToken

LONGEST_FILE = 256 * 1024

log = structlog.get_logger()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    base: str
    sync: str
    joined_at: datetime
    root: str
    hub_bundle: bytes


@dataclass(frozen=True, slots=True)
class Membership:
    """What a join brought: where the hub is, and by what it and new trust domains are verified."""

    base: str
    sync: HostPort
    joined_at: datetime
    root: x509.Certificate
    hub_bundle: Bundle

    @property
    def hub_domain(self) -> TrustDomain:
        return self.hub_bundle.trust_domain


def membership(path: Path) -> Membership | None:
    """The membership written at `path`, None if there is none. Raises FederationError for a file that is damaged."""
    if not path.exists():
        return None
    try:
        file = msgspec.json.decode(durable.read_private(path, LONGEST_FILE), type=_File)
        root = load_pem(file.root.encode())[0]
        return Membership(
            file.base, HostPort.parse(file.sync), file.joined_at, root, bundles.decode(file.hub_bundle)
        )
    except (msgspec.MsgspecError, ValueError, PkiError) as error:
        raise FederationError(
            f"{path} cannot be read: {error}", "put a backup of the agent's folder back; nothing was changed"
        ) from error


async def join(cluster: str, token_file: Path, folder: Path, keys: KeyStore, clock: Clock) -> Membership:
    """Join with the token in `token_file`; leaves `membership.json` and the authority in `folder`.

    Raises FederationError, Unreachable, Refusal, or a PkiError such as PinMismatch.
    """
    token = JoinToken.decode(_read(token_file))
    if token.kind != "join" or token.subject != cluster:
        raise FederationError(
            f"the token in {token_file} is not for cluster {cluster}",
            f"make one on the hub: federation token create {cluster} --may-export … --range …",
        )
    made: list[Authority] = []

    async def request(hub: Bundle) -> bytes:
        base = hub.trust_domain.name.removeprefix(f"{HUB}.")
        authority = await open_authority(folder, keys, TrustDomain.of_cluster(cluster, base), clock)
        made.append(authority)
        return await authority.csr()

    try:
        redemption = await redeem(token, "/v1/join", "federation", request, cluster, clock)
        answer = redemption.answer
        if not answer.certificates or answer.joined_at is None:
            raise FederationError(
                f"{token.url} accepted the token and sent no certificate", "upgrade both sides"
            )
        (rooted,) = load_pem("".join(answer.certificates).encode())
        await made[0].accept_root_signed(rooted, redemption.root)
        file = _File(
            base=answer.base,
            sync=answer.address,
            joined_at=answer.joined_at,
            root=pem([redemption.root]).decode(),
            hub_bundle=bundles.encode(redemption.bundle),
        )
        path = folder / "membership.json"
        await asyncio.to_thread(durable.write, path, msgspec.json.encode(file))
        log.info("joined", cluster=cluster, base=answer.base, hub=token.url)
        found = membership(path)
        assert found is not None
        return found
    finally:
        for authority in made:
            await authority.close()


async def open_authority(folder: Path, keys: KeyStore, trust_domain: TrustDomain, clock: Clock) -> Authority:
    """The cluster's authority in `folder`, made if there is none yet."""
    place = folder / "authority"
    if Authority.exists(place):
        return await Authority.load(place, keys, trust_domain, clock)
    return await Authority.create(place, keys, trust_domain, clock)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise FederationError(
            f"cannot read the token in {path}: {error.strerror}", "see join_token"
        ) from error
