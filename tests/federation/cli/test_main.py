"""What every command has in common: help with an example, exit codes, one clear line for each mistake."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from federation.cli.main import cli as root
from tests.federation.cli.command import Cli

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"
COMMAND = (sys.executable, "-m", "federation.cli.main")


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


EVERY = list(commands(root))


def test_the_commands_are_those_that_are_promised() -> None:
    promised = (
        "serve, agent, gateway, token create, token list, token revoke, cluster list, cluster show, cluster set, "
        "cluster remove, service list, service show, status, explain, check, config check, demo up, demo status, "
        "version, completion, operator create, operator renew, operator list, operator remove"
    )
    authorities = {
        "ca issue",
        "ca show",
        "ca tree",
        "ca export",
        "ca verify",
        "ca refresh",
        "ca rotate cluster abort",
        "ca rotate cluster advance",
        "ca rotate cluster start",
        "ca rotate cluster status",
        "ca rotate cluster watch",
        "ca rotate leaves start",
        "ca rotate hub abort",
        "ca rotate hub advance",
        "ca rotate hub start",
        "ca rotate hub status",
        "ca rotate hub watch",
        "ca rotate root abort",
        "ca rotate root advance",
        "ca rotate root start",
        "ca rotate root status",
        "ca rotate root watch",
        "ca renew",
        "ca init",
        "ca request",
        "ca sign",
        "ca install",
        "ca import-root",
        "ca audit verify",
        "ca audit heads",
        "ca audit accept",
        "ca ban",
        "ca unban",
        "ca bans",
        "ca crl",
        "ca revoke",
    }
    assert {" ".join(words) for words, _ in EVERY} == set(promised.split(", ")) | authorities


@pytest.mark.parametrize("words", [words for words, _ in EVERY], ids=" ".join)
def test_help_has_an_example_that_names_the_command(words: tuple[str, ...], cli: Cli) -> None:
    shown = cli(*words, "--help")
    assert shown.code == 0
    _, found, examples = shown.out.partition("Example")
    assert found
    assert " ".join(words) in examples
    assert cli(*words, "-h").out == shown.out


@pytest.mark.parametrize("words", [words for words, _ in EVERY], ids=" ".join)
def test_an_unknown_option_is_wrong_usage(words: tuple[str, ...], cli: Cli) -> None:
    refused = cli(*words, "--nonsense")
    assert refused.code == 2
    assert "No such option" in refused.err


def test_whoever_shows_something_shows_it_for_programs_too() -> None:
    silent = {"serve", "agent", "gateway", "demo up", "completion"}
    for words, command in EVERY:
        offers = any("--output" in parameter.opts for parameter in command.params)
        assert offers != (" ".join(words) in silent), words


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("status", "extra"), "unexpected extra argument"),
        (("status", "-o", "xml"), "'table', 'json', 'yaml'"),
        (("serve",), "Missing option '--config'"),
        (("serve", "--config", "/nonexistent"), "does not exist"),
        (("token", "create"), "or give --gateway or --workload NAMESPACE/ACCOUNT (at an agent)"),
        (("token", "create", "east", "--gateway"), "name a cluster (at the hub), or give --gateway"),
        (("token", "create", "--gateway", "--replace-authority"), "--replace-authority is for a cluster"),
        (("token", "create", "east", "--ttl", "10"), "a number without its unit; allowed: a whole number"),
        (("token", "create", "east", "--ttl", "11m"), "11m is not allowed; allowed: 1s to 10m"),
        (("token", "create", "east", "--ttl", "0s"), "0s is not allowed"),
        (("token", "create", "east", "--ttl", "1ms"), "1ms is not allowed; allowed: 1s to 10m"),
        (("cluster", "set", "east"), "nothing to change"),
        (("cluster", "set", "east", "--state", "odd"), "'active', 'draining', 'drained', 'quarantined'"),
        (("explain", "Echo"), "'Echo' is not a service; write namespace/name, for example default/echo"),
        (("cluster", "show", ""), "'' is not a name"),
        (("cluster", "remove", "..", "--yes"), "'..' is not a name"),
        (("token", "revoke", "."), "'.' is not a name"),
        (("service", "show", "a/b/c"), "'a/b/c' is not a service"),
        (("operator", "create", "ada"), "Missing option '--out'"),
        (("completion", "powershell"), "'bash', 'zsh', 'fish'"),
        (("config", "check", "/nonexistent"), "does not exist"),
        (("demo", "--directory", "/nonexistent/demo", "status"), "give --directory after status"),
        (("demo", "--directory", ""), "an empty path"),
        (("demo", "up", "--directory", ""), "an empty path"),
        (("demo", "status", "--directory", ""), "an empty path"),
        (("token", "create", "east", "--out", ""), "an empty path"),
        (("operator", "create", "ada", "--out", ""), "an empty path"),
        (("config", "check", ""), "an empty path"),
    ],
)
def test_wrong_usage_is_told_and_leaves_with_2(words: tuple[str, ...], says: str, cli: Cli) -> None:
    refused = cli(*words)
    assert refused.code == 2
    assert says in " ".join(refused.err.split())
    assert refused.out == ""


@pytest.mark.parametrize("words", [("status",), ("check",), ("token", "list"), ("explain", "echo")])
def test_nobody_there_leaves_with_3(words: tuple[str, ...], cli: Cli, tmp_path: Path) -> None:
    socket = tmp_path / "api.sock"
    refused = cli("--hub", f"unix://{socket}", *words)
    assert refused.code == 3
    assert refused.err.splitlines() == [
        f"error: cannot reach unix://{socket}: No such file or directory",
        "  hint: see that the process runs; `--hub` says which one is asked",
    ]


def test_the_environment_says_whom_to_ask_and_the_option_wins(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDERATION_HUB", "unix:///nonexistent/environment.sock")
    assert "environment.sock" in cli("status").err
    assert "option.sock" in cli("--hub", "unix:///nonexistent/option.sock", "status").err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.live
def test_a_process_stops_when_it_is_told_to(number: signal.Signals, tmp_path: Path) -> None:
    """SIGINT leaves with 130, SIGTERM with 0; both leave no socket."""
    settings = tmp_path / "hub.yaml"
    address = "127.0.0.1:0"
    settings.write_text(
        f"base: mesh.example\nadvertise: {{api: '127.0.0.1:1', sync: '127.0.0.1:2'}}\ndirectory: {tmp_path}/hub\n"
        f"listen: {{api: '{address}', sync: '{address}', telemetry: '{address}'}}\nkeys: {{plain: true}}\n"
    )
    with subprocess.Popen(
        [*COMMAND, "serve", "--config", settings], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as hub:
        assert hub.stdout is not None
        said = ""
        for line in hub.stdout:
            said += line
            if "hub runs" in line:
                hub.send_signal(number)
        code = hub.wait()
    assert code == (130 if number is signal.SIGINT else 0), said
    assert "Traceback" not in said
    assert not (tmp_path / "hub" / "api.sock").exists()


@pytest.mark.live
def test_output_that_cannot_be_written_is_told() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


@pytest.mark.live
@pytest.mark.parametrize(
    "words", [("version",), ("completion", "bash"), ("config", "check", EXAMPLES / "hub.yaml")]
)
def test_a_reader_that_has_gone_is_no_problem_found(words: tuple[str, ...]) -> None:
    """As with `| head -1`: no word of it, and the exit code that a shell gives for SIGPIPE."""
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = subprocess.run(
            [*COMMAND, *words], stdout=theirs, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.live
@pytest.mark.parametrize("no_color", ["", "1"])
def test_colour_is_for_terminals_and_for_those_who_want_it(no_color: str, tmp_path: Path) -> None:
    """On a terminal of its own; an empty NO_COLOR counts as none (no-color.org)."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm"}
    try:
        done = subprocess.run(
            [*COMMAND, "config", "check", EXAMPLES / "hub.yaml"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            check=False,
        )
        shown = os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0
    assert "is fine" in shown
    assert ("\x1b[" in shown) == (no_color == "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_offers_commands_and_their_options(
    shell: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = cli("completion", shell)
    assert script.code == 0
    assert f"_FEDERATION_COMPLETE={shell}_complete" in script.out
    for words, offered in (("federation to", "token"), ("federation token cr", "create")):
        monkeypatch.setenv("_FEDERATION_COMPLETE", f"{shell}_complete")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv(
            "COMP_CWORD", words.split()[-1] if shell == "fish" else str(len(words.split()) - 1)
        )
        assert offered in cli().out
        monkeypatch.delenv("_FEDERATION_COMPLETE")


@pytest.mark.live
def test_bash_completes_with_the_script(cli: Cli, tmp_path: Path) -> None:
    script = tmp_path / "federation.bash"
    script.write_text(cli("completion", "bash").out)
    command = tmp_path / "federation"
    command.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    command.chmod(0o755)
    asked = (
        f". {script}; COMP_WORDS=(federation clu); COMP_CWORD=1; _federation_completion federation; "
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", asked],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.getcwd()},
        check=True,
    )
    assert done.stdout.strip() == "cluster", done.stderr


def test_a_socket_of_another_protocol_is_told_without_the_bytes_that_came(cli: Cli, tmp_path: Path) -> None:
    """As the agent's for xDS, which speaks HTTP/2."""
    path = tmp_path / "xds.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def speak() -> None:
            with server.accept()[0] as client:
                client.recv(1000)
                client.sendall(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")

        speaking = threading.Thread(target=speak, name="speaking")
        speaking.start()
        refused = cli("--hub", f"unix://{path}", "status")
        speaking.join()
    assert refused.code == 3
    first = refused.err.splitlines()[0]
    assert first == f"error: cannot reach unix://{path}: it does not speak HTTP/1.1, so it is not an API"


def test_the_version_for_programs(cli: Cli) -> None:
    assert cli("version", "-o", "json").json["version"] in cli("version").out
