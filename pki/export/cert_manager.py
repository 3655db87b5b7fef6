"""cert-manager: a CA Issuer and the Secret that it signs with (cert-manager.io, CA issuer).

The Secret holds `tls.crt` (the certificate, then what leads to a root), `tls.key` and `ca.crt`. cert-manager copies one
root into what it issues, and a copy is no trust store: the roots, both in a rotation, have a ConfigMap of their own.
"""

from __future__ import annotations

from pki.export.material import LABELS, Export, File, Manifest, Material, config_map, secret

NAMESPACE = "default"
ISSUER = "federation"
SECRET = "federation-issuer"
ROOTS = "federation-roots"


def export(material: Material, namespace: str = NAMESPACE) -> Export:
    """An Issuer for one namespace."""
    roots = material.roots_pem()
    data = {"tls.crt": material.chain_pem(), "tls.key": material.key_pem(), "ca.crt": roots}
    issuer = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Issuer",
        "metadata": {"name": ISSUER, "namespace": namespace, "labels": LABELS},
        "spec": {"ca": {"secretName": SECRET}},
    }
    objects = (
        secret(SECRET, namespace, "kubernetes.io/tls", data),
        config_map(ROOTS, namespace, {"ca.crt": roots}),
        issuer,
    )
    return Export(
        files=tuple(File(name, value) for name, value in data.items()),
        manifests=(Manifest("issuer.yaml", objects),),
        use=f"kubectl apply -f issuer.yaml, then name the Issuer {ISSUER} in Certificates of {namespace}",
    )
