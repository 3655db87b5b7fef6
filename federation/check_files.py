"""`federation config check`: what a file is, and what is wrong with it, before a process reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from federation.config import settings_in
from federation.discovery.files import check_documents, check_objects
from federation.discovery.sources import Problem
from federation.document.file import read
from federation.errors import FederationError, InputError
from federation.settings_file import kind_of


@dataclass(frozen=True, slots=True)
class Found:
    """`kind` is `hub`, `agent`, `gateway` or `services`; each problem is a whole line for people."""

    kind: str
    problems: tuple[str, ...]


def check_path(path: Path, ranges: Sequence[str]) -> Found:
    """Look at a settings file, or at a file or folder of Kubernetes objects. Raises InputError for a bad range."""
    try:
        networks = tuple(ip_network(text) for text in ranges)
    except ValueError as error:
        raise InputError(str(error), file="--range", allowed="a network such as 10.1.0.0/16") from error
    if path.is_dir():
        return Found("services", _lines(check_objects(path, networks)))
    try:
        documents = read(path)
    except FederationError as error:
        return Found("unknown", (str(error),))
    top = documents[0].value if documents else None
    if isinstance(top, dict) and "kind" not in top:
        meant = kind_of(documents)
        if meant is None:
            hint = "a settings file has one of: base (hub), cluster (agent), name (gateway)"
            return Found("unknown", (f"{path}: cannot tell what this file is for; {hint}",))
        kind, settings = meant
        try:
            settings_in(documents, str(path), settings)
        except InputError as error:
            return Found(kind, (str(error),))
        return Found(kind, ())
    return Found("services", _lines(check_documents(documents, str(path), networks)))


def _lines(problems: Sequence[Problem]) -> tuple[str, ...]:
    return tuple(str(problem) for problem in problems)
