"""Who trusts whom: secrets with anchors, and the TLS contexts that refer to them.

Every context trusts exactly one trust domain. Envoy's SPIFFE validator picks the anchors by the *first* URI
of a leaf while its SAN matchers accept *any*, so a context with two trust domains would take a leaf with two
URIs for somebody else. `gateway.check` refuses such a context.

TLS 1.3 only, on both sides: Envoy's client side would stop at 1.2. No session is resumed, because a removed
anchor must count at once. No key is ever in here: the gateway process adds `identity` itself.
"""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from gateway import names
from gateway.pb.envoy.config.core.v3.base_pb2 import DataSource, TransportSocket
from gateway.pb.envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.common_pb2 import (
    CertificateValidationContext,
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
from gateway.pb.envoy.type.matcher.v3.string_pb2 import StringMatcher
from gateway.proto import over_ads, packed, resource
from gateway.snapshot import SECRET, Resource
from pki.bundle import Bundle
from pki.spiffe import TrustDomain

SPIFFE_VALIDATOR = "envoy.tls.cert_validator.spiffe"


def bundle_secret(bundle: Bundle) -> Resource:
    """The anchors of one trust domain, as the validation context `names.bundle`."""
    name = names.bundle(bundle.trust_domain)
    anchors = SPIFFECertValidatorConfig.TrustDomain(
        name=bundle.trust_domain.name, trust_bundle=DataSource(inline_bytes=bundle.pem())
    )
    validator = TypedExtensionConfig(
        name=SPIFFE_VALIDATOR, typed_config=packed(SPIFFECertValidatorConfig(trust_domains=[anchors]))
    )
    context = CertificateValidationContext(custom_validator_config=validator)
    return resource(SECRET, name, Secret(name=name, validation_context=context))


def accept(peer: TrustDomain) -> TransportSocket:
    """The server side of a filter chain that lets in the gateways of one other cluster."""
    return TransportSocket(
        name="tls",
        typed_config=packed(
            DownstreamTlsContext(
                require_client_certificate=BoolValue(value=True),
                disable_stateless_session_resumption=True,
                disable_stateful_session_resumption=True,
                common_tls_context=_only(peer),
            )
        ),
    )


def dial(peer: TrustDomain, me: str) -> TransportSocket:
    """The client side of a connection from a gateway of `me` to the gateways of one other cluster."""
    return TransportSocket(
        name="tls",
        typed_config=packed(
            UpstreamTlsContext(
                sni=names.sni(me, peer),
                max_session_keys=UInt32Value(value=0),
                common_tls_context=_only(peer),
            )
        ),
    )


def _only(peer: TrustDomain) -> CommonTlsContext:
    exactly = SubjectAltNameMatcher(
        san_type=SubjectAltNameMatcher.URI, matcher=StringMatcher(exact=str(names.gateway_id(peer)))
    )
    return CommonTlsContext(
        tls_params=TlsParameters(
            tls_minimum_protocol_version=TlsParameters.TLSv1_3,
            tls_maximum_protocol_version=TlsParameters.TLSv1_3,
        ),
        alpn_protocols=["h2"],
        tls_certificate_sds_secret_configs=[
            SdsSecretConfig(name=names.IDENTITY, sds_config=over_ads()),
        ],
        combined_validation_context=CommonTlsContext.CombinedCertificateValidationContext(
            default_validation_context=CertificateValidationContext(match_typed_subject_alt_names=[exactly]),
            validation_context_sds_secret_config=SdsSecretConfig(
                name=names.bundle(peer), sds_config=over_ads()
            ),
        ),
    )
