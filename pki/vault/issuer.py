"""What an issuer in Vault is asked for, and what its answer must be. Pure.

Vault's `sign-intermediate` copies the subject and every extension of a request when it is told to use them, and it has
no parameter for the kind of subject that our authorities have. So it is told to, a request may ask for nothing but what
we want signed, and the answer is compared with our own rule as if Vault could not be trusted at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from cryptography import x509

from pki.certificate import UNREADABLE, load_pem
from pki.csr import parse, request_extensions
from pki.errors import Distrust, Refused, Untrusted
from pki.issue import Template
from pki.skew import MOST_SKEW
from pki.validate import check_issued
from pki.vault.capabilities import Needs


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer, by its id, of the PKI engine that is mounted at `mount`."""

    mount: str
    id: str

    @property
    def path(self) -> str:
        return f"{self.mount}/issuer/{self.id}"

    @property
    def signing(self) -> str:
        return f"{self.path}/sign-intermediate"

    @property
    def needs(self) -> Needs:
        """What a policy must allow, and what it had better not."""
        anything, another = "signs whatever it is given", "makes another issuer here"
        return Needs(
            {
                self.path: "read",
                self.signing: "update",
                "auth/token/lookup-self": "read",
                "auth/token/renew-self": "update",
                "auth/token/revoke-self": "update",
            },
            {
                f"{self.path}/sign-verbatim": anything,
                f"{self.mount}/sign-verbatim": anything,
                f"{self.path}/sign-self-issued": anything,
                f"{self.mount}/root/generate/internal": another,
                f"{self.mount}/issuers/generate/root/exported": f"{another}, and hands out its key",
                f"{self.mount}/config/ca": another,
                f"{self.mount}/config/urls": "adds extensions to what is signed",
                f"{self.mount}/root": "removes every issuer",
                f"{self.mount}/roles/any": "changes what others may get",
                "sys/policies/acl/any": "gives itself more",
                f"sys/mounts/{self.mount}": "removes the root with its key",
            },
        )


def check_request(
    request: bytes, names: x509.SubjectAlternativeName | None, subject: x509.Name | None = None
) -> None:
    """Raise `Refused` for a CSR that asks for anything but these names, or for another subject than this."""
    if request_extensions(request) != ([] if names is None else [names]):
        shown = ", ".join(_shown(name) for name in names or ()) or "no alternative name"
        raise Refused("csr", f"it has to ask for {shown}, and for nothing besides")
    if subject is not None and parse(request).subject != subject:
        raise Refused("csr", f"its subject has to be {subject.rfc4514_string()}")


def _shown(name: x509.GeneralName) -> str:
    kind = "URI" if isinstance(name, x509.UniformResourceIdentifier) else "DNS"
    return f"the {kind} SAN {name.value}"


def check_answer(
    answer: Mapping[str, Any], template: Template, root: x509.Certificate, now: datetime
) -> x509.Certificate:
    """The certificate in an answer of Vault, if it says what `template` says, and nothing besides.

    Vault chooses the serial number, and counts the beginning on its own clock: it must have begun by now, and not more
    than 5 minutes before what was planned. Pure; raises `Untrusted`.
    """
    data = answer.get("data")
    text = data.get("certificate") if isinstance(data, Mapping) else None
    if not isinstance(text, str):
        raise Untrusted(Distrust.NOT_AS_PLANNED, "there is no certificate in Vault's answer")
    (certificate,) = load_pem(text.encode(), most=1)
    try:
        begins, number = certificate.not_valid_before_utc, certificate.serial_number
    except UNREADABLE as error:
        raise Untrusted(Distrust.MALFORMED, "a part of what Vault signed cannot be parsed") from error
    if not template.not_before - MOST_SKEW <= begins <= now:
        raise Untrusted(
            Distrust.NOT_AS_PLANNED,
            f"Vault lets it begin at {begins.isoformat()}, and our clock says {now.isoformat(timespec='seconds')};"
            " correct the clocks (NTP)",
        )
    return check_issued(certificate, replace(template, serial=number, not_before=begins), (root,))


def wanted(request: bytes, template: Template, now: datetime) -> dict[str, Any]:
    """All that Vault is told. Subject and SAN are those of the request: it has no parameter for our kind of subject."""
    backdated = now - template.not_before
    return {
        "csr": request.decode("ascii"),
        "use_csr_values": True,
        "format": "pem",
        "max_path_length": str(template.profile.path_length),
        "not_before_duration": f"{max(int(backdated.total_seconds()), 0)}s",
        "not_after": template.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
