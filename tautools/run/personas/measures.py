"""How a persona shows in what its customer says: by the words, beside control's, and to a judge who does not know it.

Conversations of settings that differ in the persona alone are paired by task and trial. The judge's labels are blind:
it chooses among the personas, and is counted against chance.
"""

import asyncio
import contextlib
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from pydantic import BaseModel, Field

from tautools.bench.persona import plain_values
from tautools.bench.types import Task
from tautools.errors import ParamsError, RecordError
from tautools.files import packaged_yaml, write_atomic
from tautools.llm import ModelClient
from tautools.llm.types import CallTag, Endpoint
from tautools.params import CONTROL
from tautools.params.models import RoleParams
from tautools.records import CommitRow, Conversation, ModelConfig, Role
from tautools.run.folder import SettingFolder, results_of
from tautools.run.ledger import ResultsWriter
from tautools.run.plan import model_config_of
from tautools.servers.addresses import endpoints
from tautools.stats import PairedEffect, binomial_tail, exact_interval, paired_effect

LEXICONS: Mapping[str, Sequence[str]] = packaged_yaml(__package__, "lexicons.yaml")
"""Emotion to beginnings of words; an expression of several words is looked for as it stands."""

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
    control: "PersonaRun | None" = None
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
        self, figures: "Callable[[PersonaRun], Mapping[str, Mapping[Pair, float]]]", *, level: float = 0.95
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


LABELS = "persona_labels.json"
"""File of a setting's labels, beside `setting.json`."""

_CONCURRENCY = 8
_QUESTION = """\
Below is everything that one customer said to a service agent. Which mood does the way of speaking show? Judge the
manner and not the matter: a complaint said calmly is no anger. `control` is an ordinary customer without such a mood.

Moods: {moods}

What the customer said:
{said}

Answer with one of the moods and nothing else."""


class PersonaLabel(BaseModel):
    """A judge's answer about one conversation."""

    task_id: str
    trial: int
    answer: str
    """The persona that it names, of several the last; `?` for none."""
    sha256: str
    """Of the conversation."""


class StoredLabels(BaseModel):
    """What a file of labels holds."""

    judge: str
    simulated: bool
    choices: list[str] = Field(min_length=1)
    question_sha256: str
    labels: list[PersonaLabel]


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """How often a judge recognised a persona."""

    judge: str
    conversations: int
    right: int
    chance: float
    """Of a guess among the choices, in (0, 1)."""
    low: float
    """Of the exact 95 % interval of the share that is right."""
    high: float
    p: float
    """Probability of at least so many by guessing."""
    answers: dict[str, int]
    """What the judge answered, by how often; an answer that is none of the choices is `?`."""
    stale: int
    """Labels of conversations that are not there any more; they are not counted."""
    simulated: bool


def keep_labels(group: Sequence[PersonaRun], judge: RoleParams, *, workspace: Path) -> dict[str, int]:
    """Ask a judge about every conversation of a group and write its answers beside each setting's results.

    Parameters
    ----------
    group : sequence of PersonaRun
        Settings that differ in the persona alone; the judge chooses among their personas.
    judge : RoleParams
        The judge's model.
    workspace : Path
        Where its server is looked for.

    Returns
    -------
    dict
        Persona to the number of its conversations that were labelled.

    Raises
    ------
    ParamsError
        When there are not two personas to choose from, or no conversation.
    TautoolsError
        When the judge is not there or does not answer; nothing is written then.
    """
    choices = sorted({each.persona for each in group})
    if len(choices) < 2 or not any(each.conversations for each in group):
        raise ParamsError(
            "A judge needs at least two personas with finished conversations to choose from.",
            evidence=f"There are: {', '.join(choices) or 'none'}.",
            next_step="Run control and another persona on the same tasks first.",
        )
    judges = endpoints(judge, workspace=workspace, role_name="judge")
    config = model_config_of(judge, judges[0].model)
    with ThreadPoolExecutor(1) as pool:  # the caller may have an event loop that runs, as a notebook does
        labels = pool.submit(lambda: asyncio.run(_ask_all(group, choices, config, judges))).result()
    for run, own in zip(group, labels, strict=True):
        stored = StoredLabels(
            judge=config.model,
            simulated=any(each.simulated for each in judges),
            choices=choices,
            question_sha256=hashlib.sha256(_QUESTION.encode()).hexdigest(),
            labels=own,
        )
        write_atomic(run.folder.path / LABELS, stored.model_dump_json(indent=1) + "\n")
    return {run.label: len(own) for run, own in zip(group, labels, strict=True)}


def read_labels(run: PersonaRun) -> LabelSummary | None:
    """Return what a judge's labels come to; None when no judge was asked; `RecordError` when they cannot be read."""
    path = run.folder.path / LABELS
    try:
        stored = StoredLabels.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path} cannot be read.", evidence=repr(error), next_step="Label again with `tautools persona label`."
        ) from error
    now = run.by_pair(lambda each: each.row.location.sha256)
    answers = Counter(each.answer for each in stored.labels if now.get((each.task_id, each.trial)) == each.sha256)
    number, right, chance = answers.total(), answers[run.persona], 1 / len(stored.choices)
    if not number:
        return None
    low, high = exact_interval(right, number)
    return LabelSummary(
        judge=stored.judge,
        conversations=number,
        right=right,
        chance=chance,
        low=low,
        high=high,
        p=binomial_tail(right, number, chance),
        answers=dict(answers.most_common()),
        stale=len(stored.labels) - number,
        simulated=stored.simulated,
    )


async def _ask_all(
    group: Sequence[PersonaRun], choices: Sequence[str], config: ModelConfig, judges: Sequence[Endpoint]
) -> list[list[PersonaLabel]]:
    """Return the labels of each run's conversations."""
    free = asyncio.Semaphore(_CONCURRENCY)
    labels = []
    for run in group:
        with contextlib.closing(ResultsWriter(run.folder.path)) as writer:
            async with ModelClient(lambda _part: judges, {"judge": config}, on_call=writer.call) as client:
                asked = (_label(each, run, choices, client, free) for each in run.conversations.values())
                labels.append(list(await asyncio.gather(*asked)))
    return labels


async def _label(
    each: PersonaConversation, run: PersonaRun, choices: Sequence[str], client: ModelClient, free: asyncio.Semaphore
) -> PersonaLabel:
    """Ask about one conversation; the choices stand in an order of their own for each."""
    row, setting, sha256 = each.row, run.folder.setting, each.row.location.sha256
    tag = CallTag(
        role=Role.JUDGE,
        ref=setting.ref,
        task_id=row.task_id,
        trial=row.trial,
        strategy=setting.strategy.value,
        setting_id=run.folder.id,
        conversation=f"label/{run.folder.id}/{row.task_id}/{row.trial}",
        purpose="persona_label",
        seed=each.conversation.seed,
    )
    mixed = sorted(choices, key=lambda name: hashlib.sha256(f"{sha256}/{name}".encode()).digest())
    lines = "\n".join(f"- {' '.join(text.split())}" for text in each.messages)
    question = _QUESTION.format(moods=", ".join(mixed), said=lines or "- (nothing)")
    async with free:
        reply = await client.complete(tag, [{"role": "user", "content": question}])
    by_word = {name.lower(): name for name in choices}
    named = re.findall("|".join(rf"\b{re.escape(word)}\b" for word in by_word), reply.text.lower())
    answer = by_word[named[-1]] if named else "?"
    return PersonaLabel(task_id=row.task_id, trial=row.trial, answer=answer, sha256=sha256)
