"""Joining a federation once, with a one-time token, and remembering it.

The cluster's authority and its key are made before the token is used, and belong to it from its first use: a join that
was interrupted anywhere goes on with the same key and the same token. The root's signature may come later.

A cluster that was removed comes back with a new token and the key that it has. To another federation, or to a root
that does not follow from ours, nothing leads from here: that is another authority and another memory, in another
folder.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import structlog
from cryptography import x509

from federation.api.redeem import Redemption, read_token, redeem
from federation.clock import Clock
from federation.errors import FederationError
from federation.listen import HostPort
from pki import bundle as bundles
from pki import durable
from pki.bundle import UNNUMBERED, Accepted, Bundle, accept_roots
from pki.certificate import load_pem, pem
from pki.errors import PkiError
from pki.keys import KeyStore
from pki.lineage import Lineage
from pki.spiffe import HUB, TrustDomain
from pki.token import FIRST_EPOCH, JoinToken

LONGEST_FILE = 256 * 1024

log = structlog.get_logger()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    base: str
    sync: str
    joined_at: datetime
    root: str
    hub_bundle: bytes
    token: str = ""
    api: str = ""


@dataclass(frozen=True, slots=True)
class Membership:
    """What a join brought: where the hub is, and by what it and new trust domains are verified.

    `token` is the hash, in hex, of the token that was used, and `api` the URL at which that was; empty if not known.
    """

    base: str
    sync: HostPort
    joined_at: datetime
    root: x509.Certificate
    hub_bundle: Bundle
    token: str
    api: str = ""

    @property
    def roots(self) -> Bundle:
        """The set of roots, as far as the pin tells it."""
        return Bundle(TrustDomain.parse(self.base), UNNUMBERED, (self.root,))

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
            file.base,
            HostPort.parse(file.sync),
            file.joined_at,
            root,
            bundles.decode(file.hub_bundle),
            file.token,
            file.api,
        )
    except (msgspec.MsgspecError, ValueError, PkiError) as error:
        raise FederationError(
            f"{path} cannot be read: {error}", "put a backup of the agent's folder back; nothing was changed"
        ) from error


async def join(
    cluster: str,
    token_file: Path,
    folder: Path,
    keys: KeyStore,
    clock: Clock,
    known: Membership | None = None,
    roots: Bundle | None = None,
) -> Membership:
    """Join with the token in `token_file`; leaves `membership.json` and the authority in `folder`.

    `known` is the membership that this one is to replace, `roots` those that are held, if that is more than it says.
    Raises FederationError, Unreachable, Refusal, or a PkiError such as PinMismatch.
    """
    token = read_token(token_file)
    if token.kind != "join" or token.subject != cluster:
        raise FederationError(
            f"the token in {token_file} is not for cluster {cluster}",
            f"make one on the hub: federation token create {cluster} --may-export … --range …",
        )
    made: list[Lineage] = []

    async def request(hub: Bundle) -> bytes:
        if known is not None and _base(hub) != known.base:
            raise FederationError(f"the token is of {_base(hub)}, and {folder} of {known.base}", _ELSEWHERE)
        domain = TrustDomain.of_cluster(cluster, _base(hub))
        authority = await open_authority(folder, keys, domain, clock, token.epoch)
        made.append(authority)
        return await authority.csr()

    try:
        redemption = await redeem(
            token, "/v1/join", "federation", request, cluster, clock, lambda: pem([made[0].self_signed])
        )
        if known is not None and not _leads_to(roots or known.roots, redemption):
            raise FederationError(f"the token is of another root than {folder}", _ELSEWHERE)
        rooted, file = _read_answer(token, redemption)
        if rooted is None:
            log.info("the root has not signed yet; other clusters will believe us once a ceremony is over")
        else:
            await made[0].accept_root_signed(rooted, redemption.root)
        path = folder / "membership.json"
        await asyncio.to_thread(durable.write, path, msgspec.json.encode(file))
        log.info("joined", cluster=cluster, base=file.base, hub=token.url)
        found = membership(path)
        assert found is not None
        return found
    finally:
        for authority in made:
            await authority.close()


_ELSEWHERE = "to join another federation, stop the agent, move its folder away, and make another token"


async def join_again(
    cluster: str,
    known: Membership,
    token_file: Path,
    folder: Path,
    keys: KeyStore,
    clock: Clock,
    roots: Bundle | None = None,
) -> Membership:
    """The membership after a token that was not used here yet; `known` if there is none, or it brings nothing.

    A token that is missing, damaged, expired or used elsewhere keeps nobody from starting: what is known is served.
    """
    try:
        if read_token(token_file).hash().hex() == known.token:
            return known
    except (FederationError, PkiError) as error:
        log.info("the token in join_token is not used", problem=str(error))
        return known
    try:
        return await join(cluster, token_file, folder, keys, clock, known, roots)
    except (FederationError, PkiError) as error:
        log.warning(
            "the token in join_token brings no new membership; the one before stays",
            problem=str(error),
            hint=getattr(error, "hint", ""),
        )
        return known


def _leads_to(roots: Bundle, redemption: Redemption) -> bool:
    """Whether the root that the token pins is one of those that are held, or one that they have signed since."""
    if redemption.root in roots.anchors:
        return True
    offered = redemption.roots
    return (
        offered is not None
        and redemption.root in offered.anchors
        and isinstance(accept_roots(roots, offered), Accepted)
    )


def _base(hub: Bundle) -> str:
    """The domain of the federation. It is what the token pins, not what an answer says."""
    return hub.trust_domain.name.removeprefix(f"{HUB}.")


def _read_answer(token: JoinToken, redemption: Redemption) -> tuple[x509.Certificate | None, _File]:
    """The root-signed form of our authority, if there is one yet, and what to remember.

    Raises FederationError if it makes no sense.
    """
    answer, base = redemption.answer, _base(redemption.bundle)
    try:
        rooted = load_pem("".join(answer.certificates).encode(), most=1)[0] if answer.certificates else None
        sync = HostPort.parse(answer.address)
        if answer.joined_at is None or answer.base != base:
            raise ValueError(f"its base is {answer.base!r} and not {base!r}, or it does not say since when")
    except (ValueError, PkiError) as error:
        raise FederationError(
            f"{token.url} accepted the token, and its answer makes no sense: {error}", "upgrade both sides"
        ) from error
    file = _File(
        base=base,
        sync=str(sync),
        joined_at=answer.joined_at,
        root=pem([redemption.root]).decode(),
        hub_bundle=bundles.encode(redemption.bundle),
        token=token.hash().hex(),
        api=token.url,
    )
    return rooted, file


async def open_authority(
    folder: Path, keys: KeyStore, trust_domain: TrustDomain, clock: Clock, epoch: int = FIRST_EPOCH
) -> Lineage:
    """The cluster's authority in `folder`, made, in `epoch`, if there is none yet."""
    place = folder / "authority"
    return await Lineage.open(place, keys, trust_domain, clock, epoch)
