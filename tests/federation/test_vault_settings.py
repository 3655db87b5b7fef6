"""Settings of Vault: what is allowed, what contradicts itself, and what a login becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from federation.app.vault import method
from federation.config import AgentSettings, HubSettings
from federation.document import dump
from federation.errors import InputError
from federation.settings_file import read_settings
from federation.vault_settings import RootInVault
from pki.vault.login import SERVICE_ACCOUNT, AppRole, Certificate, Jwt, Kubernetes, Method, Token
from pki.vault.wire import ClientCertificate

ISSUER = "1d5b63a4-7d0f-4ab1-bb6b-0d9d9f0e6b4e"
APPROLE = {"approle": {"role_id": "one", "secret_id": "/secret"}}
PLACE: dict[str, Any] = {
    "address": "https://vault.example:8200",
    "ca": "/ca.pem",
    "issuer": ISSUER,
    "auth": APPROLE,
}
KEEP = Path("/state/vault-root")


def read(tmp_path: Path, **vault: Any) -> RootInVault:
    """The root of a hub's settings whose `root.vault` is `PLACE` with these changes; None takes something out."""
    place = {name: value for name, value in (PLACE | vault).items() if value is not None}
    settings = {
        "base": "mesh.example",
        "advertise": {"api": "hub.example:8443", "sync": "hub.example:8444"},
        "keys": {"passphrase": {"file": "/passphrase"}},
        "root": {"vault": place},
    }
    file = tmp_path / "hub.yaml"
    file.write_text(dump(settings))
    found = read_settings(file, HubSettings)
    assert found.root_is == "vault"
    assert isinstance(found.root, RootInVault)
    return found.root


def test_what_is_not_said_is_the_usual(tmp_path: Path) -> None:
    place = read(tmp_path).vault
    assert (place.mount, place.namespace, place.timeout) == ("mesh-root", None, 10.0)


@pytest.mark.parametrize(
    ("change", "field", "allowed"),
    [
        ({"address": "http://vault.example:8200"}, "root.vault.address", "https://"),
        ({"address": "vault.example:8200"}, "root.vault.address", "https://"),
        ({"address": "https://u:p@vault.example"}, "root.vault.address", "https://"),
        ({"address": "https://vault.example/v1"}, "root.vault.address", "without a path"),
        ({"address": "https://"}, "root.vault.address", "https://"),
        ({"issuer": "default"}, "root.vault.issuer", "not its name and not default"),
        ({"issuer": ISSUER.upper()}, "root.vault.issuer", "a UUID"),
        ({"issuer": None}, "root.vault", "issuer"),
        ({"ca": "ca.pem"}, "root.vault.ca", "an absolute path"),
        ({"ca": None}, "root.vault", "ca"),
        ({"mount": "../sys"}, "root.vault.mount", "a path of letters"),
        ({"mount": "a//b"}, "root.vault.mount", "a path of letters"),
        ({"mount": "a/"}, "root.vault.mount", "a path of letters"),
        ({"mount": "a%2fb"}, "root.vault.mount", "a path of letters"),
        ({"namespace": "a b"}, "root.vault.namespace", "a path of letters"),
        ({"timeout": "2m"}, "root.vault.timeout", "10ms to 1m"),
        ({"auth": {}}, "root.vault.auth", "exactly one of approle"),
        ({"auth": APPROLE | {"token": {"file": "/t"}}}, "root.vault.auth", "exactly one of approle"),
        ({"auth": {"ldap": {}}}, "root.vault.auth.ldap", "approle, kubernetes, jwt, certificate, token"),
        ({"auth": {"approle": {"role_id": "", "secret_id": "/s"}}}, "root.vault.auth.approle.role_id", "1"),
        ({"auth": {"approle": {"role_id": "a"}}}, "root.vault.auth.approle", "secret_id"),
        ({"auth": {"token": {"file": "hvs.x"}}}, "root.vault.auth.token.file", "an absolute path"),
    ],
    ids=str,
)
def test_a_mistake_is_told_with_its_place(
    change: dict[str, Any], field: str, allowed: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, **change)
    assert caught.value.field == field, caught.value
    assert caught.value.line is not None
    assert allowed in f"{caught.value.problem} {caught.value.allowed}"


METHODS: list[tuple[dict[str, Any], Method]] = [
    (APPROLE, AppRole("one", Path("/secret"))),
    ({"approle": {**APPROLE["approle"], "wrapped": True}}, AppRole("one", Path("/secret"), KEEP)),
    ({"kubernetes": {"role": "hub"}}, Kubernetes("hub", SERVICE_ACCOUNT)),
    ({"jwt": {"role": "hub", "token": "/jwt", "mount": "ci"}}, Jwt("hub", Path("/jwt"), "ci")),
    (
        {"certificate": {"role": "hub", "certificate": "/c.pem", "key": "/k.pem"}},
        Certificate("hub", ClientCertificate(Path("/c.pem"), Path("/k.pem"))),
    ),
    ({"token": {"file": "/token"}}, Token(Path("/token"))),
]


@pytest.mark.parametrize(("auth", "expected"), METHODS, ids=str)
def test_every_way_to_log_in_can_be_written(auth: dict[str, Any], expected: Method, tmp_path: Path) -> None:
    assert method(read(tmp_path, auth=auth).vault.auth, KEEP) == expected


def test_keys_in_vault_do_without_an_issuer_and_not_without_a_passphrase(tmp_path: Path) -> None:
    """What is on disk then are the keys of short-lived certificates, and nobody gets those in the clear by silence."""
    place = {name: value for name, value in PLACE.items() if name != "issuer"} | {"mount": "mesh-keys"}
    settings: dict[str, Any] = {
        "cluster": "east",
        "region": "eu",
        "services": "/srv",
        "advertise": {"api": "10.1.0.2:8445", "xds": "10.1.0.2:8446"},
        "keys": {"vault": place, "passphrase": {"file": "/passphrase"}},
    }
    file = tmp_path / "agent.yaml"
    file.write_text(dump(settings))
    vault = read_settings(file, AgentSettings).keys.vault
    assert vault is not None
    assert (vault.mount, vault.prefix) == ("mesh-keys", "")
    for keys, field in (
        ({"vault": place}, "keys"),
        ({"vault": place | {"prefix": "A/"}, "plain": True}, "keys.vault.prefix"),
        ({"vault": place | {"auth": {}}, "plain": True}, "keys.vault.auth"),
        ({"vault": {**place, "mount": None}, "plain": True}, "keys.vault.mount"),
    ):
        file.write_text(dump(settings | {"keys": keys}))
        with pytest.raises(InputError) as caught:
            read_settings(file, AgentSettings)
        assert caught.value.field == field, caught.value
