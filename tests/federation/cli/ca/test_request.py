"""`federation ca request`: the file goes where it is told to, and nobody takes an empty answer for one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pki.ceremony import Requests, aloud, decode, encode, fingerprint
from tests.federation.cli.answering import answering
from tests.federation.cli.command import Cli
from tests.pki.test_ceremony import request_of
from tests.pki.world import BASE, World


def test_a_request_on_standard_output_is_the_file_alone(cli: Cli, tmp_path: Path, world: World) -> None:
    file = Requests(base=BASE, made_at=datetime.now(UTC), requests=(request_of(world.east),))
    found = {
        "requests": [{"trust_domain": "east.mesh.example", "key_id": "0" * 40, "epoch": 1}],
        "left_out": 3,
        "fingerprint": fingerprint(file),
        "file": encode(file).decode(),
    }
    with answering(tmp_path, {"GET /v1/ca/requests": found}) as process:
        asked = cli("--hub", process.hub, "ca", "request", "--out", "-")
        both = cli("--hub", process.hub, "ca", "request", "--out", "-", "-o", "json")
    assert asked.code == 0, asked.err
    assert decode(asked.out.encode(), Requests) == file
    assert aloud(fingerprint(file)) in asked.err
    assert "and 3 more" in asked.err
    assert (both.code, "give one" in both.err) == (2, True)
    assert not Path("-").exists()


def test_where_nobody_waits_there_is_no_file_and_the_exit_code_says_so(cli: Cli, tmp_path: Path) -> None:
    nothing = {"requests": [], "left_out": 0, "fingerprint": "", "file": ""}
    with answering(tmp_path, {"GET /v1/ca/requests": nothing}) as process:
        asked = cli("--hub", process.hub, "ca", "request", "--out", tmp_path / "none")
        printed = cli("--hub", process.hub, "ca", "request", "--out", "-")
    assert asked.code == 1
    assert "nobody waits for the root" in asked.out
    assert not (tmp_path / "none").exists()
    assert (printed.code, printed.out) == (1, "")
