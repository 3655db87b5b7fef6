"""What each command asks, and what people and programs see of the answer."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec.structs import replace

from federation.api.messages import (
    Check,
    CheckGroup,
    ClusterInfo,
    CreatedOperator,
    CreatedToken,
    Done,
    ExporterInfo,
    GatewayInfo,
    NewOperator,
    NewToken,
    OperatorInfo,
    PortInfo,
    RejectedResource,
    ServiceInfo,
    SetCluster,
    TokenInfo,
)
from federation.api.routes import ApiProblem, encode
from federation.events import ExportChanged, LoadChanged, LocalChanged
from federation.explain import explain
from federation.inputs import inputs
from federation.merge import merge
from federation.route import route
from tests.federation import test_checks
from tests.federation.cli.answering import Process, answering
from tests.federation.cli.command import Cli
from tests.federation.lives import EVERYBODY
from tests.federation.world import ECHO, backend, load, local, spec, view_after

STEERING = "\x1b[2J"
SOON = datetime.now(UTC) + timedelta(hours=3, minutes=30)
CLUSTER = ClusterInfo(
    name="east",
    trust_domain="east.mesh.example",
    state="active",
    region="eu",
    connected=False,
    silence=200.0,
    joined_at=datetime.now(UTC) - timedelta(days=9, hours=1),
    may_export=("default/*", "shop/*"),
    ranges=("10.1.0.0/16",),
    gateways=(GatewayInfo(name="gw-0", address="10.1.0.2:15443"), GatewayInfo(name="gw-1", address="10.1.0.3:15443")),
    exports=3,
    refused=(f"spec/default/x: {STEERING}no",),
    lag=2,
)  # fmt: skip
HUB = replace(test_checks.HUB, clusters=(CLUSTER,))
AGENT = replace(
    test_checks.AGENT,
    gateways=(
        replace(
            test_checks.GATEWAY,
            certificate_expires_at=SOON,
            rejected=(RejectedResource(type="Listener", name="x", error=f"bad{STEERING}"),),
        ),
    ),
)
SERVICE = ServiceInfo(
    service="default/echo",
    host="echo.default.svc.clusterset.local",
    ports=(PortInfo(name="http", port=80, protocol="TCP", reach=("127.0.0.1:20000",)),),
    exporters=(
        ExporterInfo(cluster="east", healthy=1, total=2),
        ExporterInfo(cluster="west", healthy=3, total=3, age=150.0),
    ),
    conflicts=(f"type: east says ClusterSetIP{STEERING}",),
)
TOKEN = TokenInfo(
    id="0123456789ab",
    kind="join",
    subject="east",
    state="unused",
    expires_at=SOON,
    may_export=("default/*",),
    ranges=("10.1.0.0/16",),
)
VIEW = view_after(
    *EVERYBODY,
    LocalChanged(local(backend(1))),
    ExportChanged(spec("west")),
    LoadChanged(load("west", 2, 2)),
)
CUT = inputs(VIEW, ECHO)
PLAN = explain(CUT, merge(CUT), route(CUT, merge(CUT)))
CHECKS = (
    CheckGroup(
        name="hub",
        checks=(
            Check(result="ok", name="own certificate is valid", detail="12.0 hours left", hint="hidden"),
            Check(result="warning", name=f"low{STEERING}", hint="soon"),
            Check(result="failure", name="gw-0 is connected", hint="see that it runs"),
        ),
    ),
)

ANSWERS: dict[str, Any] = {
    "GET /v1/status": HUB,
    "GET /v1/checks": CHECKS,
    "GET /v1/clusters": (CLUSTER,),
    "GET /v1/clusters/east": CLUSTER,
    "PUT /v1/clusters/east": CLUSTER,
    "DELETE /v1/clusters/east": Done(done="cluster east is removed"),
    "GET /v1/services": (SERVICE,),
    "GET /v1/services/default/echo": SERVICE,
    "GET /v1/explain/default/echo": PLAN,
    "GET /v1/tokens": (TOKEN,),
    "POST /v1/tokens": CreatedToken(id=TOKEN.id, token="fed1.secret", subject="east", expires_at=SOON),
    "DELETE /v1/tokens/0123456789ab": Done(done="token 0123456789ab is revoked"),
    "GET /v1/operators": (OperatorInfo(name="ada", role="operator", kind="bearer"),),
    "POST /v1/operators": CreatedOperator(
        name="ada", role="viewer", url="https://hub:8443", server_name="federation.hub", bundle="pem", token="t"
    ),
    "DELETE /v1/operators/ada": Done(done="operator ada has no access any more"),
}  # fmt: skip


@dataclass
class Asking:
    """The command line, speaking to a process with these answers."""

    cli: Cli
    folder: Path

    def __call__(self, *arguments: object, **changes: Any) -> tuple[Any, Process]:
        answers = ANSWERS | {name.replace("_", " ", 1): answer for name, answer in changes.items()}
        with answering(self.folder, answers) as process:
            return self.cli("--hub", process.hub, *arguments), process


@pytest.fixture
def ask(cli: Cli, tmp_path: Path) -> Asking:
    return Asking(cli, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "asked", "shows", "code"),
    [
        (("status",), "GET /v1/status", ["hub of mesh.example", "east", "silent 3m"], 0),
        (("check",), "GET /v1/checks", ["✓ own certificate is valid: 12.0 hours left", "✗ gw-0 is connected",
                                        "hint: see that it runs"], 1),
        (("cluster", "list"), "GET /v1/clusters", ["east", "silent 3m", "9d ago"], 0),
        (("cluster", "show", "east"), "GET /v1/clusters/east", ["default/*, shop/*", "gw-1 10.1.0.3:15443"], 0),
        (("cluster", "remove", "east", "--yes"), "DELETE /v1/clusters/east", ["cluster east is removed"], 0),
        (("service", "list"), "GET /v1/services", ["default/echo", "east(1/2),west(3/3)", "127.0.0.1:20000"], 0),
        (("service", "show", "echo"), "GET /v1/services/default/echo", ["west: 3 of 3 healthy, last heard 2m ago"], 0),
        (("explain", "default/echo"), "GET /v1/explain/default/echo", ["default/echo:80 from east", "west"], 0),
        (("token", "list"), "GET /v1/tokens", ["0123456789ab", "in 3h", "default/*"], 0),
        (("token", "revoke", "0123456789ab"), "DELETE /v1/tokens/0123456789ab", ["is revoked"], 0),
        (("operator", "list"), "GET /v1/operators", ["ada", "operator", "bearer"], 0),
        (("operator", "remove", "ada"), "DELETE /v1/operators/ada", ["has no access any more"], 0),
    ],
)  # fmt: skip
def test_a_command_asks_once_and_shows_the_answer_in_every_format(
    ask: Asking, arguments: tuple[str, ...], asked: str, shows: list[str], code: int
) -> None:
    finished, process = ask(*arguments)
    assert (finished.code, finished.err) == (code, "")
    assert [name for name, _ in process.calls] == [asked]
    for text in shows:
        assert text in finished.out
    assert all(line.isprintable() for line in finished.out.splitlines())
    answer = msgspec.json.decode(encode(ANSWERS[asked]))
    json, _ = ask(*arguments, "-o", "json")
    assert (json.code, json.json) == (code, answer)
    as_yaml, _ = ask(*arguments, "-o", "yaml")
    assert (as_yaml.code, yaml.safe_load(as_yaml.out)) == (code, answer)


def test_an_agent_is_shown_with_its_gateways_and_peers(ask: Asking) -> None:
    finished, _ = ask(
        "status", **{"GET_/v1/status": replace(AGENT, problems=(f"echo.yaml:3: bad{STEERING}",))}
    )
    assert finished.code == 1
    for text in ("agent of east (eu)", "connected to 10.0.0.1:8444", "gw-0", "7/7", "in 3h", "west", "fresh"):
        assert text in finished.out
    assert "✗ gw-0 refused Listener x: bad" in finished.out
    assert "‼ echo.yaml:3: bad" in finished.out
    assert all(line.isprintable() for line in finished.out.splitlines())


def test_a_ban_is_shown_in_place_of_the_state_and_with_its_reason(ask: Asking) -> None:
    why = f"cluster east is banned: stolen{STEERING}"
    east, west = replace(CLUSTER, banned=why), replace(test_checks.PEER, banned=why)
    for arguments, asked, answer in (
        (("status",), "GET_/v1/status", replace(HUB, clusters=(east,))),
        (("status",), "GET_/v1/status", replace(AGENT, peers=(west,))),
        (("cluster", "list"), "GET_/v1/clusters", (east,)),
    ):
        shown = ask(*arguments, **{asked: answer})[0].out
        assert "banned" in shown.split()
        assert "active" not in shown
    shown = ask("cluster", "show", "east", **{"GET_/v1/clusters/east": east})[0].out
    assert "state:        active\n" in shown
    assert "banned:       cluster east is banned: stolen" in shown
    assert STEERING not in shown
    assert "banned" not in ask("cluster", "show", "east")[0].out


@pytest.mark.parametrize(
    ("arguments", "answer", "says"),
    [
        (("cluster", "list"), "GET_/v1/clusters", "no clusters yet; make a token"),
        (("service", "list"), "GET_/v1/services", "no services are exported"),
        (("token", "list"), "GET_/v1/tokens", "no tokens"),
        (("operator", "list"), "GET_/v1/operators", "no operators"),
    ],
)
def test_nothing_is_said_in_words_and_as_an_empty_list(
    ask: Asking, arguments: tuple[str, ...], answer: str, says: str
) -> None:
    finished, _ = ask(*arguments, **{answer: ()})
    assert finished.code == 0
    assert says in finished.out
    assert ask(*arguments, "-o", "json", **{answer: ()})[0].json == []


def test_what_nobody_foresaw_is_one_line_unless_the_traceback_is_wanted(
    ask: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished, _ = ask("operator", "list", **{"GET_/v1/operators": ({"of": "another version"},)})
    assert (finished.code, finished.out) == (0, "NAME  ROLE  BY\n-     -     -\n")
    answer = {"GET_/v1/clusters/east": {"of": "another version"}}
    finished, _ = ask("cluster", "show", "east", **answer)
    assert (finished.code, finished.out) == (1, "")
    assert finished.err.startswith(
        "error: nobody foresaw this: KeyError: 'gateways'\n  hint: please report it"
    )
    monkeypatch.setenv("FEDERATION_DEBUG", "1")
    with pytest.raises(KeyError):
        ask("cluster", "show", "east", **answer)


@pytest.mark.parametrize("command", [("service", "list"), ("service", "show", "a/b"), ("explain", "a/b")])
def test_the_cluster_whose_view_is_wanted_is_passed_on(ask: Asking, command: tuple[str, ...]) -> None:
    _, process = ask(*command, "--from", "west")
    assert dict(process.calls[0][1].query) == {"from": "west"}


def test_a_refusal_is_one_line_with_a_hint(ask: Asking) -> None:
    finished, _ = ask("cluster", "show", "south")
    assert (finished.code, finished.out) == (1, "")
    assert finished.err == "error: there is no answer 'GET /v1/clusters/south'\n  hint: tell the test\n"


@pytest.mark.parametrize(("status", "code"), [(400, 2), (409, 1)])
def test_an_argument_that_the_process_does_not_understand_is_wrong_usage(
    ask: Asking, status: int, code: int
) -> None:
    problem = ApiProblem(status, "bad", "say which cluster", "give --from")
    finished, _ = ask("explain", "echo", **{"GET_/v1/explain/default/echo": problem})
    assert (finished.code, finished.out) == (code, "")
    assert finished.err == "error: say which cluster\n  hint: give --from\n"


def test_a_token_is_shown_once_or_written_for_its_owner_alone(ask: Asking, tmp_path: Path) -> None:
    wanted = (
        "token",
        "create",
        "east",
        "--may-export",
        "default/*",
        "--range",
        "10.1.0.0/16",
        "--ttl",
        "90s",
    )
    finished, process = ask(*wanted)
    assert (finished.code, finished.out) == (0, "fed1.secret\n")
    assert process.calls[0][1].body == NewToken(
        cluster="east", may_export=("default/*",), ranges=("10.1.0.0/16",), lifetime=90.0
    )
    file = tmp_path / "east.token"
    finished, _ = ask(*wanted, "--out", file, "-o", "json")
    assert finished.code == 0
    assert finished.json["file"] == str(file)
    assert "fed1.secret" not in finished.out
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("fed1.secret\n", 0o600)
    again, process = ask(*wanted, "--out", file)
    assert (again.code, process.calls) == (2, [])
    assert f"{file} exists already" in again.err
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    assert ask(*wanted, "--out", link)[0].code == 2
    assert link.is_symlink()
    finished, process = ask("token", "create", "--gateway")
    assert process.calls[0][1].body == NewToken(gateway_class="eastwest")


@pytest.mark.parametrize(
    "arguments",
    [
        ("token", "create"),
        ("token", "create", "east", "--gateway"),
        ("token", "create", "east", "--ttl", "90"),
        ("token", "create", "east", "--ttl", "soon"),
        ("token", "revoke", os.fsdecode(b"\xff\xfe")),
        ("cluster", "set", "east"),
        ("cluster", "set", "east", "--state", "gone"),
        ("service", "show", "Echo"),
        ("explain", "a/b/c"),
        ("status", "-o", "xml"),
    ],
)
def test_what_cannot_be_meant_is_not_asked(ask: Asking, arguments: tuple[str, ...]) -> None:
    finished, process = ask(*arguments)
    assert finished.code == 2
    assert not process.calls
    assert finished.err


def test_a_cluster_is_changed_in_what_is_named_alone(ask: Asking) -> None:
    _, process = ask("cluster", "set", "east", "--may-export", "a/b", "--may-export", "c/*")
    assert process.calls[0][1].body == SetCluster(may_export=("a/b", "c/*"))
    _, process = ask("cluster", "set", "east", "--state", "draining")
    assert process.calls[0][1].body == SetCluster(state="draining")


REMOVED, LOOKED = "DELETE /v1/clusters/east", "GET /v1/clusters/east"


@pytest.mark.parametrize(
    ("typed", "code", "asked"),
    [("y\n", 0, [LOOKED, REMOVED]), ("n\n", 1, [LOOKED]), ("\n", 1, [LOOKED]), ("", 1, [LOOKED])],
)
def test_a_cluster_is_removed_after_a_question(
    ask: Asking, monkeypatch: pytest.MonkeyPatch, typed: str, code: int, asked: list[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    finished, process = ask("cluster", "remove", "east")
    assert finished.code == code
    assert [name for name, _ in process.calls] == asked
    assert "Its gateways are cut off" in finished.err
    assert ("east stays" in finished.err) == (code == 1)


def test_nobody_is_asked_about_a_cluster_that_is_not_there(ask: Asking) -> None:
    finished, _ = ask("cluster", "remove", "south")
    assert finished.code == 1
    assert finished.err.startswith("error: there is no answer 'GET /v1/clusters/south'")


def test_a_refused_operator_leaves_no_folder(ask: Asking, tmp_path: Path) -> None:
    folder, there = tmp_path / "ada", tmp_path / "there"
    there.mkdir(0o700)
    for out in (folder, there):
        problem = ApiProblem(409, "refused", "ada is there already", "")
        finished, _ = ask("operator", "create", "ada", "--out", out, **{"POST_/v1/operators": problem})
        assert finished.code == 1
    assert not folder.exists()
    assert there.is_dir()


def test_an_operators_credential_is_written_and_named(ask: Asking, tmp_path: Path) -> None:
    folder = tmp_path / "ada"
    finished, process = ask("operator", "create", "ada", "--out", folder)
    assert finished.code == 0
    assert str(folder / "contexts.yaml") in finished.out
    assert process.calls[0][1].body == NewOperator(name="ada", role="viewer")
    assert (folder / "token").read_text() == "t\n"
    finished, process = ask("operator", "create", "ada", "--out", folder)
    assert finished.code == 1
    assert "exists already" in finished.err
    assert not process.calls
