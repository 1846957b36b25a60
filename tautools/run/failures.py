"""Why conversations of a setting failed, one by one and counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tautools.bench.anatomy import dissect
from tautools.run.benchmark import domain_of, task_of
from tautools.run.deeds import deeds_of
from tautools.run.ledger import read_conversation
from tautools.run.show import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tautools.bench.anatomy import Anatomy
    from tautools.records import CommitRow
    from tautools.run.folder import SettingFolder

__all__ = ["Failure", "anatomy_of", "count_causes", "count_fields", "count_missed", "failures_of"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A scored conversation that did not pass, and its anatomy."""

    row: CommitRow
    anatomy: Anatomy

    @property
    def causes(self) -> tuple[str, ...]:
        """What the score was lost by: `end` when something else than the bench ended it, then the anatomy's causes."""
        ended = ("end",) if self.row.outcome.value not in {"passed", "failed"} else ()
        return (*ended, *self.anatomy.causes)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        row = self.row
        return {
            "task_id": row.task_id,
            "trial": row.trial,
            "outcome": row.outcome.value,
            "reward": row.reward,
            "causes": list(self.causes),
            "anatomy": self.anatomy.as_dict(),
        }


def anatomy_of(folder: SettingFolder, row: CommitRow) -> Anatomy:
    """Return the anatomy of one finished conversation, from a replay of what it did.

    Raises
    ------
    BenchError, RecordError
        When the benchmark or the conversation cannot be read any more.
    """
    domain = domain_of(folder)
    deeds = deeds_of(read_conversation(folder.path, row), folder.setting)
    return dissect(domain, task_of(domain, row.task_id), deeds)


def failures_of(folder: SettingFolder) -> Iterator[Failure]:
    """Yield every scored conversation of a setting that did not pass, by task and trial.

    Raises
    ------
    BenchError, RecordError
        When the benchmark or a conversation cannot be read any more.
    """
    for row in rows_of(folder):
        if row.outcome.scored and row.outcome.value != "passed":
            yield Failure(row, anatomy_of(folder, row))


def count_causes(found: Sequence[Failure]) -> Counter[str]:
    """Return how many conversations were lost by each combination of causes."""
    return Counter(" and ".join(each.causes) or "nothing that the replay shows" for each in found)


def count_missed(found: Sequence[Failure]) -> Counter[tuple[str, str]]:
    """Return how many conversations missed each action, by its name and its fate; each counts once a conversation."""
    return Counter(key for each in found for key in {(one.name, one.fate.value) for one in each.anatomy.missed})


def count_fields(found: Sequence[Failure]) -> Counter[tuple[str, str]]:
    """Return how many conversations left each kind of field wrong, by `table.field` and in which way."""
    return Counter(key for each in found for key in _fields(each))


def _fields(failure: Failure) -> set[tuple[str, str]]:
    found = failure.anatomy.fields
    return {(f"{each.table}.{_without_numbers(each.field)}".rstrip("."), each.wrong.value) for each in found}


def _without_numbers(path: str) -> str:
    """Return a field's path without what names one entry of many: `items.0.price` is `items.price`."""
    return ".".join(part for part in path.split(".") if not any(letter.isdigit() for letter in part))
