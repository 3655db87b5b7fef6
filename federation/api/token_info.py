"""A token as it is listed: everything but what could be used."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from federation.api.messages import TokenInfo
from pki.token import TokenRecord


def token_info(record: TokenRecord, now: datetime) -> TokenInfo:
    state: Literal["unused", "used", "expired"] = "expired" if now >= record.not_after else "unused"
    if record.used_by is not None:
        state = "used"
    return TokenInfo(
        id=record.id,
        kind=record.kind,
        subject=record.subject,
        state=state,
        expires_at=record.not_after,
        may_export=record.may_export,
        ranges=record.ranges,
    )
