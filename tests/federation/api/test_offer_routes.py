"""What is answered to who brings a trust bundle: what the hub goes by, or why nothing is taken."""

from __future__ import annotations

import base64

import pytest

from federation.api.messages import HeldBundle, OfferedBundle
from federation.api.offer_routes import LONGEST_BODY, OfferRoutes
from federation.api.routes import Access, ApiProblem, Call, Principal
from federation.offers import OF_ONE
from pki import bundle as bundles
from pki.bundle import Bundle, content
from tests.federation.test_offers import FIRST, HERE, PUBLISHED, ROTATED, THIRD, World, world
from tests.pki.world import following, make_world

STRANGER = Principal("anonymous", Access.ANYBODY)


def encoded(bundle: Bundle) -> str:
    return base64.b64encode(bundles.encode(bundle)).decode()


async def brought(restored: World, body: str) -> Bundle:
    routes = OfferRoutes(restored.offers)
    [route] = routes.routes()
    assert (route.access, route.longest) == (Access.ANYBODY, LONGEST_BODY)
    answer: HeldBundle = await route.handler(Call(STRANGER, body=OfferedBundle(bundle=body), address=HERE))
    return bundles.decode(base64.b64decode(answer.bundle))


async def test_who_brings_a_bundle_hears_what_the_hub_goes_by() -> None:
    restored = await world(FIRST.bundle)
    assert content(await brought(restored, encoded(ROTATED))) == content(ROTATED)
    assert content(await brought(restored, encoded(PUBLISHED))) == content(ROTATED)


async def test_refusals_say_why() -> None:
    restored = await world(FIRST.bundle)
    for body in ("", "!", "e30=", encoded(FIRST.bundle)[:-8]):
        with pytest.raises(ApiProblem, match="cannot be read") as caught:
            await brought(restored, body)
        assert caught.value.status == 400
    with pytest.raises(ApiProblem, match="no trust domain of a member") as caught:
        await brought(restored, encoded(make_world().east.bundle))
    assert caught.value.status == 403
    made_up = encoded(following(PUBLISHED, THIRD, THIRD))
    for _ in range(int(OF_ONE.burst)):
        assert content(await brought(restored, made_up)) == content(FIRST.bundle)
    with pytest.raises(ApiProblem, match="too many") as caught:
        await brought(restored, made_up)
    assert caught.value.status == 429
    assert "try again in" in caught.value.hint
