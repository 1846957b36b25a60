"""What `tautools fidelity --replay` shows: what became of each file's rows, and pass^k as recorded and as replayed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tautools.run.recorded import Fate
from tautools.stats import TaskCounts, largest_k, mean_over_tasks, pass_hat_k

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tautools.run.recorded import Rerun

__all__ = ["show_replay"]

_PASSED_FROM = 1 - 1e-6


def show_replay(found: Mapping[str, Sequence[Rerun]], *, as_json: bool) -> None:
    """Print what became of each file's rows.

    Parameters
    ----------
    found : mapping of str to sequence of Rerun
        By file.
    as_json : bool
        For a program to read, row by row.
    """
    if as_json:
        click.echo(json.dumps({name: [asdict(each) for each in reruns] for name, reruns in found.items()}, indent=1))
        return
    for name, reruns in found.items():
        _show_file(name, reruns)


def _show_file(name: str, reruns: Sequence[Rerun]) -> None:
    places = Counter(each.place for each in reruns if each.place)
    click.echo(click.style(name, bold=True))
    click.echo(f"  {len(reruns)} rows: {', '.join(f'{count} of {place}' for place, count in places.items())}")
    for fate, count in Counter(each.fate for each in reruns).items():
        ok = fate not in {Fate.DIFFERENT, Fate.UNKNOWN_TASK}
        click.echo(f"  {count:>5}  {click.style(fate.value, fg='green' if ok else 'red')}")
    others, told = sum(each.other_observations for each in reruns), sum(each.observations for each in reruns)
    first = next((each.why for each in reruns if each.other_observations and each.why), "")
    click.echo(
        f"  tool answers: {told} recorded, {others} read otherwise now" + (f"; the first: {first}" if first else "")
    )
    for word, reward in (("recorded", lambda each: each.recorded), ("replayed", lambda each: each.reward)):
        click.echo(f"  pass^k {word}: {_pass_k(reruns, reward)}")
    for each in reruns:
        if not each.explained:
            click.echo(f"  {click.style('DIFFERENT', fg='red', bold=True)} task {each.task_id}, trial {each.trial}: "
                       f"recorded {each.recorded:g}, now {each.reward:g}. {each.why}")  # fmt: skip


def _pass_k(reruns: Sequence[Rerun], reward: Callable[[Rerun], float]) -> str:
    """Return pass^k up to the number of trials that every task has."""
    by_task: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for each in reruns:
        by_task[each.place, each.task_id].append(reward(each) >= _PASSED_FROM)
    counts = [TaskCounts(len(passed), sum(passed)) for passed in by_task.values()]
    return "  ".join(f"{k}: {mean_over_tasks(counts, k, pass_hat_k):.4f}" for k in range(1, largest_k(counts) + 1))
