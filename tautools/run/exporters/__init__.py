"""Writes finished conversations in another tool's format."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import orjson

from tautools.errors import ParamsError
from tautools.files import ensure_folder, write_atomic
from tautools.records import Outcome
from tautools.run.exporters.tau2 import tau2_results
from tautools.run.exporters.tau_bench import tau_bench_results
from tautools.run.ledger import rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.run.folder import SettingFolder
__all__ = ["ExportFormat", "ExportedFile", "export"]


class ExportFormat(StrEnum):
    """Whose format."""

    TAU2 = "tau2"
    """tau2-bench's results: one JSON object with info, tasks and simulations."""
    TAU_BENCH = "tau-bench"
    """v1's list of {task_id, reward, info, traj, trial}."""


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """What was written."""

    path: Path
    format: ExportFormat
    conversations: int
    user_errors: int
    """Of these, conversations in which the customer failed: no score of ours, 0 to tau2-bench's own metrics."""
    simulated: bool


def export(
    folder: SettingFolder, kind: ExportFormat, *, out: Path | None = None, num_trials: int | None = None
) -> ExportedFile:
    """Write a setting's finished conversations to one file.

    Parameters
    ----------
    folder : SettingFolder
        Where they lie.
    kind : ExportFormat
        Whose format.
    out : Path, optional
        The file; `tau2_results.json` or `num_trials-<n>.json` in the folder when not given.
    num_trials : int, optional
        Only trials below it; all when not given.

    Raises
    ------
    ParamsError
        When nothing is finished, or `out` is a folder.
    BenchError
        When the benchmark that the format needs is not there.
    """
    rows = [row for row in rows_of(folder) if num_trials is None or row.trial < num_trials]
    if not rows:
        raise ParamsError(
            f"Nothing is finished in {folder.path}.", next_step="Run the cell with `tautools run`, or choose another."
        )
    trials = num_trials or max(row.trial for row in rows) + 1
    tau2 = kind is ExportFormat.TAU2
    path = out or folder.path / ("tau2_results.json" if tau2 else f"num_trials-{trials}.json")
    if path.is_dir():
        raise ParamsError(f"{path} is a folder.", next_step="Name a file with --out.")
    results = tau2_results(folder, rows) if tau2 else tau_bench_results(folder.path, rows, num_trials=trials)
    ensure_folder(path.parent)
    write_atomic(path, orjson.dumps(results, option=orjson.OPT_INDENT_2) + b"\n")
    failed = sum(row.outcome is Outcome.USER_ERROR for row in rows)
    return ExportedFile(path, kind, len(rows), failed, simulated=any(row.simulated for row in rows))
