"""The last look at a snapshot before it leaves: one that does not pass is never sent.

It trusts nothing about how the snapshot was made and reads the encoded resources again. Each is looked at
alone (`gateway.rules`); across resources, all that one needs must be there, and nothing may be claimed twice.
`identity` is the one secret that is named and not there: gateways add it.

A snapshot that follows the one checked last costs what it changed. Checked step by step or as a whole, a
snapshot has the same problems.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rpds import HashTrieMap, HashTrieSet

from gateway.finding import Claim, Flaw, Need
from gateway.rules import look
from gateway.snapshot import Key, Resource, Snapshot


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One reason why a snapshot must not be sent."""

    key: Key
    rule: str
    detail: str

    def __str__(self) -> str:
        kind = self.key[0].rpartition(".")[2]
        return f"{kind} {self.key[1]}: {self.rule}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at one resource gave."""

    flaws: frozenset[Flaw] = frozenset()
    needs: frozenset[Key] = frozenset()
    claims: frozenset[str] = frozenset()

    @classmethod
    def of(cls, resource: Resource) -> Finding:
        flaws, needs, claims = set(), set(), set()
        for one in look(resource):
            match one:
                case Flaw():
                    flaws.add(one)
                case Need(key):
                    needs.add(key)
                case Claim(of):
                    claims.add(of)
        return cls(frozenset(flaws), frozenset(needs), frozenset(claims))


_NOTHING = Finding()
_NOBODY: HashTrieSet[Key] = HashTrieSet()


@dataclass(frozen=True, slots=True)
class Checked:
    """A snapshot and what is wrong with it; start with an empty one and hand it to the next `check`."""

    snapshot: Snapshot = field(default_factory=Snapshot)
    findings: HashTrieMap[Key, Finding] = field(default_factory=HashTrieMap)
    needed_by: HashTrieMap[Key, HashTrieSet[Key]] = field(default_factory=HashTrieMap)
    claimed_by: HashTrieMap[str, HashTrieSet[Key]] = field(default_factory=HashTrieMap)
    flawed: frozenset[Key] = frozenset()
    missing: frozenset[Key] = frozenset()
    contested: frozenset[str] = frozenset()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All that is wrong, sorted; empty if the snapshot may be sent."""
        found = [
            Problem(key, flaw.rule, flaw.detail) for key in self.flawed for flaw in self.findings[key].flaws
        ]
        for absent in self.missing:
            kind = absent[0].rpartition(".")[2]
            found += (
                Problem(key, "reference", f"{kind} {absent[1]} is not there")
                for key in self.needed_by[absent]
            )
        for claim in self.contested:
            found += (Problem(key, "claimed-once", claim) for key in self.claimed_by[claim])
        return tuple(sorted(found))


def check(snapshot: Snapshot, before: Checked | None = None) -> Checked:
    """Look at what `snapshot` changed since `before`, or at all of it if `before` is not the one it
    follows."""
    if before is None or snapshot.number != before.snapshot.number + 1:
        if before is not None and before.snapshot is snapshot:
            return before
        keys = (resource.key for resources in snapshot.types.values() for resource in resources.values())
        return _look_at(snapshot, Checked(), keys)
    return _look_at(snapshot, before, snapshot.changed)


def _look_at(snapshot: Snapshot, before: Checked, keys: Iterable[Key]) -> Checked:
    findings, needed_by, claimed_by = before.findings, before.needed_by, before.claimed_by
    flawed, missing, contested = set(before.flawed), set(before.missing), set(before.contested)
    unsure: set[Key] = set()
    for key in keys:
        held = findings.get(key) or _NOTHING
        resource = snapshot.get(*key)
        found = _NOTHING if resource is None else Finding.of(resource)
        findings = findings.discard(key) if resource is None else findings.insert(key, found)
        (flawed.add if found.flaws else flawed.discard)(key)
        for need in held.needs - found.needs:
            needed_by = needed_by.insert(need, needed_by[need].remove(key))
        for need in found.needs - held.needs:
            needed_by = needed_by.insert(need, (needed_by.get(need) or _NOBODY).insert(key))
        unsure |= {key} | (held.needs ^ found.needs)
        for claim in held.claims - found.claims:
            claimed_by = claimed_by.insert(claim, claimed_by[claim].remove(key))
        for claim in found.claims - held.claims:
            claimed_by = claimed_by.insert(claim, (claimed_by.get(claim) or _NOBODY).insert(key))
        for claim in held.claims ^ found.claims:
            (contested.add if len(claimed_by[claim]) > 1 else contested.discard)(claim)
    for key in unsure:
        absent = bool(needed_by.get(key)) and snapshot.get(*key) is None
        (missing.add if absent else missing.discard)(key)
    return Checked(
        snapshot, findings, needed_by, claimed_by, frozenset(flawed), frozenset(missing), frozenset(contested)
    )
