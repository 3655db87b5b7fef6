"""The hierarchy as an operator sees it and hands it on: a real hub, two real agents, the real command line."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from federation.demo.asking import until
from pki.certificate import load_pem
from pki.spiffe import TrustDomain
from pki.spiffe_bundle import parse
from tests.scenarios.command import Finished, federation
from tests.scenarios.lone_hub import LoneAgent, LoneHub, serving, started

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

CONSUL = "36cb52cd-4058-f811-0432-6798a240c5d3.consul"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def hub(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LoneHub]:
    folder = tmp_path_factory.mktemp("hierarchy")
    found = LoneHub(folder)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving(found))
        for name in ("east", "west"):
            agent = LoneAgent(name, found.agent(name, await found.token(name)))
            await stack.enter_async_context(started(agent.process, agent.connected))
        await until("each other's bundles", lambda: _known(found))
        yield found


async def _known(hub: LoneHub) -> bool:
    tree = (await hub.ask("ca", "tree", "-o", "json")).json
    return all(row["own"] and len(row["own"]["trusts"]) == 2 for row in tree["clusters"])


async def test_the_tree_shows_who_signed_whom_and_who_believes_whom(hub: LoneHub) -> None:
    drawn = await hub.ask("ca", "tree")
    assert (drawn.code, drawn.err) == (0, "")
    lines = drawn.out.splitlines()
    assert lines[0].startswith("root ")
    assert [line[:8] for line in lines if line[:2] in ("├─", "└─")] == ["├─ hub ·", "├─ east ", "└─ west "]
    assert "│     believed by east (sequence 1), west (sequence 1)" in lines
    assert "│     believed by hub (sequence 1), west (sequence 1)" in lines
    assert "      believed by hub (sequence 1), east (sequence 1)" in lines
    assert "\x1b" not in drawn.out


async def test_each_process_shows_its_own_authority(hub: LoneHub) -> None:
    ours = await hub.ask("ca", "show", "-o", "json")
    assert ours.json["kind"] == "hub"
    assert {one["name"] for one in ours.json["trusts"]} == {"east", "west"}
    shown = await federation("--hub", f"unix://{_agent(hub, 0)}", "ca", "show")
    assert shown.code == 0, shown.said
    for said in ("agent east", "epoch:       1", "journal:", "root-signed:", "west.mesh.example"):
        assert said in shown.out


async def test_what_an_agent_cannot_tell_is_asked_at_the_hub(hub: LoneHub) -> None:
    refused = await federation("--hub", f"unix://{_agent(hub, 0)}", "ca", "tree")
    assert refused.code == 1
    assert "--hub means the right process" in refused.err


async def test_every_verifier_believes_one_cluster_at_the_other_and_says_why(hub: LoneHub) -> None:
    said = await hub.ask("ca", "verify", "--from", "east", "--to", "west", "-o", "json")
    assert said.code == 0, said.said
    rows = {row["verifier"]: row for row in said.json}
    assert set(rows) == {"federation", "envoy", "envoy-ca", "openssl", "go", "java", "pyca"}
    assert all(row["believed"] for row in rows.values())
    table = await hub.ask("ca", "verify", "--from", "east", "--to", "west", "--trust", "root")
    assert table.code == 0
    assert "is reached in 2 steps" in table.out


async def test_a_no_is_exit_code_1_with_a_reason(hub: LoneHub) -> None:
    said = await hub.ask(
        "ca", "verify", "--from", "east", "--to", "west", "--trust", "root", "--as", "federation"
    )
    assert said.code == 1
    assert "NO" in said.out
    assert "it never holds these anchors" in said.out
    assert (await hub.ask("ca", "verify", "--from", "hub", "--to", "west")).code == 0
    assert (await hub.ask("ca", "verify", "--from", "north", "--to", "west")).code == 1


@pytest.mark.parametrize("consumer", ["istio", "linkerd", "consul", "cert-manager"])
async def test_another_system_gets_an_authority_over_a_key_that_only_the_caller_has(
    hub: LoneHub, tmp_path: Path, consumer: str
) -> None:
    folder = tmp_path / "made"
    made = await _export(hub, consumer, folder)
    assert made.code == 0, made.said
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert {file.name for file in folder.iterdir()} == set(_names(made))
    keys = [file for file in folder.iterdir() if file.read_bytes().startswith(b"-----BEGIN EC PRIVATE KEY")]
    assert len(keys) == 1
    said = subprocess.run(
        ["openssl", "pkey", "-in", keys[0], "-check", "-noout"], capture_output=True, check=True
    )
    assert b"valid" in said.stdout + said.stderr
    secret = keys[0].read_bytes().splitlines()[1]
    for file in hub.folder.rglob("*"):
        if file.is_file() and not file.is_socket():
            assert secret not in file.read_bytes(), file


async def test_what_is_there_is_not_replaced_unless_told(hub: LoneHub, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    assert (await _export(hub, "istio", folder)).code == 0
    before = (folder / "ca-key.pem").read_bytes()
    refused = await _export(hub, "istio", folder)
    assert refused.code == 1
    assert "is there already" in refused.err
    assert (folder / "ca-key.pem").read_bytes() == before
    assert (await _export(hub, "istio", folder, "--force")).code == 0
    assert (folder / "ca-key.pem").read_bytes() != before


async def test_a_refused_export_leaves_no_folder_and_an_empty_one_as_it_was(
    hub: LoneHub, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    refused = await _export(hub, "istio", folder, "--trust-domain", "east.mesh.example")
    assert refused.code == 2, refused.said
    assert "lies under mesh.example" in refused.err
    assert not folder.exists()
    folder.mkdir(mode=0o700)
    assert (await _export(hub, "istio", folder, "--trust-domain", "east.mesh.example")).code == 2
    assert list(folder.iterdir()) == []
    assert (await _export(hub, "istio", folder)).code == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("istio", "--cluster", "north"), "there is no cluster 'north'"),
        (("istio", "--cluster", "east", "--lifetime", "400d"), "granted are 1 to 365 days"),
        (("istio", "--cluster", "east", "--lifetime", "1"), "a number without its unit"),
        (("consul", "--cluster", "east"), "/v1/connect/ca/roots"),
        (("istio", "--cluster", "east", "--trust-domain", "Not one"), "is not a valid SPIFFE identity"),
        (("spiffe", "--cluster", "east", "--lifetime", "1d"), "are for istio"),
        (("consul", "--cluster", "east", "--namespace", "x"), "--namespace is for"),
        (("nomad", "--cluster", "east"), "'nomad' is not one of"),
        (("istio",), "Missing option '--cluster'"),
    ],
)
async def test_wrong_usage_says_what_is_allowed(
    hub: LoneHub, tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    refused = await hub.ask("ca", "export", *arguments, "--out", str(tmp_path / "made"))
    assert refused.code in (1, 2)
    assert reason in refused.err
    assert "Traceback" not in refused.err


async def test_standard_output_carries_what_kubectl_applies(hub: LoneHub) -> None:
    made = await hub.ask("ca", "export", "linkerd", "--cluster", "east", "--out", "-")
    assert made.code == 0, made.said
    kinds = [(one["kind"], one["metadata"]["name"]) for one in yaml.safe_load_all(made.out)]
    assert kinds == [("Secret", "linkerd-identity-issuer"), ("ConfigMap", "linkerd-identity-trust-roots")]


async def test_trust_needs_no_key(hub: LoneHub, tmp_path: Path) -> None:
    document = await hub.ask("ca", "export", "spiffe", "--cluster", "east", "--out", "-")
    found = parse(TrustDomain.parse("east.mesh.example"), document.out.encode())
    assert (found.sequence, len(found.anchors)) == (1, 1)
    assert (
        await hub.ask("ca", "export", "pem", "--cluster", "hub", "--out", str(tmp_path / "pem"))
    ).code == 0
    assert len(load_pem((tmp_path / "pem" / "anchors.pem").read_bytes())) == 1
    assert {file.name for file in (tmp_path / "pem").iterdir()} == {
        "anchors.pem",
        "roots.pem",
        "root-signed.pem",
    }


async def test_the_revocation_list_comes_along_where_it_is_asked_for(hub: LoneHub, tmp_path: Path) -> None:
    for consumer, name in (("istio", "ca-crl.pem"), ("pem", "crl.pem")):
        folder = tmp_path / consumer
        made = await hub.ask("ca", "export", consumer, "--cluster", "east", "--crl", "--out", str(folder))
        assert made.code == 0, made.said
        command = ["openssl", "crl", "-in", str(folder / name), "-noout", "-issuer", "-nextupdate"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "nextUpdate=" in said
    refused = await hub.ask("ca", "export", "spiffe", "--cluster", "east", "--crl", "--out", "-")
    assert refused.code == 2
    assert "--crl is for istio, pem" in refused.err


async def test_what_was_signed_for_whom_is_in_the_log(hub: LoneHub, tmp_path: Path) -> None:
    made = await _export(hub, "istio", tmp_path / "made")
    assert made.code == 0
    [certificate] = load_pem((tmp_path / "made" / "ca-cert.pem").read_bytes())
    log = (hub.folder / "hub.log").read_text()
    [line] = [one for one in log.splitlines() if f"{certificate.serial_number:x}" in one and "changed" in one]
    for said in ("istio", "cluster.local", "/v1/clusters/east/intermediates", "unix:"):
        assert said in line


def _agent(hub: LoneHub, place: int) -> Path:
    return hub.folder / f"agent-{place}" / "state" / "api.sock"


def _names(made: Finished) -> list[str]:
    return [Path(line).name for line in made.out.splitlines() if line.startswith("/")]


async def _export(hub: LoneHub, consumer: str, folder: Path, *more: str) -> Finished:
    domain = ("--trust-domain", CONSUL) if consumer == "consul" else ()
    return await hub.ask("ca", "export", consumer, "--cluster", "east", "--out", str(folder), *domain, *more)
