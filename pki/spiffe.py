"""Identities as strict types: whoever holds a `SpiffeId` holds a valid one.

Obeys the SPIFFE-ID standard §2 and is narrower on purpose: a trust domain is made of DNS labels, because
trust domains become DNS SANs, SNI and file names here. Refuses user info, port, query, fragment,
percent-encoding, upper-case trust domains, empty or dot segments and a trailing slash, which some X.509
libraries let through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from pki.errors import InvalidName, InvalidSpiffeId
from pki.names import dns_label, is_dns_label

SCHEME = "spiffe://"
LONGEST_ID = 2048
"""Bytes of a whole SPIFFE ID (SPIFFE-ID §2.3)."""
MOST_KEPT = 4096
"""Identities that are not parsed again; those that are refused are not kept."""
LONGEST_TRUST_DOMAIN = 255
"""Bytes of a trust domain's name (SPIFFE-ID §2.3)."""

HUB = "hub"
"""The label of the hub's own trust domain; no cluster may carry it."""

_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """The name of one trust domain (`east.mesh.example`); an invalid one raises `InvalidSpiffeId`."""

    name: str

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidSpiffeId(self.name, "the trust domain is empty")
        if len(self.name) > LONGEST_TRUST_DOMAIN:
            raise InvalidSpiffeId(self.name, f"the trust domain is longer than {LONGEST_TRUST_DOMAIN} bytes")
        if not all(is_dns_label(label) for label in self.name.split(".")):
            raise InvalidSpiffeId(self.name, "a trust domain is lower-case DNS labels joined by '.'")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a bare name (`east.mesh.example`); raises `InvalidSpiffeId`."""
        return cls(text)

    @classmethod
    def parse_uri(cls, text: str) -> Self:
        """Parse the SPIFFE ID of the trust domain itself (`spiffe://east.mesh.example`, without a path)."""
        if not text.startswith(SCHEME):
            raise InvalidSpiffeId(text, f"it does not start with {SCHEME}")
        return cls(text.removeprefix(SCHEME))

    @classmethod
    def of_cluster(cls, name: str, base: str) -> Self:
        """The trust domain of cluster `name` under `base`; raises `InvalidName` if no cluster may have it."""
        if name == HUB:
            raise InvalidName(name, "this name is taken by the federation service itself")
        return cls(f"{dns_label(name)}.{base}")

    @classmethod
    def of_hub(cls, base: str) -> Self:
        """The trust domain of the federation service under `base`."""
        return cls(f"{HUB}.{base}")

    def cluster(self, base: str) -> str | None:
        """The cluster that has this trust domain, or None if it is not one of a cluster under `base`."""
        label, dot, rest = self.name.partition(".")
        return label if dot and rest == base and label != HUB else None

    @property
    def uri(self) -> str:
        """The SPIFFE ID of the trust domain itself, as carried by certificates of its authorities."""
        return SCHEME + self.name

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """One identity: a trust domain and a non-empty path. Building an invalid one raises `InvalidSpiffeId`."""

    trust_domain: TrustDomain
    path: str

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise InvalidSpiffeId(str(self), "a path is needed after the trust domain")
        for segment in self.path[1:].split("/"):
            if segment in ("", ".", ".."):
                raise InvalidSpiffeId(str(self), "the path has an empty or a dot segment, or ends with '/'")
            if _SEGMENT.fullmatch(segment) is None:
                raise InvalidSpiffeId(str(self), "a path segment is made of A-Z, a-z, 0-9, '.', '_' and '-'")
        if len(str(self)) > LONGEST_ID:
            raise InvalidSpiffeId(str(self), f"it is longer than {LONGEST_ID} bytes")

    @classmethod
    @lru_cache(maxsize=MOST_KEPT)
    def parse(cls, text: str) -> Self:
        """Parse `spiffe://<trust domain>/<path>`; raises `InvalidSpiffeId`."""
        if not text.startswith(SCHEME):
            raise InvalidSpiffeId(text, f"it does not start with {SCHEME}")
        authority, slash, path = text.removeprefix(SCHEME).partition("/")
        return cls(TrustDomain(authority), slash + path)

    @classmethod
    def agent(cls, trust_domain: TrustDomain) -> Self:
        """The agent of a cluster."""
        return cls(trust_domain, "/agent")

    @classmethod
    def gateway(cls, trust_domain: TrustDomain, gateway_class: str) -> Self:
        """The gateways of one class (`eastwest`, `ingress`) of a cluster; shared by its replicas."""
        return cls(trust_domain, f"/gateway/{dns_label(gateway_class)}")

    @classmethod
    def federation(cls, trust_domain: TrustDomain) -> Self:
        """The federation service."""
        return cls(trust_domain, "/federation")

    @classmethod
    def operator(cls, trust_domain: TrustDomain, name: str) -> Self:
        """A person or program that operates the federation service."""
        return cls(trust_domain, f"/operator/{dns_label(name)}")

    @classmethod
    def workload(cls, trust_domain: TrustDomain, namespace: str, service_account: str) -> Self:
        """A workload, named by its Kubernetes service account."""
        return cls(trust_domain, f"/ns/{namespace}/sa/{service_account}")

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain.name}{self.path}"
