"""Conversations on one stream, as text. `--rewrite` writes what is said now, to be reviewed as a diff.

publish cds/a@1 -cds/b lds   the next snapshot: put, remove, and a type of which it is known what there is
jump cds/a@1                 the same, with a number that leaves a gap
ask eds +a -b has:c@1        a request without an answer; `has` is an initial version
ack 3 [+a]                   accept response 3 (of the type it was of)
nack 3 WORDS                 refuse it
retry                        time has passed
status                       what the server knows
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.snapshot import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Resource, Snapshot
from gateway.xds.messages import Message, Overloaded, Published, Reply, Request, Retry
from gateway.xds.protocol import Subscription, advance

TYPES = {"cds": CLUSTER, "eds": ENDPOINTS, "sds": SECRET, "lds": LISTENER, "rds": ROUTES}
SHORT = {type_url: short for short, type_url in TYPES.items()}
RULE = "----"
TRANSCRIPTS = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    now = replay(path.read_text())
    if request.config.getoption("--rewrite"):
        path.write_text(now)
    assert now == path.read_text()


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 8


def replay(text: str) -> str:
    stream = Stream()
    blocks = []
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        said = lines[: lines.index(RULE)] if RULE in lines else lines
        commands = [line for line in said if not line.startswith("#")]
        output = [line for command in commands for line in stream.run(command)]
        blocks.append("\n".join([*said, RULE, *(output or ["nothing"])] if commands else said))
    return "\n\n".join(blocks) + "\n"


class Stream:
    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.subscription = Subscription()
        self.types: dict[str, str] = {}

    def run(self, command: str) -> list[str]:
        verb, *words = command.split()
        match verb:
            case "publish" | "jump":
                self._change(words, gap=verb == "jump")
                return self._say(Published(self.snapshot))
            case "ask":
                return self._say(request(TYPES.get(words[0], words[0]), words[1:]))
            case "ack":
                return self._say(
                    replace(request(self.types.get(words[0], CLUSTER), words[1:]), nonce=words[0])
                )
            case "nack":
                error = " ".join(words[1:])
                return self._say(Request(self.types[words[0]], nonce=words[0], error=error))
            case "retry":
                return self._say(Retry())
            case "status":
                return self._status()
        raise ValueError(f"unknown command {command!r}")

    def _change(self, words: list[str], *, gap: bool) -> None:
        known = [TYPES[word] for word in words if word in TYPES]
        put = [resource(word) for word in words if word not in TYPES and not word.startswith("-")]
        removed = [key(word.removeprefix("-")) for word in words if word.startswith("-")]
        after = self.snapshot.replace(put, removed, known)
        self.snapshot = replace(after, number=after.number + 1) if gap else after

    def _say(self, message: Message) -> list[str]:
        self.subscription, replies = advance(self.subscription, message)
        return [self._show(reply) for reply in replies]

    def _show(self, reply: Reply) -> str:
        if isinstance(reply, Overloaded):
            return f"close: {reply.reason}"
        self.types[reply.nonce] = reply.type_url
        parts = [f"{r.name}@{r.version}" for r in reply.put] + [f"-{name}" for name in reply.removed]
        return f"{reply.nonce}: {SHORT[reply.type_url]} {' '.join(parts) or 'nothing'}"

    def _status(self) -> list[str]:
        sub = self.subscription
        lines = [f"snapshot {sub.latest.number}, acked {sub.acked}"]
        for (type_url, name), why in sorted(sub.rejected().items()):
            lines.append(f"rejected {SHORT[type_url]}/{name}@{why.version}: {why.error}")
        lines += [f"stray nonces: {sub.stray_nonces}"] if sub.stray_nonces else []
        lines += [f"unknown types: {sub.unknown_types}"] if sub.unknown_types else []
        return lines


def key(word: str) -> tuple[str, str]:
    short, _, name = word.partition("/")
    return TYPES[short], name


def resource(word: str) -> Resource:
    named, _, version = word.partition("@")
    return Resource(*key(named), version, b"")


def request(type_url: str, words: list[str]) -> Request:
    initial = dict(word.removeprefix("has:").split("@", 1) for word in words if word.startswith("has:"))
    return Request(
        type_url,
        subscribe=tuple(word[1:] for word in words if word.startswith("+")),
        unsubscribe=tuple(word[1:] for word in words if word.startswith("-")),
        initial=initial,
    )
