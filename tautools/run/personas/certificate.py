"""The certificate of a persona's run: read from the stored records, so that anybody can come to the same.

What it says of a setting with a persona: its text is in the recorded prompt of every conversation; what else stands
there is the task as control has it; tasks, trials and seeds are control's; the customer told as many of the facts; and
how its wording differs. A judge's blind labels are added where there are any.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tautools.errors import BenchError, PersonaError
from tautools.files import write_atomic
from tautools.params.personas import HEADING
from tautools.records import UserStrategy
from tautools.run.benchmark import domain_of
from tautools.run.personas.label import read_labels
from tautools.run.personas.pairing import effect, groups_of
from tautools.run.personas.wording import MEASURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tautools.run.folder import SettingFolder
    from tautools.run.personas.label import Labelled
    from tautools.run.personas.pairing import Group, Pair, Played
    from tautools.stats import PairedEffect

__all__ = ["CERTIFICATE", "Check", "PersonaCertificate", "certify", "certify_in", "keep_certificate"]

CERTIFICATE = "persona_certificate.json"
"""Its file, beside `setting.json`."""

TEXT_IS_THERE = "text in every recorded prompt"


@dataclass(frozen=True, slots=True)
class Check:
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
    checks: tuple[Check, ...]
    wording: Mapping[str, PairedEffect] = field(default_factory=dict)
    """By measure, the difference to control over tasks."""
    distinct: tuple[str, ...] = ()
    """Measures whose interval, widened for their number, leaves 0 out."""
    labels: Labelled | None = None

    @property
    def passed(self) -> bool | None:
        """False when a check failed, None when one cannot be told yet."""
        results = {check.passed for check in self.checks}
        return False if False in results else None if None in results else True

    def raise_if_ineffective(self) -> None:
        """Raise `PersonaError` when the persona's text is not in every recorded prompt."""
        for check in self.checks:
            if check.name == TEXT_IS_THERE and check.passed is False:
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


def certify_in(group: Group, played: Played) -> PersonaCertificate:
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


def _checks(played: Played, control: Played | None) -> Iterator[Check]:
    if not played.talks:
        yield Check("conversations", None, "nothing is finished yet (n = 0)")
        return
    yield _text_is_there(played)
    yield _task_is_the_same(played, control)
    yield _same_pairs(played, control)
    yield _facts_are_told(played, control)


def _text_is_there(played: Played) -> Check:
    wanted = played.folder.setting.prompts.get("persona", "")
    found = {pair: _split(talk.conversation.user_messages)[1] for pair, talk in played.talks.items()}
    missing = [pair for pair, text in found.items() if _hash_of(text) != wanted]
    return Check(TEXT_IS_THERE, not missing, _told(len(played.talks), missing))


def _task_is_the_same(played: Played, control: Played | None) -> Check:
    """Compare what stands before the persona's text with control's record of the task, else with the benchmark's."""
    originals = _originals(played, control)
    known = {pair: talk for pair, talk in played.talks.items() if pair[0] in originals}
    other = [pair for pair, talk in known.items() if _split(talk.conversation.user_messages)[0] != originals[pair[0]]]
    if not known:
        return Check("task unchanged", None, "control has no conversation of these tasks yet")
    detail = _told(len(known), other)
    return Check(
        "task unchanged", not other, detail if len(known) == len(played.talks) else f"{detail}; others unknown"
    )


def _originals(played: Played, control: Played | None) -> dict[str, str]:
    texts: dict[str, str] = {}
    if played.folder.setting.user_strategy is UserStrategy.LLM:
        try:
            texts = {name: task.user_system for name, task in domain_of(played.folder).tasks.items()}
        except BenchError:  # not at hand: control's records are what there is
            texts = {}
    recorded = control.talks.values() if control else ()
    return texts | {talk.row.task_id: _split(talk.conversation.user_messages)[0] for talk in recorded}


def _same_pairs(played: Played, control: Played | None) -> Check:
    name = "tasks, trials and seeds are control's"
    if control is None:
        return Check(name, None, "control was not run yet")
    alone = [pair for pair in played.talks if pair not in control.talks]
    seeds = [
        pair
        for pair, talk in played.talks.items()
        if pair in control.talks and talk.conversation.seed != control.talks[pair].conversation.seed
    ]
    if seeds:
        return Check(name, False, f"another seed in {_named(seeds)}")
    if alone:
        return Check(name, None, f"control still owes {_named(alone)}")
    return Check(name, True, f"{len(played.talks)} pairs")


def _facts_are_told(played: Played, control: Played | None) -> Check:
    name = "facts told as by control"
    try:
        found = effect(played.coverage, control.coverage) if control else None
    except BenchError as error:
        return Check(name, None, error.problem)
    if found is None:
        if played.talks.keys() & (control.talks.keys() if control else set()):
            return Check(name, True, "these tasks' references need nothing that the scenario holds")
        return Check(name, None, "no pair with control yet")
    detail = f"difference in the share of facts told: {found.mean:+.3f} over {found.tasks} tasks"
    if found.low is None or found.high is None:
        return Check(name, None if found.mean < 0 else True, f"{detail}; too few for an interval")
    return Check(name, found.sign >= 0, f"{detail}, 95 % interval {found.low:+.3f} to {found.high:+.3f}")


def _wording(played: Played, control: Played | None, level: float = 0.95) -> Iterator[tuple[str, PairedEffect]]:
    if control is None:
        return
    for name in MEASURES:
        found = effect(_figures(played, name), _figures(control, name), level=level)
        if found is not None:
            yield name, found


def _distinct(played: Played, control: Played | None) -> list[str]:
    """Return the measures that differ from control's, at a level that allows for their number (Bonferroni)."""
    level = 1 - 0.05 / len(MEASURES)
    return [name for name, found in _wording(played, control, level) if found.sign]


def _figures(played: Played, name: str) -> dict[Pair, float]:
    return {pair: talk.wording[name] for pair, talk in played.talks.items()}


def _split(user_messages: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the recorded system prompt without the persona's text, and that text."""
    first = user_messages[0] if user_messages else {}
    text = str(first.get("content") or "") if first.get("role") == "system" else ""
    plain, mark, rest = text.partition(HEADING)
    return plain, f"{mark}{rest}"


def _hash_of(block: str) -> str:
    return hashlib.sha256(block.encode()).hexdigest() if block else ""


def _told(number: int, wrong: Sequence[Pair]) -> str:
    return f"not in {_named(wrong)}" if wrong else f"{number} of {number} conversations"


def _named(pairs: Sequence[Pair]) -> str:
    shown = ", ".join(f"task {task} trial {trial}" for task, trial in pairs[:3])
    return f"{shown}{f' and {len(pairs) - 3} more' if len(pairs) > 3 else ''}"
