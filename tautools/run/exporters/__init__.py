"""Finished conversations in another tool's format.

`num_trials-<n>.json`, tau-bench's own list of results, is a view of the ledger that is always written as a whole: it
holds every finished conversation of the setting with a trial below n, so running a part of the tasks never makes it
smaller. A conversation that ended in a user_error has the reward null: no fault is turned into a score of 0.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tautools.errors import ParamsError, RecordError
from tautools.files import ensure_folder, write_atomic
from tautools.records import CommitRow, Outcome
from tautools.run.exporters.tau2 import tau2_results
from tautools.run.folder import SettingFolder
from tautools.run.ledger import count_user_errors, read_conversation


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
    rows = [row for row in folder.rows() if num_trials is None or row.trial < num_trials]
    if not rows:
        raise ParamsError(
            f"Nothing is finished in {folder.path}.", next_step="Run the cell with `tautools run`, or choose another."
        )
    tau2 = kind is ExportFormat.TAU2
    path = out or (folder.path / "tau2_results.json" if tau2 else _view_path(folder.path, num_trials, rows))
    if path.is_dir():
        raise ParamsError(f"{path} is a folder.", next_step="Name a file with --out.")
    results = tau2_results(folder, rows) if tau2 else _tau_bench_results(folder.path, rows, order=())
    ensure_folder(path.parent)
    _write_json(path, results)
    return ExportedFile(path, kind, len(rows), count_user_errors(rows), simulated=any(row.simulated for row in rows))


def write_view(folder: Path, rows: Iterable[CommitRow], *, num_trials: int | None = None, order: Sequence[str]) -> Path:
    """Write tau-bench's view of a setting's results and return its path.

    Parameters
    ----------
    folder : Path
        The setting's folder.
    rows : iterable of CommitRow
        What is finished.
    num_trials : int, optional
        Trials 0 to num_trials - 1 are shown; all that there are when not given.
    order : sequence of str
        Task ids in the benchmark's order; within a trial, results follow it.
    """
    shown = [row for row in rows if num_trials is None or row.trial < num_trials]
    path = _view_path(folder, num_trials, shown)
    _write_json(path, _tau_bench_results(folder, shown, order=order))
    return path


def _view_path(folder: Path, num_trials: int | None, rows: Iterable[CommitRow]) -> Path:
    return folder / f"num_trials-{num_trials or 1 + max(row.trial for row in rows)}.json"


def _write_json(path: Path, value: Any) -> None:
    try:
        text = orjson.dumps(value, option=orjson.OPT_INDENT_2)
    except TypeError:  # a model's arguments hold an integer or a depth that orjson refuses and other readers know
        text = json.dumps(value, indent=2).encode()
    write_atomic(path, text + b"\n")


def _tau_bench_results(folder: Path, rows: Iterable[CommitRow], *, order: Sequence[str]) -> list[dict[str, Any]]:
    place = {task_id: index for index, task_id in enumerate(order)}
    by_trial = sorted(rows, key=lambda row: (row.trial, place.get(row.task_id, len(place)), row.task_id.zfill(8)))
    return [entry for row in by_trial if (entry := _tau_bench_result(folder, row)) is not None]


_INFO = {
    *("outcome", "reward_info", "setting_id", "seed", "started_at", "finished_at", "simulated"),
    *("error", "imported"),  # only where there is one
}


def _tau_bench_result(folder: Path, row: CommitRow) -> dict[str, Any] | None:
    try:
        conversation = read_conversation(folder, row)
    except RecordError:  # damaged since it was planned: the next run finds it and repeats it
        return None
    info = conversation.model_dump(mode="json", include=_INFO)
    info["reward_info"] = conversation.reward_info or None
    task_id = row.task_id
    return {
        "task_id": int(task_id) if task_id.isdecimal() and str(int(task_id)) == task_id else task_id,
        "reward": row.reward,
        "info": {name: value for name, value in info.items() if value or name not in {"error", "imported"}},
        "traj": _with_tool_names(conversation.messages),
        "trial": row.trial,
    }


def _with_tool_names(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages as tau-bench keeps them: a tool's answer has the tool's name beside the id of the call."""
    names: dict[str, str] = {}
    named = []
    for message in messages:
        names.update({call["id"]: call["function"]["name"] for call in message.get("tool_calls", ())})
        answered = names.get(message.get("tool_call_id", ""))
        named.append(message if answered is None else {**message, "name": answered})
    return named
