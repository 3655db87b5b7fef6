"""The kinds of text that settings are made of: each is parsed once, and says what is allowed in its place.

A parsed text is the plain string or number with a type of its own, so that everybody may go on using it as that.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from ipaddress import ip_address
from pathlib import PosixPath
from typing import ClassVar, Self

from federation.duration import Duration
from federation.listen import LONGEST_SOCKET_PATH, HostPort, is_address, is_unspecified
from federation.pattern import is_service_pattern
from pki.errors import PkiError
from pki.names import dns_label
from pki.profiles import GATEWAY, SHORTEST_LEAF
from pki.spiffe import TrustDomain


class File(PosixPath):
    """An absolute path, so that it does not depend on where the process was started."""

    allowed: ClassVar[str] = "an absolute path, such as /etc/federation/services"

    @classmethod
    def parse(cls, text: str) -> Self:
        path = cls(text)
        if not path.is_absolute() or "\0" in text:
            raise ValueError("not an absolute path")
        return path


class Directory(File):
    """The folder of a process: its unix sockets lie in it, and the path of a socket must not be long."""

    longest: ClassVar[int] = LONGEST_SOCKET_PATH - len("/admin.sock")
    allowed: ClassVar[str] = (
        f"an absolute path of at most {longest} bytes, because unix sockets lie in it (unix(7))"
    )

    @classmethod
    def parse(cls, text: str) -> Self:
        path = super().parse(text)
        if len(os.fsencode(path)) > cls.longest:
            raise ValueError("too long")
        return path


class LogFile(str):
    """An absolute path, as Envoy is told it."""

    __slots__ = ()
    allowed: ClassVar[str] = "an absolute path, such as /dev/stdout or /var/log/federation/access.log"

    @classmethod
    def parse(cls, text: str) -> Self:
        File.parse(text)
        return cls(text)


class Name(str):
    """A DNS label: the name of a cluster, a region, a zone or a gateway."""

    __slots__ = ()
    allowed: ClassVar[str] = "a DNS label: 1 to 63 of a-z, 0-9 and '-', not starting or ending with '-'"

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            return cls(dns_label(text))
        except PkiError as error:
            raise ValueError("not a DNS label") from error


class Credential(str):
    """The name under which systemd hands a secret to its service."""

    __slots__ = ()
    allowed: ClassVar[str] = (
        "the name in LoadCredential=NAME:PATH of the unit: a-z, A-Z, 0-9, '-', '_' and '.'"
    )

    @classmethod
    def parse(cls, text: str) -> Self:
        if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}", text) is None:
            raise ValueError("not the name of a credential")
        return cls(text)


class Variable(str):
    """The name of an environment variable."""

    __slots__ = ()
    allowed: ClassVar[str] = "a name of A-Z, 0-9 and '_', such as FEDERATION_PASSPHRASE"

    @classmethod
    def parse(cls, text: str) -> Self:
        if re.fullmatch(r"[A-Z_][A-Z0-9_]{0,254}", text) is None:
            raise ValueError("not the name of an environment variable")
        return cls(text)


class Base(str):
    """The domain under which every cluster is a trust domain of its own."""

    __slots__ = ()
    allowed: ClassVar[str] = "a DNS name in lower case, such as mesh.example"

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            TrustDomain.of_cluster("x", text)
        except PkiError as error:
            raise ValueError("cannot be the base of trust domains") from error
        return cls(text)


class Address(str):
    """An IP address."""

    __slots__ = ()
    allowed: ClassVar[str] = "an IP address, such as 10.1.0.5, 0.0.0.0 or ::"

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(str(ip_address(text)))


class Listening(HostPort):
    """Where a process listens; the port 0 stands for any that is free."""

    __slots__ = ()
    allowed: ClassVar[str] = "an IP address and a port, such as 127.0.0.1:8443, 0.0.0.0:8443 or [::1]:8443"

    @classmethod
    def parse(cls, text: str) -> Self:
        found = super().parse(text)
        if not is_address(found.host):
            raise ValueError("not an IP address with a port")
        return found


class Reached(HostPort):
    """Where others dial a process: a name or an address, and a port."""

    __slots__ = ()
    allowed: ClassVar[str] = "a name or an IP address and a port from 1 on, such as hub.example.com:8443"

    @classmethod
    def parse(cls, text: str) -> Self:
        found = super().parse(text)
        if not found.port:
            raise ValueError("no port that others could dial")
        if is_unspecified(found.host):
            raise ValueError("stands for every address of a machine, and others could not dial it")
        return found


class GatewayAddress(Reached):
    """Where Envoys dial a gateway: an address, because it is checked against the ranges of the cluster."""

    __slots__ = ()
    allowed: ClassVar[str] = "an IP address and a port from 1 on, such as 10.1.0.2:15443"

    @classmethod
    def parse(cls, text: str) -> Self:
        found = super().parse(text)
        if not is_address(found.host):
            raise ValueError("not an IP address with a port")
        return found


class Bounded(Duration):
    """A duration that makes sense where it is written."""

    __slots__ = ()
    shortest: ClassVar[Duration]
    longest: ClassVar[Duration]

    @classmethod
    def parse(cls, text: str) -> Self:
        found = super().parse(text)
        if found < cls.shortest:
            raise ValueError(f"shorter than {cls.shortest}")
        if found > cls.longest:
            raise ValueError(f"longer than {cls.longest}")
        return found


class Attempt(Bounded):
    """How long one attempt to reach somebody may take, or the time from one to the next."""

    __slots__ = ()
    shortest = Duration.parse("10ms")
    longest = Duration.parse("1m")
    allowed = "10ms to 1m, as a whole number with its unit, such as 500ms or 2s"


class Idle(Bounded):
    """How long something may live without being used."""

    __slots__ = ()
    shortest = Duration.parse("1s")
    longest = Duration.parse("30d")
    allowed = "1s to 30d, as a whole number with its unit, such as 10m, 1h or 7d"


class Silence(Bounded):
    """How long somebody may say nothing."""

    __slots__ = ()
    shortest = Duration.parse("0s")
    longest = Duration.parse("24h")
    allowed = "at most 24h, as a whole number with its unit, such as 500ms, 10s or 5m"


class Drain(Bounded):
    """How long what ends may take."""

    __slots__ = ()
    shortest = Duration.parse("0s")
    longest = Duration.parse("1h")
    allowed = "0s to 1h, as a whole number with its unit, such as 500ms, 10s or 5m"


class Lifetime(Duration):
    """How long the certificates of processes live."""

    __slots__ = ()
    allowed: ClassVar[str] = "10s to 24h, as a whole number with its unit, such as 90m or 12h"

    @classmethod
    def parse(cls, text: str) -> Self:
        found = super().parse(text)
        if not SHORTEST_LEAF <= timedelta(seconds=found) <= GATEWAY.longest:
            raise ValueError("not a life that certificates may have")
        return found


class ServicePattern(str):
    """Services of any cluster."""

    __slots__ = ()
    allowed: ClassVar[str] = "namespace/name, with '*' for anything within one part, such as shop/* or */*"

    @classmethod
    def parse(cls, text: str) -> Self:
        if not is_service_pattern(text):
            raise ValueError("not a pattern for services")
        return cls(text)


class NamePattern(str):
    """Names of clusters."""

    __slots__ = ()
    allowed: ClassVar[str] = "a name of a-z, 0-9 and '-', with '*' for anything, such as * or eu-*"

    @classmethod
    def parse(cls, text: str) -> Self:
        if not is_service_pattern(f"x/{text}"):
            raise ValueError("not a pattern for names")
        return cls(text)
