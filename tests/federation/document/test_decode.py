"""What does not fit is said with its place, what was found there and what is allowed."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from federation.document import Document, parse
from federation.document.decode import Mismatch, decode, render
from federation.duration import Duration
from federation.errors import InputError
from pki.spiffe import TrustDomain


class Level(Enum):
    INFO = "info"
    ERROR = "error"


class Port(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    port_number: Annotated[int, Meta(ge=1, le=65535)]
    name: Annotated[str, Meta(min_length=1, max_length=15)] = "http"


class File(Struct, frozen=True, forbid_unknown_fields=True, tag="file"):
    path: Path


class Vault(Struct, frozen=True, forbid_unknown_fields=True, tag="vault"):
    address: str


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    ports: tuple[Port, ...] = ()
    by_name: dict[str, Port] = {}
    labels: dict[Annotated[str, Meta(max_length=5)], str] = {}
    interval: Duration = Duration(10)
    domain: TrustDomain | None = None
    level: Level = Level.INFO
    format: Literal["text", "json"] = "text"
    keys: File | Vault | None = None
    debug: bool = False
    share: float = 1.0
    pair: tuple[int, str] | None = None
    some: Annotated[tuple[str, ...], Meta(max_length=2)] = ()


def mismatch(value: object) -> Mismatch:
    result = decode(value, Settings)
    assert isinstance(result, Mismatch), result
    return result


def test_decodes_into_frozen_values() -> None:
    text = """
ports: [{portNumber: 80}]
interval: 500ms
domain: east.mesh.example
level: error
keys: {type: file, path: /etc/key}
pair: [1, a]
"""
    settings = parse(text, "file.yaml")[0].convert(Settings)
    assert settings == Settings(
        ports=(Port(80),),
        interval=Duration(0.5),
        domain=TrustDomain.parse("east.mesh.example"),
        level=Level.ERROR,
        keys=File(Path("/etc/key")),
        pair=(1, "a"),
    )
    assert type(settings.interval) is Duration


@pytest.mark.parametrize(
    ("value", "place", "problem", "allowed"),
    [
        ([], "", "got a list", "a mapping with the fields ports, by_name"),
        ({"port": []}, "port", 'unknown field, did you mean "ports"?', "ports, by_name, labels"),
        ({"LEVEL": []}, "LEVEL", 'unknown field, did you mean "level"?', "ports, by_name, labels"),
        ({"zzz": 1}, "zzz", "unknown field", "ports, by_name"),
        ({"ports": [{"name": "a"}]}, "ports[0]", 'the field "portNumber" is missing', "a whole number"),
        (
            {"ports": [{"portNumber": 80}, {"portNumber": "80"}]},
            "ports[1].portNumber",
            "got the string '80'",
            "a whole number, at least 1 and at most 65535",
        ),
        ({"ports": [{"portNumber": 0}]}, "ports[0].portNumber", "got 0", "at least 1 and at most 65535"),
        ({"ports": [{"portNumber": True}]}, "ports[0].portNumber", "got true", "a whole number"),
        ({"ports": [{"portNumber": 1, "name": 8}]}, "ports[0].name", "got 8", "(put it in quotes)"),
        (
            {"ports": [{"portNumber": 1, "name": ""}]},
            "ports[0].name",
            "got the string ''",
            "1 to 15 characters",
        ),
        ({"ports": None}, "ports", "nothing is written here", "a list"),
        ({"ports": {"a": 1}}, "ports", "got a mapping", "a list"),
        (
            {"by_name": {"a": {"portNumber": 1}, "b.c": {"portNumber": "x"}, "d": {"portNumber": "x"}}},
            'by_name["b.c"].portNumber',
            "got the string 'x'",
            "a whole number",
        ),
        (
            {"by_name": {"a": {"portNumber": 1, "nam": "x"}}},
            "by_name.a.nam",
            'did you mean "name"?',
            "portNumber, name",
        ),
        ({"labels": {"a": "x", "b": 1}}, "labels.b", "got 1", "a string (put it in quotes)"),
        (
            {"labels": {"a": "x", "too-long": "x"}},
            "labels.too-long",
            "this key is refused",
            "at most 5 characters",
        ),
        ({"interval": 10}, "interval", "got 10", "a whole number with its unit, such as 500ms"),
        ({"interval": "10"}, "interval", "a number without its unit", "a whole number with its unit"),
        ({"interval": "ten"}, "interval", "not a duration", "a whole number with its unit"),
        ({"domain": "East!"}, "domain", "not a valid SPIFFE identity", ""),
        ({"domain": {"name": "east"}}, "domain", "got a mapping", "a string"),
        ({"level": "inf"}, "level", "got the string 'inf', did you mean \"info\"?", "info, error"),
        ({"format": "xml"}, "format", "got the string 'xml'", "json, text"),
        ({"keys": {"type": "file", "path": 1}}, "keys.path", "got 1", "a path"),
        ({"keys": {"type": "vault", "adress": ""}}, "keys.adress", 'did you mean "address"?', "address"),
        ({"keys": {"type": "pkcs11"}}, "keys.type", "pkcs11", "file, vault"),
        ({"debug": "yes"}, "debug", "got the string 'yes'", "true or false"),
        ({"share": "x"}, "share", "got the string 'x'", "a number"),
        ({"pair": [1]}, "pair", "got a list", "a list of 2 entries"),
        ({"pair": [1, 2]}, "pair[1]", "got 2", "a string (put it in quotes)"),
        ({"some": ["a", "b", "c"]}, "some", "got a list", "at most 2 entries"),
        ({"format": "x" * 500}, "format", "got a long string", "json, text"),
    ],
)
def test_says_where_what_and_what_is_allowed(value: object, place: str, problem: str, allowed: str) -> None:
    found = mismatch(value)
    assert render(found.path) == place
    assert problem in found.problem
    assert allowed in found.allowed


def test_a_document_adds_file_and_line() -> None:
    text = "ports:\n  - portNumber: 80\n  - portNumber: 80\n    nmae: x\n"
    with pytest.raises(InputError) as caught:
        parse(text, "hub.yaml")[0].convert(Settings)
    assert str(caught.value) == (
        'hub.yaml:4: ports[1].nmae: unknown field, did you mean "name"?; allowed: portNumber, name'
    )


def test_a_document_without_lines_still_names_the_field() -> None:
    with pytest.raises(InputError, match=r"^request: debug: got 1; allowed: true or false$"):
        Document("request", {"debug": 1}, {}).convert(Settings)


def test_the_culprit_of_a_large_mapping_is_found_quickly() -> None:
    labels = {f"k{i}": "x" for i in range(9000)} | {"bad": 1} | {f"l{i}": 2 for i in range(999)}
    assert mismatch({"labels": labels}).path == ("labels", "bad")
