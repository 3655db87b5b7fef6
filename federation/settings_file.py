"""The settings file of a process: which of the three it is for, and its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from msgspec.structs import fields

from federation.config import AgentSettings, GatewaySettings, HubSettings, S, Settings, settings_in
from federation.document import Document
from federation.document.file import read
from federation.errors import InputError

_KINDS: Mapping[str, tuple[str, type[Settings]]] = {
    "base": ("hub", HubSettings),
    "cluster": ("agent", AgentSettings),
    "name": ("gateway", GatewaySettings),
}
"""By the field that only this kind of settings has at its top."""

_STARTED_BY = {"hub": "serve", "agent": "agent", "gateway": "gateway"}


def read_settings(path: Path, kind: type[S]) -> S:
    """The settings in the one document of `path`. Raises InputError with file, line, field and what is allowed."""
    documents = read(path)
    found = kind_of(documents)
    if found is not None and found[1] is not kind:
        name = found[0]
        raise InputError(
            f"these are settings of {'an' if name == 'agent' else 'a'} {name}",
            file=str(path),
            hint=f"federation {_STARTED_BY[name]} --config {path}",
        )
    return settings_in(documents, str(path), kind)


def kind_of(documents: Sequence[Document]) -> tuple[str, type[Settings]] | None:
    """`hub`, `agent` or `gateway`, whichever the first document is nearest to, if it could be any of them."""
    top = documents[0].value if documents else None
    if not isinstance(top, dict) or _KINDS.keys().isdisjoint(top):
        return None
    return min(_KINDS.values(), key=lambda known: _strangeness(top.keys(), known[1]))


def _strangeness(written: Set[str], settings: type[Settings]) -> tuple[int, int]:
    """How many fields at the top are unknown to this kind of settings, and how many are missing in it."""
    known = fields(settings)
    missing = {field.name for field in known if field.required} - written
    return len(written - {field.name for field in known}), len(missing)
