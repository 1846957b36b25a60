"""How many files of the package a verb runs through, and how often it reads the same file: how easy it is to follow.

Each verb runs in a process of its own, in a new workspace, with simulated servers. What counts is what `traced.py` of
the tests' support counts: files of which a function was called, files opened, folders listed.

Run `python benchmarks/files_touched.py [--names] [--json]`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TRACED = Path(__file__).parents[1] / "tests" / "support" / "traced.py"
RUN = "run --env retail --strategy fc --server sim-large --user-server sim-user --limit 2"
VERBS = {"server up sim-large sim-user": 32, RUN: 48, "report": None}
"""Words of each verb, and the most files that it should run through."""


def trace(words: list[str], workspace: Path) -> dict[str, Any]:
    """Return what a verb ran through and read, by a run in a process of its own."""
    out = workspace / "trace.json"
    command = [sys.executable, str(TRACED), str(out), *words, "--workspace", str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", action="store_true", help="name the files")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for verb in VERBS:
                found[verb] = trace(verb.split(), Path(folder))
        finally:
            stop = ["server", "stop", "--all", "--workspace", folder]
            subprocess.run([sys.executable, "-m", "tautools", *stop], capture_output=True, check=False)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{'verb':<32}{'files':>6}{'at most':>9}{'setting.json':>14}{'records':>9}{'scans':>7}")
    for verb, most in VERBS.items():
        opened, listed = found[verb]["opened"], found[verb]["listed"]
        settings = sum(count for path, count in opened.items() if path.endswith("/setting.json"))
        records = sum(count for path, count in opened.items() if "/servers/" in path and path.endswith(".json"))
        scans = sum(count for path, count in listed.items() if path.endswith("/servers"))
        name = verb if len(verb) < 32 else "run ... --limit 2"
        print(f"{name:<32}{len(found[verb]['files']):>6}{most or '-':>9}{settings:>14}{records:>9}{scans:>7}")
        if given.names:
            print("   " + "\n   ".join(found[verb]["files"]))


if __name__ == "__main__":
    main()
