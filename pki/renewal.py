"""When a leaf is renewed: at 40 to 50 % of its life, so that half of it is left if the issuer is down.

The point is drawn once for each certificate, from its serial number. Drawing it anew at each poll would move
all renewals to the early edge and make a herd of them.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from cryptography import x509

from pki.profiles import BACKDATE

EARLIEST = 0.40
LATEST = 0.50


def fraction(serial: int) -> float:
    """The share of its life, within [0.40, 0.50), after which the certificate with this serial is renewed."""
    digest = hashlib.sha256(b"renewal" + serial.to_bytes(20, "big")).digest()
    drawn = int.from_bytes(digest[:6], "big") / 2**48
    return EARLIEST + (LATEST - EARLIEST) * drawn


def renew_at(certificate: x509.Certificate) -> datetime:
    """The instant at which a certificate of ours is to be renewed, counted from when it was made."""
    made = min(certificate.not_valid_before_utc + BACKDATE, certificate.not_valid_after_utc)
    return made + (certificate.not_valid_after_utc - made) * fraction(certificate.serial_number)
