"""Read YAML documents strictly, keeping the line of every value.

Reads the YAML 1.2 core schema, less what surprises. Booleans are true and false; `yes`, `no`, `on` and `off`
are strings. Integers are decimal without leading zeros; `0644`, `0x1F`, `1_000` and `22:22` are strings.
Refused with an InputError: anchors, aliases and tags (bombs, and objects that nobody asked for), duplicate
keys, keys that are not strings, infinite numbers and NaN, control characters, and documents that are too
large, too deep or too many-valued.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Never, TypeVar

import yaml

from federation.document.decode import Mismatch, decode, render
from federation.document.schema import FieldPath
from federation.errors import InputError

LARGEST = 1024 * 1024
"""Bytes in one file."""
DEEPEST = 32
"""Levels of lists and mappings."""
MOST_VALUES = 100_000
"""Values in one file, keys not counted."""

T = TypeVar("T")

_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CONSTANTS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: plain values, and the line on which each of them begins."""

    source: str
    value: object
    lines: Mapping[FieldPath, int]

    def convert(self, kind: type[T]) -> T:
        """The document as a frozen value of type `kind`. Raises InputError with line, field and what is
        allowed.
        """
        converted = decode(self.value, kind)
        if isinstance(converted, Mismatch):
            raise self.error(converted.path, converted.problem, converted.allowed)
        return converted

    def error(self, path: FieldPath, problem: str, allowed: str = "") -> InputError:
        """What to raise when the value at `path` fits its type and is wrong all the same."""
        return InputError(
            problem, file=self.source, line=self.line(path), field=render(path), allowed=allowed
        )

    def line(self, path: FieldPath) -> int | None:
        """The line of the value at `path`, else of the nearest one around it; None if nothing has a line."""
        for end in range(len(path), -1, -1):
            if (line := self.lines.get(path[:end])) is not None:
                return line
        return None


def parse(text: str, source: str) -> tuple[Document, ...]:
    """All documents of `text` that are not empty; `source` is what errors call it. Raises InputError."""
    if len(text) > LARGEST or len(text.encode("utf-8", "replace")) > LARGEST:
        raise too_large(source)
    if control := _CONTROL.search(text):
        line = text.count("\n", 0, control.start()) + 1
        raise InputError(f"the character U+{ord(control[0]):04X} is refused", file=source, line=line)
    try:
        return tuple(_Reader(source, yaml.parse(text, Loader=yaml.CSafeLoader)).documents())
    except yaml.YAMLError as error:
        raise _not_yaml(error, text, source) from error


class _Reader:
    """One pass over the parser's events. They come lazily, so a bomb is refused before it is unpacked."""

    def __init__(self, source: str, events: Iterator[yaml.Event]) -> None:
        self._source = source
        self._events = events
        self._lines: dict[FieldPath, int] = {}
        self._left = MOST_VALUES

    def documents(self) -> Iterator[Document]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._lines = {}
                root = next(self._events)
                value = self._value(root, (), _line(root))
                if value is not None or not isinstance(root, yaml.ScalarEvent) or root.value:
                    yield Document(self._source, value, self._lines)

    def _value(self, event: yaml.Event, path: FieldPath, line: int) -> object:
        self._lines[path] = line
        self._left -= 1
        if self._left < 0:
            self._refuse(event, path, "too many values", f"at most {MOST_VALUES} in one file")
        if len(path) > DEEPEST:
            self._refuse(event, path, "nested too deep", f"at most {DEEPEST} levels")
        self._check(event, path)
        match event:
            case yaml.ScalarEvent():
                return self._scalar(event, path)
            case yaml.SequenceStartEvent():
                return self._sequence(path)
            case _:
                return self._mapping(path)

    def _check(self, event: yaml.Event, path: FieldPath) -> None:
        if (
            not isinstance(event, yaml.NodeEvent)
            or isinstance(event, yaml.AliasEvent)
            or event.anchor is not None
        ):
            self._refuse(event, path, "anchors and aliases are refused", "the value written out")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            self._refuse(event, path, f"the tag {event.tag!r} is refused", "plain values without tags")

    def _sequence(self, path: FieldPath) -> list[object]:
        items: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items)), _line(event)))
        return items

    def _mapping(self, path: FieldPath) -> dict[str, object]:
        entries: dict[str, object] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, path)
            if key in entries:
                first = self._lines[(*path, key)]
                self._refuse(event, (*path, key), f"duplicate key, first on line {first}", "each key once")
            entries[key] = self._value(next(self._events), (*path, key), _line(event))
        return entries

    def _key(self, event: yaml.Event, path: FieldPath) -> str:
        self._check(event, path)
        key = self._scalar(event, path) if isinstance(event, yaml.ScalarEvent) else None
        if not isinstance(key, str):
            self._refuse(event, path, "a key that is not a string", "strings; put a number or true in quotes")
        return key

    def _scalar(self, event: yaml.ScalarEvent, path: FieldPath) -> str | int | float | bool | None:
        if not event.implicit[0]:
            return event.value
        value = plain(event.value)
        if isinstance(value, float) and not math.isfinite(value):
            self._refuse(event, path, f"{event.value} is refused", "a finite number, or a string in quotes")
        return value

    def _refuse(self, event: yaml.Event, path: FieldPath, problem: str, allowed: str) -> Never:
        raise InputError(problem, file=self._source, line=_line(event), field=render(path), allowed=allowed)


def plain(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means: the core schema (YAML 1.2.2 §10.3.2), decimal numbers without leading
    zeros.

    Integers that may not fit 64 bits stay strings; a float may come out infinite or NaN.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _NOT_FINITE.fullmatch(text):
        return math.nan
    if _INTEGER.fullmatch(text):
        return int(text) if len(text.lstrip("+-")) < 20 else text
    return float(text) if _FLOAT.fullmatch(text) else text


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    assert mark is not None
    return mark.line + 1


def too_large(source: str) -> InputError:
    """What to raise for more than `LARGEST` bytes."""
    return InputError("too large", file=source, allowed=f"at most {LARGEST // 1024} KiB in one file")


def _not_yaml(error: yaml.YAMLError, text: str, source: str) -> InputError:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return InputError(f"not YAML: {error}", file=source)
    mark = error.problem_mark
    lines = text.splitlines()
    written = lines[mark.line] if mark.line < len(lines) else ""
    indent = written[: len(written) - len(written.lstrip())]
    problem = f"not YAML: {error.problem} (column {mark.column + 1})"
    allowed = "spaces, not tabs, at the beginning of a line" if "\t" in indent else ""
    return InputError(problem, file=source, line=mark.line + 1, allowed=allowed)
