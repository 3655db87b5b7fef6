"""The kinds of text that settings are made of: each is parsed once, and says what is allowed in its place.

A parsed text is the plain string or number with a type of its own, so that everybody may go on using it as that.
"""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from pathlib import PosixPath
from typing import ClassVar, Self

from federation.duration import Duration
from federation.listen import HostPort, is_address
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


class Span(Duration):
    """A duration that is not zero."""

    __slots__ = ()
    allowed: ClassVar[str] = "more than 0, as a whole number with its unit, such as 500ms, 10s, 5m or 24h"

    @classmethod
    def parse(cls, text: str) -> Self:
        found = super().parse(text)
        if not found:
            raise ValueError("zero")
        return found


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
