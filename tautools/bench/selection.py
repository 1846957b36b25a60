"""What a run asks of a benchmark, checked against what the benchmark has: strategies and tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.bench.types import Approach, Expert, check_known
from tautools.errors import BenchError
from tautools.records import Strategy, Thinking

if TYPE_CHECKING:
    from tautools.bench.types import Domain, Task
    from tautools.params.models import RunParams, TaskParams


def approach_of(run: RunParams) -> Approach:
    """Return how a run is to be played; experts belong to the strategy `experts` alone."""
    experts: tuple[Expert, ...] = ()
    if run.strategy is Strategy.EXPERTS:
        experts = tuple(
            Expert(name, role.description, role.thinking is Thinking.ON) for name, role in run.experts.items()
        )
    return Approach(run.strategy, run.user_strategy, run.few_shot_displays, experts)


def check_approach(domain: Domain, approach: Approach) -> None:
    """Refuse a strategy that the benchmark does not have, or that lacks its models.

    Raises
    ------
    BenchError
        Naming those that it has.
    """
    for kind, wanted, known in (
        ("strategy", approach.strategy, domain.strategies),
        ("user strategy", approach.user_strategy, domain.user_strategies),
    ):
        if wanted not in known:
            raise BenchError(
                f"{domain.ref.bench} has no {kind} {wanted.value}.",
                evidence=f"It has {', '.join(each.value for each in known)}.",
                next_step=f"Choose another {kind}, or a benchmark that has this one.",
            )
    if approach.strategy is Strategy.EXPERTS and not approach.experts:
        raise BenchError(
            "The strategy experts has no experts.",
            next_step="Name them with --expert NAME=SERVER, or under `experts:` in the file.",
        )


def select_tasks(domain: Domain, wanted: TaskParams) -> list[Task]:
    """Return the tasks that were asked for, each once.

    `ids` in their order, or else the half-open range of indices in the bench's order; of these the first `limit`.

    Raises
    ------
    BenchError
        When an id does not exist (the nearest are named), or no task is left.
    """
    if wanted.ids is not None:
        names = list(dict.fromkeys(check_known("task", name, domain.tasks, of=domain.ref.env) for name in wanted.ids))
    else:
        end = None if wanted.end_index == -1 else wanted.end_index
        names = list(domain.tasks)[wanted.start_index : end]
    if not names:
        raise BenchError(
            f"No task of {domain.ref.env} is selected.",
            evidence=f"{domain.ref.env} has {len(domain.tasks)} tasks in its split {domain.ref.split!r}; "
            f"asked for: {wanted.model_dump(exclude_defaults=True)}.",
            next_step="Widen the range, or name tasks by their ids.",
        )
    return [domain.tasks[name] for name in names[: wanted.limit]]
