"""The certificate of a persona's run, and personas compared with control, all paired by task and trial.

The certificate is read from the stored records, so that anybody can repeat it: the persona's text is in the recorded
prompt of every conversation; the rest of the prompt is the task as control has it; tasks, trials and seeds are
control's; the user told as many of the facts; and how the wording differs.
"""

import contextlib
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

from tautools.errors import BenchError, PersonaError
from tautools.files import write_atomic
from tautools.params.personas import HEADING
from tautools.records import Outcome, UserStrategy
from tautools.run.folder import SettingFolder
from tautools.run.ledger import read_events
from tautools.run.personas.measures import (
    MEASURES,
    LabelSummary,
    Pair,
    PersonaConversation,
    PersonaRun,
    groups_of,
    read_labels,
)
from tautools.run.trajectory import actions_of
from tautools.stats import Interval, PairedEffect, TaskCounts, interval, largest_k, mean_over_tasks, task_values

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
    passed: bool | None
    """False when a check failed, None when one cannot be told yet."""
    wording: Mapping[str, PairedEffect] = field(default_factory=dict)
    """By measure, the difference to control over tasks."""
    distinct: tuple[str, ...] = ()
    """Measures whose interval, widened for their number, leaves 0 out."""
    labels: LabelSummary | None = None

    def raise_if_ineffective(self) -> None:
        """Raise `PersonaError` when the persona's text is not in every recorded prompt."""
        for check in self.checks:
            if check.name == TEXT_PRESENT and check.passed is False:
                raise PersonaError(
                    f"The persona {self.persona} is not in every recorded prompt of its customer.",
                    evidence=check.detail,
                    next_step="Do not use these results; move the folder away and run the persona again.",
                )


def certify(workspace: Path, folder: SettingFolder) -> PersonaCertificate:
    """Read the records of a setting with a persona and say what they prove; `RecordError` when they cannot be read."""
    ((*_, run),) = groups_of(workspace, [folder])
    return certify_run(run)


def keep_certificate(workspace: Path, folder: SettingFolder) -> PersonaCertificate:
    """Write the certificate beside the results, in place of an older one, and return it.

    Parameters
    ----------
    workspace : Path
        Where control's results are looked for.
    folder : SettingFolder
        The persona's results.

    Raises
    ------
    RecordError
        When a conversation cannot be read any more.
    """
    certificate = certify(workspace, folder)
    write_atomic(folder.path / CERTIFICATE, json.dumps(asdict(certificate), indent=1, ensure_ascii=False) + "\n")
    return certificate


def certify_run(run: PersonaRun) -> PersonaCertificate:
    """Return the certificate of a run with a persona; errors as `certify`."""
    setting = run.folder.setting
    # Distinct is what differs at a level that allows for the number of measures (Bonferroni).
    distinct = run.effects(lambda each: each.wording, level=1 - 0.05 / len(MEASURES))
    checks = [_text_present(run), _task_unchanged(run), _same_pairs(run), _facts_told(run)]
    if not run.conversations:
        checks = [PersonaCheck("conversations", None, "nothing is finished yet (n = 0)")]
    results = {check.passed for check in checks}
    return PersonaCertificate(
        env=setting.env,
        strategy=setting.strategy.value,
        user_strategy=setting.user_strategy.value,
        persona=run.label,
        intensity=setting.intensity or "",
        sha256=setting.prompts.get("persona", ""),
        setting_id=run.folder.id,
        control_id=run.control.folder.id if run.control else "",
        conversations=len(run.conversations),
        simulated=setting.simulated,
        checks=tuple(checks),
        passed=False if False in results else None if None in results else True,
        wording=run.effects(lambda each: each.wording),
        distinct=tuple(name for name, difference in distinct.items() if difference.sign),
        labels=read_labels(run),
    )


def _text_present(run: PersonaRun) -> PersonaCheck:
    wanted = run.folder.setting.prompts.get("persona", "")
    texts = run.by_pair(lambda each: _prompt_parts(each)[1].encode())
    missing = [pair for pair, text in texts.items() if (hashlib.sha256(text).hexdigest() if text else "") != wanted]
    return PersonaCheck(TEXT_PRESENT, not missing, _share_text(len(texts), missing))


def _task_unchanged(run: PersonaRun) -> PersonaCheck:
    """Compare what stands before the persona's text with control's record of the task, else with the benchmark's."""
    name = "task unchanged"
    originals: dict[str, str] = {}
    if run.folder.setting.user_strategy is UserStrategy.LLM:
        with contextlib.suppress(BenchError):  # not installed: control's records are what there is
            originals = {task_id: task.user_system for task_id, task in run.folder.domain.tasks.items()}
    if run.control is not None:
        originals |= {task_id: plain for (task_id, _), (plain, _) in run.control.by_pair(_prompt_parts).items()}
    known = {pair: plain for pair, (plain, _) in run.by_pair(_prompt_parts).items() if pair[0] in originals}
    if not known:
        return PersonaCheck(name, None, "control has no conversation of these tasks yet")
    other = [pair for pair, text in known.items() if text != originals[pair[0]]]
    unknown = "" if len(known) == len(run.conversations) else "; others unknown"
    return PersonaCheck(name, not other, _share_text(len(known), other) + unknown)


def _same_pairs(run: PersonaRun) -> PersonaCheck:
    name = "tasks, trials and seeds are control's"
    if run.control is None:
        return PersonaCheck(name, None, "control was not run yet")
    theirs, own = (one.by_pair(lambda each: each.conversation.seed) for one in (run.control, run))
    if other := [pair for pair, seed in own.items() if seed != theirs.get(pair, seed)]:
        return PersonaCheck(name, False, f"another seed in {_pair_names(other)}")
    if alone := [pair for pair in own if pair not in theirs]:
        return PersonaCheck(name, None, f"pending in control: {_pair_names(alone)}")
    return PersonaCheck(name, True, f"{len(own)} pairs")


def _facts_told(run: PersonaRun) -> PersonaCheck:
    name = "facts told as by control"
    try:
        difference = run.effects(lambda each: {name: each.coverage}).get(name)
    except BenchError as error:
        return PersonaCheck(name, None, error.problem)
    if difference is None:
        paired = run.control is not None and run.conversations.keys() & run.control.conversations.keys()
        needless = "these tasks' references need nothing that the scenario holds"
        return PersonaCheck(name, True if paired else None, needless if paired else "no pair with control yet")
    mean, low, high = difference.mean, difference.low, difference.high
    detail = f"difference in the share of facts told: {mean:+.3f} over {difference.tasks} tasks"
    if low is None or high is None:
        return PersonaCheck(name, None if mean < 0 else True, f"{detail}; too few for an interval")
    return PersonaCheck(name, difference.sign >= 0, f"{detail}, 95 % interval {low:+.3f} to {high:+.3f}")


def _prompt_parts(each: PersonaConversation) -> tuple[str, str]:
    """Return the user's recorded system prompt without the persona's text, and that text."""
    first = next(iter(each.conversation.user_messages), {})
    text = str(first.get("content") or "") if first.get("role") == "system" else ""
    plain, heading, rest = text.partition(HEADING)
    return plain, f"{heading}{rest}"


def _share_text(number: int, wrong: Sequence[Pair]) -> str:
    return f"not in {_pair_names(wrong)}" if wrong else f"{number} of {number} conversations"


def _pair_names(pairs: Sequence[Pair]) -> str:
    shown = ", ".join(f"task {task} trial {trial}" for task, trial in pairs[:3])
    return f"{shown}{f' and {len(pairs) - 3} more' if len(pairs) > 3 else ''}"


_PASSED = "passed"
_APOLOGY = re.compile(r"\b(?:sorry|apolog\w*|regret)\b", re.IGNORECASE)
_CLARIFYING = re.compile(r"[^.!?\n]*\b(?:clarify|confirm|repeat|specify|do you mean|which)\b[^.!?\n]*\?", re.IGNORECASE)


@dataclass(frozen=True)
class ComparedPersona:
    """One persona, or control."""

    label: str
    folder: str
    conversations: int
    scored: int
    user_errors: int
    """Conversations in which the user model failed, each time counted."""
    pass_hat: tuple[float, ...]
    """pass^1 to the largest k that every task has trials for, in [0, 1]; empty without a scored conversation."""
    interval: Interval | None
    """Of pass^1."""
    means: Mapping[str, float]
    """Mean over conversations of each figure that could be had: turns, tokens, apologies, facts told, …"""
    difference: PairedEffect | None = None
    """Of pass^1 to control, over tasks with a scored pair; None for control, or without a pair."""
    effects: Mapping[str, PairedEffect] = field(default_factory=dict)
    """Of these figures, likewise."""
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


def compare(group: Sequence[PersonaRun]) -> PersonaComparison:
    """Compare the personas of a group with its control.

    Parameters
    ----------
    group : sequence of PersonaRun
        Settings that differ in the persona alone, as `groups_of` gives them.

    Raises
    ------
    RecordError
        When a conversation cannot be read any more.
    """
    setting = group[0].folder.setting
    return PersonaComparison(
        env=setting.env,
        strategy=setting.strategy.value,
        agent=setting.agent.model,
        user=setting.user.model,
        user_strategy=setting.user_strategy.value,
        simulated=any(each.folder.setting.simulated for each in group),
        has_control=setting.persona is None,
        personas=tuple(map(_compared, group)),
    )


def _compared(run: PersonaRun) -> ComparedPersona:
    figures, effects = _agent_figures(run), run.effects(_agent_figures)
    rewards, difference = figures.pop(_PASSED), effects.pop(_PASSED, None)
    by_task: dict[str, list[float]] = defaultdict(list)
    for (task_id, _), reward in rewards.items():
        by_task[task_id].append(reward)
    counts = [TaskCounts(len(each), int(sum(each))) for each in by_task.values()]
    user_errors = read_events(run.folder.path, "user_error")
    return ComparedPersona(
        label=run.label,
        folder=str(run.folder.path),
        conversations=len(run.conversations),
        scored=len(rewards),
        user_errors=sum(each.setting_id == run.folder.id for each in user_errors),
        pass_hat=tuple(mean_over_tasks(counts, k) for k in range(1, largest_k(counts) + 1)),
        interval=interval(task_values(counts, 1)) if counts else None,
        means={name: fmean(each.values()) for name, each in figures.items() if each},
        difference=difference,
        effects=effects,
        certificate=None if run.folder.setting.persona is None else certify_run(run),
    )


def _agent_figures(run: PersonaRun) -> dict[str, dict[Pair, float]]:
    """Return what is compared apart from wording, whether a scored conversation passed among it."""
    setting = run.folder.setting

    def figures(each: PersonaConversation) -> dict[str, float]:
        mine = [action for action in actions_of(each.conversation, setting) if action.by == "assistant"]
        text = "\n".join(action.text for action in mine if not action.call)
        return {
            "turns": len(each.messages),
            "prompt tokens": each.row.prompt_tokens,
            "output tokens": each.row.output_tokens,
            "apologies": len(_APOLOGY.findall(text)),
            "clarifications": len(_CLARIFYING.findall(text)),
            "transfers": sum(action.call.startswith("transfer") for action in mine),
        }

    table = run.by_measure(figures)
    outcomes = run.by_pair(lambda each: each.row.outcome)
    table[_PASSED] = {pair: float(outcome is Outcome.PASSED) for pair, outcome in outcomes.items() if outcome.scored}
    with contextlib.suppress(BenchError):  # the benchmark is not installed: the rest is in the records
        table["facts told"] = dict(run.coverage)
    return table
