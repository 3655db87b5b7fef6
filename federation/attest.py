"""How gateways of this cluster get their certificates: once with a one-time token, then by the one they have.

The identity comes from the token or from the certificate, never from the request. The request is checked whole before
the token is looked at: a refused one uses no token up, and its answer tells nothing of any. A renewal must show the
newest certificate of its key's line, so that a copy of an old one is worth nothing.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from hashlib import sha256
from itertools import islice
from uuid import uuid4

from cryptography import x509

from federation.api.messages import Redeem, Redeemed
from federation.api.routes import ApiProblem, turned_away
from federation.banned import WhyBanned, nobody_is_banned
from federation.clock import Clock
from federation.issuer import Issuer
from federation.listen import HostPort
from federation.store import Change, Store
from federation.svid.demand import REQUEST_ID_BYTES, Demand, Refusal, Secret, Vetted
from federation.tokens import TokenStore, settle
from pki import bundle as bundles
from pki import csr, token
from pki.algorithms import spki, spki_hash
from pki.certificate import load_der, pem, public_key
from pki.errors import InvalidSpiffeId
from pki.errors import Refused as CsrRefused
from pki.lineage import Lineage
from pki.names import is_dns_label
from pki.policy import Attestation, Attested, Denied, decide
from pki.spiffe import SpiffeId
from pki.token import TokenRecord, mint, pin_of

INSTANCE = "instance/"
MOST_FORGOTTEN = 50
NAMES = "write namespace/service-account, each of letters, digits, '-', '_' and '.'"


def no_good() -> ApiProblem:
    """The one answer to a token that is wrong, used, expired or made for another name."""
    return ApiProblem(403, "token", str(token.Refused()))


def spki_of(request: str) -> str:
    """The hash of the key in a certificate request (PEM), once its possession is proved. Raises ApiProblem."""
    try:
        return spki_hash(csr.parse(request.encode()).public_key)
    except CsrRefused as error:
        raise ApiProblem(400, "csr", str(error)) from error


def secret_of(text: str) -> bytes:
    """The secret of a token as it travels. Raises ApiProblem as for any token that is no good."""
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise no_good() from None


class Instances:
    """Which instance a key belongs to: bound when a gateway attests, kept over restarts.

    `is_connected` says whether an instance speaks to us now; whoever listens to gateways sets it.
    """

    def __init__(self, store: Store) -> None:
        self.is_connected: Callable[[str], bool] = lambda _: False
        self._store = store
        self._names: dict[str, str] = {}

    async def load(self) -> None:
        """Read the bindings. Raises StoreError."""
        image = await self._store.load(INSTANCE)
        self._names = {key.removeprefix(INSTANCE): row.value.decode() for key, row in image.rows.items()}

    def name_of(self, spki: str) -> str:
        """The instance bound to a key; a key that was bound elsewhere gets a name of its own."""
        return self._names.get(spki) or f"key-{spki[:12]}"

    def keys(self) -> Mapping[str, str]:
        """The keys (SPKI hashes) that are bound, each with the name of its instance."""
        return self._names

    def is_taken(self, name: str, spki: str) -> bool:
        """Whether a gateway with another key speaks under this name now. One that is silent can be replaced."""
        return self.name_of(spki) != name and self.is_connected(name)

    async def bind(self, spki: str, name: str, instead_of: str | None = None) -> None:
        """Bind a key to an instance, durably; the key before it, and any other of that name, is let go."""
        old = {key for key, known in self._names.items() if known == name and key not in (spki, instead_of)}
        change = Change(
            uuid4().hex,
            put={INSTANCE + spki: name.encode()},
            delete=frozenset(INSTANCE + key for key in islice(sorted(old), MOST_FORGOTTEN)),
        )
        await settle(self._store, change)
        self._names = {key: known for key, known in self._names.items() if key not in old} | {spki: name}

    async def unbind(self, name: str) -> None:
        """Let all keys of an instance go, durably. Raises StoreError."""
        while old := {key for key, known in self._names.items() if known == name}:
            some = frozenset(islice(sorted(old), MOST_FORGOTTEN))
            await settle(self._store, Change(uuid4().hex, delete=frozenset(INSTANCE + key for key in some)))
            self._names = {key: known for key, known in self._names.items() if key not in some}


class Attestor:
    """Issues to the gateways of one cluster."""

    def __init__(
        self,
        authority: Lineage,
        root: Callable[[], x509.Certificate],
        tokens: TokenStore,
        instances: Instances,
        api: HostPort,
        xds: HostPort,
        base: str,
        lifetime: timedelta,
        clock: Clock,
        why_banned: WhyBanned = nobody_is_banned,
        issuer: Issuer | None = None,
        workloads: HostPort | None = None,
    ) -> None:
        self._authority = authority
        self._root = root
        self._tokens = tokens
        self._instances = instances
        self._api = api
        self._xds = xds
        self._base = base
        self._lifetime = lifetime
        self._clock = clock
        self._why_banned = why_banned
        self._issuer = issuer
        self._workloads = workloads or xds

    async def create(self, gateway_class: str, lifetime: timedelta) -> tuple[str, TokenRecord]:
        """A new token for a gateway of this class: its text, shown once, and what is kept."""
        return await self._create("attest", gateway_class, lifetime)

    async def create_for_workload(self, path: str, lifetime: timedelta) -> tuple[str, TokenRecord]:
        """The same for a workload, by the path of its SPIFFE ID. Raises ApiProblem if it could get no certificate."""
        try:
            if self._issuer is None:
                raise CsrRefused("workload", "nothing is issued to workloads here")
            self._issuer.check(SpiffeId(self._authority.trust_domain, path))
        except InvalidSpiffeId as error:
            raise ApiProblem(400, "workload", str(error), NAMES) from error
        except CsrRefused as error:
            raise ApiProblem(400, "workload", str(error), "see `issuing` in the agent's settings") from error
        return await self._create("workload", path, lifetime)

    async def _create(self, kind: token.Kind, subject: str, lifetime: timedelta) -> tuple[str, TokenRecord]:
        made, record = mint(
            os.urandom(token.SECRET_BYTES),
            self._clock.now(),
            kind=kind,
            url=f"https://{self._api}",
            subject=subject,
            pin=pin_of(self._root(), self._authority.bundle()),
            lifetime=lifetime,
        )
        await self._tokens.add(record)
        return made.encode(), record

    async def attest(self, body: Redeem) -> Redeemed:
        """One of the two steps of `POST /v1/attest`. Raises ApiProblem."""
        if body.token is None:
            return await self._introduce(body)
        if not is_dns_label(body.name):
            raise ApiProblem(
                400, "bad-body", "name: a gateway's name is a DNS label", "set `name` in gateway.yaml"
            )
        request = body.csr or ""
        key = spki_of(request)
        secret = secret_of(body.token)
        record = await self._tokens.find(sha256(secret).digest())
        if record is not None and record.kind == "workload" and self._issuer is not None:
            return await self._attest_workload(self._issuer, secret, request)
        if record is None or record.kind != "attest":
            raise no_good()
        identity = SpiffeId.gateway(self._authority.trust_domain, record.subject)
        self._check_not_banned(identity, key)
        if record.used_by in (None, key) and self._instances.is_taken(body.name, key):
            raise ApiProblem(
                409,
                "name-taken",
                f"a gateway named {body.name} is connected",
                "set another `name` in gateway.yaml, or stop that gateway first; the token is not used up",
            )
        outcome = await self._tokens.redeem(secret, record.subject, key)
        if isinstance(outcome, token.Refused):
            raise no_good()
        await self._instances.bind(key, body.name)
        chain = await self._issue(request, identity, Attestation.TOKEN, body.name, None)
        return Redeemed(bundle=self._bundle(), certificates=(chain,), base=self._base, address=str(self._xds))

    async def _attest_workload(self, issuer: Issuer, secret: bytes, request: str) -> Redeemed:
        """The first certificate of a workload, and where it renews. Raises ApiProblem."""
        wish = Vetted(spki(csr.parse(request.encode()).public_key), Secret(secret))
        answer = await issuer.issue(Demand("one-time token", "", os.urandom(REQUEST_ID_BYTES), (wish,)))
        (outcome,) = answer.outcomes
        if isinstance(outcome, Refusal):
            if outcome.field == "token":
                raise no_good()
            status = 503 if outcome.retry_after else 403
            raise ApiProblem(status, outcome.field, outcome.reason, "see `issuing` in the agent's settings")
        chain = pem(map(load_der, outcome.chain)).decode()
        return Redeemed(
            bundle=self._bundle(), certificates=(chain,), base=self._base, address=str(self._workloads)
        )

    async def renew(self, request: str, identity: SpiffeId, current: x509.Certificate) -> str:
        """A new chain (PEM) for the holder of `current`. Raises ApiProblem."""
        held = spki_hash(public_key(current))
        self._check_not_banned(identity, held)
        self._check_not_banned(identity, spki_of(request))
        name = self._instances.name_of(held)
        chain = await self._issue(request, identity, Attestation.RENEWAL, name, current)
        await self._instances.bind(spki_of(request), name, instead_of=held)
        return chain

    def _check_not_banned(self, identity: SpiffeId, key: str) -> None:
        if (reason := self._why_banned(identity, key)) is not None:
            raise turned_away(reason)

    async def _introduce(self, body: Redeem) -> Redeemed:
        try:
            found = await self._tokens.find(bytes.fromhex(body.token_hash or ""))
        except ValueError:
            found = None
        if found is None:
            raise no_good()
        return Redeemed(bundle=self._bundle(), root=pem([self._root()]).decode(), now=self._clock.now())

    async def _issue(
        self, request: str, identity: SpiffeId, by: Attestation, who: str, replaces: x509.Certificate | None
    ) -> str:
        grant = decide(Attested(identity, by, self._lifetime), self._authority.trust_domain)
        if isinstance(grant, Denied):
            raise ApiProblem(403, "denied", str(grant))
        try:
            issued = await self._authority.issue(
                request.encode(), grant, who=who, why=by.value, replaces=replaces
            )
        except CsrRefused as error:
            raise ApiProblem(400, "csr", str(error)) from error
        return issued.pem().decode()

    def _bundle(self) -> str:
        return base64.b64encode(bundles.encode(self._authority.bundle())).decode()
