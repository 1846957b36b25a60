"""Starts the notebook of one cell in a process of its own, with everything that process needs to know."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tautools.files import ensure_folder, write_atomic
from tautools.shell import Process, start_detached, this_process
from tautools.sweep.status import runs_folder
from tautools.sweep.template import check_parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from tautools.params.models import SweepParams
    from tautools.sweep.plan import PlannedCell

__all__ = ["Launcher"]

UNLIMITED_CONVERSATION_S = 3600
"""What a conversation without a time limit of its own is taken to last at most, for the guard [s]."""

GUARD_S = 3600
"""Added to what a cell's conversations may last at most: past that, the notebook hangs [s]."""


class Launcher:
    """Starts notebooks of one sweep.

    Parameters
    ----------
    sweep : SweepParams
        The sweep, overrides included. It is written beside the notebooks, which read it from there.
    workspace : Path
        An absolute path.
    notebook : Path
        The notebook to execute for each cell.

    Raises
    ------
    SweepError
        When the notebook does not take the parameters.
    FilesError
        When the workspace cannot be written.
    """

    def __init__(self, sweep: SweepParams, *, workspace: Path, notebook: Path) -> None:
        self._sweep = sweep
        self._workspace = workspace
        self._notebook = notebook
        self._folder = runs_folder(workspace, sweep.name)
        check_parameters(notebook, self._parameters(0, Path("sweep.yaml")))
        self._file = _write_sweep(sweep, ensure_folder(self._folder))
        self._job = f"{sweep.name}_{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"

    def state_path(self, cell: PlannedCell) -> Path:
        """Return where a cell's attempt is written down."""
        return self._folder / f"{cell.cell.name}.json"

    def start(self, cell: PlannedCell, on_exit: Callable[[int], None]) -> Process:
        """Start a cell's notebook and return at once; `on_exit` is told its exit status, from another thread."""
        out = ensure_folder(self._workspace / "logs") / f"{self._job}_{cell.cell.index}.out"
        err = ensure_folder(self._workspace / "errors") / f"{self._job}_{cell.cell.index}.err"
        me = this_process()
        argv = [sys.executable, "-m", "tautools.sweep.execute"]
        argv += ["--notebook", str(self._notebook), "--out", str(self._folder / f"{cell.cell.name}.ipynb")]
        argv += ["--state", str(self.state_path(cell)), "--log", str(out)]
        argv += ["--parameters", json.dumps(self._parameters(cell.cell.index, self._file))]
        argv += ["--timeout-s", str(self._timeout_s(cell))]
        argv += ["--follow", str(me.pid), "--follow-started-at", repr(me.started_at)]
        return start_detached(argv, env=_environment(), cwd=Path.cwd(), stdout=out, stderr=err, on_exit=on_exit)

    def _parameters(self, index: int, sweep_file: Path) -> dict[str, str | int | float | bool]:
        return {
            "sweep": str(sweep_file),
            "cell": index,
            "workspace": str(self._workspace),
            "limit": 0,
            # The sweep holds the servers up; a notebook of it must not start a second one of the same name.
            "start_servers": False,
        }

    def _timeout_s(self, cell: PlannedCell) -> int:
        longest_s = cell.cell.run.limits.time_s or UNLIMITED_CONVERSATION_S
        return math.ceil(cell.planned / self._sweep.concurrency * longest_s) + GUARD_S


def _environment() -> dict[str, str]:
    """Return the environment of a notebook's process, which its kernel inherits."""
    return {
        **os.environ,
        # litellm asks the network for prices when it is imported, unless told not to.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # A kernel spec in the home folder may name another Python than the one that runs here.
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _write_sweep(sweep: SweepParams, folder: Path) -> Path:
    """Write the sweep as it is run; its name holds its hash, so that runs with other overrides keep theirs."""
    text = yaml.safe_dump(sweep.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)
    path = folder / f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:8]}.yaml"
    write_atomic(path, text)
    return path
