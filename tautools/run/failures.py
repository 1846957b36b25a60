"""Why conversations of a setting failed, one by one and counted, and what other scoring rules would have said."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tautools.bench.analysis.failures import analyze_failure
from tautools.bench.analysis.replay import replay
from tautools.bench.analysis.rules import score_by_rules, with_judge_verdicts
from tautools.records import Outcome
from tautools.run.trajectory import actions_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tautools.bench.analysis.failures import FailureAnalysis
    from tautools.bench.analysis.rules import RulesVerdict, ScoringRules
    from tautools.records import CommitRow
    from tautools.run.folder import SettingFolder

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
