"""Logs are one line an event, whatever is in it; metrics have names of their own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
import structlog

from federation.api.messages import RotationStatus
from federation.telemetry import AgentMetrics, GatewayMetrics, HubMetrics, configure_logging
from tests.gateway.certificates import ca


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


NASTY = "evil\n2026-01-01 level=info event=forged \x1b[31mred \u202e"


@dataclass(frozen=True)
class Over:
    """A rotation that is over, as far as metrics show it: `problem` is why its other key is still there."""

    problem: str | None
    kind: str = "cluster"
    running: bool = False
    phase: str = "done"
    entered_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    ready: bool = False
    blocking: tuple[str, ...] = ()
    deadline: datetime = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("problem", "failing"), [(None, 0.0), ("a key cannot be removed", 1.0)])
def test_of_rotations_that_are_over_only_what_fails_is_shown(problem: str | None, failing: float) -> None:
    metrics = AgentMetrics()
    metrics.rotation.show(cast(RotationStatus, Over(problem)))
    shown = {
        sample.name.removeprefix("federation_agent_rotation_"): sample.value
        for family in metrics.registry.collect()
        if family.name.startswith("federation_agent_rotation_")
        for sample in family.samples
    }
    assert shown.pop("failing") == failing
    assert set(shown.values()) == {0.0}


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_others_say_cannot_forge_a_line_or_steer_a_terminal(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", "json" if form == "json" else "text", "agent east")
    structlog.get_logger().warning("refused", reason=NASTY)
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.isprintable()
    assert "agent east" in line


@pytest.mark.parametrize(("error", "lines"), [(asyncio.CancelledError(), 0), (ValueError("broken"), 1)])
def test_what_was_told_to_end_and_did_is_no_error_of_a_library(
    error: BaseException, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", "json", "agent east")
    logging.getLogger("grpc._cython.cygrpc").error("Exception not handled", exc_info=error)
    assert len(capsys.readouterr().err.splitlines()) == lines


def test_json_is_what_a_program_reads(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json", "hub")
    structlog.get_logger().info("joined", cluster="east", reason=NASTY)
    event = json.loads(capsys.readouterr().err)
    assert (event["event"], event["level"], event["process"], event["cluster"]) == (
        "joined",
        "info",
        "hub",
        "east",
    )
    assert event["reason"] == NASTY
    moment = datetime.fromisoformat(event["timestamp"])
    assert moment.utcoffset() is not None


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_full_disk_under_the_log_ends_nobody(form: str) -> None:
    """`/dev/full` (full(4)) takes nothing, for want of room."""
    speak = f"""
import logging, structlog
from federation.telemetry import configure_logging
configure_logging("info", "{form}", "gateway")
for _ in range(1000):
    structlog.get_logger().info("lost", reason="x" * 100)
    logging.getLogger("library").warning("lost as well")
print("alive")
"""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", speak], stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (0, "alive\n")


KNOCK = """
import asyncio, sys
from pathlib import Path

import federation.cli.processes, federation.config
from federation.telemetry import configure_logging

assert "grpc" not in sys.modules
configure_logging("info", "json", "hub")

import grpc.aio

async def main():
    chain, key = (Path(file).read_bytes() for file in sys.argv[1:])
    server = grpc.aio.server()
    credentials = grpc.ssl_server_credentials([(key, chain)], chain, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    for said in (b"GET / HTTP/1.1\\r\\n\\r\\n", b"\\x16\\x03\\x01\\x00\\x05hello"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        try:
            await reader.read()
        except ConnectionError:
            pass
        writer.close()
    await server.stop(None)

asyncio.run(main())
"""


@pytest.mark.live
@pytest.mark.parametrize(("verbosity", "lines"), [(None, 0), ("info", 2)])
def test_strangers_at_the_door_of_grpc_write_no_lines_of_its_own_unless_somebody_wants_them(
    tmp_path: Path, verbosity: str | None, lines: int
) -> None:
    shown = ca("east").write(tmp_path / "east", "spiffe://east.mesh.example/agent")
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    environment |= {"GRPC_VERBOSITY": verbosity} if verbosity else {}
    done = subprocess.run(
        [sys.executable, "-c", KNOCK, str(shown.chain), str(shown.key)],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    )
    assert sum("Handshake failed" in line for line in done.stderr.splitlines()) == lines, done.stderr
    assert lines or done.stderr == ""


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", "text", "hub")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [line for line in capsys.readouterr().err.splitlines() if "quiet" in line] == []


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_libraries_say_is_one_line_too(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json" if form == "json" else "text", "hub")
    try:
        raise RuntimeError(NASTY)
    except RuntimeError:
        logging.getLogger("some.library").exception("failed: %s", NASTY)
    logging.getLogger("some.library").info("too chatty")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert "RuntimeError" in line
    if form == "json":
        event = json.loads(line)
        assert (event["event"], event["level"], event["process"]) == (f"failed: {NASTY}", "error", "hub")


@pytest.mark.parametrize("metrics", [HubMetrics, AgentMetrics, GatewayMetrics])
def test_metrics_are_named_for_their_process_and_say_what_they_are(metrics: type) -> None:
    made = metrics()
    families = list(made.registry.collect())
    assert families
    prefix = f"federation_{metrics.__name__.removesuffix('Metrics').lower()}_"
    for family in families:
        assert family.name.startswith(prefix)
        assert family.documentation
        assert re.fullmatch(r"[a-z_]+", family.name)
    assert prefix.encode() in made.render()


def test_two_processes_in_one_do_not_share_a_registry() -> None:
    one, other = HubMetrics(), HubMetrics()
    one.members.set(3)
    assert b"federation_hub_members 3.0" in one.render()
    assert b"federation_hub_members 0.0" in other.render()
