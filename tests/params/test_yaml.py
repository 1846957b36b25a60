"""YAML is read by the rules people expect, and knows where everything stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tautools.errors import ParamsError
from tautools.params.yaml import read_document, read_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("no", "no"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("1:30", "1:30"),
        ("0-08:00:00", "0-08:00:00"),
        ("2026-01-01", "2026-01-01"),
        ("1e-3", 0.001),
        ("1.5e3", 1500.0),
        ("10", 10),
        ("-1", -1),
        ("0x1F", 31),
        ("0o17", 15),
        ("007", "007"),
        ("1_000", "1_000"),
        ("1.", 1.0),
        (".5", 0.5),
        ("~", None),
        ("", None),
        ("'12'", "12"),
        ("[airline, retail]", ["airline", "retail"]),
        ("{a: no}", {"a": "no"}),
        ("!!str 5", "5"),
    ],
)
def test_plain_scalars_mean_what_they_look_like(text: str, value: Any) -> None:
    data = read_value(text, shown="flag").data
    assert data == value
    assert type(data) is type(value)


def _read(folder: Path, text: str) -> Any:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return read_document(path, shown="x.yaml")


def test_each_key_and_value_knows_its_line_and_column(tmp_path: Path) -> None:
    document = _read(tmp_path, "a: 1\nb:\n  - c: 2\n    d: [3, 4]\n")
    assert document.where(("b", 0, "d", 1)) == "x.yaml:4:12"
    assert document.where(("b", 0, "d"), of_key=True) == "x.yaml:4:5"
    assert document.where(("b", 0, "missing")) == "x.yaml:3:5"


def test_a_key_written_twice_is_an_error_that_names_both_lines(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"x\.yaml:3:1: the key `a` was already written in line 1"):
        _read(tmp_path, "a: 1\nb: 2\na: 3\n")


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    document = _read(tmp_path, "base: &b {x: 1, y: 2}\nmine:\n  <<: *b\n  y: 3\n")
    assert document.data["mine"] == {"y": 3, "x": 1}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: [1\n", "this is not YAML"),
        ("a:\n\t- b\n", "this is not YAML"),
        ("a: &a [*a]\n", "contains itself"),
        ("a: !!python/object/apply:os.system ['true']\n", "not understood"),
        ("? [a]\n: b\n", "a key must be a word"),
        ("a: 1\n---\nb: 2\n", "this is not YAML"),
        ("a: !!int many\n", "not what its tag says"),
        ("<<: 3\n", "takes a mapping"),
    ],
)
def test_what_is_not_plain_yaml_is_an_error_with_a_line(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(ParamsError, match=what) as error:
        _read(tmp_path, text)
    assert error.value.problem.startswith("x.yaml:")
    assert error.value.next_step


def test_a_bomb_of_aliases_does_not_fill_the_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ParamsError, match="unfolds to too much"):
        _read(tmp_path, "\n".join(lines))


def test_a_file_that_is_not_text_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(ParamsError, match="not text in UTF-8"):
        read_document(path)


def test_a_deep_nest_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"nested too deeply|too much"):
        _read(tmp_path, "[" * 3000 + "]" * 3000)
