"""How many files of the package a verb runs through, and how often it reads the same file: how easy it is to follow.

Each verb runs in a process of its own, in a new workspace, with simulated servers. A file counts when one of its
functions was called; bodies of modules and classes, which only define things, do not. Reads of `setting.json` and scans
of the folder `servers/` are counted by Python's audit events, in that process and all its threads.

Run `python benchmarks/files_touched.py [--names] [--json]`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SERVERS = ["sim-large", "sim-user"]
RUN = ["--env", "retail", "--strategy", "fc", "--server", "sim-large", "--user-server", "sim-user", "--limit", "2"]
VERBS = {
    "server up sim-large sim-user": (["server", "up", *SERVERS], 32),
    "run --limit 2": (["run", *RUN], 48),
    "report": (["report"], None),
}
"""Words of each verb, and the most files that it should run through."""

TRACER = """
import json, sys, threading
from collections import Counter
files, reads = Counter(), Counter()
def profile(frame, event, _argument):
    # Bodies of modules and classes are no functions: their code has no fast locals (CO_OPTIMIZED, 1).
    if event == "call" and "/tautools/" in frame.f_code.co_filename and frame.f_code.co_flags & 1:
        files[frame.f_code.co_filename.split("/tautools/", 1)[1]] += 1
def audit(event, arguments):
    if event == "open" and str(arguments[0]).endswith("/setting.json") and "r" in str(arguments[1] or "r"):
        reads["setting.json"] += 1
    elif event in ("os.scandir", "os.listdir") and str(arguments[0]).endswith(("/servers", "/servers/launches")):
        reads["servers/"] += 1
    elif event == "open" and "/servers/" in str(arguments[0]) and str(arguments[0]).endswith(".json"):
        reads["server records"] += 1
sys.addaudithook(audit)
from tautools.cli import main
threading.setprofile(profile)
sys.setprofile(profile)
try:
    main(sys.argv[2:])
except SystemExit as end:
    code = end.code or 0
sys.setprofile(None)
with open(sys.argv[1], "w") as out:
    json.dump({"code": code, "files": dict(files), "reads": dict(reads)}, out)
"""


def trace(words: list[str], workspace: Path) -> dict[str, object]:
    """Return the files that a verb ran through and what it read, by a run in a process of its own."""
    out = workspace / "trace.json"
    command = [sys.executable, "-c", TRACER, str(out), *words, "--workspace", str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found: dict[str, object] = json.loads(out.read_text())
    if found["code"]:
        print(done.stdout, done.stderr, file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", action="store_true", help="name the files")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        try:
            for verb, (words, _most) in VERBS.items():
                found[verb] = trace(words, workspace)
        finally:
            subprocess.run(
                [sys.executable, "-m", "tautools", "server", "stop", "--all", "--workspace", folder],
                capture_output=True,
                check=False,
            )
    if given.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{'verb':<32}{'files':>6}{'at most':>9}  reads")
    for verb, (_words, most) in VERBS.items():
        files, reads = found[verb]["files"], found[verb]["reads"]
        words = ", ".join(f"{name} {count}x" for name, count in sorted(reads.items()))
        print(f"{verb:<32}{len(files):>6}{most or '-':>9}  {words}")
        if given.names:
            print("   " + "\n   ".join(f"{name}  {count}" for name, count in sorted(files.items())))


if __name__ == "__main__":
    main()
