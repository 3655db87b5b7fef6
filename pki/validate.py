"""Two looks at certificates: at what a peer presents, and at what we have just signed.

`verify_peer` picks the bundle by the leaf's own trust domain, which some TLS libraries cannot do, and then
finds a path to one of its anchors. It uses the library's signature check and nothing else of its verifier,
which accepts two URI SANs. Presented certificates are only candidates: trust comes from the anchors of that
one bundle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtensionOID

from pki import constraints
from pki.bundle import Bundle
from pki.certificate import (
    alternative_names,
    authority_key_id,
    authority_trust_domain,
    check_authority,
    check_leaf,
    check_readable,
    check_time,
    der,
    extension,
    load_der,
    signed_by,
    signed_with,
    subject_key_id,
)
from pki.errors import Distrust, Untrusted
from pki.issue import Template
from pki.reread import check_leaf_bytes
from pki.spiffe import SpiffeId, TrustDomain

LONGEST_CHAIN = 4
"""Certificates that a peer may present: a leaf and at most three above it."""


def verify_peer(
    chain: Sequence[x509.Certificate], bundles: Mapping[TrustDomain, Bundle], now: datetime
) -> SpiffeId:
    """The proven identity of a peer that presented `chain`, leaf first; raises `Untrusted`."""
    if not chain:
        raise Untrusted(Distrust.EMPTY_CHAIN)
    if len(chain) > LONGEST_CHAIN:
        raise Untrusted(Distrust.LONG_CHAIN, f"{len(chain)} certificates, allowed are {LONGEST_CHAIN}")
    leaf, *presented = chain
    identity = check_leaf(leaf)
    check_time(leaf, now)
    bundle = bundles.get(identity.trust_domain)
    if bundle is None or bundle.trust_domain != identity.trust_domain:
        raise Untrusted(Distrust.NO_BUNDLE, str(identity.trust_domain))
    for each in (*presented, *bundle.anchors):
        check_readable(each)
    failure = _path((leaf,), bundle, tuple(presented), now)
    if failure is not None:
        raise failure
    return identity


def check_issued(
    certificate: x509.Certificate, template: Template, issuer: Sequence[x509.Certificate]
) -> x509.Certificate:
    """As `check_signed`, for a certificate that somebody has parsed already."""
    return check_signed(der(certificate), template, issuer)


def check_signed(data: bytes, template: Template, issuer: Sequence[x509.Certificate]) -> x509.Certificate:
    """The second look before release: it says what was planned, no more, and its issuer signed it.

    `issuer` holds every form of the issuing authority; for a self-signed certificate it is empty. Works on
    the bytes (DER), and does not share code with what built them. Returns the certificate as parsed; raises
    `Untrusted`.
    """
    parsed = load_der(data)
    if template.profile.authority:
        _check_content(parsed, template)
    else:
        check_leaf_bytes(data, template)
    signer = _signer(tuple(issuer) or (parsed,))
    if signer.subject != template.issuer:
        raise Untrusted(Distrust.NOT_AS_PLANNED, "its issuer has another name")
    if signer.key_id != template.authority_key_id:
        raise Untrusted(Distrust.NOT_AS_PLANNED, "its issuer has another key identifier")
    if parsed.not_valid_after_utc > signer.end:
        raise Untrusted(Distrust.NOT_AS_PLANNED, "it outlives its issuer")
    if parsed.not_valid_before_utc < signer.start:
        raise Untrusted(Distrust.NOT_AS_PLANNED, "it starts before its issuer")
    for constrained in signer.constrained if issuer else ():
        _check_names(constrained, (parsed,))
    if not signed_with(parsed, data, signer.key):
        raise Untrusted(Distrust.NOT_AS_PLANNED, "its signature is not its issuer's")
    return parsed


@dataclass(frozen=True, slots=True)
class _Signer:
    """What all forms of one authority say together; `constrained` are those with name constraints."""

    subject: x509.Name
    key_id: bytes
    key: CertificatePublicKeyTypes
    start: datetime
    end: datetime
    constrained: tuple[x509.Certificate, ...]


@lru_cache(maxsize=16)
def _signer(forms: tuple[x509.Certificate, ...]) -> _Signer:
    """Raises `Untrusted` if they are not forms of one authority."""
    subject, key_id, key = forms[0].subject, subject_key_id(forms[0]), forms[0].public_key()
    for form in forms[1:]:
        if (form.subject, subject_key_id(form), form.public_key()) != (subject, key_id, key):
            raise Untrusted(Distrust.NOT_AS_PLANNED, "its issuers are not one authority")
    return _Signer(
        subject,
        key_id,
        key,
        max(form.not_valid_before_utc for form in forms),
        min(form.not_valid_after_utc for form in forms),
        tuple(form for form in forms if extension(form, x509.NameConstraints) is not None),
    )


def _path(
    path: tuple[x509.Certificate, ...],
    bundle: Bundle,
    presented: tuple[x509.Certificate, ...],
    now: datetime,
) -> Untrusted | None:
    """None if `path`, leaf first, can be led on to an anchor, else the best reason why it cannot.

    A presented self-signed certificate leads nowhere: it is an anchor or a stranger. Bounded: each step uses up one of
    at most three certificates.
    """
    failure: Untrusted | None = None
    for anchor in bundle.anchors:
        if _names_fit(anchor, path[-1]):
            try:
                _check_step(anchor, path, bundle.trust_domain, now)
            except Untrusted as error:
                failure = error
            else:
                return None
    for index, candidate in enumerate(presented):
        if candidate.subject != candidate.issuer and _names_fit(candidate, path[-1]):
            try:
                _check_step(candidate, path, bundle.trust_domain, now)
            except Untrusted as error:
                failure = failure or error
                continue
            rest = presented[:index] + presented[index + 1 :]
            found = _path((*path, candidate), bundle, rest, now)
            if found is None:
                return None
            failure = failure or found
    return failure or Untrusted(Distrust.NO_PATH, str(bundle.trust_domain))


def _names_fit(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """By subject and key identifier: cheap, and saves signature checks against strangers."""
    try:
        return issuer.subject == certificate.issuer and subject_key_id(issuer) == authority_key_id(
            certificate
        )
    except Untrusted:
        return False


def _check_step(
    issuer: x509.Certificate, path: Sequence[x509.Certificate], trust_domain: TrustDomain, now: datetime
) -> None:
    """Whether `issuer` may stand above `path`, leaf first; raises `Untrusted`."""
    check_authority(issuer)
    check_time(issuer, now)
    below = len(path) - 1
    basic = extension(issuer, x509.BasicConstraints)
    if basic is None or (basic.value.path_length is not None and basic.value.path_length < below):
        raise Untrusted(Distrust.PATH_LENGTH, f"{below} authorities below {issuer.subject.rfc4514_string()}")
    if authority_trust_domain(issuer) not in (None, trust_domain):
        raise Untrusted(Distrust.NO_PATH, "an issuer speaks for another trust domain")
    _check_names(issuer, path)
    if not signed_by(path[-1], issuer):
        raise Untrusted(Distrust.NO_PATH, "a signature does not verify")


def _check_names(issuer: x509.Certificate, path: Iterable[x509.Certificate]) -> None:
    """Every name of every certificate below an issuer is one that it may certify; raises `Untrusted`."""
    found = extension(issuer, x509.NameConstraints)
    if found is None:
        return
    for certificate in path:
        if (reason := constraints.violation(found.value, alternative_names(certificate))) is not None:
            raise Untrusted(Distrust.NAME_CONSTRAINTS, reason)


def _check_content(found: x509.Certificate, plan: Template) -> None:
    """Every field of an authority as planned, and the form that any peer would demand."""
    check_authority(found)
    basic = extension(found, x509.BasicConstraints)
    same = {
        "the serial number": found.serial_number == plan.serial and 64 <= plan.serial.bit_length() <= 159,
        "the subject": found.subject == plan.subject,
        "the issuer": found.issuer == plan.issuer,
        "the public key": found.public_key() == plan.public_key,
        "the start": found.not_valid_before_utc == plan.not_before,
        "the end": found.not_valid_after_utc == plan.not_after,
        "the subject key identifier": subject_key_id(found) == plan.subject_key_id,
        "the authority key identifier": authority_key_id(found) == plan.authority_key_id,
        "the alternative names": _alternative_names(found) == _planned_names(plan),
        "the name constraints": _constraints(found) == _planned_constraints(plan),
        "the path length": basic is not None and basic.value.path_length == plan.profile.path_length,
        "the set of extensions": {each.oid for each in found.extensions} == _planned_extensions(plan),
    }
    wrong = [what for what, holds in same.items() if not holds]
    if wrong:
        raise Untrusted(Distrust.NOT_AS_PLANNED, ", ".join(wrong))


def _alternative_names(certificate: x509.Certificate) -> list[tuple[type, object]]:
    return [(type(name), name.value) for name in alternative_names(certificate)]


def _constraints(certificate: x509.Certificate) -> tuple[object, bool] | None:
    found = extension(certificate, x509.NameConstraints)
    return None if found is None else (found.value, found.critical)


def _planned_constraints(plan: Template) -> tuple[object, bool] | None:
    if not plan.profile.constrained or plan.uri is None:
        return None
    return constraints.permitting(TrustDomain.parse_uri(plan.uri)), True


def _planned_names(plan: Template) -> list[tuple[type, object]]:
    uri: list[tuple[type, object]] = [] if plan.uri is None else [(x509.UniformResourceIdentifier, plan.uri)]
    return uri + [(x509.DNSName, name) for name in plan.dns_names]


def _planned_extensions(plan: Template) -> set[x509.ObjectIdentifier]:
    always = {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
    if plan.uri is not None or plan.dns_names:
        always.add(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    if plan.profile.constrained:
        always.add(ExtensionOID.NAME_CONSTRAINTS)
    return always
