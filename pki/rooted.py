"""The root's word for an authority: a certificate by the root over the same key, beside the one that signs itself.

Members believe the self-signed form, as an anchor; the root-signed one is what makes a first version of a bundle
believable, and what others trust who go by the root itself. Nothing here says which root is to be believed. Pure.
"""

from __future__ import annotations

from cryptography import x509

from pki.algorithms import spki
from pki.certificate import (
    authority_key_id,
    authority_trust_domain,
    check_authority,
    public_key,
    signed_by,
    subject_key_id,
)
from pki.errors import Untrusted


def is_rooted(anchor: x509.Certificate, form: x509.Certificate, root: x509.Certificate) -> bool:
    """Whether `form` is the root's word for `anchor`: same key, names and trust domain, no shorter life."""
    try:
        check_authority(root)
        check_authority(form)
        return (
            spki(public_key(form)) == spki(public_key(anchor))
            and form.subject == anchor.subject
            and subject_key_id(form) == subject_key_id(anchor)
            and authority_trust_domain(form) == authority_trust_domain(anchor) is not None
            and form.not_valid_after_utc >= anchor.not_valid_after_utc
            and authority_key_id(form) == subject_key_id(root)
            and signed_by(form, root)
        )
    except Untrusted:
        return False
