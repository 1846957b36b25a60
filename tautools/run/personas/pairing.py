"""Settings that differ in the persona alone, their conversations paired by task and trial, and the wording of each."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from tautools.bench.persona import plain_values
from tautools.params import CONTROL
from tautools.run.folder import results_of
from tautools.stats import PairedEffect, paired_effect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tautools.bench.types import Task
    from tautools.records import CommitRow, Conversation
    from tautools.run.folder import SettingFolder

LEXICONS: Mapping[str, tuple[str, ...]] = {
    "frustration": (
        "annoy", "disappoint", "exasperat", "fed up", "frustrat", "hassle", "sigh", "sick of", "slow", "tedious",
        "tired of", "ugh", "waste of", "wasted", "wasting", "weary",
    ),
    "anxiety": (
        "afraid", "anxi", "concerned", "fear", "hope nothing", "nervous", "panic", "reassur", "scared", "stress",
        "unsafe", "what if", "will it be all right", "worr",
    ),
    "anger": (
        "absurd", "anger", "angry", "disgrace", "furious", "get on with it", "incompeten", "mad", "outrag", "rage",
        "ridiculous", "terrible", "unacceptable", "unbelievable",
    ),
    "confusion": (
        "confus", "do not follow", "do not understand", "don't follow", "don't understand", "explain", "how does",
        "i'm lost", "lost", "not sure", "puzzl", "unclear", "what do you mean", "what does that mean",
    ),
}  # fmt: skip
"""Mood to beginnings of words; an expression of several words is looked for as it stands."""

_WHOLE = frozenset({"mad", "rage", "lost", "slow", "ugh", "sigh", "fear"})
"""Beginnings of other words too (`made`, `slowly` aside): only the word itself counts."""

_PATTERNS = {
    name: re.compile("|".join(rf"\b{re.escape(word)}{chr(92) + 'b' if word in _WHOLE else ''}" for word in words))
    for name, words in LEXICONS.items()
}

MEASURES = (
    "messages",
    "words per message",
    "questions per message",
    "exclamations per message",
    "capitals per 100 words",
    "repeated per 100 words",
    *(f"{name} words per 100 words" for name in LEXICONS),
)
"""Names of the figures of `wording`, in their order."""

_WORD = re.compile(r"\b[A-Za-z][A-Za-z']*\b")
"""Ids such as `#W123` are no words."""
_CAPITALS = re.compile(r"(?<![\w#-])[A-Z]{3,}(?![\w-])")
_STOP_WORD = re.compile(r"###[A-Z-]+###")
_AFTER_THOUGHT = "User Response:"
_RUN = 4
"""Words in a row that count as repeated when they were said before."""
_SHORTEST_FACT = 3

Pair = tuple[str, int]
"""Task id and trial."""
Figure = TypeVar("Figure")


def count_persona_words(text: str, persona: str) -> int:
    """Return how often words by which a persona shows occur in a text."""
    return len(_PATTERNS[persona].findall(text.lower().replace("\u2019", "'")))


def customer_messages(conversation: Conversation) -> list[str]:
    """Return the user's messages as the agent received them: no calls, no thoughts, no stop words."""
    texts = [str(each.get("content") or "") for each in conversation.user_messages if each.get("role") == "assistant"]
    received = (_STOP_WORD.sub("", text.rpartition(_AFTER_THOUGHT)[2]).strip() for text in texts)
    return [text for text in received if text]


def wording(messages: Sequence[str]) -> dict[str, float]:
    """Return the figures of `MEASURES` for one user's messages; without any, 0 of everything."""
    text = "\n".join(messages)
    words = [word.lower() for word in _WORD.findall(text)]
    runs = [tuple(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1)]
    number, hundred = max(len(messages), 1), max(len(words), 1) / 100
    values = (
        float(len(messages)),
        len(words) / number,
        text.count("?") / number,
        text.count("!") / number,
        len(_CAPITALS.findall(text)) / hundred,
        (len(runs) - len(set(runs))) / hundred,
        *(count_persona_words(text, name) / hundred for name in LEXICONS),
    )
    return dict(zip(MEASURES, values, strict=True))


def facts_to_tell(task: Task) -> frozenset[str]:
    """Return, in lower case, the values of the reference's arguments that stand in the user's scenario."""
    scenario = task.user_system.lower()
    values = (value.strip().lower() for action in task.reference for value in plain_values(dict(action.arguments)))
    return frozenset(value for value in values if len(value) >= _SHORTEST_FACT and _stands_in(value, scenario))


def facts_coverage(task: Task, messages: Sequence[str]) -> float | None:
    """Return the share of those facts that the user told, in [0, 1]; None when the task has none."""
    facts = facts_to_tell(task)
    text = "\n".join(messages).lower()
    return sum(_stands_in(fact, text) for fact in facts) / len(facts) if facts else None


def _stands_in(value: str, text: str) -> bool:
    return re.search(rf"(?<![a-z0-9_]){re.escape(value)}(?![a-z0-9_])", text) is not None


@dataclass(frozen=True)
class PersonaConversation:
    """One finished conversation."""

    row: CommitRow
    conversation: Conversation = field(repr=False)

    @cached_property
    def messages(self) -> list[str]:
        """What the user said to the agent."""
        return customer_messages(self.conversation)


@dataclass(frozen=True)
class PersonaRun:
    """One setting with its conversations."""

    folder: SettingFolder
    control: PersonaRun | None = None
    """The same without a persona, where it was run."""

    @property
    def label(self) -> str:
        """The persona's, `control` for none."""
        return self.folder.setting.persona or CONTROL

    @property
    def persona(self) -> str:
        """The persona's name, without its intensity."""
        setting = self.folder.setting
        return self.label.removesuffix(f"-{setting.intensity}") if setting.intensity else self.label

    @cached_property
    def conversations(self) -> Mapping[Pair, PersonaConversation]:
        """Every finished conversation by task and trial."""
        rows = self.folder.rows()
        return {(row.task_id, row.trial): PersonaConversation(row, self.folder.conversation(row)) for row in rows}

    def by_pair(self, figure: Callable[[PersonaConversation], Figure]) -> dict[Pair, Figure]:
        """Return a figure of every conversation by task and trial."""
        return {pair: figure(each) for pair, each in self.conversations.items()}

    def by_measure(self, figures: Callable[[PersonaConversation], Mapping[str, float]]) -> dict[str, dict[Pair, float]]:
        """Return figures of every conversation by their names, each by task and trial."""
        table: dict[str, dict[Pair, float]] = defaultdict(dict)
        for pair, values in self.by_pair(figures).items():
            for name, value in values.items():
                table[name][pair] = value
        return table

    def effects(
        self, figures: Callable[[PersonaRun], Mapping[str, Mapping[Pair, float]]], *, level: float = 0.95
    ) -> dict[str, PairedEffect]:
        """Return how each figure differs from control's, paired by task and trial, where there is a pair."""
        if self.control is None:
            return {}
        found, mine, theirs = {}, figures(self), figures(self.control)
        for name in (name for name in mine if name in theirs):
            by_task: dict[str, list[float]] = defaultdict(list)
            for pair in sorted(mine[name].keys() & theirs[name].keys()):
                by_task[pair[0]].append(mine[name][pair] - theirs[name][pair])
            if by_task:
                found[name] = paired_effect([fmean(each) for each in by_task.values()], level=level)
        return found

    @cached_property
    def wording(self) -> dict[str, dict[Pair, float]]:
        """The figures of `MEASURES`."""
        return self.by_measure(lambda each: wording(each.messages))

    @cached_property
    def coverage(self) -> Mapping[Pair, float]:
        """Share of the facts that the user told, where a task has any; `BenchError` when the benchmark is gone."""
        tasks = self.folder.domain.tasks
        known = ((pair, each) for pair, each in self.conversations.items() if pair[0] in tasks)
        shares = ((pair, facts_coverage(tasks[pair[0]], each.messages)) for pair, each in known)
        return {pair: share for pair, share in shares if share is not None}


def groups_of(workspace: Path, folders: Sequence[SettingFolder]) -> list[list[PersonaRun]]:
    """Return the settings that differ in the persona alone, a list for each group, control first where it was run.

    Parameters
    ----------
    workspace : Path
        Where the controls' results are looked for.
    folders : sequence of SettingFolder
        The settings with a persona; those without are left out.
    """
    controls = {each.id: PersonaRun(each) for each in results_of(workspace) if each.setting.persona is None}
    groups: dict[str, list[PersonaRun]] = {}
    for folder in folders:
        setting = folder.setting
        if setting.persona is not None:
            prompts = {name: digest for name, digest in setting.prompts.items() if name != "persona"}
            plain = setting.model_copy(update={"persona": None, "intensity": None, "prompts": prompts})
            control = controls.get(plain.id)
            groups.setdefault(plain.id, [control] if control else []).append(PersonaRun(folder, control))
    return [sorted(each, key=lambda run: (run.folder.setting.persona or "", run.label)) for each in groups.values()]
