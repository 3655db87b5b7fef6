"""Each mistake in a file: which line, which field, what is allowed."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from federation.discovery.files import check_objects
from federation.discovery.sources import Problem
from tests.federation.discovery.objects import EXPORT, SERVICE, SLICE, joined

LABEL = "a DNS label: 1 to 63 of a-z, 0-9 and '-', with no '-' at either end"


def check(tmp_path: Path, text: str) -> list[Problem]:
    file = tmp_path / "echo.yaml"
    file.write_text(text)
    problems = check_objects(file)
    assert all(problem.file == str(file) for problem in problems)
    return list(problems)


def test_the_three_objects_are_fine(tmp_path: Path) -> None:
    assert check(tmp_path, joined(SERVICE, SLICE, EXPORT)) == []


@pytest.mark.parametrize(
    ("text", "old", "new", "line", "field", "problem", "allowed"),
    [
        (SERVICE, "ports:", "prots:", 6, "spec.prots", "unknown field, did you mean", "ports, clusterIP"),
        (
            SERVICE,
            "port: 80",
            'port: "80"',
            8,
            "spec.ports[0].port",
            "got the string '80'",
            "1 and at most 65535",
        ),
        (SERVICE, "port: 80", "port: 70000", 8, "spec.ports[0].port", "got 70000", "at most 65535"),
        (SERVICE, "name: http", "name: HTTP", 7, "spec.ports[0].name", "got 'HTTP'", LABEL),
        (SERVICE, "name: echo", "name: Echo_1", 4, "metadata.name", "got 'Echo_1'", LABEL),
        (SERVICE, "name: echo", "name: e\n  namespace: a.b", 5, "metadata.namespace", "got 'a.b'", LABEL),
        (
            SERVICE,
            "name: echo",
            "name: e\n  name: f",
            5,
            "metadata.name",
            "duplicate key, first on line 4",
            "once",
        ),
        (SERVICE, "  name: echo", "  labels: {}", 3, "metadata", 'the field "name" is missing', "a string"),
        (
            SERVICE,
            "kind: Service",
            "kind: Deployment",
            2,
            "kind",
            "got 'Deployment'",
            "Service, EndpointSlice",
        ),
        (
            SERVICE,
            "kind: Service",
            "kind: List",
            2,
            "kind",
            "each item as a document of its own",
            "ServiceExport",
        ),
        (SERVICE, "apiVersion: v1", "apiVersion: v2", 1, "apiVersion", "got the string 'v2'", "v1"),
        (
            SERVICE,
            "port: 80",
            "protocol: tcp",
            8,
            "spec.ports[0].protocol",
            'did you mean "TCP"',
            "SCTP, TCP, UDP",
        ),
        (SERVICE, "port: 80", "port: 80\n    - port: 81", 9, "spec.ports[1]", '"name" is missing', LABEL),
        (
            SERVICE,
            "80",
            "80\n    - {name: http, port: 81}",
            9,
            "spec.ports[1].name",
            "a second port named",
            "once",
        ),
        (
            SERVICE,
            "80",
            "80\n    - {name: b, port: 80}",
            9,
            "spec.ports[1].port",
            "a second port 80/TCP",
            "once",
        ),
        (
            SERVICE,
            "name: echo",
            "name: echo\n  annotations: {federation/scope: west}",
            5,
            'metadata.annotations["federation/scope"]',
            "unknown annotation",
            "on a ServiceExport",
        ),
        (SLICE, "IPv4", "FQDN", 7, "addressType", "got the string 'FQDN'", "IPv4, IPv6"),
        (
            SLICE,
            "10.1.0.1",
            "10.1.0.300",
            9,
            "endpoints[0].addresses[0]",
            "got '10.1.0.300'",
            "an IPv4 address",
        ),
        (SLICE, "10.1.0.1", '"fd00::1"', 9, "endpoints[0].addresses[0]", "got 'fd00::1'", "an IPv4 address"),
        (
            SLICE,
            "10.1.0.1",
            "example.com",
            9,
            "endpoints[0].addresses[0]",
            "got 'example.com'",
            "an IPv4 address",
        ),
        (SLICE, "[10.1.0.1]", "[]", 9, "endpoints[0].addresses", "got a list", "1 to 100 entries"),
        (SLICE, "endpoints:\n  - addresses: [10.1.0.1]\n", "", 1, "", '"endpoints" is missing', "a list"),
        (
            SLICE,
            "[10.1.0.1]",
            "[10.1.0.1]\n    zone: a b",
            10,
            "endpoints[0].zone",
            "got 'a b'",
            "letters, digits",
        ),
        (
            SLICE,
            "[10.1.0.1]",
            "[10.1.0.1]\n    conditions: {redy: true}",
            10,
            "endpoints[0].conditions.redy",
            'did you mean "ready"?',
            "ready, serving, terminating",
        ),
        (
            SLICE,
            "[10.1.0.1]",
            "[10.1.0.1]\n    conditions: {ready: yes}",
            10,
            "endpoints[0].conditions.ready",
            "got the string 'yes'",
            "true or false",
        ),
        (
            SLICE,
            "port: 8080",
            "port: 1\n  - name: http\n    port: 2",
            13,
            "ports[1]",
            "a second port named",
            "once",
        ),
        (
            SLICE,
            "kubernetes.io/service-name",
            "app",
            5,
            "metadata.labels",
            "service-name is missing",
            "of a Service",
        ),
        (
            SLICE,
            "service-name: echo",
            "service-name: a.b",
            6,
            'metadata.labels["kubernetes.io/service-name"]',
            "got 'a.b'",
            LABEL,
        ),
        (EXPORT, "v1beta1", "v1alpha1", 1, "apiVersion", "v1alpha1", "multicluster.x-k8s.io/v1beta1"),
        (
            EXPORT,
            "name: echo",
            "name: echo\n  annotations: {federation/scpoe: west}",
            5,
            'metadata.annotations["federation/scpoe"]',
            "unknown annotation",
            "federation/scope and federation/capacity",
        ),
        (
            EXPORT,
            "name: echo",
            'name: echo\n  annotations: {federation/scope: "west,,central"}',
            5,
            'metadata.annotations["federation/scope"]',
            "got 'west,,central'",
            "names of clusters",
        ),
        (
            EXPORT,
            "name: echo",
            "name: echo\n  annotations: {federation/capacity: 40}",
            5,
            'metadata.annotations["federation/capacity"]',
            "got 40",
            "put it in quotes",
        ),
        (
            EXPORT,
            "name: echo",
            'name: echo\n  annotations: {federation/capacity: "0"}',
            5,
            'metadata.annotations["federation/capacity"]',
            "got '0'",
            "from 1 to 1000000",
        ),
    ],
)
def test_a_mistake_names_its_line_its_field_and_what_is_allowed(
    tmp_path: Path, text: str, old: str, new: str, line: int, field: str, problem: str, allowed: str
) -> None:
    assert old in text
    [found] = check(tmp_path, text.replace(old, new, 1))
    assert (found.line, found.field) == (line, field)
    assert problem in found.problem
    assert allowed in found.allowed
    assert str(found).startswith(f"{tmp_path}/echo.yaml:{line}: ")


def test_an_object_twice_in_a_file_names_both_lines(tmp_path: Path) -> None:
    [found] = check(tmp_path, joined(SERVICE, SERVICE))
    assert (found.line, found.allowed) == (10, "each object once")
    assert found.problem == "Service default/echo is described twice, first on line 1"


def test_all_mistakes_of_a_file_are_named_at_once(tmp_path: Path) -> None:
    text = joined(SERVICE.replace("80", "0"), SLICE.replace("http", "HTTP"), "- 1\n", EXPORT)
    assert [(found.line, found.field) for found in check(tmp_path, text)] == [
        (8, "spec.ports[0].port"),
        (20, "ports[0].name"),
        (23, ""),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &a [1]\nb: [*a, *a]\n", "anchors and aliases are refused"),
        ("a: [\n", "not YAML"),
        ("# nothing\n", "nothing is written here"),
        ("x" * (1024 * 1024 + 1), "too large"),
    ],
)
def test_what_is_no_object_at_all(tmp_path: Path, text: str, problem: str) -> None:
    [found] = check(tmp_path, text)
    assert problem in found.problem
    assert found.allowed or "YAML" in problem


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    [found] = check_objects(tmp_path / "none.yaml")
    assert str(found) == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"


def test_what_an_api_server_adds_is_accepted(tmp_path: Path) -> None:
    text = """\
        apiVersion: v1
        kind: Service
        metadata:
          name: echo
          namespace: shop
          uid: 5d1a3b4c
          resourceVersion: "42"
          generation: 3
          creationTimestamp: null
          managedFields: [{manager: kubectl, fieldsV1: {"f:spec": {}}}]
        spec:
          clusterIP: 10.96.0.7
          clusterIPs: [10.96.0.7]
          internalTrafficPolicy: Cluster
          ipFamilies: [IPv4]
          ipFamilyPolicy: SingleStack
          ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080, protocol: TCP}]
          selector: {app: echo}
          sessionAffinity: None
          type: NodePort
        status: {loadBalancer: {}}
    """
    assert check(tmp_path, joined(text)) == []


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.1.0.1", None),
        ("10.2.0.1", "10.2.0.1 is outside the registered ranges: 10.1.0.0/16, 0.0.0.0/0"),
        ("127.0.0.1", "127.0.0.1 is a loopback address, which only a range within 127.0.0.0/8 covers"),
        ("169.254.1.1", "link-local"),
        ("169.254.169.254", "cloud metadata"),
        ("224.0.0.1", "multicast"),
    ],
)
def test_an_address_outside_of_the_ranges(tmp_path: Path, address: str, why: str | None) -> None:
    file = tmp_path / "echo.yaml"
    file.write_text(SLICE.replace("10.1.0.1", address))
    ranges = [ip_network("10.1.0.0/16"), ip_network("0.0.0.0/0")]
    problems = check_objects(file, ranges[: 1 if address == "10.2.0.1" else 2])
    if why is None:
        assert not problems
        return
    [found] = problems
    assert (found.file, found.line, found.field) == (str(file), 9, "endpoints[0].addresses[0]")
    assert why.removesuffix(", 0.0.0.0/0") in found.problem


def test_a_loopback_range_that_is_registered_explicitly(tmp_path: Path) -> None:
    file = tmp_path / "echo.yaml"
    file.write_text(SLICE.replace("10.1.0.1", "127.1.0.1"))
    assert not check_objects(file, [ip_network("127.1.0.0/16")])
