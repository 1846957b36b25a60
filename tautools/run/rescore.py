"""Stored conversations under other rules: what would have been scored, and which verdicts change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tautools.bench.replay import replay
from tautools.bench.rules import judge_by, with_judge
from tautools.run.benchmark import domain_of, task_of
from tautools.run.deeds import deeds_of
from tautools.run.ledger import read_conversation
from tautools.run.show import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tautools.bench.rules import Rules, Verdict
    from tautools.records import CommitRow
    from tautools.run.folder import SettingFolder

__all__ = ["Rescored", "Tally", "rescore", "tally"]


@dataclass(frozen=True, slots=True)
class Rescored:
    """One finished conversation under several rules."""

    row: CommitRow
    verdicts: dict[Rules, Verdict]
    replayed_reward: float
    """What the bench's own scorer says of the replay; it differs from the record where the benchmark has changed."""

    def changed(self, rules: Rules) -> bool:
        """Whether these rules say otherwise than the record; a conversation without a reward is always otherwise."""
        return self.row.reward is None or self.verdicts[rules].reward != self.row.reward

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "task_id": self.row.task_id,
            "trial": self.row.trial,
            "outcome": self.row.outcome.value,
            "recorded": self.row.reward,
            "replayed": self.replayed_reward,
            "rules": {
                rules.value: {"reward": verdict.reward, "lost_by": list(verdict.lost_by), "unjudged": verdict.unjudged}
                for rules, verdict in self.verdicts.items()
            },
        }


@dataclass(frozen=True, slots=True)
class Tally:
    """One rule over all conversations of a setting."""

    conversations: int
    passed: int
    changed: tuple[Rescored, ...]
    unjudged: int
    """Conversations with assertions that these rules ask a judge for and that nobody judged."""

    @property
    def mean(self) -> float | None:
        """Mean reward; None of no conversation."""
        return self.passed / self.conversations if self.conversations else None


def rescore(folder: SettingFolder, rules: Sequence[Rules]) -> Iterator[Rescored]:
    """Yield every finished conversation of a setting under each of `rules`, by task and trial.

    Raises
    ------
    BenchError, RecordError
        When the benchmark or a conversation cannot be read any more.
    """
    domain = domain_of(folder)
    for row in rows_of(folder):
        task = task_of(domain, row.task_id)
        conversation = read_conversation(folder.path, row)
        done = replay(domain, task, deeds_of(conversation, folder.setting))
        judged = conversation.reward_info.get("nl_assertions")
        verdicts = {each: with_judge(judge_by(each, domain, task, done, row.outcome), judged) for each in rules}
        yield Rescored(row, verdicts, done.reward.value)


def tally(found: Sequence[Rescored], rules: Rules) -> Tally:
    """Return what one of the rules comes to."""
    return Tally(
        conversations=len(found),
        passed=sum(each.verdicts[rules].reward == 1 for each in found),
        changed=tuple(each for each in found if each.changed(rules)),
        unjudged=sum(each.verdicts[rules].unjudged > 0 for each in found),
    )
