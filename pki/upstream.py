"""A root, wherever its key is: what a hub asks of it.

`pki.root.RootAuthority` has the key, `pki.vault.root.VaultRoot` has one signed with in Vault, `pki.offline.OfflineRoot`
has its certificate alone. None of them signs anything but the authorities of its federation.
"""

from __future__ import annotations

from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pki.spiffe import TrustDomain


class Root(Protocol):
    """The root of all trust domains under `base`."""

    @property
    def base(self) -> str: ...

    @property
    def certificate(self) -> x509.Certificate: ...

    async def ready(self) -> None:
        """Return if `sign_cluster_ca` can be asked now; raises what the place of the key raises, as `VaultError`."""
        ...

    async def sign_cluster_ca(
        self, request: bytes, trust_domain: TrustDomain, *, who: str, why: str
    ) -> x509.Certificate | None:
        """The root-signed form for the authority of `trust_domain`, whose request is a CSR of at most 16 KiB.

        None if a ceremony has to sign it, later. Raises `Refused`, and whatever the place of the key raises.
        """
        ...

    async def check_cluster_ca(self, request: bytes, trust_domain: TrustDomain) -> ec.EllipticCurvePublicKey:
        """The key of `request`, if `sign_cluster_ca` would sign it now. Raises `Refused` where that would."""
        ...

    async def close(self) -> None:
        """Finish what is being signed, and let go of everything."""
        ...
