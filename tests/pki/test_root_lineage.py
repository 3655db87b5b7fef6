"""The roots of a federation follow one another, there and back, wherever it was interrupted; and who believes what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pki import csr
from pki.bundle import (
    UNNUMBERED,
    Accepted,
    Bundle,
    Proof,
    Rejected,
    Rejection,
    accept,
    accept_from,
    accept_roots,
    decode,
    encode,
)
from pki.certificate import authority_key_id, subject_key_id
from pki.errors import InvalidBundle
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.profiles import authority_subject
from pki.root_lineage import RootLineage
from pki.rotation import Phase, Side, advance
from pki.spiffe import TrustDomain
from tests.pki.rotations import (
    BACK,
    EARLY,
    NOBODY,
    THERE,
    Step,
    When,
    begun,
    die_at_every_write,
    go_on,
    phase,
    turn_back,
)
from tests.pki.world import BASE, StoppedClock, new_key

EAST = TrustDomain.of_cluster("east", BASE)
KEY = new_key()
REQUEST = csr.request(KEY, authority_subject(EAST.name, 1, KEY.public_key()), EAST.uri)
Opener = Callable[[], Awaitable[RootLineage]]


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def keys(tmp_path: Path) -> FileKeyStore:
    return FileKeyStore(tmp_path / "root-keys")


@pytest.fixture
async def opened(tmp_path: Path, keys: FileKeyStore, clock: StoppedClock) -> AsyncIterator[Opener]:
    """Opens the same roots again, as after a crash."""
    held: list[RootLineage] = []

    async def again() -> RootLineage:
        while held:
            await held.pop().close()
        held.append(await RootLineage.open(tmp_path / "root", keys, BASE, clock))
        return held[0]

    yield again
    while held:
        await held.pop().close()


@pytest.fixture
async def roots(opened: Opener) -> RootLineage:
    return await opened()


def pinned(roots: RootLineage) -> Bundle:
    """What a member knows right after its join: one root, and no number."""
    return Bundle(roots.trust_domain, UNNUMBERED, (roots.certificate,))


def taken(held: Bundle, roots: RootLineage) -> Bundle:
    outcome = accept_roots(held, decode(encode(roots.bundle()), roots=True))
    assert isinstance(outcome, Accepted), outcome
    return outcome.bundle


async def signs(roots: RootLineage) -> Side | None:
    return roots.side_of(await roots.sign_cluster_ca(REQUEST, EAST, who="test", why="test"))


async def test_a_rotation_replaces_the_root_and_every_pin_leads_to_the_set_of_now(
    roots: RootLineage, keys: FileKeyStore
) -> None:
    members = [taken(pinned(roots), roots)]
    await begun(roots)
    seen: dict[Phase, tuple[int, int, Side | None]] = {Phase.PREPARED: (1, 1, Side.OLD)}
    while phase(roots) is not Phase.DONE:
        await go_on(roots)
        bundle = roots.bundle()
        seen[phase(roots)] = (bundle.sequence, len(bundle.anchors), await signs(roots))
        members = [taken(held, roots) for held in (*members, pinned(roots))]
        assert {held.version for held in members} == {bundle.version}
    assert seen == {
        Phase.PREPARED: (1, 1, Side.OLD),
        Phase.PUBLISHED: (2, 2, Side.OLD),
        Phase.ACTIVE: (2, 2, Side.NEW),
        Phase.RETIRING: (3, 1, Side.NEW),
        Phase.DONE: (3, 1, Side.OLD),
    }, "once it is over, the new one is the only one, and the old one of the next rotation"
    assert await keys.names() == {"ca-2"}
    assert subject_key_id(roots.certificate) == subject_key_id(roots.bundle().anchors[0])


async def test_a_rotation_of_the_root_is_turned_back(roots: RootLineage, keys: FileKeyStore) -> None:
    first = held = taken(pinned(roots), roots)
    for step in (begun, go_on, go_on, turn_back, go_on, go_on):
        await step(roots)
        held = taken(held, roots)
    assert (phase(roots), held.anchors) == (Phase.ABORTED, first.anchors)
    assert await keys.names() == {"ca-1"}


@pytest.mark.parametrize("path", [THERE, BACK, EARLY], ids=["there", "back", "early"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_s4_interrupted_at_any_write_it_converges(
    opened: Opener,
    keys: FileKeyStore,
    path: tuple[Step, ...],
    when: When,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At each write, and each removal of a key, the process dies just before it or just after it."""
    held: Bundle | None = None

    async def look(roots: RootLineage) -> None:
        nonlocal held
        held = taken(pinned(roots) if held is None else held, roots)
        assert roots.certificate in held.anchors, "whoever signs is believed"

    await die_at_every_write(opened, keys, path, when, monkeypatch, look)


async def stranger(tmp_path: Path, clock: StoppedClock) -> RootLineage:
    """The roots of somebody else under the same name."""
    return await RootLineage.open(tmp_path / "evil", FileKeyStore(tmp_path / "evil-keys"), BASE, clock)


async def test_roots_that_ours_has_not_signed_are_not_believed(
    roots: RootLineage, tmp_path: Path, clock: StoppedClock
) -> None:
    evil = await stranger(tmp_path, clock)
    try:
        await evil.begin("mallory", "")
        await go_on(evil)
        for held in (pinned(roots), taken(pinned(roots), roots)):
            outcome = accept_roots(held, evil.bundle())
            assert isinstance(outcome, Rejected)
            assert outcome.reason is Rejection.NOT_SIGNED
        both = replace(
            evil.bundle(), anchors=(*roots.bundle().anchors, evil.certificate), earlier=(roots.bundle(),)
        )
        signed = replace(both, proof=Proof(signatures=(await evil.issuer.sign_content(both),)))
        assert isinstance(accept_roots(taken(pinned(roots), roots), signed), Rejected), "ours is in it"
        anew = replace(evil.bundle(), generation=2, earlier=())
        outcome = accept_roots(taken(pinned(roots), roots), anew)
        assert isinstance(outcome, Rejected), "no root begins anew"
    finally:
        await evil.close()


async def test_an_older_set_of_roots_does_not_come_back(roots: RootLineage) -> None:
    first = roots.bundle()
    await roots.begin("ada", "")
    while await go_on(roots) is not Phase.DONE:
        pass
    held = taken(Bundle(first.trust_domain, UNNUMBERED, first.anchors), roots)
    outcome = accept_roots(held, first)
    assert isinstance(outcome, Rejected)
    assert outcome.reason is Rejection.OLDER


async def test_roots_are_no_anchors_and_anchors_are_no_roots(
    roots: RootLineage, tmp_path: Path, clock: StoppedClock
) -> None:
    with pytest.raises(InvalidBundle, match="another trust domain, or none"):
        decode(encode(roots.bundle()))
    as_cluster = replace(roots.bundle(), trust_domain=EAST)
    outcome = accept(None, as_cluster, roots.certificate)
    assert isinstance(outcome, Rejected)
    assert outcome.reason is Rejection.MALFORMED
    east = await Lineage.open(tmp_path / "east", FileKeyStore(tmp_path / "keys"), EAST, clock)
    try:
        as_roots = replace(east.bundle(), trust_domain=roots.trust_domain, sequence=2)
        refused = accept_roots(roots.bundle(), as_roots)
        assert isinstance(refused, Rejected)
        assert "a root names a trust domain" in str(refused.detail)
    finally:
        await east.close()


async def test_who_pinned_anchors_without_a_number_follows_signatures_only(
    tmp_path: Path, clock: StoppedClock
) -> None:
    hub = await Lineage.open(
        tmp_path / "hub", FileKeyStore(tmp_path / "hub-keys"), TrustDomain.of_hub(BASE), clock
    )
    other = await Lineage.open(
        tmp_path / "other", FileKeyStore(tmp_path / "other-keys"), TrustDomain.of_hub(BASE), clock
    )
    try:
        before = hub.bundle().anchors
        assert accept_from(before, hub.bundle()) == Accepted(hub.bundle(), changed=True)
        await hub.begin("ada", "")
        while True:
            assert hub.rotation is not None
            await hub.enter(advance(hub.rotation, NOBODY, {}))
            if hub.rotation.over:
                break
        found = accept_from(before, hub.bundle())
        assert isinstance(found, Accepted)
        assert found.bundle.anchors != before
        assert isinstance(accept_from(other.bundle().anchors, hub.bundle()), Rejected)
    finally:
        await hub.close()
        await other.close()


async def test_the_forms_that_a_root_has_signed_say_which_root_it_was(roots: RootLineage) -> None:
    old = await roots.sign_cluster_ca(REQUEST, EAST, who="test", why="test")
    await begun(roots)
    await go_on(roots)
    await go_on(roots)
    new = await roots.sign_cluster_ca(REQUEST, EAST, who="test", why="the next root")
    assert (roots.side_of(old), roots.side_of(new)) == (Side.OLD, Side.NEW)
    assert authority_key_id(new) == subject_key_id(roots.certificate)
