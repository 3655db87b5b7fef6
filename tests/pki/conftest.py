from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pki.vault.server import Bao, bao_server
from tests.pki.world import World, make_world


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    """One server for all tests that leave it as it was: each makes mounts and roles of its own names."""
    with bao_server(tmp_path_factory.mktemp("bao")) as running:
        yield running


@pytest.fixture
def own_bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    """A server for one test that seals, freezes or ends it."""
    with bao_server(tmp_path_factory.mktemp("own-bao")) as running:
        yield running
