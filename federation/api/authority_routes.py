"""What hub and agents answer about authorities: their own, the whole tree, and authorities for other systems.

The hub tells what it holds itself; key stores, journals and who trusts what are asked of each agent, whose word it is.
An authority for another system is signed for whoever may change things at the hub, and written to the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec
from cryptography import x509

from federation.api.authority_info import (
    ClusterAuthorities,
    ForeignInfo,
    HeldInfo,
    IssuedIntermediate,
    NewIntermediate,
    OwnAuthorities,
    Tree,
    authority_info,
    own_authority,
    trust_info,
    trusts_of,
)
from federation.api.routes import Access, ApiProblem, Call, Route, not_found, turned_away
from federation.attest import spki_of
from federation.clock import Clock
from federation.errors import FederationError
from federation.held import Held
from federation.hub import Hub, Known
from federation.identity import Identity
from federation.inputs import is_peer
from federation.model import HUB
from federation.questions import Question
from pki import intermediate
from pki.bundle import Bundle
from pki.certificate import load_der, pem
from pki.errors import InvalidSpiffeId, Refused
from pki.intermediate import Consumer
from pki.lineage import Lineage
from pki.spiffe import SpiffeId, TrustDomain

if TYPE_CHECKING:
    from federation.agent import Agent

Foreign = Callable[[], tuple[ForeignInfo, ...]]


@runtime_checkable
class IntermediateSigner(Protocol):
    """A root that can sign now."""

    async def sign_intermediate(
        self, request: bytes, grant: intermediate.Grant, *, who: str, why: str
    ) -> x509.Certificate: ...


@dataclass(frozen=True, slots=True)
class Own:
    """Whom to ask about this process's own authority. `roots` are those that its members pin."""

    name: str
    authority: Lineage
    identity: Identity
    roots: Callable[[], Sequence[x509.Certificate]]
    key_store: str
    foreign: Foreign
    clock: Clock

    def told(self, kind: str, trusts: dict[str, Bundle]) -> OwnAuthorities:
        authority = self.authority
        return OwnAuthorities(
            kind="hub" if kind == "hub" else "agent",
            name=self.name,
            roots=tuple(authority_info((root,)) for root in self.roots()),
            authorities=(
                own_authority(
                    authority.forms, self.key_store, len(authority.ledger(self.clock.now())), authority.head
                ),
            ),
            bundle=trust_info(self.name, authority.bundle()),
            presented=self.identity.current.chain.decode(),
            trusts=trusts_of(trusts),
            foreign=self.foreign(),
        )


class AgentAuthorityRoutes:
    """The routes of one agent. `hub` is the bundle by which it recognises the hub."""

    def __init__(self, own: Own, agent: Agent, hub: Callable[[], Bundle]) -> None:
        self._own = own
        self._agent = agent
        self._hub = hub

    def routes(self) -> tuple[Route, ...]:
        see = Access.VIEWER
        return (Route("GET", "/v1/authorities", "What is held here", see, self.held, OwnAuthorities),)

    async def held(self, _: Call) -> OwnAuthorities:
        view = self._agent.view
        others = {name: bundle for name, bundle in view.bundles.items() if is_peer(view, name)}
        return self._own.told("agent", {**others, HUB: self._hub()})


class HubAuthorityRoutes:
    """The routes of one hub. `root` signs for other systems if it is here."""

    def __init__(self, own: Own, hub: Hub, root: object, mode: str) -> None:
        self._own = own
        self._hub = hub
        self._root = root
        self._mode = mode

    def routes(self) -> tuple[Route, ...]:
        see, do = Access.VIEWER, Access.OPERATOR
        one, foreign = "/v1/authorities/{name}", "/v1/clusters/{name}/intermediates"
        return (
            Route("GET", "/v1/authorities", "What is held here", see, self.held, OwnAuthorities),
            Route("GET", one, "What a cluster's agent, or hub, holds", see, self.one, OwnAuthorities),
            Route("GET", "/v1/tree", "The hierarchy, and who trusts what", see, self.tree, Tree),
            Route("POST", foreign, "Sign an authority for another system", do, self.sign, IssuedIntermediate,
                  NewIntermediate, told=("consumer", "trust_domain", "serial", "not_after")),
        )  # fmt: skip

    async def held(self, _: Call) -> OwnAuthorities:
        believed = {
            domain.cluster(self._hub.base): bundle
            for domain, bundle in self._hub.membership.bundles().items()
            if not self._hub.why_out(domain)
        }
        return self._own.told("hub", {name: bundle for name, bundle in believed.items() if name})

    async def one(self, call: Call) -> OwnAuthorities:
        name = call.params["name"]
        if name == self._own.name:
            return await self.held(call)
        if self._hub.member(name) is None:
            raise not_found("cluster", name, "see `federation cluster list`")
        try:
            return await self._asked(name)
        except FederationError as error:
            raise ApiProblem(
                503, "agent", str(error), "ask the agent at its own socket, or try again"
            ) from error

    async def tree(self, call: Call) -> Tree:
        clusters = await asyncio.gather(*(self._cluster(known) for known in self._hub.members()))
        return Tree(
            base=self._hub.base,
            now=self._own.clock.now(),
            root=self._mode,
            hub=await self.held(call),
            clusters=tuple(clusters),
        )

    async def sign(self, call: Call) -> IssuedIntermediate:
        name, body = call.params["name"], call.body
        if self._hub.member(name) is None:
            raise not_found("cluster", name, "see `federation cluster list`")
        if not isinstance(self._root, IntermediateSigner):
            raise ApiProblem(
                409,
                "offline",
                f"the key of the root is not here ({self._mode}), so this hub signs no authority for another system",
                "a root whose key is online or in Vault does",
            )
        agent = SpiffeId.agent(TrustDomain.of_cluster(name, self._hub.base))
        if (reason := self._hub.why_banned(agent, spki_of(body.csr))) is not None:
            raise turned_away(reason)
        try:
            domain = None if body.trust_domain is None else TrustDomain.parse(body.trust_domain)
            lifetime = None if body.lifetime is None else timedelta(seconds=body.lifetime)
            grant = intermediate.decide(Consumer(body.consumer), name, self._hub.base, domain, lifetime)
            made = await self._root.sign_intermediate(
                body.csr.encode(), grant, who=call.principal.name, why=f"{body.consumer} of {name}"
            )
        except (Refused, InvalidSpiffeId, OverflowError) as error:
            raise ApiProblem(400, "refused", str(error), "see `federation ca export --help`") from error
        return IssuedIntermediate(
            consumer=body.consumer,
            cluster=name,
            serial=f"{made.serial_number:x}",
            trust_domain="" if grant.trust_domain is None else grant.trust_domain.name,
            not_after=made.not_valid_after_utc,
            certificate=pem([made]).decode(),
            bridges="",
            roots=pem(self._own.roots()).decode(),
        )

    async def _cluster(self, known: Known) -> ClusterAuthorities:
        row = self._hub.registry.rows[known.member.name]
        bundle = row.trusted(self._hub.base)
        rooted = [load_der(form) for form in (row.rooted, row.next_rooted) if form]
        forms = [
            (anchor, *(one for one in rooted if one.subject == anchor.subject and one != anchor))
            for anchor in bundle.anchors
        ]
        own, problem = None, ""
        if known.connected:
            try:
                own = await self._asked(row.name)
            except FederationError as error:
                problem = str(error)
        else:
            problem = "its agent is not connected"
        return ClusterAuthorities(
            name=row.name,
            state=row.state.value,
            authorities=tuple(authority_info(each) for each in forms),
            bundle=trust_info(row.name, bundle),
            own=own,
            problem=problem,
            held=tuple(_held(known)),
            banned=known.banned,
        )

    async def _asked(self, cluster: str) -> OwnAuthorities:
        """What the agent of `cluster` holds. Raises FederationError."""
        answer = await self._hub.ask(cluster, Question("/v1/authorities"))
        try:
            if answer.status == 200:
                return msgspec.json.decode(answer.body, type=OwnAuthorities)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FederationError(f"the agent of {cluster} speaks another version") from error
        raise FederationError(f"the agent of {cluster} does not say what it holds (status {answer.status})")


def _held(known: Known) -> Iterator[HeldInfo]:
    for fact in known.said:
        if isinstance(fact, Held):
            for trust_domain, generation, sequence in fact.bundles:
                yield HeldInfo(trust_domain=trust_domain, generation=generation, sequence=sequence)
