"""Write values as YAML that `read` gives back unchanged, and that readers of YAML 1.1 understand the same
way.
"""

from __future__ import annotations

import re

import msgspec
import yaml

from federation.document.reader import plain

_NUMBER_ELSEWHERE = re.compile(r"[-+]?[0-9.].*")
"""What other readers may take for a number or a time: octal, hexadecimal, sexagesimal, dates."""


class _Dumper(yaml.CSafeDumper):
    """Writes a repeated value out each time, because `read` refuses aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.CSafeDumper, text: str) -> yaml.Node:
    quoted = plain(text) is not text or _NUMBER_ELSEWHERE.fullmatch(text)
    style = "'" if quoted else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump(value: object) -> str:
    """Structs, dataclasses, enums, collections and plain values as YAML; anything else by its `str`."""
    plain_value = msgspec.to_builtins(value, enc_hook=str)
    return yaml.dump(
        plain_value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=110
    )
