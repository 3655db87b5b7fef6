"""Where anybody may bring a newer version of a member's trust bundle, and hears which one the hub goes by."""

from __future__ import annotations

import base64
import binascii

from federation.api.messages import HeldBundle, OfferedBundle
from federation.api.routes import Access, ApiProblem, Call, Route
from federation.offers import NotTaken, Offers, TooMany
from pki import bundle as bundles
from pki.errors import InvalidBundle

PATH = "/v1/bundles"
LONGEST_BODY = bundles.LONGEST_ENCODED // 3 * 4 + 1024


class OfferRoutes:
    """The route of one hub."""

    def __init__(self, offers: Offers) -> None:
        self._offers = offers

    def routes(self) -> tuple[Route, ...]:
        summary = "Bring a newer version of a member's trust bundle"
        return (
            Route("POST", PATH, summary, Access.ANYBODY, self.bring, HeldBundle, OfferedBundle,
                  longest=LONGEST_BODY),
        )  # fmt: skip

    async def bring(self, call: Call) -> HeldBundle:
        body: OfferedBundle = call.body
        try:
            encoded = base64.b64decode(body.bundle, validate=True)
            held = await self._offers.hear(encoded, call.address)
        except (ValueError, binascii.Error, InvalidBundle) as error:
            raise ApiProblem(400, "bundle", f"it cannot be read: {error}", "upgrade both sides") from error
        except NotTaken as error:
            raise ApiProblem(403, "bundle", error.problem, error.hint) from error
        except TooMany as error:
            raise ApiProblem(429, "too-many", error.problem, error.hint) from error
        return HeldBundle(bundle=base64.b64encode(self._offers.encoded(held)).decode())
