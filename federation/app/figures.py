"""Where the figures of a hub and of an agent are joined to their metrics."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from federation.agent import Agent
from federation.app.auditing import KeptByAgent
from federation.app.root import roots_of
from federation.banned import BanKind, Bans
from federation.figures import Figures, JournalFigures, by_kind
from federation.hub import Hub
from federation.identity import Identity
from federation.journals import of
from federation.telemetry import AgentMetrics, AuthorityCollector, HubMetrics
from federation.trust import Trust
from pki.bundle import Bundle
from pki.journal import Journal
from pki.lineage import Lineage
from pki.root_lineage import RootLineage
from pki.tally import Tallied
from pki.upstream import Root


def watch_agent(
    metrics: AgentMetrics,
    authority: Lineage,
    identity: Identity,
    agent: Agent,
    trust: Trust,
    others: KeptByAgent,
) -> None:
    """Let `metrics` tell of the authority of a cluster, and of what its agent goes by."""

    def look() -> Figures:
        bundles = (*agent.view.bundles.values(), authority.bundle(), trust.hub, trust.roots)
        return Figures(
            tallies=(authority.tally,),
            renewals_failed=identity.failures,
            ends={
                **_ends_of(authority),
                "own": identity.current.certificate.not_valid_after_utc,
                "root": trust.root.not_valid_after_utc,
            },
            versions={each.trust_domain.name: each.version for each in bundles},
            journals=_journals(of(authority)),
            doubted=sum(1 for _ in others.problems()),
            bans=_bans(dict(agent.view.bans.items())),
        )

    metrics.registry.register(AuthorityCollector("agent", look))


def watch_hub(metrics: HubMetrics, root: Root, authority: Lineage, identity: Identity, hub: Hub) -> None:
    """Let `metrics` tell of the root, the hub's own authority, and what the hub relays of others."""

    def look() -> Figures:
        bundles: list[Bundle] = [*hub.membership.bundles().values(), authority.bundle()]
        if isinstance(root, RootLineage):
            bundles.append(root.bundle())
        return Figures(
            tallies=tuple(one.tally for one in (authority, root) if isinstance(one, Tallied)),
            renewals_failed=identity.failures,
            ends={
                **_ends_of(authority),
                "own": identity.current.certificate.not_valid_after_utc,
                "root": min(each.not_valid_after_utc for each in roots_of(root)),
            },
            versions={each.trust_domain.name: each.version for each in bundles},
            journals=_journals(of(root, authority)),
            doubted=len(hub.witness.problems()),
            bans=_bans(hub.bans.bans),
        )

    metrics.registry.register(AuthorityCollector("hub", look))


def _ends_of(lineage: Lineage) -> dict[str, datetime]:
    """When the authority that issues ends, the root's word for it, and the other authority of a rotation."""
    issuer = lineage.issuer
    found = {"authority": issuer.self_signed.not_valid_after_utc}
    if issuer.root_signed is not None:
        found["root_signed"] = issuer.root_signed.not_valid_after_utc
    for each in lineage.authorities.values():
        if each is not issuer:
            found["other_authority"] = each.self_signed.not_valid_after_utc
    return found


def _journals(journals: Iterable[Journal]) -> tuple[JournalFigures, ...]:
    return tuple(JournalFigures(each.failures, each.problem is not None, each.last) for each in journals)


def _bans(bans: Bans) -> dict[str, int]:
    return by_kind((ban.kind.value for ban in bans.values()), (kind.value for kind in BanKind))
