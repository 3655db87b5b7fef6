"""Which process is asked: `--hub`, a context, the default; and what a contexts file may not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.cli.target import DEFAULT_SOCKET, credential, resolve
from federation.errors import InputError
from tests.federation.cli.command import Cli
from tests.gateway.certificates import BASE, ca

URL = "https://hub.example:8443"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the contexts file will be, beside a good bundle, a good certificate, a bearer token, and bad ones."""
    monkeypatch.setenv("FEDERATION_CONTEXTS", str(tmp_path / "contexts.yaml"))
    ca("east").write(tmp_path / "ada", f"spiffe://east.{BASE}/operator/ada")
    (tmp_path / "bundle.pem").write_bytes(ca("east").bundle.pem())
    (tmp_path / "token").write_text("fedop1.secret\n")
    (tmp_path / "contexts.yaml").write_text("contexts: []\n")
    (tmp_path / "garbage").write_text("garbage\n")
    (tmp_path / "two-lines").write_text("one\ntwo\n")
    (tmp_path / "open").write_text("fedop1.secret\n")
    for secret in ("token", "garbage", "two-lines"):
        (tmp_path / secret).chmod(0o600)
    (tmp_path / "open").chmod(0o644)
    return tmp_path


def write(folder: Path, *lines: str, current: str = "") -> None:
    contexts = "".join(f"  - {{{line.format(at=folder)}}}\n" for line in lines)
    head = f"current: {current}\n" if current else ""
    (folder / "contexts.yaml").write_text(f"{head}contexts:\n{contexts}")


def test_without_contexts_the_hub_of_this_machine_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve(None).url == f"unix://{DEFAULT_SOCKET}"
    monkeypatch.setenv("FEDERATION_CONTEXTS", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "nothing"))
    assert resolve(None).url == f"unix://{DEFAULT_SOCKET}"
    assert resolve("unix:///x/api.sock").url == "unix:///x/api.sock"


def test_the_current_context_is_asked_and_any_other_by_name_or_url(folder: Path) -> None:
    write(
        folder,
        f"name: prod, url: '{URL}', bundle: {{at}}/bundle.pem, server_name: s, token_file: {{at}}/token",
        "name: ada, url: 'https://b:1', bundle: {at}/bundle.pem, "
        "certificate: {at}/ada/chain.pem, key: {at}/ada/key.pem",
        "name: here, url: 'unix:///x/api.sock'",
        current="prod",
    )
    prod = resolve(None)
    assert (prod.url, prod.server_name, prod.token) == (URL, "s", "fedop1.secret")
    assert resolve("prod").url == URL
    assert "fedop1" not in repr(prod)
    assert resolve(URL).token == "fedop1.secret"
    ada = resolve("ada")
    assert ada.tls is not None
    assert ada.token is None
    assert resolve("here").url == "unix:///x/api.sock"


@pytest.mark.parametrize("wanted", ["prod", "http://hub.example", "unix://", "unix://api.sock", URL, ""])
def test_what_means_nobody_is_wrong_usage(wanted: str, folder: Path) -> None:
    with pytest.raises(InputError) as refused:
        resolve(wanted)
    assert refused.value.exit_code == 2
    assert refused.value.file == "--hub"
    assert refused.value.allowed or refused.value.hint


@pytest.mark.parametrize(
    ("context", "says"),
    [
        (f"url: '{URL}'", "bundle: missing"),
        ("url: 'http://hub.example'", "url: 'http://hub.example' is not called; allowed: unix:///path and https://"),
        ("url: 'unix://x'", "'unix://x' does not name a socket"),
        (f"url: '{URL}', bundle: bundle.pem", "bundle: not an absolute path"),
        (f"url: '{URL}', bundle: {{at}}/nothing.pem", "nothing.pem: cannot be read: No such file or directory"),
        (f"url: '{URL}', bundle: {{at}}", "cannot be read: Is a directory"),
        (f"url: '{URL}', bundle: {{at}}/garbage", "garbage: no certificates in PEM"),
        (f"url: '{URL}', bundle: {{at}}/bundle.pem, token_file: {{at}}/none", "none: cannot be read: No such file"),
        (f"url: '{URL}', bundle: {{at}}/bundle.pem, token_file: {{at}}/two-lines", "two-lines: not a bearer token"),
        (f"url: '{URL}', bundle: {{at}}/bundle.pem, key: {{at}}/ada/key.pem", "key: one without the other"),
        (
            f"url: '{URL}', bundle: {{at}}/bundle.pem, certificate: {{at}}/garbage, key: {{at}}/ada/key.pem",
            "garbage: not a certificate and its key",
        ),
        (f"url: '{URL}', bundle: {{at}}/bundle.pem, token_file: {{at}}/open", "run: chmod 0600"),
        (
            f"url: '{URL}', bundle: {{at}}/bundle.pem, certificate: {{at}}/ada/chain.pem, key: {{at}}/open",
            "open: has mode 0644, which lets others in; run: chmod 0600",
        ),
        (f"url: '{URL}', color: red", "contexts.yaml:2: contexts[0].color: unknown field"),
        ("url: 3", "contexts.yaml:2: contexts[0].url: got 3"),
    ],
)  # fmt: skip
def test_a_context_that_cannot_work_is_told_with_its_place(
    context: str, says: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, f"name: prod, {context}")
    refused = Cli(monkeypatch, capsys)("--hub", "prod", "status")
    assert refused.code == 2
    assert says in refused.err
    assert refused.out == ""


def test_a_current_context_that_is_not_there_is_told_with_the_file(folder: Path) -> None:
    write(folder, "name: prod, url: 'unix:///x/api.sock'", current="prd")
    with pytest.raises(InputError, match=r"contexts\.yaml: 'prd' is no context; allowed: .*\(prod\)"):
        resolve(None)


def test_a_file_that_the_environment_names_is_there(folder: Path) -> None:
    (folder / "contexts.yaml").unlink()
    with pytest.raises(InputError, match=r"contexts\.yaml: no such file") as refused:
        resolve(None)
    assert "FEDERATION_CONTEXTS names it" in refused.value.hint


def test_no_two_contexts_have_one_name(folder: Path) -> None:
    write(
        folder,
        "name: prod, url: 'unix:///x/api.sock'",
        "name: prod, url: 'unix:///y/api.sock'",
        current="prod",
    )
    with pytest.raises(InputError, match=r"yaml:4: contexts\[1\]\.name: 'prod' is there already"):
        resolve(None)


def test_a_key_that_others_may_read_is_not_renewed_with(folder: Path) -> None:
    write(
        folder,
        f"name: ada, url: '{URL}', bundle: {{at}}/bundle.pem, certificate: {{at}}/ada/chain.pem, "
        "key: {at}/ada/key.pem",
    )
    key = folder / "ada" / "key.pem"
    assert credential("ada") == (folder / "ada" / "chain.pem", key)
    key.chmod(0o640)
    with pytest.raises(InputError, match=f"run: chmod 0600 {key}"):
        credential("ada")


@pytest.mark.parametrize("text", ["", "contexts: []\n---\ncontexts: []\n"])
def test_a_contexts_file_holds_one_document(text: str, folder: Path) -> None:
    (folder / "contexts.yaml").write_text(text)
    with pytest.raises(InputError, match="exactly one"):
        resolve(None)
