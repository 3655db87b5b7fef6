"""Turn plain values (from YAML or JSON) into frozen Structs, and say precisely what does not fit.

msgspec decides what fits; this module makes its answer useful to the person who wrote the document: the exact
path, what was found there, and what is allowed instead.

A class with `parse(text) -> Self`, raising ValueError or PkiError, can be the type of a field: a string in
the document goes through it, and nothing else is accepted. Its `allowed`, a ClassVar of str, is what the user
is told.
"""

from __future__ import annotations

import json
import pathlib
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from federation.document.schema import (
    FieldPath,
    chosen,
    describe,
    fields,
    listed,
    step_into,
    type_at,
    values,
)
from pki.errors import PkiError

T = TypeVar("T")

_PLACE = re.compile(r"(?P<message>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`)?", re.DOTALL)
_STEP = re.compile(r"\.(?P<field>[^.\[\]]+)|\[(?P<index>\d+)\]|\[\.\.\.\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why a value does not fit its type: where, what is wrong there, and what would have been accepted."""

    path: FieldPath
    problem: str
    allowed: str


def decode(value: object, kind: type[T]) -> T | Mismatch:
    """Convert strictly: a string is not a number, and an unknown field is refused if `kind` forbids it."""
    parsed = _parse_texts(value, _type_of(kind), ())
    if isinstance(parsed, Mismatch):
        return parsed
    try:
        return _convert(parsed, kind)
    except msgspec.ValidationError as error:
        return _explain(error, parsed, kind)


def render(path: FieldPath) -> str:
    """`spec.ports[0].port`; any other key is quoted and escaped: `labels["app.kubernetes.io/name"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[\w-]+", step):
            text += f".{step}" if text else step
        else:
            text += f"[{json.dumps(step)}]"
    return text


_described = cache(inspect.type_info)


def _type_of(kind: Any) -> inspect.Type:
    """Found out once a type: it costs more than to decode a document."""
    return _described(kind)


def _convert(value: object, kind: type[T]) -> T:
    return msgspec.convert(value, kind, strict=True, dec_hook=_keep)


def _keep(kind: Any, value: object) -> object:
    """Called for each value whose type msgspec does not know: those were parsed before."""
    if isinstance(value, kind):
        return value
    raise ValueError(_found(value))


def _parse_texts(value: object, expected: inspect.Type, path: FieldPath) -> object:
    """Replace each string that stands for a value with a `parse` of its own, or a pathlib.Path, by that
    value.

    msgspec alone would read a dataclass from a mapping; here only its written form counts.
    """
    expected = chosen(expected, value)
    match expected:
        case inspect.CustomType(cls=cls) | inspect.DataclassType(cls=cls) if _is_written(cls):
            return _parse_text(value, cls, path)
        case _:
            pass
    if isinstance(value, Mapping):
        entries: dict[str, object] = {}
        for key, entry in value.items():
            entries[key] = _parse_texts(entry, step_into(expected, key, value), (*path, key))
            if isinstance(entries[key], Mismatch):
                return entries[key]
        return entries
    if isinstance(value, list):
        items: list[object] = []
        for index, item in enumerate(value):
            items.append(_parse_texts(item, step_into(expected, index, value), (*path, index)))
            if isinstance(items[-1], Mismatch):
                return items[-1]
        return items
    return value


def _is_written(cls: Any) -> bool:
    return cls is pathlib.Path or hasattr(cls, "parse")


def _parse_text(value: object, cls: Any, path: FieldPath) -> object:
    allowed = getattr(cls, "allowed", "a path" if cls is pathlib.Path else "a string")
    if not isinstance(value, str) or (cls is pathlib.Path and not value):
        return Mismatch(path, _found(value), allowed)
    try:
        return cls(value) if cls is pathlib.Path else cls.parse(value)
    except (ValueError, PkiError) as error:
        return Mismatch(path, str(error), allowed if hasattr(cls, "allowed") else "")


def _explain(error: msgspec.ValidationError, value: object, kind: type[Any]) -> Mismatch:
    place = _PLACE.fullmatch(str(error))
    if place is None:
        return Mismatch((), str(error), describe(_type_of(kind)))
    steps = [
        step["field"] or (None if step["index"] is None else int(step["index"]))
        for step in _STEP.finditer(place["path"] or "")
    ]
    path = _resolve([*steps, None] if place["key"] else steps, str(error), value, kind)
    expected = type_at(_type_of(kind), path, value)
    if unknown := _UNKNOWN.fullmatch(place["message"]):
        names = [field.encode_name for field in fields(expected)]
        return Mismatch((*path, unknown[1]), "unknown field" + _meant(unknown[1], names), listed(names))
    if missing := _MISSING.fullmatch(place["message"]):
        wanted = step_into(expected, missing[1], None)
        return Mismatch(path, f'the field "{missing[1]}" is missing', describe(wanted))
    if place["key"]:
        holder = type_at(_type_of(kind), path[:-1], value)
        allowed = describe(holder.key_type) if isinstance(holder, inspect.DictType) else ""
        return Mismatch(path, "this key is refused", allowed)
    found = _at(value, path)
    if isinstance(error.__cause__, ValueError | TypeError):
        return Mismatch(path, str(error.__cause__), "")
    if closed := values(expected):
        written = str(found)
        return Mismatch(path, _found(found) + _meant(written, closed), listed(closed))
    quotes = isinstance(expected, inspect.StrType) and isinstance(found, bool | int | float)
    return Mismatch(path, _found(found), describe(expected) + (" (put it in quotes)" if quotes else ""))


def _resolve(steps: Sequence[str | int | None], message: str, value: object, kind: type[Any]) -> FieldPath:
    """Name the mapping entries for which msgspec only says `[...]` (None in `steps`).

    It stops at the first error, so the culprit is the last entry of the shortest beginning of the mapping
    that still fails with the same message.
    """
    path: FieldPath = ()
    for step in steps:
        if step is not None:
            path = (*path, step)
            continue
        entries = _at(value, path)
        if not isinstance(entries, Mapping):
            return path
        ends = [(*path, key) for key in entries]
        at = bisect_left(ends, True, key=lambda end: _fails_up_to(end, message, value, kind))
        if at == len(ends):
            return path
        path = ends[at]
    return path


def _fails_up_to(end: FieldPath, message: str, value: object, kind: type[Any]) -> bool:
    try:
        _convert(_cut_after(value, end), kind)
    except msgspec.ValidationError as error:
        return str(error) == message
    return False


def _cut_after(value: Any, end: FieldPath) -> object:
    """A copy in which the mapping that holds the last step of `end` has no entries after it."""
    step, *rest = end
    if rest:
        copy = value.copy()
        copy[step] = _cut_after(value[step], tuple(rest))
        return copy
    keys = list(value)
    return {key: value[key] for key in keys[: keys.index(step) + 1]}


def _at(value: Any, path: FieldPath) -> object:
    for step in path:
        value = value[step]
    return value


def _found(value: object) -> str:
    match value:
        case None:
            return "nothing is written here"
        case bool() | int() | float():
            return f"got {str(value).lower()}"
        case str() if len(value) <= 40:
            return f"got the string {value!r}"
        case str():
            return "got a long string"
        case Mapping():
            return "got a mapping"
        case _:
            return "got a list"


def _meant(written: str, names: list[str]) -> str:
    close = get_close_matches(written, names, n=1) or [
        name for name in names if name.lower() == written.lower()
    ]
    return f', did you mean "{close[0]}"?' if close else ""
