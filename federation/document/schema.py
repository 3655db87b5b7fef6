"""What a type allows, read from the type itself: which type stands at a path, which fields it has, and how to
say it to somebody who writes YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import inspect

FieldPath = tuple[str | int, ...]


def type_at(expected: inspect.Type, path: FieldPath, value: Any) -> inspect.Type:
    """The type that the value at `path` must have; unions are narrowed to the member that was meant."""
    for step in path:
        expected = step_into(expected, step, value)
        value = value[step]
    return chosen(expected, value)


def step_into(expected: inspect.Type, step: str | int, value: object) -> inspect.Type:
    """The type of the entry `step` of a `value` of type `expected`; any, where that type does not say."""
    match chosen(expected, value):
        case inspect.DictType(value_type=inner):
            return inner
        case inspect.TupleType(item_types=items) if isinstance(step, int) and step < len(items):
            return items[step]
        case inspect.CollectionType(item_type=inner):
            return inner
        case inspect.UnionType(types=types) if any(_tag(member, step) for member in types):
            return inspect.LiteralType(tuple(tag for member in types if (tag := _tag(member, step))))
        case other:
            return next((f.type for f in fields(other) if f.encode_name == step), inspect.AnyType())


def chosen(expected: inspect.Type, value: object) -> inspect.Type:
    """The member of a union that a value was meant for: by its tag, else by its shape."""
    if not isinstance(expected, inspect.UnionType):
        return expected
    members = [member for member in expected.types if not isinstance(member, inspect.NoneType)]
    for member in members:
        match member:
            case inspect.StructType(tag_field=str(name), tag=tag):
                if isinstance(value, Mapping) and value.get(name) == tag:
                    return member
            case inspect.StructType() | inspect.DictType() if isinstance(value, Mapping):
                return member
            case inspect.CollectionType() | inspect.TupleType() if isinstance(value, list):
                return member
            case _:
                pass
    return members[0] if len(members) == 1 and value is not None else expected


def fields(expected: inspect.Type) -> tuple[inspect.Field, ...]:
    if isinstance(expected, inspect.StructType | inspect.DataclassType | inspect.TypedDictType):
        return expected.fields
    return ()


def values(expected: inspect.Type) -> list[str]:
    """The closed set of values that an enum or a literal allows, empty for other types."""
    match expected:
        case inspect.EnumType(cls=cls):
            return [str(member.value) for member in cls]
        case inspect.LiteralType(values=literals):
            return [str(literal) for literal in literals]
        case _:
            return []


def describe(expected: inspect.Type) -> str:
    """What may be written there, in words; empty where anything goes."""
    match expected:
        case inspect.UnionType(types=types):
            return " or ".join(filter(None, map(describe, types)))
        case inspect.NoneType():
            return "nothing (null)"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            noun = "a whole number" if isinstance(expected, inspect.IntType) else "a number"
            return noun + _interval(expected)
        case inspect.StrType(min_length=low, max_length=high, pattern=pattern):
            matching = f" that matches {pattern}" if pattern else ""
            return "a string" + _count(low, high, "characters") + matching
        case inspect.EnumType() | inspect.LiteralType():
            return listed(values(expected))
        case inspect.CollectionType(min_length=low, max_length=high):
            return "a list" + _count(low, high, "entries")
        case inspect.TupleType(item_types=items):
            return f"a list of {len(items)} entries"
        case inspect.CustomType(cls=cls) | inspect.DataclassType(cls=cls) if hasattr(cls, "allowed"):
            return str(cls.allowed)
        case inspect.DictType(min_length=low, max_length=high):
            return "a mapping" + _count(low, high, "entries")
        case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType():
            return f"a mapping with the fields {listed([field.encode_name for field in expected.fields])}"
        case _:
            return ""


def listed(names: list[str]) -> str:
    return ", ".join(names)


def _tag(expected: inspect.Type, field: str | int) -> str:
    """What `field` must say to choose this member of a tagged union, empty if it does not choose it."""
    if isinstance(expected, inspect.StructType) and expected.tag_field == field:
        return str(expected.tag)
    return ""


def _interval(number: inspect.IntType | inspect.FloatType) -> str:
    bounds = (
        ("at least", number.ge),
        ("more than", number.gt),
        ("at most", number.le),
        ("less than", number.lt),
        ("a multiple of", number.multiple_of),
    )
    said = [f"{words} {bound}" for words, bound in bounds if bound is not None]
    return f", {' and '.join(said)}" if said else ""


def _count(low: int | None, high: int | None, noun: str) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f" of at least {low} {noun}"
    return f" of {low} to {high} {noun}" if low is not None else f" of at most {high} {noun}"
