"""What is written reads back as it was, here and by a reader of YAML 1.1."""

from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from federation.document import dump, parse
from federation.duration import Duration

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    [
        "yes",
        "off",
        "~",
        "1e3",
        "0o17",
        "0x1F",
        "22:22",
        "1_000",
        ".inf",
        "2026-01-01",
        "a\nb\n",
        " a\n",
        "'",
        "- a",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_what_is_written_reads_back(value: dict[str, object]) -> None:
    text = dump(value)
    assert parse(text, "file.yaml")[0].value == value
    assert yaml.safe_load(text) == value


class Row(Struct, frozen=True):
    name: str
    every: Duration
    ports: tuple[int, ...] = ()


def test_writes_structs_in_the_order_of_their_fields_without_aliases() -> None:
    row = Row("east", Duration(0.5), (80, 443))
    once = "name: east\nevery: '500ms'\nports:\n- 80\n- 443\n"
    assert dump(row) == once
    assert "&" not in dump([row, row])
    assert parse(dump([row, row]), "file.yaml")[0].convert(tuple[Row, Row]) == (row, row)
