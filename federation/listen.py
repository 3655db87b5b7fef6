"""Sockets to listen on. A port that is taken is an error that names who holds it."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import ClassVar, Self

from federation.errors import FederationError

LONGEST_SOCKET_PATH = 107
"""Bytes in the path of a unix socket (unix(7))."""

_WRITTEN = re.compile(r"(\[(?P<v6>[0-9a-fA-F.]*:[0-9a-fA-F:.]*)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>.*)")


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
        written = _WRITTEN.fullmatch(text)
        if written is None:
            raise ValueError("not an address with a port")
        if not re.fullmatch(r"[0-9]{1,5}", written["port"]) or int(written["port"]) > 65535:
            raise ValueError("the port is not a number up to 65535")
        return cls.of(written["v6"] or written["host"], int(written["port"]))

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
    if not is_address(address.host):
        raise CannotListen(address, "it is not an IP address", "use an address of this machine, or 0.0.0.0")
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
        if inodes and process.name.isdigit() and _holds(process, inodes):
            try:
                name = (process / "comm").read_text().strip()
            except OSError:
                continue
            return f"{name} (pid {process.name})"
    return None


_LISTEN_STATE = "0A"


def _listening_inodes(address: HostPort) -> set[str]:
    """The sockets that are in the way of `address`: those on its port at the same or at an unspecified address."""
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            _, local, _, state, *_ = fields = row.split()
            host, _, port = local.partition(":")
            if state == _LISTEN_STATE and int(port, 16) == address.port and _meet(_decode(host), address):
                inodes.add(f"socket:[{fields[9]}]")
    return inodes


def _decode(host: str) -> IPv4Address | IPv6Address:
    """An address as /proc/net shows it: words of four bytes, each in the byte order of the machine (proc(5))."""
    words = [int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8)]
    found = ip_address(b"".join(words))
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def _meet(held: IPv4Address | IPv6Address, wanted: HostPort) -> bool:
    return held.is_unspecified or is_unspecified(wanted.host) or held == ip_address(wanted.host)


def _holds(process: Path, inodes: set[str]) -> bool:
    try:
        return any(os.readlink(fd) in inodes for fd in (process / "fd").iterdir())
    except OSError:
        return False


def collide(one: HostPort, other: HostPort) -> bool:
    """Whether two processes, or two parts of one, cannot listen on both: :: takes the port of IPv4 as well (ipv6(7)).

    Both hosts are addresses; a port 0 stands for any that is free.
    """
    if one.port != other.port or not one.port:
        return False
    first, second = ip_address(one.host), ip_address(other.host)
    return first == second or _takes(first, second) or _takes(second, first)


def _takes(wide: IPv4Address | IPv6Address, narrow: IPv4Address | IPv6Address) -> bool:
    return wide.is_unspecified and (wide.version == 6 or narrow.version == 4)


def is_address(host: str) -> bool:
    """Whether `host` is an IP address, not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_unspecified(host: str) -> bool:
    """Whether `host` stands for every address of the machine (0.0.0.0 or ::)."""
    return is_address(host) and ip_address(host).is_unspecified
