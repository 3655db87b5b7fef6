"""Settings: the examples are complete and true, and each mistake is told with its line and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, fields

from federation.config import AgentSettings, GatewaySettings, HubSettings
from federation.errors import InputError
from federation.settings_file import read_settings

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
KINDS: dict[str, type[Any]] = {"hub": HubSettings, "agent": AgentSettings, "gateway": GatewaySettings}
MINIMAL = {
    "hub": "base: mesh.example\nadvertise: {api: 'hub.example:8443', sync: '10.1.0.1:8444'}\n",
    "agent": "cluster: east\nregion: eu\nservices: /srv\nadvertise: {api: '10.1.0.2:8445', xds: '10.1.0.2:8446'}\n",
    "gateway": "name: gw-0\nadvertise: 10.1.0.2:15443\n",
}
KEYS = "keys: {plain: true}\n"
"""Nobody says it by saying nothing."""

WEB = "{trust_domain: a.example, url: 'https://a.example/', profile: https_web}"
SPIFFE = WEB.replace("https_web", "https_spiffe")
OWN = WEB.replace("a.example,", "mesh.example,")

SHOWN_ON = {"keys.passphrase"}
"""Settings without which no process starts: an example has them on, and says what else there is."""

SHOWN_WITHOUT_DEFAULT = {
    "zone", "join_token", "token", "envoy.path", "bundle_endpoint", "federates", "keys.vault",
    "issuing.doors",
}  # fmt: skip
"""Settings whose default is that there is none: the example shows what one looks like."""


def settings_of(kind: type[Struct], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting that is not a group, by its dotted name."""
    for field in fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, Struct):
            yield from settings_of(field.type, f"{path}{field.name}.")
        else:
            yield f"{path}{field.name}", field


def uncommented(text: str) -> Any:
    """The example with its commented settings switched on; prose in comments is not YAML and stays out."""
    line = re.compile(r"# ?((?: *)(?:- )?[a-z_]+:(?: .*)?)")
    return yaml.safe_load("\n".join(m[1] if (m := line.fullmatch(row)) else row for row in text.splitlines()))


def at(document: Any, path: str) -> Any:
    for step in path.split("."):
        document = document[step]
    return document


def has(document: Any, path: str) -> bool:
    try:
        at(document, path)
    except (KeyError, TypeError):
        return False
    return True


def attribute(settings: Any, path: str) -> Any:
    for step in path.split("."):
        settings = getattr(settings, step)
    return settings


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_is_what_it_says_with_every_comment_or_without(kind: str, tmp_path: Path) -> None:
    example = EXAMPLES / f"{kind}.yaml"
    plain = read_settings(example, KINDS[kind])
    full = uncommented(example.read_text())
    names = {path for path, _ in settings_of(KINDS[kind])}
    assert {path for path in names if not has(full, path)} == set()
    written = tmp_path / "full.yaml"
    written.write_text(yaml.safe_dump(full))
    switched_on = read_settings(written, KINDS[kind])
    for path, field in settings_of(KINDS[kind]):
        if field.default is not NODEFAULT and path not in SHOWN_WITHOUT_DEFAULT | SHOWN_ON:
            assert attribute(switched_on, path) == attribute(plain, path) == field.default, path
    assert {path for path in names if path in SHOWN_WITHOUT_DEFAULT and attribute(plain, path)} == set()


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_default_is_asked_for(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(MINIMAL[kind] + KEYS)
    read_settings(file, KINDS[kind])
    for path, field in settings_of(KINDS[kind]):
        if field.required:
            document = yaml.safe_load(MINIMAL[kind] + KEYS)
            *around, last = path.split(".")
            del (at(document, ".".join(around)) if around else document)[last]
            file.write_text(yaml.safe_dump(document))
            with pytest.raises(InputError, match=f'the field "{last}" is missing'):
                read_settings(file, KINDS[kind])


@pytest.mark.parametrize(
    ("kind", "addition", "line", "field", "problem", "allowed"),
    [
        ("hub", "color: red", 3, "color", "unknown field", "base, advertise"),
        ("hub", "listen:\n  apy: 1", 4, "listen.apy", 'did you mean "api"', "api, sync, telemetry"),
        ("hub", "root: elsewhere", 3, "root", "'elsewhere'", "offline, online"),
        ("hub", "root: offline\nname_constraints: true", 4, "name_constraints", "not this hub", "ca sign"),
        ("hub", "name_constraints: sometimes", 3, "name_constraints", "'sometimes'", "true"),
        ("hub", "log: {level: loud}", 3, "log.level", "'loud'", "debug, error, info"),
        ("hub", "log: {level: 3}", 3, "log.level", "got 3", "debug"),
        ("hub", "directory: hub", 3, "directory", "not an absolute path", "an absolute path"),
        ("hub", "listen: {api: '0.0.0.0'}", 3, "listen.api", "not an address with a port", "0.0.0.0:8443"),
        ("hub", "listen: {api: '0.0.0.0:65536'}", 3, "listen.api", "up to 65535", "0.0.0.0:8443"),
        ("hub", "listen: {api: 'localhost:8443'}", 3, "listen.api", "not an IP address", "127.0.0.1:8443"),
        ("hub", "listen: {api: '::1:8443'}", 3, "listen.api", "not an address", "[::1]:8443"),
        ("hub", "listen: {api: '[127.0.0.1]:1'}", 3, "listen.api", "not an address", "[::1]:8443"),
        ("agent", "leases: {suspect: 15}", 5, "leases.suspect", "got 15", "with its unit"),
        ("agent", "leases: {suspect: 15 sec}", 5, "leases.suspect", "not a duration", "500ms, 10s"),
        ("agent", "leases: {suspect: 2m}", 5, "leases.suspect", "not shorter than", "below 1m"),
        ("agent", "leases: {suspect: 6s}", 5, "leases.suspect", "speaks twice", "10s or more"),
        ("agent", "leases: {expired: 25h}", 5, "leases.expired", "longer than 24h", "at most 24h"),
        ("agent", "paths: {ping: 0s}", 5, "paths.ping", "shorter than 10ms", "10ms to 1m"),
        ("agent", "paths: {probe: 9ms}", 5, "paths.probe", "shorter than 10ms", "10ms to 1m"),
        ("agent", "paths: {timeout: 100h}", 5, "paths.timeout", "longer than 1m", "10ms to 1m"),
        ("agent", "tunnels: {connect: 61s}", 5, "tunnels.connect", "longer than 1m", "10ms to 1m"),
        ("agent", "tunnels: {idle: 999ms}", 5, "tunnels.idle", "shorter than 1s", "1s to 30d"),
        ("agent", "tunnels: {idle: 31d}", 5, "tunnels.idle", "longer than 720h", "1s to 30d"),
        ("gateway", "envoy: {drain: 36500d}", 3, "envoy.drain", "longer than 1h", "0s to 1h"),
        ("hub", "listen: {api: '127.0.0.1:8444'}", 3, "listen.sync", "meets listen.api", "another port"),
        ("hub", "listen: {sync: '0.0.0.0:9464'}", 3, "listen.telemetry", "meets listen.sync", "another port"),
        ("hub", "listen: {sync: '[::]:9464'}", 3, "listen.telemetry", "meets listen.sync", "another port"),
        ("agent", "listen: {xds: '10.1.0.2:8445'}", 5, "listen.xds", "meets listen.api", "another port"),
        ("gateway", "listen: {eastwest: 9466}", 3, "listen.telemetry", "meets listen.eastwest", "another port"),
        ("hub", f"directory: /{'x' * 96}", 3, "directory", "too long", "at most 96 bytes"),
        ("agent", f"directory: /{'é' * 48}", 5, "directory", "too long", "at most 96 bytes"),
        ("gateway", f"directory: /{'x' * 96}", 3, "directory", "too long", "at most 96 bytes"),
        ("agent", "paths: {failures: 0}", 5, "paths.failures", "got 0", "1"),
        ("hub", "bundle_endpoint: {listen: '0.0.0.0:8443'}", 3, "bundle_endpoint.listen", "meets", "another"),
        (
            "agent",
            "bundle_endpoint: {listen: '0.0.0.0:1', profile: https_web}",
            5,
            "bundle_endpoint.certificate",
            "missing",
            "with https_web",
        ),
        ("hub", "federates: [{trust_domain: 'a/b'}]", 3, "federates[0].trust_domain", "DNS labels", "partner.example"),
        ("hub", "federates: [{url: 'http://a.example/'}]", 3, "federates[0].url", "not an https URL", "https://host"),
        ("hub", "federates: [{url: 'https://u:p@a.example/'}]", 3, "federates[0].url", "a user", "without user"),
        ("hub", f"federates: [{SPIFFE}]", 3, "federates[0].spiffe_id", "is missing", "with https_spiffe"),
        ("hub", f"federates: [{WEB}, {WEB}]", 3, "federates[1].trust_domain", "is there already", "not merged"),
        ("hub", f"federates: [{OWN}]", 3, "federates[0].trust_domain", "of this federation", "under mesh.example"),
        ("hub", "federates: [{allow: ['10.0.0.1/8']}]", 3, "federates[0].allow[0]", "host bits", "a range"),
        ("agent", "certificate_lifetime: 25h", 5, "certificate_lifetime", "not a life", "10s to 24h"),
        ("agent", "certificate_lifetime: 9s", 5, "certificate_lifetime", "not a life", "10s to 24h"),
        ("agent", "issuing: {longest: 25h}", 5, "issuing.longest", "not a life", "10s to 24h"),
        ("agent", "issuing: {shortest: 0s}", 5, "issuing.shortest", "not a life", "10s to 24h"),
        ("agent", "issuing: {shortest: 2h, longest: 1h}", 5, "issuing.shortest", "is longer", "at most 1h"),
        ("agent", "issuing: {keys: [p-521]}", 5, "issuing.keys[0]", "'p-521'", "ecdsa-p256"),
        ("agent", "issuing: {keys: []}", 5, "issuing.keys", "got a list", "at least 1"),
        ("agent", "issuing: {names: ['/*']}", 5, "issuing.names[0]", "not a valid", "/ns/shop/sa/*"),
        ("agent", "ports: {first: 65536}", 5, "ports.first", "got 65536", "65535"),
        ("agent", "ports: {first: 30000}", 5, "ports.first", "lies after ports.last", "at most 29999"),
        ("agent", "ports: {first: '20000'}", 5, "ports.first", "'20000'", "1"),
        ("agent", "zone: Zone_A", 5, "zone", "not a DNS label", "a-z, 0-9"),
        ("agent", "regions: [eu, -us]", 5, "regions[1]", "not a DNS label", "a-z, 0-9"),
        ("agent", "access_log: access.log", 5, "access_log", "not an absolute path", "/dev/stdout"),
        ("agent", "imports: {deny: [{services: [shop]}]}", 5, "imports.deny[0].services[0]", "pattern", "shop/*"),
        ("agent", "imports: {deny: [{clusters: [West]}]}", 5, "imports.deny[0].clusters[0]", "pattern", "eu-*"),
        ("gateway", "listen: {address: gateway}", 3, "listen.address", "IPv4 or IPv6", "10.1.0.5"),
        ("gateway", "listen: {eastwest: 0}", 3, "listen.eastwest", "got 0", "65535"),
        ("gateway", "envoy: {concurrency: 2.5}", 3, "envoy.concurrency", "got 2.5", "1"),
        ("gateway", "name: gw-1", 3, "name", "duplicate", ""),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_what_is_allowed(
    kind: str, addition: str, line: int, field: str, problem: str, allowed: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"{MINIMAL[kind]}{addition}\n{KEYS}")
    with pytest.raises(InputError) as refused:
        read_settings(file, KINDS[kind])
    assert (refused.value.file, refused.value.line, refused.value.field) == (str(file), line, field)
    assert problem in str(refused.value)
    assert allowed in refused.value.allowed


@pytest.mark.parametrize(
    ("kind", "written", "instead", "field", "problem"),
    [
        ("agent", "cluster: east", "cluster: hub", "cluster", "the federation service itself"),
        ("agent", "cluster: east", "cluster: East", "cluster", "not a DNS label"),
        ("agent", "10.1.0.2:8446", "10.1.0.2:0", "advertise.xds", "no port"),
        ("agent", "10.1.0.2:8446", "0.0.0.0:8446", "advertise.xds", "every address"),
        ("agent", "10.1.0.2:8446", "10.1.0.2:8445", "advertise.xds", "is advertise.api too"),
        ("hub", "hub.example:8443", "[::]:8443", "advertise.api", "every address"),
        ("hub", "10.1.0.1:8444", "hub.example:8443", "advertise.sync", "is advertise.api too"),
        ("gateway", "10.1.0.2:15443", "0.0.0.0:15443", "advertise", "every address"),
        ("hub", "mesh.example", "Mesh.Example", "base", "cannot be the base"),
        ("hub", "mesh.example", "mesh..example", "base", "cannot be the base"),
        ("hub", "mesh.example", "x" * 64, "base", "cannot be the base"),
        ("gateway", "10.1.0.2:15443", "gateway.example:15443", "advertise", "not an IP address"),
        ("gateway", "10.1.0.2:15443", "10.1.0.2:0", "advertise", "no port"),
    ],
)
def test_a_value_that_cannot_be_is_told(
    kind: str, written: str, instead: str, field: str, problem: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(MINIMAL[kind].replace(written, instead) + KEYS)
    with pytest.raises(InputError, match=problem) as refused:
        read_settings(file, KINDS[kind])
    assert refused.value.field == field
    assert refused.value.allowed


@pytest.mark.parametrize(
    ("kind", "addition"),
    [
        ("hub", "listen: {api: '127.0.0.1:0', sync: '127.0.0.1:0', telemetry: '127.0.0.1:0'}"),
        ("hub", "listen: {api: '127.0.0.1:8443', sync: '127.0.0.2:8443', telemetry: '[::1]:8443'}"),
        ("hub", "listen: {api: '0.0.0.0:8443', sync: '[::1]:8443'}"),
        ("hub", f"directory: /{'x' * 95}"),
        ("gateway", "listen: {address: 10.1.0.2, eastwest: 9466}"),
        ("gateway", "envoy: {drain: 0s}"),
        ("agent", "leases: {suspect: 10s, expired: 24h}"),
        ("agent", "paths: {probe: 10ms, ping: 60s, timeout: 1m}"),
        ("agent", "tunnels: {idle: 30d, connect: 10ms}"),
    ],
)
def test_what_only_just_works_is_taken(kind: str, addition: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"{MINIMAL[kind]}{addition}\n{KEYS}")
    assert read_settings(file, KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("keys", "field", "problem", "allowed"),
    [
        ("", "keys", "does not say how private keys lie on disk", "plain: true, which leaves keys readable"),
        ("keys: {}", "keys", "does not say how", "{credential: passphrase}, {prompt: true}"),
        ("keys: {plain: false}", "keys", "does not say how", "file: /etc/federation/passphrase"),
        ("keys: {passphrase: {}}", "keys.passphrase", "names 0 places", "exactly one of"),
        (
            "keys: {passphrase: {file: /a, prompt: true}}",
            "keys.passphrase",
            "names 2 places",
            "exactly one of file, credential, prompt, environment",
        ),
        ("keys: {passphrase: {prompt: true}, plain: true}", "keys.plain", "in the clear", "one of the two"),
        ("keys: {passphrase: {prompt: false}}", "keys.passphrase", "names 0 places", "exactly one of"),
        (
            "keys: {passphrase: {file: secret}}",
            "keys.passphrase.file",
            "not an absolute path",
            "an absolute path",
        ),
        (
            "keys: {passphrase: {credential: ../a}}",
            "keys.passphrase.credential",
            "not the name",
            "LoadCredential=",
        ),
        (
            "keys: {passphrase: {credential: .}}",
            "keys.passphrase.credential",
            "not the name",
            "LoadCredential=",
        ),
        ("keys: {passphrase: {environment: a=b}}", "keys.passphrase.environment", "not the name", "A-Z"),
        ("keys: {passphrase: canary}", "keys.passphrase", "got", "mapping"),
    ],
)
def test_k1_keys_lie_in_the_clear_only_if_that_is_said(
    kind: str, keys: str, field: str, problem: str, allowed: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"{MINIMAL[kind]}{keys}\n")
    with pytest.raises(InputError) as refused:
        read_settings(file, KINDS[kind])
    assert refused.value.field == field
    assert problem in str(refused.value)
    assert allowed in refused.value.allowed


@pytest.mark.parametrize("text", ["", "# nothing\n", MINIMAL["hub"] + "---\n" + MINIMAL["hub"]])
def test_a_file_holds_exactly_one_document(text: str, tmp_path: Path) -> None:
    file = tmp_path / "hub.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match="exactly one"):
        read_settings(file, HubSettings)


def test_a_file_that_is_not_there_or_no_file_is_told(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "missing.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError, match=why):
            read_settings(path, HubSettings)


def test_doors_for_certificates_need_a_port_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    doors = "issuing: {doors: {listen: '0.0.0.0:8446', advertise: '10.1.0.2:8446', processes: 2}}\n"
    file.write_text(MINIMAL["agent"] + KEYS + doors)
    with pytest.raises(InputError, match=r"issuing\.doors\.listen: .* meets listen\.xds"):
        read_settings(file, AgentSettings)
    file.write_text(MINIMAL["agent"] + KEYS + doors.replace("8446", "8447"))
    settings = read_settings(file, AgentSettings)
    assert settings.issuing.doors is not None
    assert settings.issuing.doors.processes == 2
