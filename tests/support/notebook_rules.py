"""The rules that keep notebooks thin, as a function for the tests and a command for `make check`.

python tests/support/notebook_rules.py notebooks
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

MOST_LINES = 12
LOGIC = {
    ast.FunctionDef: "def",
    ast.AsyncFunctionDef: "async def",
    ast.ClassDef: "class",
    ast.For: "for",
    ast.AsyncFor: "async for",
    ast.While: "while",
    ast.Try: "try",
    ast.TryStar: "try",
}


def broken_rules(path: Path) -> list[str]:
    """Return what is wrong with a notebook, one sentence each; nothing when it keeps the rules."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = notebook["cells"]
    except (ValueError, KeyError) as error:
        return [f"it is no notebook: {error}"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    faults = _whole(notebook, cells, code)
    for number, cell in enumerate(code):
        faults += [f"code cell {number}: {fault}" for fault in _cell(cell)]
    return faults


def _whole(notebook: dict[str, Any], cells: list[dict[str, Any]], code: list[dict[str, Any]]) -> list[str]:
    metadata = notebook.get("metadata", {})
    checks = {
        "its kernel is not python3": metadata.get("kernelspec", {}).get("name") == "python3",
        "it keeps the state of widgets": "widgets" not in metadata,
        "it keeps papermill's notes of a run": "papermill" not in metadata,
        "it does not begin with a heading": bool(cells) and "".join(cells[0]["source"]).startswith("# "),
        "its first code cell is not tagged `parameters`": bool(code) and "parameters" in _tags(code[0]),
        "more than one cell is tagged `parameters`": sum("parameters" in _tags(cell) for cell in code) <= 1,
        "two cells have the same id": len({cell.get("id") for cell in cells}) == len(cells),
    }
    return [fault for fault, kept in checks.items() if not kept]


def _cell(cell: dict[str, Any]) -> list[str]:
    source = "".join(cell["source"])
    faults = []
    if cell.get("outputs") or cell.get("execution_count") is not None:
        faults.append("its output is stored; strip it with `nbstripout`")
    if len(source.splitlines()) > MOST_LINES:
        faults.append(f"it has more than {MOST_LINES} lines")
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return [*faults, f"it is no plain Python: {error.msg}"]
    used = {word for node in ast.walk(tree) for kind, word in LOGIC.items() if type(node) is kind}
    faults += [f"`{word}` belongs in the package" for word in sorted(used)]
    if "parameters" in _tags(cell) and not all(isinstance(node, ast.AnnAssign) and node.value for node in tree.body):
        faults.append("a parameter has no type or no default")
    return faults


def _tags(cell: dict[str, Any]) -> list[str]:
    return list(cell.get("metadata", {}).get("tags", []))


def main(folder: Path) -> int:
    """Check every notebook of a folder; return the exit status."""
    notebooks = sorted(folder.glob("*.ipynb"))
    faults = [f"{path}: {fault}" for path in notebooks for fault in broken_rules(path)]
    print("\n".join([*faults, f"{len(notebooks)} notebooks, {len(faults)} faults"]))
    return 1 if faults or not notebooks else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
