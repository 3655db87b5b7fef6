import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import generate

PROTO = Path("federation/sync/sync.proto")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The inputs of the generator, and what was made from them, in a folder of their own."""
    copies = [Path("pyproject.toml"), Path("tools/generate.py"), generate.COPY / "__init__.py"]
    for proto in generate.own_protos(generate.ROOT):
        module = proto.with_name(f"{proto.stem}_pb2.py")
        copies += [proto, module, module.with_suffix(".pyi")]
    for path in copies:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(generate.ROOT / path, tmp_path / path)
    return tmp_path


def append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def test_what_this_checkout_holds_is_up_to_date() -> None:
    assert generate.stale(generate.ROOT) == []


def test_a_copy_of_the_inputs_and_outputs_is_up_to_date(checkout: Path) -> None:
    assert generate.stale(checkout) == []


def test_a_changed_proto_makes_its_own_module_stale_and_no_other(checkout: Path) -> None:
    append(checkout / PROTO, "// changed")
    assert generate.stale(checkout) == [str(PROTO)]


def test_a_missing_stub_is_stale(checkout: Path) -> None:
    (checkout / "federation/sync/sync_pb2.pyi").unlink()
    assert generate.stale(checkout) == [str(PROTO)]


def test_another_version_of_the_tools_makes_everything_stale(checkout: Path) -> None:
    pyproject = checkout / "pyproject.toml"
    pyproject.write_text(
        pyproject.read_text(encoding="utf-8").replace("xds-protos==", "xds-protos==9"), "utf-8"
    )
    protos = [str(path) for path in generate.own_protos(checkout)]
    assert generate.stale(checkout) == [str(generate.COPY), *protos]


def test_check_names_what_is_out_of_date_and_what_to_do(checkout: Path) -> None:
    append(checkout / PROTO, "// changed")
    command = [sys.executable, str(checkout / "tools/generate.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == f"out of date: {PROTO}; run `make generate`\n"


def test_protos_that_other_distributions_bring_keep_their_names() -> None:
    assert generate.renamed("google/protobuf/any.proto") == "google/protobuf/any.proto"
    assert generate.renamed("google/rpc/status.proto") == "google/rpc/status.proto"
    assert generate.renamed("xds/core/v3/cidr.proto") == "gateway/pb/xds/core/v3/cidr.proto"
    assert generate.renamed("google/api/expr/v1alpha1/syntax.proto").startswith("gateway/pb/google/api/expr/")
