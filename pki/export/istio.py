"""Istio: the Secret `cacerts`, from which istiod takes a CA that somebody else made ("plugged-in CA").

Exactly the keys that istiod reads (istio.io, Plug in CA Certificates; `security/pkg/pki/ca`): `ca-cert.pem`,
`ca-key.pem`, `cert-chain.pem`, `root-cert.pem`, and `ca-crl.pem` when there is a CRL. Never `istio-generated`, the mark
of a CA that istiod made itself and may replace.
"""

from __future__ import annotations

from pki.certificate import pem
from pki.export.material import Export, File, Manifest, Material, secret

NAMESPACE = "istio-system"


def export(material: Material, namespace: str = NAMESPACE) -> Export:
    """Two roots in `root-cert.pem`, as in a rotation, need `ISTIO_MULTIROOT_MESH=true` in istiod."""
    data = {
        "ca-cert.pem": pem([material.certificate]),
        "ca-key.pem": material.key_pem(),
        "cert-chain.pem": material.chain_pem(),
        "root-cert.pem": material.roots_pem(),
    }
    if material.crl:
        data["ca-crl.pem"] = material.crl
    listed = "; export again before the list in ca-crl.pem ends" if material.crl else ""
    several = " (two roots: istiod needs ISTIO_MULTIROOT_MESH=true first)" if len(material.roots) > 1 else ""
    return Export(
        files=tuple(File(name, value) for name, value in data.items()),
        manifests=(Manifest("cacerts.yaml", (secret("cacerts", namespace, "Opaque", data),)),),
        use=f"kubectl apply -f cacerts.yaml, then restart istiod in {namespace}{several}{listed}",
    )
