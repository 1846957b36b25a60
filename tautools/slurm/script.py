"""Job scripts. Pure: text in, text out.

Slurm reads the `#SBATCH` lines itself, with quotes and backslashes of its own and without a shell; the rest is bash. A
value that no quoting carries safely (a line break would begin a new line of the script) is refused.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tautools.errors import ParamsError

_PLAIN = re.compile(r"[A-Za-z0-9_./:,=+@%-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def render_sbatch(asked: Mapping[str, object], body: Sequence[str], *, note: str = "") -> str:
    """Return the text of a job script.

    Slurm does not start the job again after a failed node: a server that comes back must be verified again.

    Parameters
    ----------
    asked : mapping
        By the names of sbatch's options; None leaves one out.
    body : sequence of str
        Lines of bash, already quoted.
    note : str
        A line for its reader.

    Raises
    ------
    ParamsError
        When a value holds a line break or another control character.
    """
    lines = ["#!/bin/bash", *([f"# {comment(note)}"] if note else [])]
    lines += [f"#SBATCH --{name}={_directive(name, str(value))}" for name, value in asked.items() if value is not None]
    return "\n".join([*lines, "#SBATCH --no-requeue", "", *body]) + "\n"


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
