"""What a replay on the benchmark's own tools says of conversations.

Why those of a setting failed, one by one and counted, and what other scoring rules would have said of them; and whether
the actions in result files that tau-bench v1 itself wrote give the rewards there. A row of such a file is matched to a
task by what it says of it and never by its file's name; where the task has changed since, the row is scored by the
reference that it carries.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from tautools.bench.analysis.failures import FailureAnalysis, analyze_failure
from tautools.bench.analysis.replay import RulesVerdict, ScoringRules, replay, score_by_rules, with_judge_verdicts
from tautools.bench.types import Domain, ReferenceAction, Source
from tautools.errors import BenchError
from tautools.records import CommitRow, Outcome, Strategy
from tautools.run.folder import SettingFolder
from tautools.run.ledger import is_tool_output
from tautools.run.trajectory import actions_in, actions_of

_DIGIT = re.compile(r"\d")


@dataclass(frozen=True)
class AnalyzedConversation:
    """A finished conversation that was done again on the benchmark's tools."""

    row: CommitRow

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {"task_id": self.row.task_id, "trial": self.row.trial, "outcome": self.row.outcome.value}


@dataclass(frozen=True)
class FailedConversation(AnalyzedConversation):
    """A scored conversation that did not pass, and why it failed."""

    analysis: FailureAnalysis

    @property
    def causes(self) -> tuple[str, ...]:
        """What the score was lost by: `end` when the bench did not end it, then the causes of the analysis."""
        ended = () if self.row.outcome in {Outcome.PASSED, Outcome.FAILED} else ("end",)
        return (*ended, *self.analysis.causes)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        why = {"causes": list(self.causes), "analysis": self.analysis.as_dict()}
        return super().as_dict() | {"reward": self.row.reward} | why


def analysis_of(folder: SettingFolder, row: CommitRow) -> FailureAnalysis:
    """Return why one finished conversation got its reward, from a replay of what it did.

    Parameters
    ----------
    folder : SettingFolder
        Its setting.
    row : CommitRow
        Which conversation.

    Raises
    ------
    BenchError, RecordError
        When the benchmark or the conversation cannot be read any more.
    """
    task = folder.task(row.task_id)
    return analyze_failure(folder.domain, task, actions_of(folder.conversation(row), folder.setting))


def failures_of(folder: SettingFolder) -> Iterator[FailedConversation]:
    """Yield every scored conversation of a setting that did not pass, by task and trial; errors as `analysis_of`."""
    for row in folder.rows():
        if row.outcome.scored and row.outcome is not Outcome.PASSED:
            yield FailedConversation(row, analysis_of(folder, row))


def count_causes(failures: Sequence[FailedConversation]) -> Counter[str]:
    """Return how many conversations were lost by each combination of causes."""
    return Counter(" and ".join(each.causes) or "nothing that the replay shows" for each in failures)


def count_missed(failures: Sequence[FailedConversation]) -> Counter[tuple[str, str]]:
    """Return how many conversations missed each action, by its name and its status; each counts once a conversation."""
    return Counter(key for each in failures for key in {(one.name, one.status.value) for one in each.analysis.missed})


def count_fields(failures: Sequence[FailedConversation]) -> Counter[tuple[str, str]]:
    """Return how many conversations left each kind of field wrong, by `table.field` and in which way.

    What names one entry of many is left out: `items.0.price` counts as `items.price`.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for failure in failures:
        paths = [(f"{each.table}.{each.field}", each.error.value) for each in failure.analysis.fields]
        counts.update({(".".join(part for part in path.split(".") if not _DIGIT.search(part)), e) for path, e in paths})
    return counts


@dataclass(frozen=True)
class Rescored(AnalyzedConversation):
    """One finished conversation under several rules."""

    verdicts: dict[ScoringRules, RulesVerdict]
    replayed_reward: float
    """What the bench's own scorer says of the replay; it differs from the record where the benchmark has changed."""

    def changed(self, rules: ScoringRules) -> bool:
        """Whether these rules say otherwise than the record; a conversation without a reward is always otherwise."""
        return self.row.reward is None or self.verdicts[rules].reward != self.row.reward

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        rules = {rules.value: asdict(verdict) for rules, verdict in self.verdicts.items()}
        rewards = {"recorded": self.row.reward, "replayed": self.replayed_reward, "rules": rules}
        return super().as_dict() | rewards


def rescore(folder: SettingFolder, rules: Sequence[ScoringRules]) -> Iterator[Rescored]:
    """Yield every finished conversation of a setting under each of `rules`, by task and trial.

    Raises
    ------
    BenchError, RecordError
        When the benchmark or a conversation cannot be read any more.
    """
    domain = folder.domain
    for row in folder.rows():
        task, conversation = folder.task(row.task_id), folder.conversation(row)
        replayed = replay(domain, task, actions_of(conversation, folder.setting))
        judged = conversation.reward_info.get("nl_assertions")
        scored = {each: score_by_rules(each, domain, task, replayed, row.outcome) for each in rules}
        verdicts = {each: with_judge_verdicts(verdict, judged) for each, verdict in scored.items()}
        yield Rescored(row, verdicts, replayed.reward.value)


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
