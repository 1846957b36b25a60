"""A judge's blind labels: which persona does this user show? Asked without the label, counted against chance."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from tautools.errors import ParamsError, RecordError
from tautools.files import write_atomic
from tautools.llm import ModelClient
from tautools.llm.types import CallTag
from tautools.records import Role
from tautools.run.ledger import ResultsWriter
from tautools.run.plan import model_config_of
from tautools.servers.addresses import endpoints
from tautools.stats import binomial_tail, exact_interval

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tautools.llm.types import Endpoint
    from tautools.params.models import RoleParams
    from tautools.records import ModelConfig
    from tautools.run.personas.pairing import PersonaConversation, PersonaRun

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
