"""`tautools` as a person types it, in a process of its own or in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

from tautools.cli import cli


class Typed(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


def typed(*words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Typed:
    """Run `tautools` in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "tautools", *words],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    return Typed(done.returncode, done.stdout, done.stderr)


def called(*words: str) -> Typed:
    """Run `tautools` in this process, which is quicker."""
    result = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    return Typed(result.exit_code, result.stdout, result.stderr)


def listing(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file and folder below `folder` with its time of change and content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }
