"""The certificate of a persona's run, and personas compared with control, all paired by task and trial.

The certificate is read from the stored records, so that anybody can repeat it: the persona's text is in the recorded
prompt of every conversation; the rest of the prompt is the task as control has it; tasks, trials and seeds are
control's; the user told as many of the facts; and how the wording differs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tautools.errors import BenchError, PersonaError
from tautools.files import write_atomic
from tautools.params.personas import HEADING
from tautools.records import Outcome, UserStrategy
from tautools.run.folder import domain_of
from tautools.run.ledger import read_events
from tautools.run.personas.labels import read_labels
from tautools.run.personas.pairing import MEASURES, effect, groups_of
from tautools.run.trajectory import actions_of
from tautools.stats import TaskCounts, interval, largest_k, mean_over_tasks, task_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tautools.records import TrajectoryAction
    from tautools.run.folder import SettingFolder
    from tautools.run.personas.labels import LabelSummary
    from tautools.run.personas.pairing import Pair, PersonaConversation, PersonaGroup, PersonaRun
    from tautools.stats import Interval, PairedEffect


CERTIFICATE = "persona_certificate.json"
"""Its file, beside `setting.json`."""

TEXT_PRESENT = "text in every recorded prompt"


@dataclass(frozen=True, slots=True)
class PersonaCheck:
    """One thing that must hold."""

    name: str
    passed: bool | None
    """None: it cannot be told yet."""
    detail: str


@dataclass(frozen=True)
class PersonaCertificate:
    """What is known of one persona's run."""

    env: str
    strategy: str
    user_strategy: str
    persona: str
    intensity: str
    sha256: str
    """Of the text that the setting says was added."""
    setting_id: str
    control_id: str
    """Empty while control has no results."""
    conversations: int
    simulated: bool
    checks: tuple[PersonaCheck, ...]
    wording: Mapping[str, PairedEffect] = field(default_factory=dict)
    """By measure, the difference to control over tasks."""
    distinct: tuple[str, ...] = ()
    """Measures whose interval, widened for their number, leaves 0 out."""
    labels: LabelSummary | None = None

    @property
    def passed(self) -> bool | None:
        """False when a check failed, None when one cannot be told yet."""
        results = {check.passed for check in self.checks}
        return False if False in results else None if None in results else True

    def raise_if_ineffective(self) -> None:
        """Raise `PersonaError` when the persona's text is not in every recorded prompt."""
        for check in self.checks:
            if check.name == TEXT_PRESENT and check.passed is False:
                raise PersonaError(
                    f"The persona {self.persona} is not in every recorded prompt of its customer.",
                    evidence=check.detail,
                    next_step="Do not use these results; move the folder away and run the persona again.",
                )

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {**asdict(self), "passed": self.passed}


def certify(workspace: Path, folder: SettingFolder) -> PersonaCertificate:
    """Read the records of a setting with a persona and say what they prove.

    Raises
    ------
    RecordError
        When a conversation cannot be read any more.
    """
    (group,) = groups_of(workspace, [folder])
    return certify_in(group, group.variants[0])


def keep_certificate(workspace: Path, folder: SettingFolder) -> PersonaCertificate:
    """Write the certificate beside the results, in place of an older one, and return it."""
    found = certify(workspace, folder)
    write_atomic(folder.path / CERTIFICATE, json.dumps(found.as_dict(), indent=1, ensure_ascii=False) + "\n")
    return found


def certify_in(group: PersonaGroup, played: PersonaRun) -> PersonaCertificate:
    """Return the certificate of one variant of a group; errors as `certify`."""
    control = group.control
    setting = played.folder.setting
    differences = dict(_wording(played, control))
    return PersonaCertificate(
        env=setting.env,
        strategy=setting.strategy.value,
        user_strategy=setting.user_strategy.value,
        persona=played.label,
        intensity=setting.intensity or "",
        sha256=setting.prompts.get("persona", ""),
        setting_id=played.folder.id,
        control_id=control.folder.id if control else "",
        conversations=len(played.talks),
        simulated=setting.simulated,
        checks=tuple(_checks(played, control)),
        wording=differences,
        distinct=tuple(_distinct(played, control)),
        labels=read_labels(played),
    )


def _checks(played: PersonaRun, control: PersonaRun | None) -> Iterator[PersonaCheck]:
    if not played.talks:
        yield PersonaCheck("conversations", None, "nothing is finished yet (n = 0)")
        return
    yield _text_is_there(played)
    yield _task_is_the_same(played, control)
    yield _same_pairs(played, control)
    yield _facts_told(played, control)


def _text_is_there(played: PersonaRun) -> PersonaCheck:
    wanted = played.folder.setting.prompts.get("persona", "")
    found = {pair: _split(talk.conversation.user_messages)[1] for pair, talk in played.talks.items()}
    missing = [pair for pair, text in found.items() if _hash_of(text) != wanted]
    return PersonaCheck(TEXT_PRESENT, not missing, _share_text(len(played.talks), missing))


def _task_is_the_same(played: PersonaRun, control: PersonaRun | None) -> PersonaCheck:
    """Compare what stands before the persona's text with control's record of the task, else with the benchmark's."""
    originals = _originals(played, control)
    known = {pair: talk for pair, talk in played.talks.items() if pair[0] in originals}
    other = [pair for pair, talk in known.items() if _split(talk.conversation.user_messages)[0] != originals[pair[0]]]
    if not known:
        return PersonaCheck("task unchanged", None, "control has no conversation of these tasks yet")
    detail = _share_text(len(known), other)
    return PersonaCheck(
        "task unchanged", not other, detail if len(known) == len(played.talks) else f"{detail}; others unknown"
    )


def _originals(played: PersonaRun, control: PersonaRun | None) -> dict[str, str]:
    texts: dict[str, str] = {}
    if played.folder.setting.user_strategy is UserStrategy.LLM:
        try:
            texts = {name: task.user_system for name, task in domain_of(played.folder).tasks.items()}
        except BenchError:  # not at hand: control's records are what there is
            texts = {}
    recorded = control.talks.values() if control else ()
    return texts | {talk.row.task_id: _split(talk.conversation.user_messages)[0] for talk in recorded}


def _same_pairs(played: PersonaRun, control: PersonaRun | None) -> PersonaCheck:
    name = "tasks, trials and seeds are control's"
    if control is None:
        return PersonaCheck(name, None, "control was not run yet")
    alone = [pair for pair in played.talks if pair not in control.talks]
    seeds = [
        pair
        for pair, talk in played.talks.items()
        if pair in control.talks and talk.conversation.seed != control.talks[pair].conversation.seed
    ]
    if seeds:
        return PersonaCheck(name, False, f"another seed in {_pair_names(seeds)}")
    if alone:
        return PersonaCheck(name, None, f"control still owes {_pair_names(alone)}")
    return PersonaCheck(name, True, f"{len(played.talks)} pairs")


def _facts_told(played: PersonaRun, control: PersonaRun | None) -> PersonaCheck:
    name = "facts told as by control"
    try:
        found = effect(played.coverage, control.coverage) if control else None
    except BenchError as error:
        return PersonaCheck(name, None, error.problem)
    if found is None:
        if played.talks.keys() & (control.talks.keys() if control else set()):
            return PersonaCheck(name, True, "these tasks' references need nothing that the scenario holds")
        return PersonaCheck(name, None, "no pair with control yet")
    detail = f"difference in the share of facts told: {found.mean:+.3f} over {found.tasks} tasks"
    if found.low is None or found.high is None:
        return PersonaCheck(name, None if found.mean < 0 else True, f"{detail}; too few for an interval")
    return PersonaCheck(name, found.sign >= 0, f"{detail}, 95 % interval {found.low:+.3f} to {found.high:+.3f}")


def _wording(played: PersonaRun, control: PersonaRun | None, level: float = 0.95) -> Iterator[tuple[str, PairedEffect]]:
    if control is None:
        return
    for name in MEASURES:
        found = effect(_wording_figures(played, name), _wording_figures(control, name), level=level)
        if found is not None:
            yield name, found


def _distinct(played: PersonaRun, control: PersonaRun | None) -> list[str]:
    """Return the measures that differ from control's, at a level that allows for their number (Bonferroni)."""
    level = 1 - 0.05 / len(MEASURES)
    return [name for name, found in _wording(played, control, level) if found.sign]


def _wording_figures(played: PersonaRun, name: str) -> dict[Pair, float]:
    return {pair: talk.wording[name] for pair, talk in played.talks.items()}


def _split(user_messages: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the recorded system prompt without the persona's text, and that text."""
    first = user_messages[0] if user_messages else {}
    text = str(first.get("content") or "") if first.get("role") == "system" else ""
    plain, mark, rest = text.partition(HEADING)
    return plain, f"{mark}{rest}"


def _hash_of(block: str) -> str:
    return hashlib.sha256(block.encode()).hexdigest() if block else ""


def _share_text(number: int, wrong: Sequence[Pair]) -> str:
    return f"not in {_pair_names(wrong)}" if wrong else f"{number} of {number} conversations"


def _pair_names(pairs: Sequence[Pair]) -> str:
    shown = ", ".join(f"task {task} trial {trial}" for task, trial in pairs[:3])
    return f"{shown}{f' and {len(pairs) - 3} more' if len(pairs) > 3 else ''}"


_APOLOGY = re.compile(r"\b(?:sorry|apolog\w*|regret)\b", re.IGNORECASE)
_CLARIFYING = re.compile(r"[^.!?\n]*\b(?:clarify|confirm|repeat|specify|do you mean|which)\b[^.!?\n]*\?", re.IGNORECASE)

AGENT_MEASURES = ("turns", "prompt tokens", "output tokens", "apologies", "clarifications", "transfers", "facts told")
"""Figures of a conversation whose difference to control is shown, in their order."""


@dataclass(frozen=True)
class ComparedPersona:
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
    """Mean over conversations of each figure of `AGENT_MEASURES` that could be had."""
    difference: PairedEffect | None = None
    """Of pass^1 to control, over tasks with a scored pair; None for control, or without a pair."""
    effects: Mapping[str, PairedEffect] = field(default_factory=dict)
    """Of the figures of `AGENT_MEASURES`, likewise."""
    certificate: PersonaCertificate | None = None


@dataclass(frozen=True)
class PersonaComparison:
    """Settings that differ in the persona alone, control first where it was run."""

    env: str
    strategy: str
    agent: str
    user: str
    user_strategy: str
    simulated: bool
    has_control: bool
    personas: tuple[ComparedPersona, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        found = asdict(self)
        for row, each in zip(found["personas"], self.personas, strict=True):
            row["certificate"] = each.certificate.as_dict() if each.certificate else None
        return found


def compare(group: PersonaGroup) -> PersonaComparison:
    """Compare the personas of a group with its control.

    Raises
    ------
    RecordError
        When a conversation cannot be read any more.
    """
    setting = group.played[0].folder.setting
    return PersonaComparison(
        env=setting.env,
        strategy=setting.strategy.value,
        agent=setting.agent.model,
        user=setting.user.model,
        user_strategy=setting.user_strategy.value,
        simulated=any(each.folder.setting.simulated for each in group.played),
        has_control=group.control is not None,
        personas=tuple(_compared(each, group) for each in group.played),
    )


def _compared(played: PersonaRun, group: PersonaGroup) -> ComparedPersona:
    counts = _counts(played)
    values = [task_values(counts, 1)] if counts else []
    control = None if played is group.control else group.control
    figures = _agent_figures(played)
    others = _agent_figures(control) if control else {}
    effects = {name: effect(figures[name], others[name]) for name in figures if name in others}
    return ComparedPersona(
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


def _counts(played: PersonaRun) -> list[TaskCounts]:
    trials: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for talk in played.talks.values():
        if talk.row.outcome.scored:
            trials[talk.row.task_id] += 1
            passed[talk.row.task_id] += talk.row.outcome is Outcome.PASSED
    return [TaskCounts(trials[task], passed[task]) for task in trials]


def _rewards(played: PersonaRun) -> dict[Pair, float]:
    """Return 1 for each scored conversation that passed and 0 for each that did not."""
    talks = played.talks.items()
    return {pair: float(talk.row.outcome is Outcome.PASSED) for pair, talk in talks if talk.row.outcome.scored}


def _agent_figures(played: PersonaRun) -> dict[str, dict[Pair, float]]:
    figures: dict[str, dict[Pair, float]] = {name: {} for name in AGENT_MEASURES}
    for pair, talk in played.talks.items():
        actions = actions_of(talk.conversation, played.folder.setting)
        for name, value in _of_agent(talk, actions).items():
            figures[name][pair] = value
    try:
        figures["facts told"] = dict(played.coverage)
    except BenchError:  # the benchmark is not at hand: the rest is in the records
        del figures["facts told"]
    return figures


def _of_agent(talk: PersonaConversation, actions: Iterable[TrajectoryAction]) -> dict[str, float]:
    mine = [deed for deed in actions if deed.by == "assistant"]
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
