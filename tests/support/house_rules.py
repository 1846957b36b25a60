"""Rules of the house that no linter knows; `make check` runs them, `--figures` prints the counts.

- No import circle between modules of the project; imports for type checking and inside functions count too.
- No class name twice.
- No module over 450 lines.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PACKAGES = {"tautools": REPO / "tautools", "tauwidgets": REPO / "widgets" / "tauwidgets"}
LONGEST = 450


def modules(packages: dict[str, Path] = PACKAGES) -> dict[str, Path]:
    """Return every module by its dotted name."""
    found = {}
    for package, folder in packages.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: set[str]) -> set[str]:
    """Return the project's modules that one module imports, wherever in it the import stands."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in known else base)
    return (found & known) - {name}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other in a circle (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for below in sorted(graph[node]):
            if below not in index:
                visit(below)
                low[node] = min(low[node], low[below])
            elif below in stack:
                low[node] = min(low[node], index[below])
        if low[node] == index[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for node in graph:
        if node not in index:
            visit(node)
    return found


def class_names(paths: dict[str, Path]) -> dict[str, list[str]]:
    """Return each class name with the modules that define it."""
    found: dict[str, list[str]] = {}
    for name, path in paths.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(name)
    return found


def broken_rules(paths: dict[str, Path]) -> list[str]:
    """Return a line for each broken rule."""
    known = set(paths)
    graph = {name: imports(name, path, known) for name, path in paths.items()}
    lines = [f"import circle: {' <-> '.join(group)}" for group in circles(graph)]
    lines += [
        f"class {name} is defined in {', '.join(where)}" for name, where in class_names(paths).items() if len(where) > 1
    ]
    for name, path in paths.items():
        length = path.read_text(encoding="utf-8").count("\n")
        if length > LONGEST:
            lines.append(f"{name} has {length} lines, {LONGEST} is the wall")
    return lines


def figures(paths: dict[str, Path]) -> str:
    """Return counts of `tautools`: files, lines, statements, share of modules with one importer; by room."""
    ours = {name: path for name, path in paths.items() if name.split(".")[0] == "tautools"}
    graph = {name: imports(name, path, set(paths)) for name, path in paths.items()}
    importers = Counter(below for name in graph for below in graph[name])
    single = [name for name in ours if importers[name] == 1]
    rooms: dict[str, list[int]] = {}
    for name, path in ours.items():
        text = path.read_text(encoding="utf-8")
        statements = sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(text)))
        room = name.split(".")[1] if path.parent != PACKAGES["tautools"] else "."
        row = rooms.setdefault(room, [0, 0, 0])
        for index, count in enumerate((1, text.count("\n"), statements)):
            row[index] += count
    lines = [f"{'room':<12}{'files':>7}{'lines':>8}{'statements':>12}"]
    lines += [f"{room:<12}{row[0]:>7}{row[1]:>8}{row[2]:>12}" for room, row in sorted(rooms.items())]
    total = [sum(row[index] for row in rooms.values()) for index in range(3)]
    lines.append(f"{'all':<12}{total[0]:>7}{total[1]:>8}{total[2]:>12}")
    lines.append(
        f"modules with a single importer: {len(single)} of {len(ours)} ({100 * len(single) / len(ours):.0f} %)"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    known_modules = modules()
    if "--figures" in sys.argv[1:]:
        print(figures(known_modules))
    broken = broken_rules(known_modules)
    print("\n".join(broken) or f"{len(known_modules)} modules keep the rules of the house.")
    sys.exit(bool(broken))
