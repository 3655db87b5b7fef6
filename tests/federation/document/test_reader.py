"""YAML is read strictly, and what is refused is refused with its line."""

from __future__ import annotations

import math
import os
import threading
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.document import Document, parse
from federation.document.file import read
from federation.document.reader import DEEPEST, LARGEST, MOST_VALUES, plain
from federation.errors import InputError


def refused(text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        parse(text, "file.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("off", "off"),
        ("~", None),
        ("'~'", "~"),
        ("'80'", "80"),
        ("80", 80),
        ("-1", -1),
        ("0", 0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("0644", "0644"),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("22:22", "22:22"),
        ("2026-01-01", "2026-01-01"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("1.2.3", "1.2.3"),
        (".", "."),
        ("<<", "<<"),
    ],
)
def test_scalars_mean_what_they_seem_to_mean(text: str, value: object) -> None:
    read_value = parse(f"a: {text}", "file.yaml")[0].value
    assert read_value == {"a": value}
    assert type(read_value["a"]) is type(value)


def test_reads_several_documents_and_leaves_out_empty_ones() -> None:
    documents = parse("---\na: 1\n---\n# nothing\n---\n- 2\n- b: {c: 3}\n...\n", "file.yaml")
    assert [document.value for document in documents] == [{"a": 1}, [2, {"b": {"c": 3}}]]
    assert parse("# nothing\n", "file.yaml") == ()


def test_knows_the_line_of_every_value() -> None:
    document = parse("a: 1\n---\nspec:\n  ports:\n    - 80\n    -\n      x: 1\n", "file.yaml")[1]
    assert document.line(()) == 3
    assert document.line(("spec", "ports")) == 4
    assert document.line(("spec", "ports", 0)) == 5
    assert document.line(("spec", "ports", 1, "x")) == 7
    assert document.line(("spec", "absent", 3)) == 3
    assert Document("request", {"a": 1}, {}).line(("a",)) is None


@pytest.mark.parametrize(
    ("text", "line", "field", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a", "duplicate key, first on line 1"),
        ("a:\n  'b': 1\n  b: 1\n", 3, "a.b", "duplicate key, first on line 2"),
        ("a: &x 1\n", 1, "a", "anchors and aliases"),
        ("a: 1\nb:\n- *x\n", 3, "b[0]", "anchors and aliases"),
        ("&x a: 1\n", 1, "", "anchors and aliases"),
        ("a: !!python/object/apply:os.system [id]\n", 1, "a", "the tag 'tag:yaml.org"),
        ("a: !x {}\n", 1, "a", "the tag '!x'"),
        ("a: ! b\n", 1, "a", "the tag '!'"),
        ("a: .inf\n", 1, "a", ".inf is refused"),
        ("a: [1, .NaN]\n", 1, "a[1]", ".NaN is refused"),
        ("a: 1e999\n", 1, "a", "1e999 is refused"),
        ("80: a\n", 1, "", "a key that is not a string"),
        ("true: a\n", 1, "", "a key that is not a string"),
        ("[a]: b\n", 1, "", "a key that is not a string"),
        ("? {a: b}\n: c\n", 1, "", "a key that is not a string"),
        ("a:\n\tb: 1\n", 2, "", "not YAML"),
        ("a: b: c\n", 1, "", "not YAML"),
        ("a: 1\nb: 'x\n", 3, "", "not YAML"),
        ("a: 1\nb: \x07\n", 2, "", "U+0007"),
        ("a: \ud800\n", 1, "", "U+D800"),
    ],
)
def test_refuses_with_line_and_field(text: str, line: int, field: str, problem: str) -> None:
    error = refused(text)
    assert (error.file, error.line, error.field) == ("file.yaml", line, field)
    assert problem in error.problem


def test_errors_carry_no_terminal_escapes() -> None:
    for text in ('"\\e[2J": 1\n"\\e[2J": 2\n', "a: !%1b[2J b\n"):
        assert "\x1b" not in str(refused(text))


def test_says_that_tabs_are_the_problem() -> None:
    assert "spaces, not tabs" in refused("a:\n\tb: 1\n").allowed


def test_refuses_what_is_nested_too_deep() -> None:
    assert parse("[" * DEEPEST + "]" * DEEPEST, "file.yaml")
    assert refused("[" * (LARGEST // 2)).problem == "nested too deep"
    assert refused("{a: " * (DEEPEST + 2)).problem == "nested too deep"


def test_refuses_too_many_values_and_too_many_bytes() -> None:
    assert refused("[" + "1," * (MOST_VALUES + 1) + "]").problem == "too many values"
    assert refused("a" * (LARGEST + 1)).problem == "too large"
    assert refused("é" * (LARGEST // 2 + 1)).problem == "too large"


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    levels = [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    bomb = "a: &a [lol, lol]\n" + "\n".join(levels) + "\n" + "# padding\n" * 1000
    tracemalloc.start()
    try:
        error = refused(bomb)
        assert tracemalloc.get_traced_memory()[1] < LARGEST
    finally:
        tracemalloc.stop()
    assert error.line == 1


def test_reads_files(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9\r\nb: 2\r\n")
    assert read(path)[0].value == {"a": "é", "b": 2}
    assert read(path)[0].source == str(path)


def test_says_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="Is a directory"):
        read(tmp_path)
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(InputError, match="not UTF-8") as caught:
        read(path)
    assert caught.value.line == 2
    path.write_bytes(b"#" * (LARGEST + 1))
    with pytest.raises(InputError, match="too large"):
        read(path)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InputError):
        assert all(document.line(()) for document in parse(text, "file.yaml"))


@given(st.text(alphabet="0123456789+-._eExonfab:", max_size=12))
def test_a_plain_scalar_is_itself_or_what_python_reads(text: str) -> None:
    value = plain(text)
    if isinstance(value, float) and not math.isnan(value):
        assert value == float(text)
    elif isinstance(value, int) and not isinstance(value, bool):
        assert value == int(text)
    elif isinstance(value, str):
        assert value == text


def test_a_pipe_is_read_as_far_as_somebody_writes_into_it() -> None:
    """As `<(command)` of a shell gives one, whose command may take its time."""
    reading, writing = os.pipe()
    begun = threading.Event()

    def write() -> None:
        begun.wait()
        with open(writing, "wb", buffering=0) as pipe:
            pipe.writelines(f"a{number}: {'x' * 50_000}\n".encode() for number in range(3))

    writer = threading.Thread(target=write)
    writer.start()
    threading.Timer(0.05, begun.set).start()
    try:
        [document] = read(Path(f"/dev/fd/{reading}"))
    finally:
        writer.join()
        os.close(reading)
    assert document.value == {f"a{number}": "x" * 50_000 for number in range(3)}


def test_a_pipe_into_which_nobody_writes_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="a pipe into which nobody writes; allowed: a file") as caught:
        read(tmp_path / "pipe")
    assert caught.value.file == str(tmp_path / "pipe")


def test_what_is_neither_a_file_nor_a_pipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a file nor a pipe"):
        read(Path("/dev/zero"))
    with pytest.raises(InputError, match="Is a directory"):
        read(tmp_path)
