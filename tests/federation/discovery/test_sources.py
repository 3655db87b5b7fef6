"""Files that come, change, break and go in any order: what they say is what they say when read from scratch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from federation.discovery.sources import Problem, Refusal, Sources, place
from federation.document import parse
from federation.events import LocalChanged, LocalGone
from federation.model import LocalService, Service
from tests.federation.discovery.objects import EXPORT, SERVICE, SLICE, joined, named

FILES = ("a.yaml", "b.yaml", "c.yaml")
CONTENTS = [
    place(parse(text, "test.yaml"), "test.yaml")
    for text in (
        SERVICE,
        EXPORT,
        SLICE,
        SLICE.replace("10.1.0.1", "10.1.0.2"),
        SLICE.replace("name: echo\n", "name: other\n"),
        joined(SERVICE, SLICE, EXPORT),
        named(joined(SERVICE, SLICE), "other"),
    )
]
BROKEN = place((), "test.yaml")
STEPS = st.tuples(st.sampled_from(FILES), st.one_of(st.none(), st.just(BROKEN), st.sampled_from(CONTENTS)))


def told(problems: Sources) -> list[Problem]:
    found = (*problems.duplicates(), *problems.unsound())
    return sorted(found, key=lambda problem: problem.place)


@given(st.lists(STEPS), st.permutations(FILES))
def test_any_history_comes_to_what_the_files_say_now(
    steps: list[tuple[str, object]], order: list[str]
) -> None:
    sources, last, known = Sources(), dict[str, object](), dict[Service, LocalService]()
    for file, content in steps:
        if content is None:
            sources, touched = sources.forget(file)
            last.pop(file, None)
        else:
            assert isinstance(content, tuple | Refusal)
            sources, touched = sources.take(file, content)
            if not isinstance(content, Refusal):
                last[file] = content
        sources, events = sources.settle(touched)
        for event in events:
            match event:
                case LocalChanged(local):
                    assert known.get(local.service) != local, "an event without a change"
                    known[local.service] = local
                case LocalGone(service):
                    del known[service]
    scratch = Sources()
    for file in order:
        content = last.get(file)
        if isinstance(content, tuple):
            scratch, touched = scratch.take(file, content)
            scratch, _ = scratch.settle(touched)
    assert known == dict(sources.found.items()) == dict(scratch.found.items())
    assert sources.objects == scratch.objects
    assert sources.claims == scratch.claims
    assert told(sources) == told(scratch)
