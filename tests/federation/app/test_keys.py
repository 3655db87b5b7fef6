"""Where the passphrase of a process comes from, and what it is told about its keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from federation.app.keys import key_store, passphrase_of
from federation.config import Keys, PassphraseFrom
from federation.written import Credential, File, Variable
from pki import durable
from pki.errors import PassphraseError
from pki.keys import passphrase, pkcs8
from pki.keys.file import FileKeyStore
from pki.keys.passphrase import Passphrase

CANARY = "canary-7f3a"
SECRET = Passphrase(CANARY.encode())


def source(**place: object) -> Keys:
    return Keys(passphrase=PassphraseFrom(**place))  # type: ignore[arg-type]


def test_a_file_and_a_credential_are_taken_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable.write(tmp_path / "secret", CANARY.encode())
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with capture_logs() as said:
        assert passphrase_of(source(file=File(tmp_path / "secret")), tmp_path) == SECRET
        assert passphrase_of(source(credential=Credential("secret")), tmp_path) == SECRET
    assert said == []


def test_k1_keys_in_the_clear_and_a_passphrase_in_the_environment_are_warned_of_at_each_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        monkeypatch.setenv("SECRET", CANARY)
        with capture_logs() as said:
            assert passphrase_of(Keys(plain=True), tmp_path) is None
            assert passphrase_of(source(environment=Variable("SECRET")), tmp_path) == SECRET
        assert [one["log_level"] for one in said] == ["warning", "warning"]
        assert "in the clear" in said[0]["event"]
        assert said[1]["variable"] == "SECRET"
        assert CANARY not in str(said)
        assert "SECRET" not in os.environ


@pytest.mark.parametrize(("there", "twice"), [(False, True), (True, False)])
async def test_a_new_passphrase_is_typed_twice(
    there: bool, twice: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there:
        await FileKeyStore(tmp_path / "keys").create("ca-1")
    asked: list[bool] = []

    def from_terminal(*, twice: bool) -> Passphrase:
        asked.append(twice)
        return SECRET

    monkeypatch.setattr(passphrase, "from_terminal", from_terminal)
    assert passphrase_of(source(prompt=True), tmp_path) == SECRET
    assert asked == [twice]


def test_a_place_without_a_passphrase_is_refused_and_never_means_plain_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECRET", raising=False)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for keys in (
        source(file=File(tmp_path / "missing")),
        source(credential=Credential("missing")),
        source(environment=Variable("SECRET")),
    ):
        with pytest.raises(PassphraseError):
            passphrase_of(keys, tmp_path)


async def test_keys_that_lay_in_the_clear_are_encrypted_at_the_start_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pkcs8, "PARALLEL", 1)
    made = await FileKeyStore(tmp_path / "keys").create("ca-1")
    with capture_logs() as said:
        store = await key_store(tmp_path / "keys", SECRET)
    assert [(one["log_level"], one["key"]) for one in said] == [("warning", "ca-1")]
    assert (await store.load("ca-1")).private_numbers() == made.private_numbers()
    with capture_logs() as said:
        await key_store(tmp_path / "keys", SECRET)
    assert said == []
