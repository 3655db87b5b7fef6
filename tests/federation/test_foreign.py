"""Bundles of trust domains outside, over real TLS: what is believed, followed, refused, kept and forgotten."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import json
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from federation.api.authority_info import ForeignInfo
from federation.api.bundle_client import MOST_REDIRECTS, spiffe_context
from federation.api.bundle_endpoint import bundle_application, web_server_context
from federation.api.doors import TcpDoor, serving
from federation.api.tls import served
from federation.app.bundles import look_at, refuse_ours
from federation.bundle_settings import Age, Domain, EndpointUrl, Federated, Range
from federation.bundle_settings import Identity as IdentityText
from federation.clock import SystemClock
from federation.errors import InputError
from federation.foreign import Foreign
from federation.identity import Identity
from federation.listen import HostPort
from federation.written import File
from pki.bundle import Bundle
from pki.certificate import pem
from pki.errors import KeyFileError
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.spiffe import SpiffeId, TrustDomain
from pki.spiffe_bundle import LONGEST_DOCUMENT, publish
from tests.pki.verifying.cases import Maker
from tests.pki.world import new_key

PARTNER = TrustDomain.parse("hub.partner.example")
SERVER = SpiffeId.federation(PARTNER)
LOOPBACK = (Range.parse("127.0.0.0/8"),)
ANY_PORT = HostPort.of("127.0.0.1", 0)


class HurriedClock(SystemClock):
    """Waits a hundredth of a second instead of a minute or more."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(min(seconds, 0.01))


@dataclass
class Partner:
    """Another federation: its authority, its identity, and what its endpoint says, which a test may change."""

    authority: Lineage
    identity: Identity
    said: dict[TrustDomain, Bundle] = field(default_factory=dict)

    def bundles(self) -> Mapping[TrustDomain, Bundle]:
        return self.said

    def says(self, sequence: int, *anchors: x509.Certificate) -> None:
        own = self.authority.bundle()
        self.said[PARTNER] = replace(own, sequence=sequence, anchors=anchors or own.anchors)


@pytest.fixture
async def partner(tmp_path: Path) -> AsyncIterator[Partner]:
    clock = SystemClock()
    place = tmp_path / "partner"
    place.mkdir(mode=0o700)
    authority = await Lineage.open(place / "ca", FileKeyStore(place / "keys"), PARTNER, clock)
    identity = Identity(authority, SERVER, place / "leaf.pem", timedelta(hours=1), clock)
    await identity.start()
    found = Partner(authority, identity)
    found.says(1)
    yield found
    await authority.close()


@pytest.fixture
async def other(tmp_path: Path) -> x509.Certificate:
    """An anchor of the partner's trust domain over another key."""
    clock = SystemClock()
    place = tmp_path / "other"
    place.mkdir(mode=0o700)
    authority = await Lineage.open(place / "ca", FileKeyStore(place / "keys"), PARTNER, clock)
    [anchor] = authority.bundle().anchors
    await authority.close()
    return anchor


@asynccontextmanager
async def serving_spiffe(partner: Partner) -> AsyncIterator[HostPort]:
    door = TcpDoor(ANY_PORT, served(partner.identity, partner.authority.bundle))
    async with serving(bundle_application(PARTNER, partner.bundles), door) as (address,):
        assert address is not None
        yield address


@asynccontextmanager
async def saying(
    partner: Partner, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> AsyncIterator[HostPort]:
    """An endpoint of the partner that answers anything."""
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    door = TcpDoor(ANY_PORT, served(partner.identity, partner.authority.bundle))
    async with serving(app, door) as (address,):
        assert address is not None
        yield address


def pinned(partner: Partner, folder: Path) -> File:
    path = folder / "first.json"
    path.write_bytes(publish(partner.authority.bundle()))
    return File.parse(str(path))


def wanted(address: HostPort, first: File, **changed: Any) -> Federated:
    given: dict[str, Any] = {
        "trust_domain": Domain.parse(PARTNER.name),
        "url": EndpointUrl.parse(f"https://{address}/"),
        "profile": "https_spiffe",
        "spiffe_id": IdentityText.parse(str(SERVER)),
        "first_bundle": first,
        "allow": LOOPBACK,
    }
    return Federated(**(given | changed))


def foreign(folder: Path, *relations: Federated) -> Foreign:
    made = Foreign(relations, folder / "federates", look_at, HurriedClock())
    made.load()
    return made


async def looked(found: Foreign) -> ForeignInfo:
    info = await found.look(PARTNER.name)
    assert info is not None
    return info


async def test_https_spiffe_takes_the_bundle_and_writes_it_for_us_alone(
    partner: Partner, tmp_path: Path
) -> None:
    partner.says(3)
    async with serving_spiffe(partner) as address:
        found = foreign(tmp_path, wanted(address, pinned(partner, tmp_path)))
        [before] = found.told()
        assert (before.sequence, before.fetched_at, before.stale) == (1, None, True)
        info = await looked(found)
    assert (info.sequence, info.problem, info.stale) == (3, "", False)
    [file] = (tmp_path / "federates").iterdir()
    assert file.name == "hub.partner.example.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_s5_a_sequence_that_rises_is_picked_up_and_a_key_that_goes_is_dropped(
    partner: Partner, other: x509.Certificate, tmp_path: Path
) -> None:
    async with serving_spiffe(partner) as address:
        found = foreign(tmp_path, wanted(address, pinned(partner, tmp_path)))
        running = asyncio.create_task(found.run(), name="looks")
        try:
            await until(lambda: found.told()[0].fetched_at is not None)
            partner.says(2, *partner.authority.bundle().anchors, other)
            await until(lambda: (found.told()[0].sequence, len(found.told()[0].anchors)) == (2, 2))
            partner.says(3)
            await until(lambda: (found.told()[0].sequence, len(found.told()[0].anchors)) == (3, 1))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("sequence", "same", "reason"), [(1, True, "lower"), (5, False, "other authorities")]
)
async def test_s5_a_bundle_that_goes_back_is_not_followed_and_what_is_held_stays(
    partner: Partner, other: x509.Certificate, tmp_path: Path, sequence: int, same: bool, reason: str
) -> None:
    partner.says(5)
    async with serving_spiffe(partner) as address:
        found = foreign(tmp_path, wanted(address, pinned(partner, tmp_path)))
        before = await looked(found)
        partner.says(sequence, *(() if same else (*partner.authority.bundle().anchors, other)))
        after = await looked(found)
    assert reason in after.problem
    assert (after.sequence, after.anchors) == (5, before.anchors)


async def test_what_was_fetched_outlives_the_process_and_never_goes_behind_it(
    partner: Partner, tmp_path: Path
) -> None:
    partner.says(5)
    first = pinned(partner, tmp_path)
    async with serving_spiffe(partner) as address:
        assert (await looked(foreign(tmp_path, wanted(address, first)))).sequence == 5
        again = foreign(tmp_path, wanted(address, first))
        assert again.told()[0].sequence == 5
        partner.says(4)
        assert "lower" in (await looked(again)).problem


async def test_f4_what_is_no_longer_configured_is_gone_at_once(partner: Partner, tmp_path: Path) -> None:
    async with serving_spiffe(partner) as address:
        await looked(foreign(tmp_path, wanted(address, pinned(partner, tmp_path))))
    assert list((tmp_path / "federates").iterdir())
    assert foreign(tmp_path).told() == ()
    assert list((tmp_path / "federates").iterdir()) == []


async def test_f4_what_was_not_brought_up_to_date_for_long_is_told(partner: Partner, tmp_path: Path) -> None:
    class Later(HurriedClock):
        ahead = timedelta(0)

        def now(self) -> Any:
            return super().now() + self.ahead

    clock = Later()
    async with serving_spiffe(partner) as address:
        relation = wanted(address, pinned(partner, tmp_path), stale_after=Age.parse("1h"))
        found = Foreign([relation], tmp_path / "federates", look_at, clock)
        found.load()
        await looked(found)
        assert list(found.problems()) == []
    clock.ahead = timedelta(hours=2)
    info = await looked(found)
    assert info.stale
    assert info.problem
    [problem] = found.problems()
    assert "hub.partner.example is stale" in problem


async def test_f2_somebody_else_of_the_same_trust_domain_is_not_the_endpoint(
    partner: Partner, tmp_path: Path
) -> None:
    async with serving_spiffe(partner) as address:
        elsewhere = IdentityText.parse(f"spiffe://{PARTNER}/spiffe-bundle-server")
        found = foreign(tmp_path, wanted(address, pinned(partner, tmp_path), spiffe_id=elsewhere))
        info = await looked(found)
    assert "answers, not spiffe://hub.partner.example/spiffe-bundle-server" in info.problem
    assert info.fetched_at is None


async def test_f2_an_endpoint_that_the_pinned_bundle_does_not_vouch_for_is_not_believed(
    partner: Partner, other: x509.Certificate, tmp_path: Path
) -> None:
    first = tmp_path / "first.json"
    first.write_bytes(publish(replace(partner.authority.bundle(), anchors=(other,))))
    async with serving_spiffe(partner) as address:
        info = await looked(foreign(tmp_path, wanted(address, File.parse(str(first)))))
    assert "its certificate is not believed" in info.problem
    assert info.fetched_at is None


async def test_the_newest_bundle_and_not_the_pinned_one_verifies_the_next_look(
    partner: Partner, other: x509.Certificate, tmp_path: Path
) -> None:
    """As SPIFFE Federation §5.2.2.4 demands: so the other side may rotate."""
    async with serving_spiffe(partner) as address:
        found = foreign(tmp_path, wanted(address, pinned(partner, tmp_path)))
        partner.says(2, other)
        assert (await looked(found)).sequence == 2
        assert "its certificate is not believed" in (await looked(found)).problem


async def test_f5_an_address_that_is_not_public_is_not_dialled_unless_its_range_is_allowed(
    partner: Partner, tmp_path: Path
) -> None:
    async with serving_spiffe(partner) as address:
        first = pinned(partner, tmp_path)
        info = await looked(foreign(tmp_path, wanted(address, first, allow=())))
        assert "127.0.0.1 is not an address of the public Internet" in info.problem
        named = EndpointUrl.parse(f"https://localhost:{address.port}/")
        info = await looked(foreign(tmp_path / "2", wanted(address, first, allow=(), url=named)))
        assert "is not an address of the public Internet" in info.problem
        info = await looked(foreign(tmp_path / "3", wanted(address, first, url=named)))
        assert info.problem == "" or "::1" in info.problem


async def test_f2_a_redirect_is_followed_where_the_same_rules_hold(partner: Partner, tmp_path: Path) -> None:
    async def redirect(request: web.Request) -> web.Response:
        if request.path == "/bundle":
            return web.Response(body=publish(partner.bundles()[PARTNER]), content_type="application/json")
        raise web.HTTPTemporaryRedirect("/bundle")

    async with saying(partner, redirect) as address:
        assert (await looked(foreign(tmp_path, wanted(address, pinned(partner, tmp_path))))).problem == ""


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://127.0.0.1/", "not an https URL"),
        ("https://user:secret@127.0.0.1/", "with a user in it"),
        ("https://169.254.169.254/latest/meta-data", "169.254.169.254 is not an address"),
        ("https://[::1]:1/", "::1 is not an address"),
        ("/again", f"more than {MOST_REDIRECTS} redirects"),
    ],
)
async def test_f2_f5_a_redirect_does_not_lead_where_no_url_may(
    partner: Partner, tmp_path: Path, target: str, reason: str
) -> None:
    async def redirect(_: web.Request) -> web.Response:
        raise web.HTTPFound(target)

    async with saying(partner, redirect) as address:
        info = await looked(foreign(tmp_path, wanted(address, pinned(partner, tmp_path))))
    assert reason in info.problem
    assert "secret" not in info.problem


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (lambda: web.Response(status=503), "status 503"),
        (lambda: web.Response(body=b"x" * (LONGEST_DOCUMENT + 1)), "longer than 1048576 bytes"),
        (lambda: web.Response(body=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}), "compressed"),
        (lambda: web.Response(body=b"<html>"), "not a JWK set"),
        (lambda: web.Response(body=b'{"keys": []}'), "no X.509 authority"),
    ],
)
async def test_f2_f3_hostile_answers_change_nothing(
    partner: Partner, tmp_path: Path, response: Callable[[], web.Response], reason: str
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return response()

    async with saying(partner, answer) as address:
        info = await looked(foreign(tmp_path, wanted(address, pinned(partner, tmp_path))))
    assert reason in info.problem
    assert info.sequence == 1


async def test_nobody_there_is_a_problem_in_words(partner: Partner, tmp_path: Path) -> None:
    info = await looked(foreign(tmp_path, wanted(HostPort.of("127.0.0.1", 1), pinned(partner, tmp_path))))
    assert "127.0.0.1:1" in info.problem
    assert "Traceback" not in info.problem


async def test_https_web_believes_a_ca_and_the_name_in_the_url(partner: Partner, tmp_path: Path) -> None:
    certificate, key, ca = web_files(tmp_path, "127.0.0.1")
    door = TcpDoor(ANY_PORT, web_server_context(certificate, key))
    async with serving(bundle_application(PARTNER, partner.bundles), door) as (address,):
        assert address is not None
        web_: dict[str, Any] = {"profile": "https_web", "spiffe_id": None, "first_bundle": None}
        first = pinned(partner, tmp_path)
        info = await looked(foreign(tmp_path, wanted(address, first, **web_, ca=File.parse(str(ca)))))
        assert (info.problem, info.sequence) == ("", 1)
        public = await looked(foreign(tmp_path / "public", wanted(address, first, **web_)))
        assert "its certificate is not believed" in public.problem
        named = {"url": EndpointUrl.parse(f"https://localhost:{address.port}/"), "ca": File.parse(str(ca))}
        other = await looked(foreign(tmp_path / "named", wanted(address, first, **web_, **named)))
        assert "its certificate is not believed" in other.problem


async def test_https_web_shows_a_certificate_that_was_replaced_and_keeps_the_last_good_one(
    partner: Partner, tmp_path: Path
) -> None:
    certificate, key, ca = web_files(tmp_path, "127.0.0.1")
    door = TcpDoor(ANY_PORT, web_server_context(certificate, key))
    async with serving(bundle_application(PARTNER, partner.bundles), door) as (address,):
        assert address is not None
        web_: dict[str, Any] = {"profile": "https_web", "spiffe_id": None, "first_bundle": None}
        first = pinned(partner, tmp_path)
        (tmp_path / "new").mkdir()
        for new, old in zip(web_files(tmp_path / "new", "127.0.0.1"), (certificate, key, ca), strict=True):
            os.replace(new, old)
        relation = wanted(address, first, **web_, ca=File.parse(str(ca)))
        assert (await looked(foreign(tmp_path, relation))).problem == ""
        certificate.write_text("nonsense")
        assert (await looked(foreign(tmp_path, relation))).problem == ""


async def test_the_endpoint_answers_what_it_speaks_for_and_nothing_else(
    partner: Partner, tmp_path: Path
) -> None:
    context = spiffe_context(partner.authority.bundle().anchors, SERVER)
    async with serving_spiffe(partner) as address, aiohttp.ClientSession() as session:
        for path, status in (("", 200), (PARTNER.name, 200), ("east.mesh.example", 404), ("a/b", 404)):
            async with session.get(f"https://{address}/{path}", ssl=context) as response:
                assert response.status == status
                if status == 200:
                    assert response.content_type == "application/json"
                    assert json.loads(await response.read())["spiffe_sequence"] == 1
        async with session.post(f"https://{address}/", ssl=context) as response:
            assert response.status == 405


def test_a_damaged_file_is_named_and_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "federates").mkdir(mode=0o700)
    file = tmp_path / "federates" / f"{PARTNER}.json"
    file.touch(0o600)
    file.write_text('{"fetched_at": "2026-01-01T00:00:00Z", "document": "AAAA"}')
    relation = Federated(
        trust_domain=Domain.parse(PARTNER.name),
        url=EndpointUrl.parse("https://a.example/"),
        profile="https_web",
    )
    with pytest.raises(KeyFileError, match="is not a bundle"):
        foreign(tmp_path, relation)


@pytest.mark.parametrize("content", ["", "{}", None])
def test_a_first_bundle_that_is_none_is_told_by_its_file(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "first.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError) as refused:
        foreign(tmp_path, wanted(HostPort.of("127.0.0.1", 1), File.parse(str(file))))
    assert (refused.value.file, refused.value.field) == (str(file), "first_bundle")


@pytest.mark.parametrize("name", ["east.mesh.example", "mesh.example", "example"])
def test_our_own_trust_domains_are_not_fetched_from_anywhere(name: str) -> None:
    relation = Federated(
        trust_domain=Domain.parse(name), url=EndpointUrl.parse("https://a.example/"), profile="https_web"
    )
    with pytest.raises(InputError, match="trust domain of this federation") as told:
        refuse_ours([relation], "mesh.example")
    assert told.value.field == "federates[0].trust_domain"
    refuse_ours([relation], "another.test")


def web_files(folder: Path, host: str) -> tuple[Path, Path, Path]:
    """Certificate and key of a web server with an address as its name, and the CA that issued them."""
    now = datetime.now(UTC)
    ca = Maker(now).root("web ca")
    key = new_key()
    certificate = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(x509.Name([]))
        .issuer_name(ca.cert.subject)
        .public_key(key.public_key())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=True
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    paths = folder / "web.pem", folder / "web.key", folder / "ca.pem"
    paths[0].write_bytes(pem([certificate]))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    paths[2].write_bytes(pem([ca.cert]))
    return paths


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)
