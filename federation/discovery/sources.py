"""Which file says what: objects with the lines they stand on, and what becomes of them when a file changes.

A file counts as a whole. While its latest content is refused, what it said before stays, because a mistake is not a
deletion; only a file that is gone takes its objects with it. Where two files describe the same object, the first by
name counts, whichever was read first. Nothing is read here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from rpds import HashTrieMap, HashTrieSet

from federation import admit
from federation.discovery.faults import Finding, Path, faults
from federation.discovery.kinds import BY_KIND, SERVICE_NAME, EndpointSlice, KubeObject, Ref
from federation.discovery.translate import NO_SLICES, Objects
from federation.document import Document
from federation.errors import InputError
from federation.events import LocalChanged, LocalGone
from federation.model import LocalService, Network, Service

LocalEvent = LocalChanged | LocalGone


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong in a file, for whoever wrote it. `kept` says that what the file said before stays in use."""

    file: str
    line: int | None
    field: str
    problem: str
    allowed: str = ""
    kept: bool = False

    @classmethod
    def of(cls, error: InputError) -> Problem:
        return cls(error.file, error.line, error.field, error.problem, error.allowed)

    def __str__(self) -> str:
        error = InputError(
            self.problem, file=self.file, line=self.line, field=self.field, allowed=self.allowed
        )
        return (
            f"{error} (until this is mended, what was read before stays in use)" if self.kept else str(error)
        )

    @property
    def place(self) -> tuple[str, int, str, str]:
        """Where it is, to sort by."""
        return self.file, self.line or 0, self.field, self.problem


@dataclass(frozen=True, slots=True)
class Placed:
    """An object, and the document it came from less its values and the lines that nobody can ask for later."""

    subject: KubeObject
    document: Document

    def problem(self, path: Path, problem: str, allowed: str = "") -> Problem:
        return Problem.of(self.document.error(path, problem, allowed))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the content of a file is not taken."""

    problems: tuple[Problem, ...]


def place(documents: Sequence[Document], file: str) -> tuple[Placed, ...] | Refusal:
    """The objects that a file describes, or all that is wrong with it."""
    if not documents:
        allowed = "objects; to remove what it described, delete the file"
        return Refusal((Problem(file, None, "", "nothing is written here", allowed),))
    placed: dict[Ref, Placed] = {}
    problems: list[Problem] = []
    for document in documents:
        try:
            subject = _subject(document)
        except InputError as error:
            problems.append(Problem.of(error))
            continue
        problems += (
            Problem.of(document.error(fault.path, fault.problem, fault.allowed)) for fault in faults(subject)
        )
        if first := placed.get(subject.ref):
            twice = f"{subject.ref} is described twice, first on line {first.document.line(())}"
            problems.append(Problem.of(document.error((), twice, "each object once")))
        placed[subject.ref] = Placed(subject, replace(document, value=None, lines=_later(subject, document)))
    return Refusal(tuple(problems)) if problems else tuple(placed.values())


def _subject(document: Document) -> KubeObject:
    """Raises InputError."""
    fields = document.value
    if not isinstance(fields, dict):
        raise document.error((), "this is not a Kubernetes object", "a mapping with apiVersion and kind")
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in BY_KIND:
        problem = 'the field "kind" is missing' if kind is None else f"got {str(kind)[:63]!r}"
        if kind == "List":
            problem += ", write each item as a document of its own, with --- between"
        raise document.error(("kind",), problem, ", ".join(BY_KIND))
    return document.convert(BY_KIND[kind])


def _later(subject: KubeObject, document: Document) -> dict[Path, int]:
    """The lines of what `Finding`s and addresses out of range are about; all lines of 10,000 services are too many."""
    paths: list[Path] = [()]
    if isinstance(subject, EndpointSlice):
        paths += [("metadata", "labels", SERVICE_NAME)]
        paths += [("ports", index) for index in range(len(subject.ports or ()))]
        paths += [("endpoints", index, "addresses", 0) for index in range(len(subject.endpoints or ()))]
    else:
        paths += [("metadata", "name")]
    return {path: line for path in paths if (line := document.line(path)) is not None}


@dataclass(frozen=True, slots=True)
class Sources:
    """What the files say, as keys the names of files. Persistent: a changed file shares all the rest.

    `refused` holds the files whose latest content is not taken, `claims` who describes an object, sorted, `contested`
    the objects that several files describe, `found` and `findings` what the last translation of a service gave.
    """

    files: HashTrieMap[str, tuple[Placed, ...]] = field(default_factory=HashTrieMap)
    refused: HashTrieMap[str, Refusal] = field(default_factory=HashTrieMap)
    claims: HashTrieMap[Ref, tuple[str, ...]] = field(default_factory=HashTrieMap)
    contested: HashTrieSet[Ref] = field(default_factory=HashTrieSet)
    objects: Objects = field(default_factory=Objects)
    found: HashTrieMap[Service, LocalService] = field(default_factory=HashTrieMap)
    findings: HashTrieMap[Service, tuple[Finding, ...]] = field(default_factory=HashTrieMap)

    def take(self, file: str, content: tuple[Placed, ...] | Refusal) -> tuple[Sources, frozenset[Service]]:
        """With `content` as what `file` says; and the services that have to be settled again."""
        if isinstance(content, Refusal):
            return replace(self, refused=self.refused.insert(file, content)), frozenset()
        said = replace(self, files=self.files.insert(file, content), refused=self.refused.discard(file))
        return said._claimed(file, self.files.get(file, ()), content)

    def forget(self, file: str) -> tuple[Sources, frozenset[Service]]:
        """Without `file`, which was deleted; and the services that have to be settled again."""
        rest = replace(self, files=self.files.discard(file), refused=self.refused.discard(file))
        return rest._claimed(file, self.files.get(file, ()), ())

    def _claimed(
        self, file: str, before: Iterable[Placed], after: Iterable[Placed]
    ) -> tuple[Sources, frozenset[Service]]:
        claims, contested, objects = self.claims, self.contested, self.objects
        stays = {placed.subject.ref for placed in after}
        touched: set[Service] = set()
        for ref in stays | {placed.subject.ref for placed in before}:
            others = [other for other in claims.get(ref, ()) if other != file]
            who = tuple(sorted([*others, file] if ref in stays else others))
            contested = contested.insert(ref) if len(who) > 1 else contested.discard(ref)
            if who:
                claims = claims.insert(ref, who)
                objects, changed = objects.put(self._placed(who[0], ref).subject)
            else:
                claims = claims.remove(ref)
                objects, changed = objects.remove(ref)
            touched |= changed
        return replace(self, claims=claims, contested=contested, objects=objects), frozenset(touched)

    def settle(self, touched: Iterable[Service]) -> tuple[Sources, tuple[LocalEvent, ...]]:
        """Translate the services `touched`, and say which of them came out different."""
        found, findings = self.found, self.findings
        events: list[LocalEvent] = []
        for service in sorted(touched):
            result = self.objects.translate(service)
            if result.local is None and service in found:
                found = found.remove(service)
                events.append(LocalGone(service))
            elif result.local is not None and result.local != found.get(service):
                found = found.insert(service, result.local)
                events.append(LocalChanged(result.local))
            findings = findings.discard(service)
            if result.findings:
                findings = findings.insert(service, result.findings)
        return replace(self, found=found, findings=findings), tuple(events)

    def unreadable(self) -> Iterator[Problem]:
        """Why the latest content of some files is not taken."""
        for file, refusal in self.refused.items():
            yield from (replace(problem, kept=file in self.files) for problem in refusal.problems)

    def duplicates(self) -> Iterator[Problem]:
        for ref in self.contested:
            first, *others = (self._placed(file, ref) for file in self.claims[ref])
            where = f"{first.document.source}:{first.document.line(())}"
            for other in others:
                yield other.problem(
                    (), f"{ref} is also described in {where}, which counts", "each object once"
                )

    def unsound(self) -> Iterator[Problem]:
        """What only shows when objects are seen together."""
        for findings in self.findings.values():
            for one in findings:
                placed = self._placed(self.claims[one.of][0], one.of)
                yield placed.problem(one.path, one.problem, one.allowed)

    def outside(self, service: Service, ranges: Sequence[Network]) -> Iterator[Problem]:
        """Endpoints of `service` with an address that a cluster with these `ranges` may not have."""
        for part in self.objects.slices.get(service, NO_SLICES).values():
            for index, endpoint in enumerate(part.endpoints or ()):
                refused = admit.address(endpoint.addresses[0], ranges)
                if refused is not None:
                    placed = self._placed(self.claims[part.ref][0], part.ref)
                    yield placed.problem(("endpoints", index, "addresses", 0), refused.detail)

    def _placed(self, file: str, ref: Ref) -> Placed:
        return next(placed for placed in self.files[file] if placed.subject.ref == ref)
