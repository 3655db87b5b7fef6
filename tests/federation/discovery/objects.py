"""Kubernetes objects for tests, as text and as values."""

from __future__ import annotations

import textwrap

from federation.discovery.kinds import BY_KIND, EndpointSlice, KubeObject, Service, ServiceExport
from federation.document import parse

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: echo
spec:
  ports:
    - name: http
      port: 80
"""
SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: echo-1
  labels:
    kubernetes.io/service-name: echo
addressType: IPv4
endpoints:
  - addresses: [10.1.0.1]
ports:
  - name: http
    port: 8080
"""
EXPORT = """\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata:
  name: echo
"""


def named(text: str, name: str) -> str:
    """One of the texts above, for another service."""
    return text.replace("echo", name)


def joined(*texts: str) -> str:
    return "---\n".join(textwrap.dedent(text) for text in texts)


def objects(text: str) -> list[KubeObject]:
    found: list[KubeObject] = []
    for document in parse(textwrap.dedent(text), "test.yaml"):
        assert isinstance(document.value, dict)
        found.append(document.convert(BY_KIND[document.value["kind"]]))
    return found


def service(spec: str = "{ports: [{name: http, port: 80}]}", name: str = "echo") -> Service:
    text = f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    [found] = objects(text)
    assert isinstance(found, Service)
    return found


def part(
    endpoints: str = "[{addresses: [10.1.0.1]}]",
    ports: str = "[{name: http, port: 8080}]",
    name: str = "echo-1",
    of: str = "echo",
) -> EndpointSlice:
    text = (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
        f"metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {of}}}}}\n"
        f"endpoints: {endpoints}\nports: {ports}\n"
    )
    [found] = objects(text)
    assert isinstance(found, EndpointSlice)
    return found


def export(metadata: str = "{name: echo}", spec: str = "{}") -> ServiceExport:
    text = f"apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\nmetadata: {metadata}\nspec: {spec}\n"
    [found] = objects(text)
    assert isinstance(found, ServiceExport)
    return found
