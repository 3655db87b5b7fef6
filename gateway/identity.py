"""A gateway's own key and certificate: made here, attested once with a one-time token, renewed at half life.

A certificate that has ended cannot renew itself: nobody believes it any more. Then the gateway attests again with the
token in its file, read anew each time: the one it has used while that is good, or a new one that was put there. A new
one makes it renew within a minute, and is used if that fails: its authority may be one that is believed no more.

The private key never leaves this machine, and is encrypted on its disk where a passphrase is set; Envoy gets it over
its unix socket, as the secret `identity`. A new certificate is on disk before anybody uses it. Connections that are
there stay as they are.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from federation.api.client import Refusal, Target, connect
from federation.api.messages import Renew, Renewed
from federation.api.redeem import Redemption, read_token, redeem
from federation.api.tls import client_context, in_memory
from federation.clock import Clock
from federation.errors import FederationError, Unreachable
from federation.retry import Backoff
from gateway.credential import Attested, Credential, checked, restored
from gateway.report_pb2 import ReportAck
from gateway.xds.client import Dial
from pki import bundle as bundles
from pki import csr, durable
from pki.errors import KeyMissing, PkiError, WrongPassphrase
from pki.keys.file import FileKeyStore
from pki.keys.passphrase import Passphrase
from pki.profiles import BACKDATE
from pki.renewal import renew_at
from pki.token import JoinToken

KEY = "gateway"
LONGEST_FILE = 64 * 1024

LONGEST_WAIT = 60.0
"""Seconds after which the wall clock is looked at again: it may have jumped, or gone on while the machine slept."""

SOONEST_RETRY = 10.0
LATEST_RETRY = 600.0
RETRIES_LEFT = 20
"""A renewal that failed is tried again so often that about this many attempts fit into the time that is left."""

NEW_TOKEN = "make one with `federation token create --gateway` at the agent"

SHORTEST_BACKOFF = 0.1
LONGEST_BACKOFF = 5.0
"""Seconds between attempts to reach the agent at the first start."""

log = structlog.get_logger()


class GatewayIdentity:
    """The credential of the gateway `name`, in `folder`, its key encrypted with `passphrase` if there is one.

    `listener` is told of each renewal.
    """

    def __init__(self, name: str, folder: Path, clock: Clock, passphrase: Passphrase | None = None) -> None:
        self._name = name
        self._folder = durable.private_folder(folder)
        self._attested_file = folder / "attested.json"
        self._chain_file = folder / "chain.pem"
        self._keys = FileKeyStore(folder / "keys", passphrase)
        self._clock = clock
        self._current: Credential | None = None
        self._token_file: Path | None = None
        self._not_needed = ""
        self._hastened: float | None = None
        self._hurry = asyncio.Event()
        self.listener: Callable[[Credential], None] = lambda credential: None
        self.problem = ""

    @property
    def current(self) -> Credential:
        if self._current is None:
            raise FederationError("the gateway has no certificate yet")
        return self._current

    def dial(self) -> Dial:
        """How to reach the agent's port for gateways. Trusts the trust domain of this cluster only."""
        now = self.current
        return Dial((now.attested.xds,), now.server_name, now.bundle.pem(), now.chain, now.key)

    async def start(self, token_file: Path | None) -> None:
        """Take the certificate on disk, else attest with the token. Raises FederationError or PkiError.

        One that has ended is taken, too: the gateway serves its own cluster with it, until `run` gets another one.
        """
        self._token_file = token_file
        for name in await self._keys.protect():
            log.warning("a key that lay plain on disk is encrypted now", key=name, folder=str(self._folder))
        self._current = await self._stored()
        if self._current is None:
            self._current = await self._attest(patient=True)

    async def _stored(self) -> Credential | None:
        if not self._attested_file.exists() or not self._chain_file.exists():
            return None
        try:
            attested = msgspec.json.decode(
                durable.read_private(self._attested_file, LONGEST_FILE), type=Attested
            )
            chain = durable.read_private(self._chain_file, LONGEST_FILE)
            return restored(chain, await self._keys.load(KEY), attested, self._clock.now())
        except WrongPassphrase:
            raise
        except (msgspec.MsgspecError, PkiError, ValueError) as error:
            raise FederationError(
                f"the identity in {self._folder} cannot be read: {error}",
                "move the folder away and start again with a new token",
            ) from error

    # ---- with a token --------------------------------------------------------------------------------------------

    async def _attest(self, *, patient: bool) -> Credential:
        """A certificate by the token in the file; `patient` waits without limit for an agent that does not answer."""
        token = _token(self._token_file)
        key = await self._key()
        redemption = await (self._redeemed(token, key) if patient else self._redeem(token, key))
        answer = redemption.answer
        bundle = bundles.encode(redemption.bundle)
        attested = Attested(token.url, answer.address, answer.base, bundle, token.hash().hex())
        credential = checked("".join(answer.certificates).encode(), key, attested, self._clock.now())
        await asyncio.to_thread(durable.write, self._chain_file, credential.chain)
        await asyncio.to_thread(durable.write, self._attested_file, msgspec.json.encode(attested))
        log.info("attested", identity=str(credential.spiffe_id), agent=token.url)
        return credential

    async def _key(self) -> ec.EllipticCurvePrivateKey:
        """The key that this gateway has, or a new one: a token belongs to the key that used it first."""
        try:
            return await self._keys.load(KEY)
        except KeyMissing:
            return await self._keys.create(KEY)

    async def _redeemed(self, token: JoinToken, key: ec.EllipticCurvePrivateKey) -> Redemption:
        """Waits without limit for an agent that does not answer; what it answers is final."""
        backoff = Backoff(self._clock, SHORTEST_BACKOFF, LONGEST_BACKOFF)
        while True:
            try:
                return await self._redeem(token, key)
            except Unreachable as error:
                log.warning("the agent does not answer, trying again", reason=str(error))
                await backoff.wait()

    async def _redeem(self, token: JoinToken, key: ec.EllipticCurvePrivateKey) -> Redemption:
        async def request(_: bundles.Bundle) -> bytes:
            return await asyncio.to_thread(csr.request, key)

        return await redeem(token, "/v1/attest", "agent", request, self._name, self._clock)

    # ---- what the agent says of its authorities ------------------------------------------------------------------

    async def told(self, word: ReportAck) -> None:
        """A newer bundle is on disk before it is used; a certificate that is to be replaced is, before long."""
        if word.bundle:
            await self._trust(word.bundle)
        current = self.current
        began = int((current.certificate.not_valid_before_utc + BACKDATE).timestamp() * 1000)
        if (word.issuer and word.issuer != current.issuer) or began < word.issued_after_ms:
            self._hasten(word.within_s)

    async def _trust(self, encoded: bytes) -> None:
        try:
            outcome = bundles.accept(self.current.bundle, bundles.decode(encoded))
        except PkiError as error:
            log.error("the agent's bundle cannot be read", reason=str(error))
            return
        if isinstance(outcome, bundles.Rejected):
            log.error("the agent's bundle does not follow from ours", reason=str(outcome))
            return
        if outcome.changed:
            renewed = self.current.trusting(outcome.bundle)
            try:
                data = msgspec.json.encode(renewed.attested)
                await asyncio.to_thread(durable.write, self._attested_file, data)
            except PkiError as error:
                log.error("the agent's bundle cannot be stored", reason=str(error))
                return
            self._current = self.current.trusting(outcome.bundle)
            log.info("trust bundle of our own cluster", sequence=outcome.bundle.sequence)

    def _hasten(self, within: float) -> None:
        """Renew at some moment within so many seconds, so that not all gateways come at once."""
        if self._hastened is None:
            self._hastened = self._clock.monotonic() + random.uniform(0, within)
            self._hurry.set()

    # ---- and all that follow -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Renew in time, for ever. A renewal that fails is said in `problem` and tried again."""
        while True:
            wait = self._due_in()
            if wait <= 0 or self._new_token() not in ("", self._not_needed):
                wait = await self._attempt()
            await self._pause(min(wait, LONGEST_WAIT))

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless the agent asks for a renewal meanwhile."""
        sleeping = asyncio.create_task(self._clock.sleep(seconds), name="gateway-renewal-pause")
        hurried = asyncio.create_task(self._hurry.wait(), name="gateway-renewal-hurry")
        try:
            await asyncio.wait({sleeping, hurried}, return_when=asyncio.FIRST_COMPLETED)
            self._hurry.clear()
        finally:
            for task in (sleeping, hurried):
                task.cancel()
            await asyncio.gather(sleeping, hurried, return_exceptions=True)

    def _due_in(self) -> float:
        due = (renew_at(self.current.certificate) - self._clock.now()).total_seconds()
        return due if self._hastened is None else min(due, self._hastened - self._clock.monotonic())

    async def _attempt(self) -> float:
        """Renew; seconds until the next time. There is a pause even where a wrong clock sees it due at once."""
        self._hastened = None
        try:
            if self.current.ends > self._clock.now():
                await self._renew_or_start_over()
            else:
                await self._start_over("it has ended")
        except (FederationError, PkiError) as error:
            self.problem = f"the certificate cannot be renewed: {error}"
            log.error(self.problem, expires=self.current.ends.isoformat())
            left = (self.current.ends - self._clock.now()).total_seconds()
            return retry_after(left) * random.uniform(0.5, 1.0)
        self.problem = ""
        return max(self._due_in(), SOONEST_RETRY)

    async def renew(self) -> None:
        """A new certificate for the same key, on disk before it is used.

        Raises FederationError (Unreachable and Refusal among them), or PkiError if it is not as expected or cannot be
        written; the certificate that is there then stays.
        """
        current = self.current
        key = await self._keys.load(KEY)
        request = await asyncio.to_thread(csr.request, key)
        async with connect(Target(current.attested.agent, self._tls(), current.server_name)) as client:
            answer = await client.call("POST", "/v1/renew", body=Renew(csr=request.decode()))
        try:
            chain = "".join(msgspec.convert(answer, Renewed).certificates).encode()
        except msgspec.ValidationError as error:
            raise FederationError(f"{current.attested.agent} does not speak this version: {error}") from error
        renewed = checked(chain, key, current.attested, self._clock.now())
        await asyncio.to_thread(durable.write, self._chain_file, renewed.chain)
        # What it goes by may have changed while the agent answered.
        renewed = replace(renewed, bundle=self.current.bundle, attested=self.current.attested)
        self._current = renewed
        log.info("certificate renewed", expires=renewed.ends.isoformat())
        self.listener(renewed)

    def _tls(self) -> ssl.SSLContext:
        current = self.current
        try:
            with in_memory(current.chain) as certificate, in_memory(current.key) as key:
                return client_context(current.bundle.anchors, certificate, key)
        except OSError as error:
            reason = error.strerror or str(error)
            raise FederationError(f"the certificate and its key cannot be used: {reason}") from error

    def _new_token(self) -> str:
        """The hash of the token in the file, or nothing if there is none that is new."""
        try:
            found = _token(self._token_file).hash().hex()
        except (FederationError, PkiError):
            return ""
        return "" if found == self.current.attested.token else found

    async def _renew_or_start_over(self) -> None:
        """As `renew`; if the agent does not take the certificate, or we do not believe the agent, by a new token."""
        offered = self._new_token()
        try:
            await self.renew()
        except FederationError as error:
            if not offered:
                raise
            await self._start_over(str(error))
        self._not_needed = self._new_token()

    async def _start_over(self, why: str) -> None:
        """Attest again. Raises FederationError (Unreachable and Refusal among them) or PkiError."""
        try:
            self._current = await self._attest(patient=False)
        except Refusal as error:
            raise FederationError(f"{why}, and {error}", f"{NEW_TOKEN}, and put it in `token`") from error
        self.listener(self.current)


def _token(file: Path | None) -> JoinToken:
    how = NEW_TOKEN
    if file is None:
        raise FederationError(
            "this gateway has no valid certificate, and no token to get one",
            f"{how}, and name its file in `token`",
        )
    token = read_token(file)
    if token.kind != "attest":
        raise FederationError(f"the token in {file} is not for a gateway", how)
    return token


def retry_after(left: float) -> float:
    """Seconds until a failed renewal is tried again, `left` seconds before the certificate ends."""
    return min(max(left / RETRIES_LEFT, SOONEST_RETRY), LATEST_RETRY)
