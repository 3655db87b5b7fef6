"""How authorities and what they trust look to whoever asks: the structs, and the one way from certificates to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from federation.api.messages import In, Instant, Out
from pki.bundle import Bundle
from pki.certificate import authority_trust_domain, pem, readable, subject_key_id
from pki.chain import Head
from pki.errors import Untrusted
from pki.profiles import epoch_of


class FormInfo(Out, frozen=True, kw_only=True):
    """One certificate of an authority; `pem` holds it."""

    form: Literal["root", "self-signed", "root-signed"]
    issuer: str
    serial: str
    sha256: str
    not_before: Instant
    not_after: Instant
    pem: str


class AuthorityInfo(Out, frozen=True, kw_only=True):
    """One key with its certificates. `epoch` is None where its subject carries none; names are empty for a root."""

    subject: str
    key_id: str
    trust_domain: str
    epoch: int | None
    forms: tuple[FormInfo, ...]


class OwnAuthority(Out, frozen=True, kw_only=True):
    """An authority as the process that has its key knows it. `journal` is the hash at the head of its journal."""

    authority: AuthorityInfo
    key_store: str
    issued: int
    journal_entries: int
    journal: str


class TrustInfo(Out, frozen=True, kw_only=True):
    """The bundle of `name` that is held: anchors by key id, and as PEM. A generation begins when a cluster that lost
    its key comes back with another one.
    """

    name: str
    trust_domain: str
    generation: int
    sequence: int
    anchors: tuple[str, ...]
    pem: str


class ForeignInfo(Out, frozen=True, kw_only=True):
    """The bundle of a trust domain outside. `problem` is why the last look failed, empty if it did not."""

    trust_domain: str
    url: str
    profile: str
    sequence: int | None
    anchors: tuple[str, ...]
    fetched_at: Instant | None
    stale: bool
    problem: str
    pem: str


class OwnAuthorities(Out, frozen=True, kw_only=True):
    """What this process holds. `presented` is the chain that it shows itself, PEM, issued like that of a gateway."""

    kind: Literal["hub", "agent"]
    name: str
    roots: tuple[AuthorityInfo, ...]
    authorities: tuple[OwnAuthority, ...]
    bundle: TrustInfo
    presented: str
    trusts: tuple[TrustInfo, ...] = ()
    foreign: tuple[ForeignInfo, ...] = ()


class HeldInfo(Out, frozen=True, kw_only=True):
    """The version of a bundle that every gateway of a cluster has on disk and its Envoy goes by."""

    trust_domain: str
    generation: int
    sequence: int


class ClusterAuthorities(Out, frozen=True, kw_only=True):
    """A cluster's authority as the hub knows it, and what its agent says of it; `problem` is why it says nothing.
    `held` is what it last told of its gateways, `banned` who of it is banned, and why.
    """

    name: str
    state: str
    authorities: tuple[AuthorityInfo, ...]
    bundle: TrustInfo
    own: OwnAuthorities | None
    problem: str
    held: tuple[HeldInfo, ...] = ()
    banned: str = ""


class Tree(Out, frozen=True, kw_only=True):
    """The whole hierarchy: roots, the hub's authority, each cluster's."""

    base: str
    now: Instant
    root: str
    hub: OwnAuthorities
    clusters: tuple[ClusterAuthorities, ...]


class NewIntermediate(In, frozen=True, kw_only=True):
    """An authority for another system; None stands for the usual. `lifetime` is in seconds."""

    consumer: Literal["istio", "linkerd", "consul", "cert-manager"]
    csr: str
    trust_domain: str | None = None
    lifetime: float | None = None


class IssuedIntermediate(Out, frozen=True, kw_only=True):
    """`certificate`, `bridges` (presented above it, empty if there are none) and `roots` are PEM."""

    consumer: str
    cluster: str
    serial: str
    trust_domain: str
    not_after: Instant
    certificate: str
    bridges: str
    roots: str


def authority_info(forms: Sequence[x509.Certificate], trust_domain: str = "") -> AuthorityInfo:
    """One authority from its certificates, the self-signed one first if it has one."""
    first = forms[0]
    return AuthorityInfo(
        subject=readable(first.subject),
        key_id=subject_key_id(first).hex(),
        trust_domain=trust_domain or _trust_domain(first),
        epoch=epoch_of(first.subject),
        forms=tuple(form_info(form) for form in forms),
    )


def form_info(certificate: x509.Certificate) -> FormInfo:
    form: Literal["root", "self-signed", "root-signed"] = "root-signed"
    if certificate.subject == certificate.issuer:
        form = "self-signed" if _trust_domain(certificate) else "root"
    return FormInfo(
        form=form,
        issuer=readable(certificate.issuer),
        serial=f"{certificate.serial_number:x}",
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        pem=pem([certificate]).decode(),
    )


def own_authority(forms: Sequence[x509.Certificate], key_store: str, issued: int, head: Head) -> OwnAuthority:
    return OwnAuthority(
        authority=authority_info(forms),
        key_store=key_store,
        issued=issued,
        journal_entries=head.lines,
        journal=head.hash,
    )


def trust_info(name: str, bundle: Bundle) -> TrustInfo:
    return TrustInfo(
        name=name,
        trust_domain=bundle.trust_domain.name,
        generation=bundle.generation,
        sequence=bundle.sequence,
        anchors=key_ids(bundle.anchors),
        pem=bundle.pem().decode(),
    )


def trusts_of(bundles: Mapping[str, Bundle]) -> tuple[TrustInfo, ...]:
    """Whose bundle is held, by name."""
    return tuple(trust_info(name, bundle) for name, bundle in sorted(bundles.items()))


def key_ids(anchors: Iterable[x509.Certificate]) -> tuple[str, ...]:
    """The key ids of anchors; those of foreign ones that have none are empty."""
    return tuple(_key_id(anchor) for anchor in anchors)


def _key_id(anchor: x509.Certificate) -> str:
    try:
        return subject_key_id(anchor).hex()
    except Untrusted:
        return ""


def _trust_domain(certificate: x509.Certificate) -> str:
    try:
        found = authority_trust_domain(certificate)
    except Untrusted:
        return ""
    return "" if found is None else found.name
