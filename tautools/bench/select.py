"""Which tasks of an env are run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.bench.sources.naming import choose
from tautools.errors import BenchError

if TYPE_CHECKING:
    from tautools.bench.types import Domain, Task
    from tautools.params.models import TaskParams

__all__ = ["select_tasks"]


def select_tasks(domain: Domain, wanted: TaskParams) -> list[Task]:
    """Return the tasks that were asked for, each once.

    `ids` in their order, or else the half-open range of indices in the bench's order; of these the first `limit`.

    Raises
    ------
    BenchError
        When an id does not exist (the nearest are named), or no task is left.
    """
    if wanted.ids is not None:
        names = list(dict.fromkeys(choose("task", name, domain.tasks, of=domain.env) for name in wanted.ids))
    else:
        end = None if wanted.end_index == -1 else wanted.end_index
        names = list(domain.tasks)[wanted.start_index : end]
    if not names:
        raise BenchError(
            f"No task of {domain.env} is selected.",
            evidence=f"{domain.env} has {len(domain.tasks)} tasks in its split {domain.split!r}; "
            f"asked for: {wanted.model_dump(exclude_defaults=True)}.",
            next_step="Widen the range, or name tasks by their ids.",
        )
    return [domain.tasks[name] for name in names[: wanted.limit]]
