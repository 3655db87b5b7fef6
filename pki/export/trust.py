"""What needs no key: a trust domain's anchors for SPIFFE implementations, and as PEM for everybody else.

Anchors and roots are two things, and lie in two files: an anchor speaks for one trust domain, a root for every
authority below it. Who only has to believe the workloads of one cluster takes the anchors.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509

from pki.certificate import pem
from pki.export.material import Export, File
from pki.spiffe_bundle import SpiffeBundle, write


def spiffe(bundle: SpiffeBundle) -> Export:
    """The JWK set that a bundle endpoint serves, for `federates.first_bundle`, SPIRE and others."""
    name = f"{bundle.trust_domain}.json"
    return Export(
        files=(File(name, write(bundle) + b"\n"),),
        manifests=(),
        use=f"spire-server bundle set -format spiffe -id {bundle.trust_domain.uri} -path {name}",
    )


def certificates(
    bundle: SpiffeBundle,
    rooted: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    crl: bytes = b"",
) -> Export:
    """`rooted` are the root-signed forms of the anchors, presented to whoever trusts a root; `crl` is PEM, or empty."""
    files = [File("anchors.pem", bundle.pem()), File("roots.pem", pem(roots))]
    if rooted:
        files.append(File("root-signed.pem", pem(rooted)))
    if crl:
        files.append(File("crl.pem", crl))
    return Export(
        files=tuple(files),
        manifests=(),
        use=f"anchors.pem for whoever verifies {bundle.trust_domain} alone; roots.pem believes every authority below",
    )
