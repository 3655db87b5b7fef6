"""The server that the other tests trust: what they make happen with it does happen."""

from __future__ import annotations

import pytest
import requests

from tests.pki.vault.server import Bao

pytestmark = pytest.mark.live


def test_it_is_a_real_server_behind_tls_that_can_be_sealed(own_bao: Bao) -> None:
    assert own_bao.call("GET", "sys/health")["sealed"] is False
    own_bao.seal()
    with pytest.raises(requests.HTTPError, match=r"503 .*sealed"):
        own_bao.call("GET", "sys/mounts")
    own_bao.unseal()
    assert "sys/" in own_bao.call("GET", "sys/mounts")["data"]
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(own_bao.url, timeout=5)


def test_it_is_gone_when_it_is_killed(own_bao: Bao) -> None:
    own_bao.kill()
    with pytest.raises(requests.exceptions.ConnectionError):
        own_bao.call("GET", "sys/health")
