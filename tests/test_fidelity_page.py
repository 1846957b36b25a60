"""The page on fidelity names tests that exist, and figures that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from tautools.records import Limits

ROOT = Path(__file__).resolve().parents[1]
PAGE = " ".join((ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8").split())


def test_every_test_that_the_page_names_exists() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"\btest_\w+(?!\.py)\b", PAGE)) - set(re.findall(r"\b(test_\w+)\.py", PAGE))
    assert len(named) >= 8
    assert {name for name in named if f"def {name}(" not in source} == set()
    files = set(re.findall(r"\b(test_\w+\.py)", PAGE))
    assert {name for name in files if not list((ROOT / "tests").rglob(name))} == set()


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    limits = Limits()
    assert f"{limits.max_steps} requests of the agent (`limits.max_steps`" in PAGE
    assert f"{limits.max_errors} unusable answers (`limits.max_errors`" in PAGE
    assert f"{limits.max_user_calls} times in a row with calls (`limits.max_user_calls`)" in PAGE
    assert f"its {limits.max_rounds} rounds end" in PAGE
