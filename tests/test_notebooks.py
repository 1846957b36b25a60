"""The notebooks are thin, and each runs from top to bottom on what comes with the package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from notebook_rules import broken_rules

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
names = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


@names
def test_notebook_keeps_the_rules(notebook: Path) -> None:
    assert broken_rules(notebook) == []


def _notebook(*sources: str, **changes: Any) -> str:
    cells: list[dict[str, Any]] = [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Title"]}]
    for number, source in enumerate(sources):
        metadata = {"tags": ["parameters"]} if number == 0 else {}
        cell = {"cell_type": "code", "id": f"c{number}", "metadata": metadata, "source": [source]}
        cells.append(cell | {"execution_count": None, "outputs": []} | (changes if number else {}))
    return json.dumps({"cells": cells, "metadata": {"kernelspec": {"name": "python3"}}, "nbformat": 4})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (_notebook("n: int = 1", "for i in range(n):\n    print(i)"), "`for` belongs in the package"),
        (_notebook("n: int = 1", "def f():\n    pass"), "`def` belongs in the package"),
        (_notebook("n: int = 1", "\n".join(["print(1)"] * 13)), "more than 12 lines"),
        (_notebook("n: int = 1", "n", execution_count=3), "its output is stored"),
        (_notebook("n = 1"), "a parameter has no type"),
        (_notebook("n: int = 1").replace("python3", "my-env"), "its kernel is not python3"),
        ("{}", "it is no notebook"),
    ],
)
def test_the_rules_see_a_notebook_that_breaks_them(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "x.ipynb"
    path.write_text(text)
    assert any(fault in found for found in broken_rules(path))


@pytest.mark.slow
@names
def test_notebook_runs_on_its_defaults(notebook: Path, tmp_path: Path) -> None:
    """nbval runs a copy, whose folder is the workspace, so that nothing is written beside the original."""
    shutil.copy(notebook, tmp_path)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    done = subprocess.run(
        [*command, "--nbval-cell-timeout", "180", "--rootdir", str(tmp_path), notebook.name],
        cwd=tmp_path,
        env={**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
