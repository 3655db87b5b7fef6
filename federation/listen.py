"""Sockets to listen on. A port that is taken is an error that names who holds it."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar, Self

from federation.errors import FederationError


class HostPort(str):
    """An address to listen on or to dial, as written: `host:port`, `[v6]:port`; a dialled host may be a name."""

    __slots__ = ()
    allowed: ClassVar[str] = "host:port, for example 127.0.0.1:8443 or [::1]:8443"

    @classmethod
    def of(cls, host: str, port: int) -> Self:
        return cls(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError with a sentence for the user."""
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or any(character.isspace() or character == "/" for character in host):
            raise ValueError("not an address with a port")
        if not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError("the port is not a number up to 65535")
        return cls.of(host, int(port))

    @property
    def host(self) -> str:
        return self.rpartition(":")[0].removeprefix("[").removesuffix("]")

    @property
    def port(self) -> int:
        return int(self.rpartition(":")[2])


class CannotListen(FederationError):
    """The address cannot be bound; `holder` names the process that has it, where that is known."""

    def __init__(self, address: HostPort, why: str, hint: str) -> None:
        super().__init__(f"cannot listen on {address}: {why}", hint=hint)
        self.address = address


def listen(address: HostPort) -> socket.socket:
    """A bound, listening TCP socket. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address.host, address.port))
        opened.listen(512)
        opened.setblocking(False)
    except OSError as error:
        opened.close()
        raise _translate(address, error) from error
    return opened


def ensure_free(address: HostPort) -> None:
    """Raise CannotListen now, with the holder's name, where a library would only say that it failed."""
    if address.port:
        listen(address).close()


def _translate(address: HostPort, error: OSError) -> CannotListen:
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(address)
        hint = "stop it, or choose another port in the configuration"
        return CannotListen(address, f"the port is held by {holder or 'another process'}", hint)
    if error.errno == errno.EADDRNOTAVAIL:
        return CannotListen(
            address, "this machine has no such address", "use an address of this machine, or 0.0.0.0"
        )
    if error.errno == errno.EACCES:
        return CannotListen(
            address, "not permitted", "use a port from 1024 on, or grant CAP_NET_BIND_SERVICE"
        )
    return CannotListen(address, os.strerror(error.errno or 0), "check the address in the configuration")


def holder_of(address: HostPort) -> str | None:
    """`name (pid N)` of the process that listens there, as far as /proc lets us see it."""
    inodes = _listening_inodes(address)
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _holds(process, inodes):
            try:
                name = (process / "comm").read_text().strip()
            except OSError:
                continue
            return f"{name} (pid {process.name})"
    return None


_LISTEN_STATE = "0A"


def _listening_inodes(address: HostPort) -> set[str]:
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if fields[3] == _LISTEN_STATE and port == address.port:
                inodes.add(f"socket:[{fields[9]}]")
    return inodes


def _holds(process: Path, inodes: set[str]) -> bool:
    try:
        return any(os.readlink(fd) in inodes for fd in (process / "fd").iterdir())
    except OSError:
        return False


def is_unspecified(host: str) -> bool:
    """Whether `host` stands for every address of the machine (0.0.0.0 or ::)."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
