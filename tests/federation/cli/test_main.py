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

from federation.cli.call import NOT_THERE
from federation.cli.program import cli as root
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
        "ca rotate leaves status",
        "ca rotate quarantine",
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
        "ca audit show",
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
        (("ca", "show", "--hub", "x"), "--hub stands before the command: federation --hub TARGET"),
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
        (
            ("ca", "ban", "We st", "--reason", "x"),
            "'We st' is neither the name of a cluster, nor a SPIFFE ID",
        ),
        (
            ("ca", "ban", "ab" * 31, "--reason", "x" * 201),
            "is no reason: it is 201 characters long; allowed: one",
        ),
        (("ca", "ban", "west", "--reason", "  "), "is no reason: it says nothing"),
        (("ca", "ban", "--certificate", "/dev/zero", "--reason", "x"), "/dev/zero: holds no certificate"),
        (("ca", "ban", "--certificate", "/dev/null", "--reason", "x"), "/dev/null: holds no certificate"),
        (
            ("ca", "ban", "west", "--reason", "a\x1b[2J"),
            "is no reason: it has a line break or another character",
        ),
        (
            ("ca", "revoke", "west", "--reason", "superseded", "--why", "a\nb"),
            "is no reason: it has a line break",
        ),
        (("ca", "rotate", "cluster", "start", "west", "--why", "x" * 201), "it is 201 characters long"),
        (("ca", "rotate", "root", "start", "--why", "x" * 201), "it is 201 characters long"),
        (
            ("ca", "rotate", "cluster", "status", "We st"),
            "'We st' is not a name of a cluster; allowed: 1 to 63",
        ),
        (
            ("ca", "export", "istio", "--cluster", "east", "--namespace", "Is tio"),
            "'Is tio' is not a namespace",
        ),
        (("ca", "export", "istio", "--cluster", "../x"), "'../x' is not a name of a cluster"),
        (("ca", "export", "spiffe", "--cluster", "east", "--out", "-", "-o", "json"), "--out - prints what"),
        (("ca", "export", "spiffe", "--cluster", "east", "--out", "-", "--force"), "--force is for a folder"),
        (("ca", "verify", "--from", "east", "--to", "WEST"), "'WEST' is not a name of a cluster"),
        (("ca", "issue", "east", "--out", "/nonexistent"), "is not a valid SPIFFE identity"),
        (
            ("ca", "install", "/nonexistent", "--expect-root", "3f9c"),
            "'3f9c' is not a SHA-256; allowed: 64 of",
        ),
        (("ca", "audit", "--from", "east", "verify"), "--from goes after verify, if that has it"),
        (("ca", "audit", "--identity", "x", "show"), "--identity goes after show, if that has it"),
        (("ca", "audit", "show", "/nonexistent"), "does not exist"),
        (
            ("ca", "init", "--offline", "--base", "a.b", "--out", "/nonexistent/\udcff"),
            "\\udcff' is not UTF-8",
        ),
        (("ca", "audit", "accept", "Ea st"), "'Ea st' is not a name of a cluster"),
        (("service", "list", "--from", "EAST"), "'EAST' is not a name of a cluster"),
        (("token", "create", "EAST"), "'EAST' is not a name of a cluster"),
    ],
)
def test_wrong_usage_is_told_and_leaves_with_2(words: tuple[str, ...], says: str, cli: Cli) -> None:
    refused = cli(*words)
    assert refused.code == 2
    assert says in " ".join(refused.err.split())
    assert refused.out == ""


HUGE = "x" * 10_240


@pytest.mark.parametrize(
    "words",
    [
        (HUGE,),
        ("status", HUGE),
        ("status", f"--{HUGE}"),
        ("status", "-o", HUGE),
        ("cluster", "show", HUGE),
        ("cluster", "remove", HUGE, "--yes"),
        ("token", "create", HUGE),
        ("token", "revoke", HUGE),
        ("operator", "remove", HUGE),
        ("explain", HUGE),
        ("service", "list", "--from", HUGE),
        ("ca", HUGE),
        ("ca", "ban", HUGE, "--reason", "x"),
        ("ca", "ban", "west", "--reason", HUGE),
        ("ca", "ban", f"spiffe://{HUGE}", "--reason", "x"),
        ("ca", "unban", HUGE),
        ("ca", "revoke", HUGE, "--reason", "superseded"),
        ("ca", "revoke", "west", "--reason", "superseded", "--serial", HUGE),
        ("ca", "rotate", "cluster", "start", HUGE),
        ("ca", "export", "istio", "--cluster", HUGE),
        ("ca", "export", "istio", "--cluster", "east", "--trust-domain", HUGE),
        ("ca", "export", "istio", "--cluster", "east", "--lifetime", HUGE),
        ("ca", "verify", "--from", HUGE, "--to", "west"),
        ("ca", "refresh", HUGE),
        ("ca", "issue", f"spiffe://{HUGE}/x", "--out", "/nonexistent/x"),
        ("ca", "issue", "spiffe://e/x", "--ttl", HUGE, "--out", "/nonexistent/x"),
        ("ca", "sign", "x", "--root", "/", "--out", "x", "--expect", HUGE),
        ("ca", "init", "--offline", "--base", HUGE, "--out", "/nonexistent/x"),
        ("ca", "audit", "--identity", HUGE),
        ("ca", "audit", "--since", HUGE),
        ("ca", "audit", "show", HUGE),
        ("ca", "audit", "verify", "--head", HUGE),
    ],
    ids=lambda words: " ".join(words).replace(HUGE, "HUGE"),
)
def test_what_is_much_too_long_is_wrong_usage_and_not_given_back(words: tuple[str, ...], cli: Cli) -> None:
    """Nobody is there to be asked, so what is refused is refused here."""
    refused = cli("--hub", "unix:///nonexistent/api.sock", *words)
    assert refused.code == 2
    assert len(refused.err) < 1000
    assert refused.out == ""


@pytest.mark.parametrize("words", [("status",), ("check",), ("token", "list"), ("explain", "echo")])
def test_nobody_there_leaves_with_3(words: tuple[str, ...], cli: Cli, tmp_path: Path) -> None:
    socket = tmp_path / "api.sock"
    refused = cli("--hub", f"unix://{socket}", *words)
    assert refused.code == 3
    assert refused.err.splitlines() == [
        f"error: cannot reach unix://{socket}: No such file or directory",
        f"  hint: {NOT_THERE}",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("ca", "export", "istio", "--cluster", "east"),
        ("ca", "export", "spiffe", "--cluster", "east"),
        ("ca", "issue", "spiffe://east.mesh.example/ns/shop/sa/cart"),
        ("ca", "request"),
        ("ca", "crl"),
        ("operator", "create", "ada"),
        ("token", "create", "east", "--may-export", "a/*", "--range", "10.0.0.0/8"),
    ],
)
def test_where_nobody_answers_nothing_is_left(words: tuple[str, ...], cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out" if words[1] in ("export", "issue", "create") else tmp_path / "out"
    refused = cli("--hub", "unix:///nonexistent/api.sock", *words, "--out", out)
    assert refused.code == 3
    assert list(tmp_path.iterdir()) == []


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
@pytest.mark.parametrize("words", [("version",), ("ca", "--help"), ("ca", "ban", "west", "--reason", "x")])
def test_without_standard_output_nothing_is_done_and_that_is_told(words: tuple[str, ...]) -> None:
    command = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "--hub", "unix:///nonexistent", *words]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 141
    assert done.stderr.startswith("error: standard output is closed, and nothing was done\n")


@pytest.mark.live
def test_without_any_of_the_three_files_the_exit_code_is_the_same() -> None:
    """Nor does the next file that is opened get their numbers, and what libraries write there."""
    for closed, words, code in (
        ("<&- 2>&-", ("version",), 0),
        ("2>&-", ("nonsense",), 2),
        ("<&-", ("cluster", "remove", "east"), 3),
        (">&- 2>&-", ("version",), 141),
    ):
        command = [
            "/bin/sh",
            "-c",
            f'exec "$@" {closed}',
            "sh",
            *COMMAND,
            "--hub",
            "unix:///nonexistent",
            *words,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr


@pytest.mark.live
def test_until_an_interrupt_is_caught_nothing_is_imported_that_takes_time() -> None:
    asked = (
        "import sys; before = set(sys.modules); import federation.cli.main; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    ours = {"federation", "federation.cli", "federation.cli.main", "federation.cli.interrupt"}
    assert set(done.stdout.split()) - {"_signal"} == ours


INTERRUPTING = """
import os, runpy, signal, sys

module, sys.argv = sys.argv[1], ["federation", *sys.argv[2:]]

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
        return None

sys.meta_path.insert(0, Interrupting())
if os.environ["ENTRY"] == "script":
    from federation.cli.main import main
    main()
else:
    runpy.run_module("federation.cli.main", run_name="__main__")
"""


@pytest.mark.live
@pytest.mark.parametrize("entry", ["script", "module"])
@pytest.mark.parametrize(
    "module",
    [
        "federation.cli.program",
        "click",
        "federation.cli.lazy",
        "federation.cli.ca",
        "federation.cli.ca.tree",
        "federation.cli.target",
        "federation.api.client",
        "aiohttp",
        "asyncio",
        "ssl",
    ],
)
def test_an_interrupt_while_anything_is_imported_ends_it_quietly(module: str, entry: str) -> None:
    """At the moment at which each of these is looked for, as at any moment of the first tenths of a second."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTING, module, "--hub", "unix:///nonexistent", "ca", "tree"],
        capture_output=True,
        text=True,
        env={**os.environ, "ENTRY": entry},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.live
@pytest.mark.parametrize(
    "words",
    [
        ("version",),
        ("--help",),
        ("ca", "--help"),
        ("ca", "sign", "--help"),
        ("completion", "bash"),
        ("config", "check", EXAMPLES / "hub.yaml"),
    ],
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
@pytest.mark.parametrize(
    ("encoding", "mark"), [("latin-1", "\\u2713"), ("ascii", "✓"), ("utf-8", "✓")]
)  # click takes an ASCII terminal for one that is set up wrongly, and speaks UTF-8 to it
def test_what_the_encoding_of_the_terminal_has_no_sign_for_is_written_another_way(
    encoding: str, mark: str
) -> None:
    done = subprocess.run(
        [*COMMAND, "config", "check", EXAMPLES / "hub.yaml"],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{mark} ")


@pytest.mark.live
@pytest.mark.parametrize(("no_color", "term"), [("", "xterm"), ("1", "xterm"), ("", "dumb")])
def test_colour_is_for_terminals_and_for_those_who_want_it(no_color: str, term: str, tmp_path: Path) -> None:
    """On a terminal of its own that knows colours; an empty NO_COLOR counts as none (no-color.org)."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "NO_COLOR": no_color, "TERM": term}
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
    assert ("\x1b[" in shown) == (no_color == "" and term == "xterm")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_offers_commands_and_their_options(
    shell: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = cli("completion", shell)
    assert script.code == 0
    assert f"_FEDERATION_COMPLETE={shell}_complete" in script.out
    for words, offered in (
        ("federation to", "token"),
        ("federation token cr", "create"),
        ("federation ca ro", "rotate"),
        ("federation ca audit sh", "show"),
        ("federation ca ban --re", "--reason"),
        ("federation ca export cert", "cert-manager"),
    ):
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
