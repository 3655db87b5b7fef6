"""The root's word for a member, as its row in the registry keeps it: what was signed, and what a ceremony is to sign.

A row has two places. `rooted`, `anchor` and `request` are of the authority that everybody goes by, the one with the
row's `key`; those that begin with `next_` are of the one that is to follow. Asking for the second never touches what is
known of the first: a rotation may be turned back. What followed takes the first place when the member's bundle lets go
of the anchor before, and is forgotten when the bundle lets go of it. Pure; whose bundle counts is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from msgspec.structs import replace

from federation.member_row import MemberRow
from pki import bundle as bundles
from pki.algorithms import spki_hash
from pki.bundle import Bundle
from pki.certificate import authority_key_id, der, load_der, public_key
from pki.profiles import epoch_of
from pki.rooted import is_rooted


def form_of(row: MemberRow, key: str) -> bytes:
    """What the root signed for the authority with this key (SPKI hash), empty if nothing is known."""
    if key == row.key:
        return row.rooted
    return row.next_rooted if _is_next(row, key) else b""


def asked(row: MemberRow, key: str, anchor: bytes, csr: bytes, rooted: bytes) -> MemberRow:
    """The root was asked to sign `csr`, for the authority with this key: `rooted` is its word, empty if a ceremony has
    yet to bring that. An agent asks for its newest authority: if that is the one that everybody goes by, none follows.
    """
    waits = b"" if rooted else csr
    if key == row.key:
        return _alone(replace(row, rooted=rooted or row.rooted, anchor=anchor, request=waits))
    held = form_of(row, key)
    return replace(row, next_rooted=rooted or held, next_anchor=anchor, next_request=waits)


def signed(row: MemberRow, rooted: x509.Certificate, roots: Sequence[x509.Certificate]) -> MemberRow | None:
    """A ceremony brought `rooted`; None if nobody waits for that here."""
    if row.request and _vouches(rooted, row.anchor, roots):
        return replace(row, rooted=der(rooted), request=b"")
    if row.next_request and _vouches(rooted, row.next_anchor, roots):
        return replace(row, next_rooted=der(rooted), next_request=b"")
    return None


def withdrawn(row: MemberRow) -> MemberRow:
    """The member asks no more: it has what it asked for, or wants it no longer."""
    return replace(row, request=b"", next_request=b"")


def published(
    row: MemberRow, before: Bundle | None, offered: Bundle, roots: Sequence[x509.Certificate]
) -> MemberRow:
    """The member goes by `offered` now, and went by `before`. Forms that come with it count if one of `roots` signed
    them: a ceremony may have been held at the member's own agent.
    """
    anchors = {_key(anchor): anchor for anchor in offered.anchors}
    if row.key not in anchors:
        row = _followed(row, offered.anchors[-1])
    elif before is not None and any(
        _is_next(row, key) for key in set(map(_key, before.anchors)) - anchors.keys()
    ):
        row = _alone(row)
    for form in offered.proof.rooted:
        anchor = anchors.get(_key(form))
        if anchor is not None and any(is_rooted(anchor, form, root) for root in roots):
            row = _told(row, anchor, form)
    return row


def in_place(row: MemberRow, roots: Sequence[x509.Certificate]) -> MemberRow:
    """A row of a version that had one place for both, in which what was to follow took that of what counts."""
    if not row.anchor or row.bundle is None or _key(load_der(row.anchor)) == row.key:
        return row
    held = bundles.decode(row.bundle)
    anchors = [anchor for anchor in held.anchors if _key(anchor) == row.key]
    if not anchors:
        return row
    moved = replace(
        row,
        rooted=b"",
        anchor=der(anchors[0]),
        request=b"",
        next_rooted=row.rooted,
        next_anchor=row.anchor,
        next_request=row.request,
    )
    return published(moved, None, held, roots)


def _followed(row: MemberRow, anchor: x509.Certificate) -> MemberRow:
    """The authority of `anchor` is the one that everybody goes by from now on."""
    key, first = _key(anchor), _alone(row)
    first = replace(first, key=key, epoch=epoch_of(anchor.subject) or row.epoch, anchor=der(anchor))
    if _is_next(row, key):
        return replace(first, rooted=row.next_rooted, request=row.next_request)
    return replace(first, rooted=b"", request=b"")


def _told(row: MemberRow, anchor: x509.Certificate, form: x509.Certificate) -> MemberRow:
    """The member shows the root's word for one of its authorities: kept if none is known, or one of another root that
    is older.
    """
    key = _key(anchor)
    held = form_of(row, key)
    if held:
        known = load_der(held)
        later = form.not_valid_before_utc > known.not_valid_before_utc
        if authority_key_id(known) == authority_key_id(form) or not later:
            return row
    if key == row.key:
        return replace(row, rooted=der(form), request=b"")
    return replace(row, next_rooted=der(form), next_anchor=der(anchor), next_request=b"")


def _alone(row: MemberRow) -> MemberRow:
    return replace(row, next_rooted=b"", next_anchor=b"", next_request=b"")


def _is_next(row: MemberRow, key: str) -> bool:
    return bool(row.next_anchor) and _key(load_der(row.next_anchor)) == key


def _key(certificate: x509.Certificate) -> str:
    return spki_hash(public_key(certificate))


def _vouches(rooted: x509.Certificate, anchor: bytes, roots: Sequence[x509.Certificate]) -> bool:
    return any(is_rooted(load_der(anchor), rooted, root) for root in roots)
