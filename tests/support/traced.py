"""What one command executes and reads: `python traced.py OUT.json run --limit 2 ...` is `tautools run --limit 2 ...`.

OUT.json gets the files of tautools of which a function was executed (what only defines something when it is imported
does not count), and how often each file was opened and each folder listed.
"""

from __future__ import annotations

import ast
import json
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import tautools

ROOT = Path(tautools.__file__).parent


class Trace:
    """Follows this process from now on."""

    def __init__(self) -> None:
        self.functions: set[tuple[str, str]] = set()
        self.opened: Counter[str] = Counter()
        self.listed: Counter[str] = Counter()
        self._not_counted = {(str(path), name) for path in ROOT.rglob("*.py") for name in _definitions(path)}
        sys.addaudithook(self._on_audit)
        threading.setprofile(self._on_call)
        sys.setprofile(self._on_call)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        functions = sorted((Path(file).relative_to(ROOT).as_posix(), name) for file, name in self.functions)
        return {
            "files": sorted({file for file, _ in functions}),
            "functions": functions,
            "opened": self.opened,
            "listed": self.listed,
        }

    def _on_call(self, frame: Any, event: str, _arg: Any) -> None:
        code = frame.f_code
        ours = event == "call" and code.co_filename.startswith(str(ROOT))
        if ours and (code.co_filename, code.co_name) not in self._not_counted:
            self.functions.add((code.co_filename, code.co_qualname))

    def _on_audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            self.opened[str(args[0])] += 1
        elif event == "os.scandir":
            self.listed[str(args[0])] += 1


def _definitions(path: Path) -> set[str]:
    """Return the names of the code objects that run when a module is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    return {"<module>", "<lambda>", "<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>"} | classes


def main() -> None:
    """Run the command and write what was seen."""
    from tautools.cli import main as tautools_main

    out, *words = sys.argv[1:]
    trace = Trace()
    try:
        tautools_main(words)
    finally:
        sys.setprofile(None)
        Path(out).write_text(json.dumps(trace.as_dict(), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
