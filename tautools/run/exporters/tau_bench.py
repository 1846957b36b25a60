"""`num_trials-<n>.json`: tau-bench's own list of results, a view of the ledger that is always written as a whole.

It holds every finished conversation of the setting with a trial below n, so running a part of the tasks never makes
it smaller. A conversation that ended in a user_error has the reward null: no fault is turned into a score of 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from tautools.errors import RecordError
from tautools.files import write_atomic
from tautools.run.ledger import read_conversation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tautools.records import CommitRow

_INFO = {
    *("outcome", "reward_info", "setting_id", "seed", "started_at", "finished_at", "simulated"),
    *("error", "imported"),  # only where there is one
}


def write_view(folder: Path, rows: Iterable[CommitRow], *, num_trials: int, order: Sequence[str]) -> Path:
    """Write the view of `num_trials` trials and return its path.

    Parameters
    ----------
    folder : Path
        The setting's folder.
    rows : iterable of CommitRow
        What is finished.
    num_trials : int
        Trials 0 to num_trials - 1 are shown.
    order : sequence of str
        Task ids in the benchmark's order; within a trial, results follow it.
    """
    path = folder / f"num_trials-{num_trials}.json"
    results = tau_bench_results(folder, rows, num_trials=num_trials, order=order)
    write_atomic(path, orjson.dumps(results, option=orjson.OPT_INDENT_2) + b"\n")
    return path


def tau_bench_results(
    folder: Path, rows: Iterable[CommitRow], *, num_trials: int, order: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return what `write_view` writes."""
    place = {task_id: index for index, task_id in enumerate(order)}
    shown = [row for row in rows if row.trial < num_trials]
    shown.sort(key=lambda row: (row.trial, place.get(row.task_id, len(place)), row.task_id.zfill(8)))
    return [entry for row in shown if (entry := _result(folder, row)) is not None]


def _bench_task_id(task_id: str) -> int | str:
    """Return a task id as tau-bench writes it: an integer where tasks have numbers."""
    return int(task_id) if task_id.isdecimal() and str(int(task_id)) == task_id else task_id


def _result(folder: Path, row: CommitRow) -> dict[str, Any] | None:
    try:
        conversation = read_conversation(folder, row)
    except RecordError:  # damaged since it was planned: the next run finds it and repeats it
        return None
    info = conversation.model_dump(mode="json", include=_INFO)
    info["reward_info"] = conversation.reward_info or None
    return {
        "task_id": _bench_task_id(row.task_id),
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
