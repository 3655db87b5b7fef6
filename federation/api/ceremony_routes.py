"""What hub and agent answer in a ceremony: what they ask the root for, and what becomes of its answer."""

from __future__ import annotations

from msgspec import Struct

from federation.api.routes import Access, ApiProblem, Call, Route
from federation.ceremony import Ceremony, HubCeremony
from federation.clock import Clock
from pki.ceremony import Answers, NextRoot, decode, encode, fingerprint, fingerprint_of
from pki.certificate import load_pem
from pki.errors import CeremonyFile, Untrusted
from pki.root_rules import root_faults
from pki.spiffe import TrustDomain
from pki.subordinate import read_request


class Asking(Struct, frozen=True, kw_only=True):
    """One authority that waits. `key_id` is its subject key identifier, hex."""

    trust_domain: str
    key_id: str
    epoch: int


class CeremonyRequests(Struct, frozen=True, kw_only=True):
    """The file for the root, empty if nobody waits. `root` is the fingerprint of the pinned root, empty before;
    `left_out` how many wait besides.
    """

    file: str
    fingerprint: str
    root: str
    requests: tuple[Asking, ...]
    left_out: int = 0


class InstallAnswers(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file that came from the root."""

    file: str


class InstalledAnswers(Struct, frozen=True, kw_only=True):
    root: str
    kept: tuple[str, ...]
    unasked: tuple[str, ...]


class InstallNextRoot(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file in which a root in a safe hands over to the next one."""

    file: str


class InstalledNextRoot(Struct, frozen=True, kw_only=True):
    """Fingerprints: of the root that is to follow, and of the one that it follows."""

    root: str
    follows: str


class PinRoot(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A root's certificate (PEM) that nobody has used here yet."""

    certificate: str


class PinnedRoot(Struct, frozen=True, kw_only=True):
    root: str


class CeremonyRoutes:
    """The routes of one process that holds an authority."""

    def __init__(self, ceremony: Ceremony, clock: Clock) -> None:
        self._ceremony = ceremony
        self._clock = clock

    def routes(self) -> tuple[Route, ...]:
        do = Access.OPERATOR
        return (
            Route("GET", "/v1/ca/requests", "What the root is to sign", do, self.requests, CeremonyRequests),
            Route("PUT", "/v1/ca/answers", "Install what the root signed", do, self.install, InstalledAnswers,
                  InstallAnswers, told=("root", "kept")),
            Route("PUT", "/v1/ca/next-root", "Take the root that is to follow", do, self.hand_over, InstalledNextRoot,
                  InstallNextRoot, told=("root", "follows")),
            Route("PUT", "/v1/ca/root", "Pin an offline root", do, self.pin, PinnedRoot, PinRoot, told=("root",)),
        )  # fmt: skip

    async def requests(self, _: Call) -> CeremonyRequests:
        gathered = await self._ceremony.gather()
        pinned = self._ceremony.pinned
        root = "" if pinned is None else fingerprint_of(pinned)
        if gathered.requests is None:
            return CeremonyRequests(file="", fingerprint="", root=root, requests=())
        asked = [
            read_request(one.csr, TrustDomain.parse(one.trust_domain), gathered.requests.base)
            for one in gathered.requests.requests
        ]
        return CeremonyRequests(
            file=encode(gathered.requests).decode(),
            fingerprint=fingerprint(gathered.requests),
            root=root,
            requests=tuple(
                Asking(trust_domain=str(one.trust_domain), key_id=one.key_id.hex(), epoch=one.epoch)
                for one in asked
            ),
            left_out=gathered.left_out,
        )

    async def install(self, call: Call) -> InstalledAnswers:
        body: InstallAnswers = call.body
        try:
            done = await self._ceremony.install(decode(body.file.encode(), Answers))
        except CeremonyFile as error:
            raise _unused(error) from error
        return InstalledAnswers(
            root=fingerprint_of(done.root),
            kept=tuple(map(str, done.kept)),
            unasked=tuple(map(str, done.unasked)),
        )

    async def hand_over(self, call: Call) -> InstalledNextRoot:
        body: InstallNextRoot = call.body
        try:
            done = await self._ceremony.hand_over(decode(body.file.encode(), NextRoot))
        except CeremonyFile as error:
            raise _unused(error) from error
        return InstalledNextRoot(root=fingerprint_of(done.root), follows=fingerprint_of(done.follows))

    async def pin(self, call: Call) -> PinnedRoot:
        if not isinstance(self._ceremony, HubCeremony):
            raise ApiProblem(
                409,
                "ceremony",
                "a root is pinned at a hub whose own is in a safe, and this is none",
                "`root: offline` in hub.yaml, before its first start, makes it one",
            )
        body: PinRoot = call.body
        try:
            (certificate,) = load_pem(body.certificate.encode(), most=1)
        except (Untrusted, ValueError) as error:
            raise ApiProblem(400, "bad-value", f"not one certificate in PEM: {error}") from error
        if faults := root_faults(certificate, self._clock.now()):
            raise ApiProblem(
                400, "bad-value", "it cannot be the root: " + "; ".join(faults), "make another root"
            )
        try:
            await self._ceremony.pin(certificate)
        except CeremonyFile as error:
            raise _unused(error) from error
        return PinnedRoot(root=fingerprint_of(certificate))


def _unused(error: CeremonyFile) -> ApiProblem:
    return ApiProblem(409, "ceremony", str(error), error.hint)
