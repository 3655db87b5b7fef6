"""The rules for TLS contexts and for secrets: exactly one trust domain, one exact identity, no key in sight.

They guard against a leaf with two URIs, see `gateway.secrets`, and hold for every context, whatever made it.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway import names
from gateway.finding import Flaw, Found, Need
from gateway.pb.envoy.config.core.v3.base_pb2 import TransportSocket
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.common_pb2 import (
    SubjectAltNameMatcher,
    TlsParameters,
)
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import SdsSecretConfig, Secret
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import (
    CommonTlsContext,
    DownstreamTlsContext,
    UpstreamTlsContext,
)
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.tls_spiffe_validator_config_pb2 import (
    SPIFFECertValidatorConfig,
)
from gateway.snapshot import SECRET
from pki.errors import InvalidSpiffeId
from pki.spiffe import SpiffeId, TrustDomain

ONE_TRUST_DOMAIN = "one-trust-domain"


def secret(given: Secret) -> Found:
    """A secret of a snapshot holds the anchors of the one trust domain that it is named after, and nothing
    else."""
    if given.WhichOneof("type") != "validation_context":
        yield Flaw("no-keys", "a snapshot holds anchors only")
        return
    validator = SPIFFECertValidatorConfig()
    context = given.validation_context
    if not context.custom_validator_config.typed_config.Unpack(validator):
        yield Flaw(ONE_TRUST_DOMAIN, "anchors without the SPIFFE validator count for every trust domain")
        return
    if context.HasField("trusted_ca"):
        yield Flaw(ONE_TRUST_DOMAIN, "trusted_ca beside the SPIFFE validator")
    named = [domain.name for domain in validator.trust_domains]
    wanted = _bundle_of(given.name)
    if wanted is None or named != [wanted.name]:
        yield Flaw(ONE_TRUST_DOMAIN, f"it holds {_listed(named)}")


def downstream(socket: TransportSocket) -> Found:
    """A context that accepts connections of a peer."""
    context = DownstreamTlsContext()
    if not socket.typed_config.Unpack(context):
        yield Flaw("tls", f"{socket.name or 'no transport socket'} where peers come in")
        return
    if not context.require_client_certificate.value:
        yield Flaw("client-certificate", "not required")
    if not (context.disable_stateless_session_resumption and context.disable_stateful_session_resumption):
        yield Flaw("no-resumption", "a session may outlive the anchor that it was verified with")
    yield from _common(context.common_tls_context)


def upstream(socket: TransportSocket) -> Found:
    """A context that dials a peer."""
    context = UpstreamTlsContext()
    if not socket.typed_config.Unpack(context):
        yield Flaw("tls", f"{socket.name or 'no transport socket'} on the way to another cluster")
        return
    if not context.HasField("max_session_keys") or context.max_session_keys.value:
        yield Flaw("no-resumption", "a session may outlive the anchor that it was verified with")
    if not context.sni:
        yield Flaw("sni", "without it the peer finds no chain")
    yield from _common(context.common_tls_context)


def trusted(socket: TransportSocket) -> TrustDomain | None:
    """The trust domain that a context that accepts connections refers to, None if that is not exactly one."""
    context = DownstreamTlsContext()
    if not socket.typed_config.Unpack(context):
        return None
    combined = context.common_tls_context.combined_validation_context
    return _bundle_of(combined.validation_context_sds_secret_config.name)


def _common(context: CommonTlsContext) -> Found:
    parameters = context.tls_params
    versions = {parameters.tls_minimum_protocol_version, parameters.tls_maximum_protocol_version}
    if versions != {TlsParameters.TLSv1_3}:
        yield Flaw("tls-1.3", "minimum and maximum must both be 1.3")
    if list(context.alpn_protocols) != ["h2"]:
        yield Flaw("alpn", f"{_listed(context.alpn_protocols)} instead of h2")
    inline = bool(context.tls_certificates) or context.HasField("tls_certificate_provider_instance")
    if inline or [one.name for one in context.tls_certificate_sds_secret_configs] != [names.IDENTITY]:
        yield Flaw("identity", f"the certificate must be the secret {names.IDENTITY} alone")
    if context.WhichOneof("validation_context_type") != "combined_validation_context":
        yield Flaw(ONE_TRUST_DOMAIN, "anchors must come as the secret of one trust domain")
        return
    yield from _validation(context.combined_validation_context)


def _validation(combined: CommonTlsContext.CombinedCertificateValidationContext) -> Found:
    reference: SdsSecretConfig = combined.validation_context_sds_secret_config
    domain = _bundle_of(reference.name)
    if domain is None:
        yield Flaw(ONE_TRUST_DOMAIN, f"{reference.name or 'nothing'} is not the bundle of a trust domain")
        return
    yield Need((SECRET, reference.name))
    fixed = combined.default_validation_context
    if {field.name for field, _ in fixed.ListFields()} - {"match_typed_subject_alt_names"}:
        yield Flaw(ONE_TRUST_DOMAIN, "the context says more than whose identity it wants")
    identities = list(fixed.match_typed_subject_alt_names)
    if len(identities) != 1 or not _exactly(identities[0], domain):
        yield Flaw("exact-identity", f"it must want one URI of {domain}, word for word")


def _exactly(matcher: SubjectAltNameMatcher, domain: TrustDomain) -> bool:
    text = matcher.matcher
    if matcher.san_type != SubjectAltNameMatcher.URI or text.WhichOneof("match_pattern") != "exact":
        return False
    try:
        return SpiffeId.parse(text.exact).trust_domain == domain and not text.ignore_case
    except InvalidSpiffeId:
        return False


def _bundle_of(name: str) -> TrustDomain | None:
    try:
        return names.parse_bundle(name)
    except InvalidSpiffeId:
        return None


def _listed(given: Iterable[str]) -> str:
    return ", ".join(given) or "nothing"
