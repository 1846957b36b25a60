"""What is handed to a cell's notebook is checked before anything is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tautools.errors import SweepError
from tautools.sweep.notebook import check_parameters, parameters_of, run_cell_notebook


def test_the_shipped_notebook_declares_what_a_sweep_hands_over() -> None:
    declared = parameters_of(run_cell_notebook())
    assert declared == {"sweep": "str", "cell": "int", "workspace": "str", "limit": "int", "start_servers": "bool"}


def test_an_unknown_parameter_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SweepError, match=r"no parameter `sweeep`(.|\n)*sweep, cell, workspace"):
        check_parameters(run_cell_notebook(), {"sweeep": "demo"})


@pytest.mark.parametrize("value", ["3", 3.0, True])
def test_a_value_of_another_type_is_refused(value: str | float | bool) -> None:
    with pytest.raises(SweepError, match="Parameter `cell`"):
        check_parameters(run_cell_notebook(), {"cell": value})


@pytest.mark.parametrize(
    "text", ["", "{}", json.dumps({"cells": []}), json.dumps({"cells": [{"metadata": {}, "source": "a: int = 1"}]})]
)
def test_a_file_without_a_parameters_cell_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.ipynb").write_text(text)
    with pytest.raises(SweepError, match="cell tagged `parameters`"):
        parameters_of(tmp_path / "x.ipynb")
