"""Notebooks 30 and 31 on fixed results: everything they show, compared with what is stored.

To store what they show after an intended change: `TAUTOOLS_STORE_EXPECTED=1 pytest tests/notebooks`, then read the
difference before it is committed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from fixed_results import write_fixed_results

from tautools.params import shipped
from tautools.report.build import execute_report

EXPECTED = Path(__file__).parent / "expected"
NOTEBOOKS = ["30_pass_k", "31_latency"]


def _shown(notebook: Path) -> str:
    """Everything a person sees in an executed notebook, as text, cell by cell."""
    parts = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code" and not {"parameters", "injected-parameters"} & set(tags):
            parts += [f"[{cell.source.splitlines()[-1]}]", *(_output(output) for output in cell.outputs), ""]
    return "\n".join(parts)


def _output(output: Any) -> str:
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type == "error":
        return f"ERROR {output.ename}: {output.evalue}"
    return "\n".join(line.rstrip() for line in str(output.data["text/plain"]).splitlines())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_report_notebook_shows_exactly_what_is_stored_for_the_fixed_results(name: str, tmp_path: Path) -> None:
    write_fixed_results(tmp_path)
    done = tmp_path / "done.ipynb"
    figures = tmp_path / "figures"
    execute_report(shipped("notebooks") / f"{name}.ipynb", done, parameters={"out": str(figures)}, folder=tmp_path)
    shown = _shown(done)
    stored = EXPECTED / f"{name}.txt"
    if os.environ.get("TAUTOOLS_STORE_EXPECTED"):
        stored.write_text(shown, encoding="utf-8")
    assert shown == stored.read_text(encoding="utf-8")
    assert {path.suffix for path in figures.iterdir()} == {".json", ".png"}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_report_notebook_runs_to_its_end_on_its_defaults_and_says_that_there_is_nothing(
    name: str, tmp_path: Path
) -> None:
    done = tmp_path / "done.ipynb"
    execute_report(shipped("notebooks") / f"{name}.ipynb", done, parameters={}, folder=tmp_path)
    shown = _shown(done)
    assert "under ./results." in shown
    assert "Next: run a cell" in shown
    assert "n = 0" in shown
    assert "Nothing was written: no folder was given." in shown
    assert [path.name for path in tmp_path.iterdir()] == ["done.ipynb"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_report_notebook_is_stripped_and_its_parameters_are_annotated(name: str) -> None:
    cells = nbformat.read(shipped("notebooks") / f"{name}.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    (parameters,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert [line.split(":")[0] for line in parameters.source.splitlines()] == ["workspace", "sweep", "out"]
    assert all(": str = " in line and "  # " in line for line in parameters.source.splitlines())
