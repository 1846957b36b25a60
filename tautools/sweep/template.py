"""The notebook that is executed for each cell, and what may be handed to it.

papermill only warns of a parameter that the notebook does not have, and takes a value of any type; the run would then
go on with the notebook's own default. So names and types are checked here, before anything is started.
"""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING

from tautools.errors import SweepError
from tautools.params import shipped

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["check_parameters", "parameters_of", "run_cell_notebook"]

_TYPES = {"str": str, "int": int, "bool": bool, "float": float, "list": list, "dict": dict}

Value = str | int | float | bool


def run_cell_notebook() -> Path:
    """Return the path of the notebook that runs one cell."""
    return shipped("notebooks") / "run_cell.ipynb"


def parameters_of(notebook: Path) -> dict[str, str]:
    """Return the parameters a notebook declares: name to annotation, from the cell tagged `parameters`.

    Raises
    ------
    SweepError
        When the file is no notebook, or has no such cell.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
        body = ast.parse("".join(tagged[0]["source"])).body
    except (OSError, ValueError, KeyError, IndexError, SyntaxError) as error:
        raise SweepError(
            f"{notebook} cannot be used to run a cell.",
            evidence=f"{type(error).__name__}: {error}",
            next_step="Give it a cell tagged `parameters`, as the shipped run_cell.ipynb has.",
        ) from error
    annotated = (node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name))
    return {node.target.id: ast.unparse(node.annotation) for node in annotated if isinstance(node.target, ast.Name)}


def check_parameters(notebook: Path, values: Mapping[str, Value]) -> None:
    """Refuse values that the notebook has no parameter for, or of another type than it declares.

    Raises
    ------
    SweepError
        Naming the parameter, and those that there are.
    """
    declared = parameters_of(notebook)
    for name, value in values.items():
        if name not in declared:
            raise SweepError(
                f"{notebook.name} has no parameter `{name}`.",
                evidence=f"It has: {', '.join(declared) or 'none with a type'}.",
                next_step="Add it to the cell tagged `parameters`, with a type and a default.",
            )
        wanted = _TYPES.get(declared[name])
        if wanted is not None and type(value) is not wanted:
            raise SweepError(
                f"Parameter `{name}` of {notebook.name} is {declared[name]}, and was given {value!r}.",
                next_step="Correct the annotation in the cell tagged `parameters`.",
            )
