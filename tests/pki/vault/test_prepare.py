"""The script and the policies of `deploy/vault`: enough for what we do, and for nothing else."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pki.errors import VaultError, VaultFault
from pki.vault.issuer import Issuer
from pki.vault.wire import Vault
from tests.pki.vault.prepared import BASE, PREPARE, Prepared, prepare, run
from tests.pki.vault.server import Bao

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def prepared(bao: Bao, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(bao, "root", tmp_path_factory.mktemp("prepared"))


def token_of(prepared: Prepared) -> Vault:
    """Vault, with what the hub's role gets there."""
    session = prepared.session()
    session.call(lambda vault: vault.get("auth/token/lookup-self"))
    return session.vault


ROOT_MAY_NOT: list[tuple[str, str, dict[str, Any]]] = [
    ("post", "{mount}/issuer/{issuer}/sign-verbatim", {"csr": "x"}),
    ("post", "{mount}/sign-verbatim", {"csr": "x"}),
    ("post", "{mount}/issuer/{issuer}/sign-self-issued", {"certificate": "x"}),
    ("post", "{mount}/issuer/default/sign-intermediate", {"csr": "x"}),
    ("post", "{mount}/root/sign-intermediate", {"csr": "x"}),
    ("post", "{mount}/issuer/{issuer}/sign-intermediate", {"csr": "x", "max_path_length": "1"}),
    ("post", "{mount}/issuer/{issuer}/sign-intermediate", {"csr": "x", "use_csr_values": False}),
    ("post", "{mount}/issuer/{issuer}/sign-intermediate", {"csr": "x", "permitted_dns_domains": "x"}),
    ("post", "{mount}/issuer/{issuer}/sign-intermediate", {"csr": "x", "ttl": "99999h"}),
    ("post", "{mount}/root/generate/internal", {"common_name": "x"}),
    ("post", "{mount}/issuers/generate/root/exported", {"common_name": "x"}),
    ("post", "{mount}/config/urls", {}),
    ("post", "{mount}/config/ca", {"pem_bundle": "x"}),
    ("post", "{mount}/roles/mine", {"allow_any_name": True}),
    ("get", "{mount}/keys", {}),
    ("delete", "{mount}/root", {}),
    ("delete", "{mount}/issuer/{issuer}", {}),
    ("get", "sys/mounts", {}),
    ("post", "sys/policies/acl/{role}", {"policy": "x"}),
    ("post", "auth/approle/role/{role}/secret-id", {}),
    ("post", "auth/token/create", {}),
    ("get", "{other}/issuer/{other_issuer}", {}),
    ("post", "{other}/issuer/{other_issuer}/sign-intermediate", {"csr": "x"}),
]


@pytest.mark.parametrize(
    ("method", "path", "body"), ROOT_MAY_NOT, ids=[f"{m} {p} {b}" for m, p, b in ROOT_MAY_NOT]
)
def test_v1_v2_the_policy_of_the_root_gives_nothing_else(
    method: str, path: str, body: dict[str, Any], prepared: Prepared, others: Issuer
) -> None:
    vault = token_of(prepared)
    place = path.format(
        mount=prepared.mount,
        issuer=prepared.issuer_id,
        role=prepared.role,
        other=others.mount,
        other_issuer=others.id,
    )
    with pytest.raises(VaultError) as caught:
        vault.post(place, body) if method == "post" else getattr(vault, method)(place)
    vault.close()
    assert caught.value.fault is VaultFault.DENIED, caught.value


@pytest.fixture(scope="module")
def others(bao: Bao, tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    """The root of another federation, in the same Vault."""
    return prepare(bao, "root", tmp_path_factory.mktemp("others")).issuer


def test_it_may_be_run_again_and_changes_nothing(bao: Bao, tmp_path: Path) -> None:
    first = prepare(bao, "root", tmp_path)
    certificate = bao.call("GET", first.issuer.path)["data"]["certificate"]
    again = run(bao, "root", "--base", BASE, "--mount", first.mount, "--role", first.role)
    assert again.returncode == 0, again.stderr
    assert f"issuer: {first.issuer_id}" in again.stdout
    assert f"role_id: {first.role_id}" in again.stdout
    assert bao.call("GET", first.issuer.path)["data"]["certificate"] == certificate
    assert len(bao.call("LIST", f"{first.mount}/issuers")["data"]["keys"]) == 1
    assert stat.S_IMODE(first.secret_id.stat().st_mode) == 0o600


def test_a_mount_that_is_somebody_elses_is_left_alone(bao: Bao, tmp_path: Path) -> None:
    bao.write("sys/mounts/theirs", type="pki")
    bao.write("theirs/issuers/generate/root/internal", common_name="theirs", key_type="ec")
    bao.write("sys/mounts/words", type="kv")
    for mount, reason in (
        ("theirs", "give the root a mount alone"),
        ("words", "is of the engine kv, not pki"),
    ):
        done = run(bao, "root", "--base", BASE, "--mount", mount, "--role", "federation-nobody")
        assert (done.returncode, reason in done.stderr) == (1, True), done.stderr
    assert len(bao.call("LIST", "theirs/issuers")["data"]["keys"]) == 1
    kept = tmp_path / "secret-id"
    kept.write_text("mine")
    done = run(bao, "keys", "--role", "federation-kept", "--secret-id", str(kept))
    assert (done.returncode, "exists" in done.stderr, kept.read_text()) == (1, True, "mine"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "prepare root --base"),
        (("roots",), "prepare root --base"),
        (("root",), "--base has to be a name"),
        (("root", "--base", "mesh.example; rm -rf /"), "--base has to be a name"),
        (("root", "--base"), "--base needs a value"),
        (("keys",), "--role has to be a name"),
        (("keys", "--role", "a|b"), "--role has to be a name"),
        (("keys", "--colour", "red"), "unknown option --colour"),
    ],
    ids=str,
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], reason: str, bao: Bao) -> None:
    done = run(bao, *arguments)
    assert (done.returncode, reason in done.stderr) == (2, True), done.stderr


def test_without_a_program_it_says_which_is_missing(tmp_path: Path) -> None:
    for tool in ("dirname", "sed", "awk"):
        os.symlink(f"/usr/bin/{tool}", tmp_path / tool)
    done = subprocess.run(
        ["/bin/sh", str(PREPARE), "keys", "--role", "x"], env={"PATH": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, "neither bao nor vault" in done.stderr) == (1, True), done.stderr


async def test_what_it_wraps_is_opened_by_us_once(bao: Bao, tmp_path: Path) -> None:
    made = prepare(bao, "root", tmp_path, "--wrap", "5m")
    assert "wrapped: true" in made.said
    session = made.session(made.method(tmp_path / "kept"))
    assert (await session.examine(made.issuer.needs)).lacking == ()
    await session.close()
    assert (tmp_path / "kept").exists()
