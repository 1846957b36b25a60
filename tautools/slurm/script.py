"""Job scripts. Pure: text in, text out.

Slurm reads the `#SBATCH` lines itself, with quotes and backslashes of its own and without a shell; the rest is bash. A
value that no quoting carries safely (a line break would begin a new line of the script) is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.errors import ParamsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


_PLAIN = re.compile(r"[A-Za-z0-9_./:,=+@%-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobScript:
    """What a job asks for and does."""

    name: str
    output: str
    """Slurm's pattern for the file of the output; see `log_pattern`."""
    error: str
    body: Sequence[str]
    """Lines of bash, already quoted."""
    comment: str = ""
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    cores: int | None = None
    memory_gib: int | None = None
    gres: str | None = None
    time_limit: str | None = None
    constraint: str | None = None
    exclude: Sequence[str] = ()
    """Nodes that it must not run on."""
    requeue: bool = False
    """Whether Slurm may start it again after a failed node; a server that comes back must be verified again."""


def render_sbatch(script: JobScript) -> str:
    """Return the text of a job script.

    Raises
    ------
    ParamsError
        When a value holds a line break or another control character.
    """
    asked: dict[str, object] = {
        "job-name": script.name,
        "account": script.account,
        "partition": script.partition,
        "qos": script.qos,
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": script.cores,
        "mem": None if script.memory_gib is None else f"{script.memory_gib}G",
        "gres": script.gres,
        "constraint": script.constraint,
        "exclude": ",".join(script.exclude) or None,
        "time": script.time_limit,
        "output": script.output,
        "error": script.error,
    }
    lines = ["#!/bin/bash"]
    lines += [f"# {comment(script.comment)}"] if script.comment else []
    lines += [f"#SBATCH --{name}={_directive(name, str(value))}" for name, value in asked.items() if value is not None]
    lines += ["#SBATCH --requeue" if script.requeue else "#SBATCH --no-requeue", "", *script.body]
    return "\n".join(lines) + "\n"


def log_pattern(folder: Path, name: str, ending: str) -> str:
    """Return Slurm's pattern for `<folder>/<name>_<job id>.<ending>`.

    Raises
    ------
    ParamsError
        When the folder's path holds a backslash, which switches Slurm's patterns off.
    """
    path = f"{folder}/{name}"
    if "\\" in path:
        raise ParamsError(
            f"Slurm cannot write logs below {path!r}: its path holds a backslash.",
            next_step="Choose a workspace with another path.",
        )
    return path.replace("%", "%%") + f"_%j.{ending}"


def comment(text: str) -> str:
    """Return `text` as one line that cannot end the comment it stands in."""
    return _CONTROL.sub(" ", text)


def _directive(name: str, value: str) -> str:
    if _CONTROL.search(value):
        raise ParamsError(
            f"{name} of a Slurm job cannot be {value!r}: it holds a line break or another control character.",
            next_step="Correct it in the site file.",
        )
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
