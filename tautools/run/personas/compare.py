"""Personas beside control: scores, length, tokens, what the agent does otherwise, all paired by task and trial."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tautools.errors import BenchError
from tautools.records import Outcome
from tautools.run.deeds import deeds_of
from tautools.run.ledger import read_events
from tautools.run.personas.certificate import certify_in
from tautools.run.personas.pairing import effect
from tautools.stats import TaskCounts, interval, largest_k, mean_over_tasks, task_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tautools.records import Deed
    from tautools.run.folder import SettingFolder
    from tautools.run.personas.certificate import PersonaCertificate
    from tautools.run.personas.pairing import Group, Pair, Played, Talk
    from tautools.stats import Interval, PairedEffect

__all__ = ["AGENT", "Compared", "Comparison", "compare"]

_APOLOGY = re.compile(r"\b(?:sorry|apolog\w*|regret)\b", re.IGNORECASE)
_CLARIFYING = re.compile(r"[^.!?\n]*\b(?:clarify|confirm|repeat|specify|do you mean|which)\b[^.!?\n]*\?", re.IGNORECASE)

AGENT = ("turns", "prompt tokens", "output tokens", "apologies", "clarifications", "transfers", "facts told")
"""Figures of a conversation whose difference to control is shown, in their order."""


@dataclass(frozen=True)
class Compared:
    """One persona, or control."""

    label: str
    folder: str
    conversations: int
    scored: int
    user_errors: int
    """Conversations in which the customer's model failed, each time counted."""
    pass_hat: tuple[float, ...]
    """pass^1 to the largest k that every task has trials for, in [0, 1]; empty without a scored conversation."""
    interval: Interval | None
    """Of pass^1."""
    means: Mapping[str, float]
    """Mean over conversations of each figure of `AGENT` that could be had."""
    difference: PairedEffect | None = None
    """Of pass^1 to control, over tasks with a scored pair; None for control, or without a pair."""
    effects: Mapping[str, PairedEffect] = field(default_factory=dict)
    """Of the figures of `AGENT`, likewise."""
    certificate: PersonaCertificate | None = None


@dataclass(frozen=True)
class Comparison:
    """Settings that differ in the persona alone, control first where it was run."""

    env: str
    strategy: str
    agent: str
    user: str
    user_strategy: str
    simulated: bool
    has_control: bool
    personas: tuple[Compared, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        found = asdict(self)
        for row, each in zip(found["personas"], self.personas, strict=True):
            row["certificate"] = each.certificate.as_dict() if each.certificate else None
        return found


def compare(group: Group) -> Comparison:
    """Compare the personas of a group with its control.

    Raises
    ------
    RecordError
        When a conversation cannot be read any more.
    """
    setting = group.played[0].folder.setting
    return Comparison(
        env=setting.env,
        strategy=setting.strategy.value,
        agent=setting.agent.model,
        user=setting.user.model,
        user_strategy=setting.user_strategy.value,
        simulated=any(each.folder.setting.simulated for each in group.played),
        has_control=group.control is not None,
        personas=tuple(_compared(each, group) for each in group.played),
    )


def _compared(played: Played, group: Group) -> Compared:
    counts = _counts(played)
    values = [task_values(counts, 1)] if counts else []
    control = None if played is group.control else group.control
    figures = _figures(played)
    others = _figures(control) if control else {}
    effects = {name: effect(figures[name], others[name]) for name in figures if name in others}
    return Compared(
        label=played.label,
        folder=str(played.folder.path),
        conversations=len(played.talks),
        scored=sum(talk.row.outcome.scored for talk in played.talks.values()),
        user_errors=_user_errors(played.folder),
        pass_hat=tuple(mean_over_tasks(counts, k) for k in range(1, largest_k(counts) + 1)),
        interval=interval(values[0]) if values else None,
        means={name: sum(each.values()) / len(each) for name, each in figures.items() if each},
        difference=effect(_rewards(played), _rewards(control)) if control else None,
        effects={name: each for name, each in effects.items() if each is not None},
        certificate=None if played is group.control else certify_in(group, played),
    )


def _counts(played: Played) -> list[TaskCounts]:
    trials: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for talk in played.talks.values():
        if talk.row.outcome.scored:
            trials[talk.row.task_id] += 1
            passed[talk.row.task_id] += talk.row.outcome is Outcome.PASSED
    return [TaskCounts(trials[task], passed[task]) for task in trials]


def _rewards(played: Played) -> dict[Pair, float]:
    """Return 1 for each scored conversation that passed and 0 for each that did not."""
    talks = played.talks.items()
    return {pair: float(talk.row.outcome is Outcome.PASSED) for pair, talk in talks if talk.row.outcome.scored}


def _figures(played: Played) -> dict[str, dict[Pair, float]]:
    figures: dict[str, dict[Pair, float]] = {name: {} for name in AGENT}
    for pair, talk in played.talks.items():
        deeds = deeds_of(talk.conversation, played.folder.setting)
        for name, value in _of_agent(talk, deeds).items():
            figures[name][pair] = value
    try:
        figures["facts told"] = dict(played.coverage)
    except BenchError:  # the benchmark is not at hand: the rest is in the records
        del figures["facts told"]
    return figures


def _of_agent(talk: Talk, deeds: Iterable[Deed]) -> dict[str, float]:
    mine = [deed for deed in deeds if deed.by == "assistant"]
    words = "\n".join(deed.said for deed in mine if not deed.call)
    return {
        "turns": float(len(talk.said)),
        "prompt tokens": float(talk.row.prompt_tokens),
        "output tokens": float(talk.row.output_tokens),
        "apologies": float(len(_APOLOGY.findall(words))),
        "clarifications": float(len(_CLARIFYING.findall(words))),
        "transfers": float(sum(deed.call.startswith("transfer") for deed in mine)),
    }


def _user_errors(folder: SettingFolder) -> int:
    return sum(each.kind == "user_error" and each.setting_id == folder.id for each in read_events(folder.path))
