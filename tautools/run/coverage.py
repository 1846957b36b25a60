"""How much of what tasks assert in natural language a judge has decided; said wherever scores are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.bench.sources import ADOPTED
from tautools.errors import BenchError
from tautools.run.benchmark import domain_of
from tautools.run.ledger import read_ledger
from tautools.run.unjudged import read_unjudged

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tautools.bench.types import Task
    from tautools.records import Setting
    from tautools.run.folder import SettingFolder

__all__ = ["assertions_judged", "folder_judged", "waiting_for_judge"]


def assertions_judged(setting: Setting, tasks: Iterable[Task], waiting: int = 0) -> str:
    """Return a sentence on what nobody judged; empty when there is nothing to judge, or all of it was judged.

    Parameters
    ----------
    setting : Setting
        Whether it has a judge.
    tasks : iterable of Task
        The tasks that a score is about.
    waiting : int
        Conversations that are held and owe their verdict.
    """
    every = list(tasks)
    asserting = sum(bool(task.assertions) for task in every)
    judged_there = setting.source.startswith(ADOPTED) and "NL_ASSERTION" in setting.reward_basis
    if setting.judge is None and asserting and not judged_there:
        whose = "The task has" if len(every) == 1 else f"{asserting} of {len(every)} tasks have"
        return f"{whose} natural-language assertions that nobody judged; they are no part of the reward"
    if waiting:
        return f"{waiting} conversations are held and owe only their judge's verdict"
    return ""


def waiting_for_judge(folder: Path, setting_id: str) -> int:
    """Return how many conversations are held and have no verdict yet."""
    held = read_unjudged(folder, setting_id)
    done = {key[1:] for key in read_ledger(folder) if key[0] == setting_id} if held else set()
    return len(held.keys() - done)


def folder_judged(folder: SettingFolder, task_ids: Iterable[str] | None = None) -> str:
    """Return the sentence for the results of a folder; empty when the benchmark is not at hand."""
    try:
        known = domain_of(folder).tasks
    except BenchError:
        return ""
    wanted = known if task_ids is None else dict.fromkeys(task_ids)
    tasks = [known[name] for name in wanted if name in known]
    return assertions_judged(folder.setting, tasks, waiting_for_judge(folder.path, folder.id))
