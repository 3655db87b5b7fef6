"""What other systems are given: exactly the files and objects that each reads, which verify as each verifies."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from federation.document import dump
from pki import issue
from pki.certificate import der, load_pem, pem
from pki.errors import Untrusted
from pki.export import Export, Material, cert_manager, consul, istio, linkerd, trust
from pki.intermediate import Consumer, decide
from pki.spiffe import TrustDomain
from pki.spiffe_bundle import of, parse
from tests.pki.verifying.cases import Ca, Maker
from tests.pki.verifying.real import ask_go
from tests.pki.world import BASE, NOW, World, make_root, new_key, openssl_verify, serial

CONSUL = TrustDomain.parse("36cb52cd-4058-f811-0432-6798a240c5d3.consul")
EXPORTS: Mapping[Consumer, Callable[[Material], Export]] = {
    Consumer.ISTIO: istio.export,
    Consumer.LINKERD: linkerd.export,
    Consumer.CONSUL: consul.export,
    Consumer.CERT_MANAGER: cert_manager.export,
}
SCHEMA = "1.34"


def material(world: World, consumer: Consumer, *also: x509.Certificate) -> Material:
    """An intermediate of `consumer`, and `also` as further roots."""
    domain = CONSUL if consumer is Consumer.CONSUL else None
    grant, key = decide(consumer, "east", BASE, domain, None), new_key()
    template = issue.intermediate_authority(grant, key.public_key(), world.root, serial(), NOW)
    return Material(issue.sign(template, world.root_key), key, (world.root, *also))


def files(made: Export) -> dict[str, bytes]:
    return {file.name: file.data for file in made.files}


def objects(made: Export) -> list[Mapping[str, Any]]:
    return [each for manifest in made.manifests for each in manifest.objects]


def decoded(secret: Mapping[str, Any]) -> dict[str, bytes]:
    return {key: base64.b64decode(value, validate=True) for key, value in secret["data"].items()}


def test_istio_gets_the_four_keys_of_its_secret_and_never_the_mark_of_its_own(world: World) -> None:
    given = material(world, Consumer.ISTIO)
    made = istio.export(given)
    [secret] = objects(made)
    assert (secret["kind"], secret["type"]) == ("Secret", "Opaque")
    assert (secret["metadata"]["name"], secret["metadata"]["namespace"]) == ("cacerts", "istio-system")
    assert decoded(secret) == files(made)
    assert set(secret["data"]) == {"ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"}
    assert load_pem(files(made)["ca-cert.pem"]) == (given.certificate,)
    assert load_pem(files(made)["cert-chain.pem"]) == (given.certificate,)


def test_istio_gets_a_crl_where_there_is_one(world: World) -> None:
    crl = b"-----BEGIN X509 CRL-----\n"
    made = istio.export(replace(material(world, Consumer.ISTIO), crl=crl))
    assert files(made)["ca-crl.pem"] == crl


def test_linkerd_gets_issuer_and_anchors_where_it_looks_for_them(world: World) -> None:
    made = linkerd.export(material(world, Consumer.LINKERD))
    issuer, anchors = objects(made)
    assert (issuer["metadata"]["name"], issuer["type"]) == ("linkerd-identity-issuer", "kubernetes.io/tls")
    assert set(issuer["data"]) == {"tls.crt", "tls.key", "ca.crt"}
    assert (anchors["kind"], anchors["metadata"]["name"]) == ("ConfigMap", "linkerd-identity-trust-roots")
    assert anchors["data"] == {"ca-bundle.crt": files(made)["ca.crt"].decode()}


def test_consul_gets_both_of_its_forms(world: World) -> None:
    given = material(world, Consumer.CONSUL)
    made = files(consul.export(given))
    running, first = json.loads(made["set-config.json"]), json.loads(made["agent.json"])
    pair = (given.key_pem().decode(), pem([given.certificate]).decode())
    assert running == {"Provider": "consul", "Config": {"PrivateKey": pair[0], "RootCert": pair[1]}}
    assert first["connect"]["ca_config"] == {"private_key": pair[0], "root_cert": pair[1]}
    assert first["connect"]["ca_provider"] == "consul"


def test_cert_manager_gets_an_issuer_that_names_its_secret(world: World) -> None:
    secret, roots, issuer = objects(cert_manager.export(material(world, Consumer.CERT_MANAGER), "shop"))
    assert issuer["spec"] == {"ca": {"secretName": secret["metadata"]["name"]}}
    assert {each["metadata"]["namespace"] for each in (secret, roots, issuer)} == {"shop"}
    assert set(secret["data"]) == {"tls.crt", "tls.key", "ca.crt"}


@pytest.mark.parametrize("consumer", Consumer)
def test_during_a_rotation_both_roots_are_given_and_no_root_is_in_a_chain(
    world: World, consumer: Consumer
) -> None:
    _, later = make_root()
    given = material(world, consumer, later)
    made = files(EXPORTS[consumer](given))
    [roots] = {made[name] for name in ("root-cert.pem", "ca.crt", "roots.pem") if name in made} - {
        pem([given.certificate])
    }
    assert load_pem(roots) == (world.root, later)
    for name in ("cert-chain.pem", "issuer.crt", "tls.crt"):
        if name in made:
            assert load_pem(made[name]) == (given.certificate,)


def test_bridges_are_presented_above_the_authority(world: World) -> None:
    bridge = world.east.rooted
    given = replace(material(world, Consumer.ISTIO), bridges=(bridge,))
    assert load_pem(files(istio.export(given))["cert-chain.pem"]) == (given.certificate, bridge)


@pytest.mark.parametrize("consumer", Consumer)
def test_the_key_is_that_of_the_certificate_and_in_the_oldest_form_that_all_read(
    world: World, consumer: Consumer
) -> None:
    given = material(world, consumer)
    keys = [
        data
        for data in files(EXPORTS[consumer](given)).values()
        if data.startswith(b"-----BEGIN EC PRIVATE KEY")
    ]
    assert len(keys) == 1
    assert load_pem_private_key(keys[0], None).public_key() == given.certificate.public_key()


@pytest.mark.parametrize("consumer", [Consumer.ISTIO, Consumer.LINKERD, Consumer.CERT_MANAGER])
def test_kubernetes_accepts_the_manifests(world: World, consumer: Consumer) -> None:
    """Against the schemas of a release; the Issuer is a kind of cert-manager's own, which they do not hold."""
    found = [dict(each) for each in objects(EXPORTS[consumer](material(world, consumer)))]
    judged = [each for each in found if each["apiVersion"] == "v1"]
    assert "Secret" in {each["kind"] for each in judged}
    for each in judged:
        kubernetes_validate.validate(each, SCHEMA, strict=True)


def test_k5_nothing_shows_a_key(world: World) -> None:
    given = material(world, Consumer.ISTIO)
    made = istio.export(given)
    for shown in (repr(given), repr(made), str(made.manifests), str(made.files)):
        assert "PRIVATE KEY" not in shown
        assert base64.b64encode(given.key_pem()).decode()[:40] not in shown


def test_what_does_not_fit_together_is_noticed_before_it_is_written(world: World) -> None:
    given = material(world, Consumer.ISTIO)
    given.check(NOW)
    with pytest.raises(Untrusted, match="another key"):
        replace(given, key=new_key()).check(NOW)
    with pytest.raises(Untrusted, match="none of the roots"):
        replace(given, roots=(make_root()[1],)).check(NOW)
    with pytest.raises(Untrusted, match="expired"):
        given.check(NOW + timedelta(days=400))


@pytest.mark.parametrize("consumer", Consumer)
def test_openssl_verifies_the_authority_and_what_it_signs(
    world: World, consumer: Consumer, tmp_path: Path
) -> None:
    given = material(world, consumer)
    assert openssl_verify(tmp_path, world.root, (given.certificate,)) == "OK"
    assert openssl_verify(tmp_path, world.root, (_leaf(given), given.certificate)) == "OK"


@pytest.mark.live
def test_go_as_istio_linkerd_and_consul_use_it_takes_pair_and_chain(world: World, tmp_path: Path) -> None:
    """They read the pair with tls.X509KeyPair and verify the authority, and leaves, with the roots given."""
    asked: list[dict[str, object]] = []
    for consumer in Consumer:
        given = material(world, consumer)
        made = files(EXPORTS[consumer](given))
        for presented, anchors in (
            ((given.certificate,), given.roots),
            ((_leaf(given), given.certificate), given.roots),
            ((_leaf(given),), (given.certificate,)),
        ):
            asked.append(
                {
                    "Presented": [base64.b64encode(der(one)).decode() for one in presented],
                    "Anchors": [base64.b64encode(der(one)).decode() for one in anchors],
                    "At": int(NOW.timestamp()),
                    "Role": "any",
                    "Pem": given.chain_pem().decode(),
                    "Key": next(data for data in made.values() if data.startswith(b"-----BEGIN EC")).decode(),
                }
            )
    assert ask_go(asked, tmp_path) == [""] * len(asked)
    strangers = {**asked[0], "Key": new_key_pem()}
    assert ask_go([strangers], tmp_path) != [""]


@pytest.mark.live
def test_javas_keytool_reads_the_chain_and_the_roots(world: World, tmp_path: Path) -> None:
    given = material(world, Consumer.ISTIO)
    for name, data in files(istio.export(given)).items():
        if name != "ca-key.pem":
            (tmp_path / name).write_bytes(data)
            done = subprocess.run(
                ["keytool", "-printcert", "-file", str(tmp_path / name)],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            assert "BasicConstraints" in done.stdout


def test_a_manifest_as_yaml_is_what_it_was_as_a_value(world: World) -> None:
    [secret] = objects(istio.export(material(world, Consumer.ISTIO)))
    assert yaml.safe_load(dump(secret)) == secret


def test_spiffe_is_the_document_of_a_bundle_endpoint(world: World) -> None:
    made = trust.spiffe(of(world.east.bundle))
    [(name, data)] = files(made).items()
    assert name == "east.mesh.example.json"
    assert parse(world.east.trust_domain, data) == of(world.east.bundle)


def test_pem_keeps_anchors_and_roots_apart(world: World) -> None:
    made = files(trust.certificates(of(world.east.bundle), [world.east.rooted], [world.root]))
    assert load_pem(made["anchors.pem"]) == (world.east.self_signed,)
    assert load_pem(made["roots.pem"]) == (world.root,)
    assert load_pem(made["root-signed.pem"]) == (world.east.rooted,)


def new_key_pem() -> str:
    return new_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


def _leaf(given: Material) -> x509.Certificate:
    """What the other system would sign."""
    subject = given.certificate.subject
    template = Maker(NOW).leaf(Ca("x", given.key))
    builder = x509.CertificateBuilder(extensions=list(template.extensions)).issuer_name(subject)
    return (
        builder.subject_name(template.subject)
        .public_key(template.public_key())
        .serial_number(serial())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(hours=24))
        .sign(given.key, hashes.SHA256())
    )
