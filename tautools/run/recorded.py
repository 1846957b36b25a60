"""Replays result files that tau-bench v1 itself wrote, to see whether the recorded actions give the recorded rewards.

A row is matched to a task by what it says of it and never by its file's name. Where the task has changed since the
recording, the row is scored by the reference that it carries.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tautools.bench.analysis.replay import replay
from tautools.bench.types import ReferenceAction, Task
from tautools.errors import BenchError
from tautools.records import Strategy
from tautools.run.trajectory import actions_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tautools.bench.types import Domain, Source
    from tautools.records import TrajectoryAction


_API_OUTPUT = "API output: "
_STEP_LIMIT = 30
"""Answers of the agent after which v1 ends a conversation with reward 0, unscored."""


class ReplayStatus(StrEnum):
    """What became of a recorded row."""

    SAME = "same reward"
    SAME_BY_ITS_OWN_REFERENCE = "same reward by the reference it was recorded with"
    STEP_LIMIT = "step limit: never scored, reward 0"
    ERROR_ROW = "error row: an exception was scored 0"
    UNKNOWN_TASK = "a task that this checkout does not have"
    DIFFERENT = "another reward"


@dataclass(frozen=True, slots=True)
class ReplayedRow:
    """One row, done again."""

    task_id: str
    trial: int
    place: str
    """Env and split of its task."""
    recorded: float
    replayed: float | None
    """None when there is nothing to replay."""
    fate: ReplayStatus
    observations: int = 0
    """Tool answers that were recorded."""
    other_observations: int = 0
    """Of these, how many read otherwise now."""
    why: str = ""
    """What differs, or was recorded in place of a verdict."""

    @property
    def explained(self) -> bool:
        """Whether the row is as it was recorded, or could not be."""
        return self.fate not in {ReplayStatus.DIFFERENT, ReplayStatus.UNKNOWN_TASK}

    @property
    def reward(self) -> float:
        """The reward here; the recorded one where v1 scored nothing."""
        return self.recorded if self.replayed is None else self.replayed


def replay_file(path: Path, source: Source) -> list[ReplayedRow]:
    """Replay every row of a result file of tau-bench.

    Parameters
    ----------
    path : Path
        As v1 wrote it, or that gzipped.
    source : Source
        A checkout of tau-bench.

    Raises
    ------
    BenchError
        When the file is not such a list of rows.
    """
    domains = [source.domain(env, split) for env in source.envs() for split in source.splits(env)]
    return [_replay_row(row, domains) for row in _rows(path)]


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        raw = path.read_bytes()
        rows = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
        if not isinstance(rows, list) or not rows:
            raise ValueError("it is not a list of rows")
        for row in rows:
            if not {"task_id", "reward", "info", "traj", "trial"} <= row.keys():
                raise ValueError(f"a row has the fields {', '.join(sorted(row))}")
    except (OSError, ValueError, AttributeError) as error:
        raise BenchError(
            f"{path} is not a result file of tau-bench v1.",
            evidence=str(error),
            next_step="Name a JSON list of {task_id, reward, info, traj, trial}, as tau-bench's run.py writes it.",
        ) from error
    yield from rows


def _replay_row(row: Mapping[str, Any], domains: Sequence[Domain]) -> ReplayedRow:
    info = row["info"]
    rerun = ReplayedRow(str(row["task_id"]), int(row["trial"]), "", float(row["reward"]), None, ReplayStatus.ERROR_ROW)
    if "error" in info:
        return replace(rerun, why=str(info["error"]).splitlines()[0][:200])
    domain = _domain(row, domains)
    if domain is None:
        return replace(
            rerun, fate=ReplayStatus.UNKNOWN_TASK, why=str(info.get("task", {}).get("instruction", ""))[:200]
        )
    rerun = replace(rerun, place=f"{domain.ref.env}/{domain.ref.split}")
    actions = list(_actions(row["traj"]))
    if info.get("reward_info") is None:
        answers = sum(message["role"] == "assistant" for message in row["traj"])
        ended = answers >= _STEP_LIMIT and not row["reward"]
        return replace(
            rerun,
            fate=ReplayStatus.STEP_LIMIT if ended else ReplayStatus.DIFFERENT,
            why=f"{answers} answers of the agent",
        )
    return _scored(rerun, row, actions, domain)


def _scored(
    rerun: ReplayedRow, row: Mapping[str, Any], actions: Sequence[TrajectoryAction], domain: Domain
) -> ReplayedRow:
    task = domain.tasks[rerun.task_id]
    own = _as_recorded(task, row["info"]["task"])
    found = replay(domain, task, actions)
    seen, told = [step.observation.text for step in found.steps], _outputs(row["traj"])
    others = [(a, b) for a, b in zip(told, seen, strict=False) if a != b]
    rerun = replace(
        rerun,
        replayed=found.reward.value,
        observations=len(told),
        other_observations=len(others) + abs(len(told) - len(seen)),
    )
    first = f"recorded {_excerpt(*others[0])}, now {_excerpt(*others[0][::-1])}" if others else ""
    if found.reward.value == rerun.recorded:
        return replace(rerun, fate=ReplayStatus.SAME, why=first)
    if own != task and replay(domain, own, actions).reward.value == rerun.recorded:
        return replace(
            rerun, fate=ReplayStatus.SAME_BY_ITS_OWN_REFERENCE, why="The task's reference has changed since."
        )
    return replace(
        rerun, fate=ReplayStatus.DIFFERENT, why=first or json.dumps(dict(found.reward.info), default=str)[:300]
    )


def _excerpt(text: str, other: str) -> str:
    """Return a text around the place where it leaves another one."""
    both = zip(text, other, strict=False)
    start = max(0, next((place for place, (a, b) in enumerate(both) if a != b), len(text)) - 20)
    return repr(text[start : start + 60])


def _as_recorded(task: Task, told: Mapping[str, Any]) -> Task:
    """Return the task with the reference and outputs of the recording; the same one when they have not changed."""
    reference = tuple(ReferenceAction(each["name"], each["kwargs"]) for each in told["actions"])
    outputs = tuple(told["outputs"])
    if reference == task.reference and outputs == task.communicate:
        return task
    return replace(task, id=f"{task.id} as recorded", reference=reference, communicate=outputs)


def _domain(row: Mapping[str, Any], domains: Sequence[Domain]) -> Domain | None:
    """Return the env and split whose task of that number has the row's instruction, else its customer and tools."""
    told, name = row["info"].get("task") or {}, str(row["task_id"])
    having = [each for each in domains if name in each.tasks]
    for domain in having:
        if domain.tasks[name].source_task.instruction == told.get("instruction"):
            return domain
    for domain in having:
        if domain.tasks[name].source_task.user_id == told.get("user_id"):
            return domain
    return None


def _actions(messages: Sequence[Mapping[str, Any]]) -> Iterator[TrajectoryAction]:
    by_text = any(_is_output(message) for message in messages)
    strategy = Strategy.ACT if by_text else Strategy.FC
    for message in messages:
        if message["role"] == "assistant":
            yield from actions_in(message, strategy, "tau-bench")


def _outputs(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        str(message["content"]).removeprefix(_API_OUTPUT if message["role"] == "user" else "")
        for message in messages
        if message["role"] == "tool" or _is_output(message)
    ]


def _is_output(message: Mapping[str, Any]) -> bool:
    return message["role"] == "user" and str(message["content"]).startswith(_API_OUTPUT)
