"""The stand-in for a tau2-bench checkout, run by this Python through the program that a real one is run by."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from tautools.bench.sources.tau2_bench import Tau2Bench
from tautools.bench.sources.tau2_checkout import find_tau2_checkout

__all__ = ["STAND_IN", "changed_copy", "stand_in"]

STAND_IN = Path(__file__).parent / "stand_in_tau2"


def stand_in(path: Path = STAND_IN, python: str = sys.executable) -> Tau2Bench:
    """Return a source of its own, with a process that no other test uses."""
    return Tau2Bench(find_tau2_checkout(str(path), python))


def changed_copy(folder: Path, changes: Mapping[str, tuple[str, str] | None] | None = None) -> Path:
    """Return a copy of the stand-in in which some files, by their path, have another text (old, new) or are gone."""
    copy = Path(shutil.copytree(STAND_IN, folder / "copy", ignore=shutil.ignore_patterns("__pycache__")))
    for name, change in (changes or {}).items():
        file = copy / name
        if change is None:
            file.unlink()
            continue
        text = file.read_text()
        assert change[0] in text
        file.write_text(text.replace(*change))
    return copy
