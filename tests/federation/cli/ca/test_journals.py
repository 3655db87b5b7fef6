"""`federation ca audit verify FILE` needs no process, and what cannot be meant is wrong usage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from federation.cli.ca.bans import _named
from pki.algorithms import spki_hash
from pki.certificate import pem, public_key
from pki.journal import Head
from pki.spiffe import SpiffeId
from tests.federation.cli.command import Cli
from tests.pki.test_journal import OURS, fill
from tests.pki.world import World


@pytest.fixture
def journal(tmp_path: Path) -> tuple[Path, Head]:
    return tmp_path / "journal", fill(tmp_path / "journal")


def cut(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"ff"', b'"fe"', 1))


def swap(path: Path) -> None:
    first, second, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join((second, first, *rest)))


def test_a_copy_is_looked_at_without_any_process(cli: Cli, journal: tuple[Path, Head]) -> None:
    path, head = journal
    found = cli("ca", "audit", "verify", path, "--head", f"{OURS}:{head.lines}:{head.hash}", "-o", "json")
    assert found.code == 0, found.err
    (one,) = found.json
    assert (one["lines"], one["problem"], one["vouched_by"]) == (11, None, ["the heads given"])
    alone = cli("ca", "audit", "verify", path, "--alone")
    assert alone.code == 0
    assert "11 lines" in alone.out
    assert "nobody vouches for its end" in alone.out


@pytest.mark.parametrize(
    ("change", "says"), [(cut, "ends here"), (edit, "journal:3: does not follow"), (swap, "journal:1: ")]
)
def test_s1_what_was_changed_is_named_by_file_and_line(
    cli: Cli, journal: tuple[Path, Head], change: Callable[[Path], None], says: str
) -> None:
    path, head = journal
    change(path)
    found = cli("ca", "audit", "verify", path, "--head", f"{OURS}:{head.lines}:{head.hash}")
    assert found.code == 1
    assert says in found.out


def test_s1_a_journal_that_was_exchanged_is_not_the_one_of_the_head(
    cli: Cli, journal: tuple[Path, Head]
) -> None:
    path, head = journal
    found = cli("ca", "audit", "verify", path, "--head", f"{'bb' * 32}:{head.lines}:{head.hash}")
    assert found.code == 1
    assert "is the journal of another authority" in found.out


@pytest.mark.parametrize(
    "words",
    [
        ("ca", "audit", "verify", "--alone"),
        ("ca", "audit", "verify", "FILE", "--from", "east"),
        ("ca", "ban", "west"),
        ("ca", "ban", "--reason", "x"),
        ("ca", "ban", "west", "--certificate", "FILE", "--reason", "x"),
        ("ca", "unban"),
        ("ca", "revoke", "west"),
        ("ca", "revoke", "west", "--reason", "bored"),
        ("ca", "revoke", "west", "--reason", "superseded", "--serial", "ab", "--all"),
        ("ca", "audit", "--limit", "0"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_wrong_usage(
    cli: Cli, journal: tuple[Path, Head], words: tuple[str, ...]
) -> None:
    found = cli(*(journal[0] if word == "FILE" else word for word in words))
    assert found.code == 2, found


def test_a_copy_is_shown_line_by_line_without_any_process(cli: Cli, journal: tuple[Path, Head]) -> None:
    path, _ = journal
    shown = cli("ca", "audit", "show", path)
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert len(lines) == 12
    assert lines[0].split() == ["WHEN", "JOURNAL", "LINE", "KIND", "ABOUT", "SAYS"]
    assert lines[1].endswith(f"opened    {OURS}  the journal of the authority with this key begins")
    found = cli("ca", "audit", "show", path, "--limit", "3", "-o", "json").json
    assert [(one["line"], one["record"]["type"]) for one in found] == [
        (9, "released"),
        (10, "intent"),
        (11, "released"),
    ]
    written = [line.partition(" ")[2] for line in path.read_text().splitlines()]
    assert [one["record"] for one in found] == [json.loads(line) for line in written[-3:]]
    assert cli("ca", "audit", "show", path, "--since", "2100-01-01T00:00:00Z", "-o", "json").json == []
    assert cli("ca", "audit", "show", path, "--since", "yesterday").code == 2
    path.write_text("no journal")
    refused = cli("ca", "audit", "show", path)
    assert refused.code == 1
    assert str(path) in refused.err


def test_no_process_is_said_as_such(cli: Cli, journal: tuple[Path, Head]) -> None:
    asked = ("--hub", f"unix://{journal[0].parent / 'nobody.sock'}", "ca", "audit", "verify", journal[0])
    assert cli(*asked).code == 3


def test_a_name_says_what_it_is_of(world: World, tmp_path: Path) -> None:
    leaf = world.west.leaf(SpiffeId.gateway(world.west.trust_domain, "eastwest"))
    file = tmp_path / "chain.pem"
    file.write_bytes(pem([leaf, world.west.self_signed]))
    assert _named("west", None) == ("cluster", "west")
    assert _named("spiffe://west.mesh.example/agent", None) == (
        "identity",
        "spiffe://west.mesh.example/agent",
    )
    for digest in ("ab" * 32, "AB" * 32, ":".join(["aB"] * 32), " ".join(["ab"] * 32)):
        assert _named(digest, None) == ("key", "ab" * 32)
    assert _named(None, file) == ("key", spki_hash(public_key(leaf)))
