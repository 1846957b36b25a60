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
from tautools.bench.types import ReferenceAction
from tautools.errors import BenchError
from tautools.records import Strategy
from tautools.run.ledger import is_tool_output
from tautools.run.trajectory import actions_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.bench.types import Domain, Source

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
    recorded: float
    """The reward in the file."""
    env: str = ""
    """Env and split of its task."""
    replayed: float | None = None
    """None when there is nothing to replay."""
    status: ReplayStatus = ReplayStatus.ERROR_ROW
    observations: int = 0
    """Tool answers that were recorded."""
    other_observations: int = 0
    """Of these, how many read otherwise now."""
    detail: str = ""
    """What differs, or was recorded in place of a verdict."""

    @property
    def explained(self) -> bool:
        """Whether the row is as it was recorded, or could not be."""
        return self.status not in {ReplayStatus.DIFFERENT, ReplayStatus.UNKNOWN_TASK}

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


def _rows(path: Path) -> list[dict[str, Any]]:
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
    return rows


def _replay_row(row: Mapping[str, Any], domains: Sequence[Domain]) -> ReplayedRow:
    info, recorded_task = row["info"], row["info"].get("task") or {}
    replayed = ReplayedRow(str(row["task_id"]), int(row["trial"]), float(row["reward"]))
    if "error" in info:
        return replace(replayed, detail=str(info["error"]).splitlines()[0][:200])
    domain = _domain(replayed.task_id, recorded_task, domains)
    if domain is None:
        instruction = str(recorded_task.get("instruction", ""))[:200]
        return replace(replayed, status=ReplayStatus.UNKNOWN_TASK, detail=instruction)
    replayed = replace(replayed, env=f"{domain.ref.env}/{domain.ref.split}")
    if info.get("reward_info") is not None:
        return _scored(replayed, row["traj"], recorded_task, domain)
    answers = sum(message["role"] == "assistant" for message in row["traj"])
    ended = answers >= _STEP_LIMIT and not row["reward"]
    status = ReplayStatus.STEP_LIMIT if ended else ReplayStatus.DIFFERENT
    return replace(replayed, status=status, detail=f"{answers} answers of the agent")


def _scored(
    row: ReplayedRow, messages: Sequence[Mapping[str, Any]], recorded_task: Mapping[str, Any], domain: Domain
) -> ReplayedRow:
    task = domain.tasks[row.task_id]
    outputs = [message for message in messages if is_tool_output(message)]
    strategy = Strategy.ACT if any(message["role"] == "user" for message in outputs) else Strategy.FC
    answers = (message for message in messages if message["role"] == "assistant")
    actions = [action for message in answers for action in actions_in(message, strategy, "tau-bench")]
    result = replay(domain, task, actions)
    now = [step.observation.text for step in result.steps]
    then = [str(message["content"]).removeprefix("API output: ") for message in outputs]
    differing = [(a, b) for a, b in zip(then, now, strict=False) if a != b]
    others = len(differing) + abs(len(then) - len(now))
    row = replace(row, replayed=result.reward.value, observations=len(then), other_observations=others)
    first = f"recorded {_excerpt(*differing[0])}, now {_excerpt(*differing[0][::-1])}" if differing else ""
    if result.reward.value == row.recorded:
        return replace(row, status=ReplayStatus.SAME, detail=first)
    # The reference and outputs that the recording carries; the task may have changed since.
    reference = tuple(ReferenceAction(each["name"], each["kwargs"]) for each in recorded_task["actions"])
    own = replace(task, id=f"{task.id} as recorded", reference=reference, communicate=tuple(recorded_task["outputs"]))
    changed = (own.reference, own.communicate) != (task.reference, task.communicate)
    if changed and replay(domain, own, actions).reward.value == row.recorded:
        detail = "The task's reference has changed since."
        return replace(row, status=ReplayStatus.SAME_BY_ITS_OWN_REFERENCE, detail=detail)
    detail = first or json.dumps(dict(result.reward.info), default=str)[:300]
    return replace(row, status=ReplayStatus.DIFFERENT, detail=detail)


def _excerpt(text: str, other: str) -> str:
    """Return a text around the place where it leaves another one."""
    both = zip(text, other, strict=False)
    start = max(0, next((at for at, (a, b) in enumerate(both) if a != b), len(text)) - 20)
    return repr(text[start : start + 60])


def _domain(task_id: str, recorded: Mapping[str, Any], domains: Sequence[Domain]) -> Domain | None:
    """Return the env and split whose task of that number has the recorded instruction, else its user and tools."""
    having = [(domain, domain.tasks[task_id].source_task) for domain in domains if task_id in domain.tasks]
    same = (
        domain
        for name in ("instruction", "user_id")
        for domain, task in having
        if getattr(task, name) == recorded.get(name)
    )
    return next(same, None)
