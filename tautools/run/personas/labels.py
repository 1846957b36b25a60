"""A judge's blind labels: which persona does this user show? Asked without the label, counted against chance."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tautools.errors import ParamsError, RecordError
from tautools.files import write_atomic
from tautools.llm import ModelClient
from tautools.llm.types import CallTag
from tautools.records import ModelConfig, Role
from tautools.run.ledger import ResultsWriter
from tautools.servers import endpoints
from tautools.stats import binomial_tail, exact_interval

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tautools.llm.types import Endpoint, Message
    from tautools.params.models import RoleParams
    from tautools.run.personas.pairing import PersonaConversation, PersonaGroup, PersonaRun


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
    said: dict[str, int]
    """What the judge said, by how often; an answer that is none of the choices is `?`."""
    stale: int
    """Labels of conversations that are not there any more; they are not counted."""
    simulated: bool


def keep_labels(group: PersonaGroup, judge: RoleParams, *, workspace: Path) -> dict[str, int]:
    """Ask a judge about every conversation of a group and write its answers beside each setting's results.

    Parameters
    ----------
    group : Group
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
    choices = sorted({each.persona for each in group.played})
    if len(choices) < 2 or not any(each.talks for each in group.played):
        raise ParamsError(
            "A judge needs at least two personas with finished conversations to choose from.",
            evidence=f"There are: {', '.join(choices) or 'none'}.",
            next_step="Run control and another persona on the same tasks first.",
        )
    found = endpoints(judge, workspace=workspace, role_name="judge")
    with ThreadPoolExecutor(1) as pool:  # the caller may have an event loop that runs, as a notebook does
        told = pool.submit(lambda: asyncio.run(_ask_all(group, choices, judge, found))).result()
    for played, labels in zip(group.played, told, strict=True):
        content = {
            "judge": judge.model or found[0].model,
            "simulated": any(each.simulated for each in found),
            "choices": choices,
            "question_sha256": hashlib.sha256(_QUESTION.encode()).hexdigest(),
            "labels": labels,
        }
        write_atomic(played.folder.path / LABELS, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return Counter({played.label: len(labels) for played, labels in zip(group.played, told, strict=True)})


def read_labels(played: PersonaRun) -> LabelSummary | None:
    """Return what a judge's labels come to; None when nobody was asked.

    Raises
    ------
    RecordError
        When they cannot be read.
    """
    path = played.folder.path / LABELS
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        labels: list[dict[str, Any]] = content["labels"]
        chance = 1 / len(content["choices"])
        now = {(row.task_id, row.trial): row.place.sha256 for row in (talk.row for talk in played.talks.values())}
        valid = [each for each in labels if now.get((each["task_id"], each["trial"])) == each["sha256"]]
        said = Counter(str(each["said"]) for each in valid)
        judge, simulated = str(content["judge"]), bool(content["simulated"])
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise RecordError(
            f"{path} cannot be read.", evidence=repr(error), next_step="Label again with `tautools persona label`."
        ) from error
    if not valid:
        return None
    right = said[played.persona]
    low, high = exact_interval(right, len(valid))
    return LabelSummary(
        judge=judge,
        conversations=len(valid),
        right=right,
        chance=chance,
        low=low,
        high=high,
        p=binomial_tail(right, len(valid), chance),
        said=dict(said.most_common()),
        stale=len(labels) - len(valid),
        simulated=simulated,
    )


async def _ask_all(
    group: PersonaGroup, choices: Sequence[str], judge: RoleParams, found: Sequence[Endpoint]
) -> list[list[dict[str, Any]]]:
    party = ModelConfig(
        model=judge.model or found[0].model,
        provider=judge.provider,
        sampling=judge.sampling,
        thinking=judge.thinking,
    )
    free = asyncio.Semaphore(_CONCURRENCY)
    told = []
    for played in group.played:
        with contextlib.closing(ResultsWriter(played.folder.path)) as writer:
            async with ModelClient(lambda _part: found, {"judge": party}, on_call=writer.call) as client:

                async def one(
                    talk: PersonaConversation, client: ModelClient = client, played: PersonaRun = played
                ) -> dict[str, Any]:
                    async with free:
                        return await _label(talk, played, choices, client)

                told.append(list(await asyncio.gather(*(one(talk) for talk in played.talks.values()))))
    return told


async def _label(
    talk: PersonaConversation, played: PersonaRun, choices: Sequence[str], client: ModelClient
) -> dict[str, Any]:
    row, setting = talk.row, played.folder.setting
    tag = CallTag(
        role=Role.JUDGE,
        ref=setting.ref,
        task_id=row.task_id,
        trial=row.trial,
        strategy=setting.strategy.value,
        setting_id=played.folder.id,
        conversation=f"label/{played.folder.id}/{row.task_id}/{row.trial}",
        purpose="persona_label",
        seed=talk.conversation.seed,
    )
    reply = await client.complete(tag, question(talk.said, choices, salt=row.place.sha256))
    return {
        "task_id": row.task_id,
        "trial": row.trial,
        "said": _chosen(reply.text, choices),
        "sha256": row.place.sha256,
    }


def question(said: Sequence[str], choices: Sequence[str], *, salt: str) -> list[Message]:
    """Return the request to a judge; the choices stand in an order of their own for each conversation."""
    mixed = sorted(choices, key=lambda name: hashlib.sha256(f"{salt}/{name}".encode()).digest())
    lines = "\n".join(f"- {' '.join(text.split())}" for text in said)
    return [{"role": "user", "content": _QUESTION.format(moods=", ".join(mixed), said=lines or "- (nothing)")}]


def _chosen(text: str, choices: Sequence[str]) -> str:
    """Return the choice that an answer names; of several the last, `?` for none."""
    by_word = {name.lower(): name for name in choices}
    found = re.findall("|".join(rf"\b{re.escape(name.lower())}\b" for name in choices), text.lower())
    return by_word[found[-1]] if found else "?"
