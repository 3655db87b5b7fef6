"""Consul: key and root certificate of its built-in CA, in the two forms that it reads.

`set-config.json` is for `consul connect ca set-config` on a running datacenter, `agent.json` for the configuration of
servers that were never started (developer.hashicorp.com, built-in CA). Consul takes one certificate as root, whoever
signed that: its own authority is the anchor of its mesh, and ours is above it for whoever trusts ours. `roots.pem` lies
beside for those. The URI in the certificate is the trust domain of the datacenter.
"""

from __future__ import annotations

import json

from pki.certificate import pem
from pki.export.material import Export, File, Material


def export(material: Material) -> Export:
    """For one datacenter: path length 0 leaves no room for the authorities of secondary ones."""
    certificate, key = pem([material.certificate]), material.key_pem()
    running = {"Provider": "consul", "Config": {"PrivateKey": key.decode(), "RootCert": certificate.decode()}}
    config = {"private_key": key.decode(), "root_cert": certificate.decode()}
    first = {"connect": {"enabled": True, "ca_provider": "consul", "ca_config": config}}
    return Export(
        files=(
            File("set-config.json", _json(running)),
            File("agent.json", _json(first)),
            File("root-cert.pem", certificate),
            File("private-key.pem", key),
            File("roots.pem", material.roots_pem()),
        ),
        manifests=(),
        use="consul connect ca set-config -config-file set-config.json, or agent.json in the folder of settings of"
        " servers that were never started",
    )


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
