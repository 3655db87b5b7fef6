"""Linkerd: the issuer of its identity controller, and the trust anchors of its proxies.

The Secret `linkerd-identity-issuer` has the type kubernetes.io/tls with `tls.crt`, `tls.key` and `ca.crt`, as the
external scheme wants it (`identity.issuer.scheme=kubernetes.io/tls`; `pkg/issuercerts`). Anchors are `ca-bundle.crt` in
the ConfigMap `linkerd-identity-trust-roots`. Linkerd wants ECDSA P-256 throughout.
"""

from __future__ import annotations

from pki.export.material import Export, File, Manifest, Material, config_map, secret

NAMESPACE = "linkerd"
ISSUER = "linkerd-identity-issuer"
ANCHORS = "linkerd-identity-trust-roots"


def export(material: Material, namespace: str = NAMESPACE) -> Export:
    """Proxies read their anchors at their start: after a change of `ca-bundle.crt` they are restarted."""
    roots = material.roots_pem()
    data = {"tls.crt": material.chain_pem(), "tls.key": material.key_pem(), "ca.crt": roots}
    return Export(
        files=(
            File("issuer.crt", data["tls.crt"]),
            File("issuer.key", data["tls.key"]),
            File("ca.crt", roots),
        ),
        manifests=(
            Manifest(f"{ISSUER}.yaml", (secret(ISSUER, namespace, "kubernetes.io/tls", data),)),
            Manifest(f"{ANCHORS}.yaml", (config_map(ANCHORS, namespace, {"ca-bundle.crt": roots}),)),
        ),
        use=f"kubectl apply -f {ANCHORS}.yaml -f {ISSUER}.yaml, and install with"
        " --set identity.issuer.scheme=kubernetes.io/tls --set identity.externalCA=true;"
        " or linkerd install --identity-trust-anchors-file ca.crt --identity-issuer-certificate-file issuer.crt"
        " --identity-issuer-key-file issuer.key",
    )
