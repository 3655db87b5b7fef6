"""One verified and limited way to a Vault or OpenBao. Everything that is said to it goes through here.

TLS only, verified with the CA that was given and with nothing else: no certificate of the system, no proxy, token
or address from the environment. A redirect is an error, because it would carry the token to somebody else. One call
takes at most `timeout` and its answer has at most 1 MiB, however slowly it drips. Calls block: they belong in a
thread. What Vault answers besides what was asked for is an error with a reason, and no secret is in that.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hvac
import msgspec
import requests
import urllib3
from hvac.adapters import RawAdapter
from requests.adapters import HTTPAdapter

from pki.errors import KeyFileError, VaultError, VaultFault, shown

LONGEST_ANSWER = 1 << 20
LONGEST_DETAIL = 300
LONGEST_PAUSE = 3600.0
"""Seconds of a Retry-After that are believed."""

_FAULTS = {
    403: VaultFault.DENIED,
    404: VaultFault.MISSING,
    429: VaultFault.BUSY,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Vault is (`https://host:port`), in which namespace, and what signed its certificate (PEM).

    `timeout` are the seconds that one call may take, all in all.
    """

    address: str
    ca: Path
    namespace: str = ""
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Chain and key (PEM) that are shown to Vault; read anew at each login."""

    chain: Path
    key: Path


class Vault:
    """A Vault at one place. `token` is sent along; whoever logs in replaces it."""

    def __init__(self, place: Place, certificate: ClientCertificate | None = None) -> None:
        self.place = place
        self.token = ""
        self._certificate = certificate
        self._session: requests.Session | None = None

    def __repr__(self) -> str:
        return f"Vault({self.place.address!r}, namespace={self.place.namespace!r})"

    def get(self, path: str, token: str | None = None) -> dict[str, Any]:
        """What is at `path`, such as `sys/health`, as Vault wraps it. Raises `VaultError`, as all calls do.

        With another `token`, where one is given.
        """
        return self._ask("get", path, token)

    def post(
        self, path: str, body: Mapping[str, Any] | None = None, token: str | None = None
    ) -> dict[str, Any]:
        """The answer to `body`; empty where Vault says nothing but that it is done."""
        return self._ask("post", path, token, json=dict(body or {}))

    def delete(self, path: str) -> None:
        self._ask("delete", path)

    def login(self, mount: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The `auth` part of the answer to a login at `auth/<mount>`, on a new connection and without a token."""
        self.reconnect()
        return part(self._ask("post", f"auth/{mount}/login", "", json=dict(body)), "auth")

    def unwrap(self, wrapping: str) -> dict[str, Any]:
        """What a wrapping token stands for. It opens once."""
        return self._ask("post", "sys/wrapping/unwrap", wrapping)

    def wrapped_by(self, wrapping: str) -> str:
        """The path whose answer is in a wrapping token, which stays closed."""
        found = part(self._ask("post", "sys/wrapping/lookup", "", json={"token": wrapping}), "data")
        return str(found.get("creation_path", ""))

    def reconnect(self) -> None:
        """Read CA and certificate again, and begin anew."""
        self.close()
        self._session = self._open()

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _ask(self, method: str, path: str, token: str | None = None, **sent: Any) -> dict[str, Any]:
        if self._session is None:
            self._session = self._open()
        place = self.place
        client = hvac.Client(
            url=place.address,
            token=self.token if token is None else token,
            session=self._session,
            namespace=place.namespace or None,
            allow_redirects=False,
            timeout=place.timeout,  # type: ignore[arg-type]  # the stub knows whole seconds only
            adapter=_Limited,
        )
        _limit.until = time.monotonic() + place.timeout
        try:
            found: dict[str, Any] = getattr(client.adapter, method)(f"/v1/{path}", **sent)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise _unanswered(place.address, f"{method.upper()} {path}", error) from error
        return found

    def _open(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.verify = str(self.place.ca)
        session.mount("https://", _Verified(self._context()))
        session.mount("http://", _Refused())
        return session

    def _context(self) -> ssl.SSLContext:
        path = self.place.ca
        try:
            context = ssl.create_default_context(cafile=str(path))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.sslsocket_class = _Socket
            if self._certificate is not None:
                path = self._certificate.chain
                context.load_cert_chain(str(path), str(self._certificate.key))
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror if isinstance(error, FileNotFoundError) else "is no PEM that TLS can use"
            raise KeyFileError(path, f"{reason}; it is needed to speak to Vault") from error
        return context


def part(answer: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object `data` or `auth` of an answer; empty where there is none."""
    found = answer.get(name)
    return found if isinstance(found, dict) else {}


class _Limit(threading.local):
    """Until when the call of this thread may take, on the monotonic clock."""

    until: float = 0.0

    def left(self) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for this call is over")
        return left


_limit = _Limit()


class _Socket(ssl.SSLSocket):
    """Reads until the time of the call is over, and not, as timeouts do, for that time from each byte on."""

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self.settimeout(_limit.left())
        return super().recv_into(buffer, nbytes, flags)


class _Verified(HTTPAdapter):
    """Connections that are verified with one context."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more, ssl_context=self._context)


class _Refused(HTTPAdapter):
    """No connections without TLS."""

    def send(self, *args: Any, **more: Any) -> NoReturn:
        raise requests.exceptions.InvalidSchema("only https is spoken to Vault")


class _Limited(RawAdapter):
    """The adapter of hvac that reads an answer up to a limit, and tells our errors from it."""

    def request(
        self, method: str, url: str, headers: Any = None, raise_exception: bool = True, **sent: Any
    ) -> Any:
        what = f"{method.upper()} {url.removeprefix('/v1/')}"
        response = super().request(method, url, headers, raise_exception=False, stream=True, **sent)
        with response:
            body = response.raw.read(LONGEST_ANSWER + 1, decode_content=True)
        if len(body) > LONGEST_ANSWER:
            raise VaultError(self.base_uri, VaultFault.STRANGE, what, f"more than {LONGEST_ANSWER} bytes")
        try:
            answer = msgspec.json.decode(body) if body else {}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            answer = None
        if 200 <= response.status_code < 300 and isinstance(answer, dict):
            return answer
        secrets = (self.token or "", *_texts(sent.get("json")))
        raise _refusal(self.base_uri, what, response.status_code, answer, response.headers, secrets)


def _refusal(
    address: str, what: str, status: int, answer: Any, headers: Mapping[str, str], secrets: tuple[str, ...]
) -> VaultError:
    errors = answer.get("errors") if isinstance(answer, dict) else None
    told = "; ".join(map(str, errors)) if isinstance(errors, list) else ""
    for secret in filter(None, secrets):
        told = told.replace(secret, "…")
    if 200 <= status < 300:
        return VaultError(address, VaultFault.STRANGE, what, "its answer is no JSON object")
    if 300 <= status < 400:
        detail = f"status {status}: it sends us elsewhere; give the address of the active node, or of a load balancer"
        return VaultError(address, VaultFault.STRANGE, what, detail)
    fault = _FAULTS.get(status, VaultFault.REFUSED if status < 500 else VaultFault.FAILING)
    if status == 503 and "sealed" in told.lower():
        fault = VaultFault.SEALED
    detail = f"status {status}" + (f": {shown(told, LONGEST_DETAIL)}" if told else "")
    return VaultError(address, fault, what, detail, _pause(headers.get("Retry-After", "")))


def _unanswered(address: str, what: str, error: Exception) -> VaultError:
    """What a foreign exception comes to. Its own text is left out: it may quote what was sent."""
    chain: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in chain:
        chain.append(inner)
        inner = inner.__cause__ or inner.__context__
    for one in chain:
        if isinstance(one, ssl.SSLCertVerificationError):
            return VaultError(address, VaultFault.UNTRUSTED, what, one.verify_message)
    if any(isinstance(one, requests.exceptions.InvalidSchema) for one in chain):
        return VaultError(address, VaultFault.UNTRUSTED, what, "its address does not begin with https://")
    if any(isinstance(one, TimeoutError | requests.exceptions.Timeout) for one in chain):
        return VaultError(address, VaultFault.SILENT, what)
    if any(isinstance(one, ssl.SSLError) for one in chain):
        return VaultError(address, VaultFault.UNTRUSTED, what, "TLS cannot be agreed upon")
    reasons = [one.strerror for one in chain if isinstance(one, OSError) and one.strerror]
    return VaultError(address, VaultFault.UNREACHABLE, what, reasons[0] if reasons else "")


def _pause(text: str) -> float | None:
    """Seconds of a Retry-After (RFC 9110 §10.2.3); a date is not believed, two clocks might differ."""
    return min(float(text), LONGEST_PAUSE) if text.isascii() and text.isdigit() else None


def _texts(body: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Every text in a request that may be a secret, to be kept out of what is told of it."""
    return tuple(text for text in (body or {}).values() if isinstance(text, str) and len(text) >= 8)
