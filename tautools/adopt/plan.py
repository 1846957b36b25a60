"""What is kept of files that were read, under which setting, and why the rest is not. Nothing is written here."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tautools.adopt.rows import LOST, Fate, Found, SourceFile
from tautools.adopt.settle import settle
from tautools.errors import ParamsError
from tautools.records import Adopted, Conversation, canonical_json
from tautools.run.folder import find_folder
from tautools.run.ledger import read_ledger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.adopt.settle import Settled, Wish
    from tautools.records import Setting

__all__ = ["Adoption", "Group", "Taken", "plan_adoption"]

Place = tuple[SourceFile, Found]


@dataclass(frozen=True, slots=True)
class Taken:
    """A row that is kept, as it will be written."""

    conversation: Conversation
    counts: dict[str, int]


@dataclass(slots=True)
class Group:
    """The rows of one setting."""

    settled: Settled
    folder: Path
    num_trials: int = 1
    kept: list[Taken] = field(default_factory=list)
    lost: list[Place] = field(default_factory=list)
    """Begun and lost: faults of the setting, owed unless another row made up for them."""
    known: frozenset[tuple[str, int]] = frozenset()
    """Task and trial of what the ledger has."""
    changed_tasks: int = 0
    """Rows of tasks whose reference is another one in the benchmark at hand."""
    files: list[SourceFile] = field(default_factory=list)
    taken: set[tuple[str, int]] = field(default_factory=set)
    """Task and trial of what is kept."""

    @property
    def setting(self) -> Setting:
        """Under which it is adopted."""
        return self.settled.setting

    @property
    def tasks(self) -> list[str]:
        """The tasks that a run with these flags plans: the benchmark's, where it is at hand, else those seen."""
        domain, run = self.settled.domain, self.settled.run
        if domain is not None and run is not None:
            from tautools.bench import select_tasks

            return [task.id for task in select_tasks(domain, run.tasks)]
        if domain is not None:
            return list(domain.tasks)
        lost = {found.task_id for _, found in self.lost}
        return sorted({task for task, _ in self.done} | lost)

    @property
    def done(self) -> set[tuple[str, int]]:
        """Task and trial of what is finished once this is adopted."""
        return set(self.known) | self.taken

    @property
    def planned(self) -> int:
        """Conversations of all tasks and trials."""
        return len(self.tasks) * self.num_trials

    @property
    def owed(self) -> int:
        """Those of them that are not finished."""
        done = self.done
        return sum((task, trial) not in done for task in self.tasks for trial in range(self.num_trials))


@dataclass(frozen=True, slots=True, repr=False)
class Adoption:
    """What will be adopted."""

    groups: list[Group]
    fates: dict[SourceFile, Counter[Fate]]
    reasons: dict[SourceFile, Counter[str]]
    """More about why rows are not kept."""
    refused: Mapping[Path, ParamsError] = field(default_factory=dict)
    """Files of folders that are of no known format."""

    def __str__(self) -> str:
        from tautools.adopt.tell import in_words

        return in_words(self, dry_run=False)

    __repr__ = __str__

    @property
    def kept(self) -> int:
        """Conversations that are new."""
        return sum(len(group.kept) for group in self.groups)

    @property
    def owed(self) -> int:
        """Planned conversations that will still be missing."""
        return sum(group.owed for group in self.groups)


def plan_adoption(
    files: Sequence[SourceFile], wish: Wish, refused: Mapping[Path, ParamsError] | None = None
) -> Adoption:
    """Decide on every row of files.

    Parameters
    ----------
    files : sequence of SourceFile
        In the order that was given: where nothing tells when rows were finished, the first one counts.
    wish : Wish
        What the person said.
    refused : mapping of Path to ParamsError
        Files that could not be read, to be reported with the rest.

    Raises
    ------
    ParamsError
        When file and flags do not tell under which setting rows belong.
    BenchError, RunError
        A benchmark that is needed and not at hand; results that cannot be read.
    """
    adoption = Adoption([], {file: Counter() for file in files}, {file: Counter() for file in files}, refused or {})
    at = time.time()
    pending: list[tuple[Group, SourceFile, Found]] = []
    for file in files:
        for env, rows in _by_env(file, wish).items():
            if env is None:
                _count(adoption, file, rows)
                continue
            group = _group(adoption.groups, file, env, rows, wish)
            pending += [(group, file, found) for found in rows]
    for group, file, found in sorted(pending, key=lambda each: _finished(each[2])):
        _judge(adoption, group, (file, found), at)
    return adoption


def _finished(found: Found) -> float:
    """Return when a row was finished; those that do not tell keep their order, behind those that do."""
    return math.inf if found.finished_at is None else found.finished_at


def _by_env(file: SourceFile, wish: Wish) -> dict[str | None, list[Found]]:
    """Return the rows by env; under None those of another env than asked for and those that cannot be read."""
    asked = wish.flags.get("env")
    told = {found.env for found in file.rows if found.env}
    only = asked or file.facts.env or (next(iter(told)) if len(told) == 1 else "")
    rows: dict[str | None, list[Found]] = {}
    for found in file.rows:
        env: str | None = found.env or only
        if found.fate is Fate.UNREADABLE or (found.fate in LOST and not env):
            env = None
        elif asked and env != asked:
            env, found = None, found.but(Fate.OTHER_ENV, str(env))  # noqa: PLW2901 - the row with its fate
        rows.setdefault(env, []).append(found)
    if not file.rows and file.format == "tau2-bench" and only:
        rows[None] = []
    return rows


def _count(adoption: Adoption, file: SourceFile, rows: Sequence[Found]) -> None:
    for found in rows:
        adoption.fates[file][found.fate] += 1
        if found.why:
            adoption.reasons[file][f"{found.fate.value}: {found.why}"] += 1


def _group(groups: list[Group], file: SourceFile, env: str, rows: Sequence[Found], wish: Wish) -> Group:
    kept = [found for found in rows if found.fate is Fate.KEPT]
    simulated = {found.simulated for found in kept} or {False}
    if len(simulated) > 1:
        raise ParamsError(
            f"{file.path.name} holds conversations of SIMULATED and of real models.",
            evidence=str(file.path),
            next_step="Adopt them from two files.",
        )
    settled = settle(file, env, wish, simulated=simulated.pop())
    group = next((each for each in groups if each.setting.id == settled.setting.id), None)
    if group is None:
        folder = find_folder(wish.workspace / "results", settled.setting)
        known = frozenset(key[1:] for key in read_ledger(folder) if key[0] == settled.setting.id)
        group = Group(settled, folder, known=known)
        groups.append(group)
    trials = [found.trial + 1 for found in rows if found.fate is Fate.KEPT or found.fate in LOST]
    told = wish.flags.get("num_trials") or max([file.facts.num_trials or 1, *trials])
    group.num_trials = max(group.num_trials, told)
    group.files.append(file)
    return group


def _judge(adoption: Adoption, group: Group, place: Place, at: float) -> None:
    file, found = place
    found = _checked(group, found)
    key = (found.task_id, found.trial)
    if found.fate is Fate.KEPT and key in group.known:
        found = found.but(Fate.ALREADY)
    elif found.fate is Fate.KEPT and key in group.taken:
        found = found.but(Fate.DUPLICATE)
    if found.fate is Fate.KEPT:
        group.taken.add(key)
        group.kept.append(Taken(_conversation(group.setting, file, found, at), dict(found.counts)))
    if found.fate in LOST:
        group.lost.append((file, found))
    _count(adoption, file, [found])


def _checked(group: Group, found: Found) -> Found:
    """Return the row, judged by the benchmark where it is at hand."""
    domain = group.settled.domain
    if domain is None or found.fate is not Fate.KEPT:
        return found
    if found.task_id not in domain.tasks:
        return found.but(Fate.UNKNOWN_TASK, f"task {found.task_id}")
    reference = [[action.name, dict(action.arguments)] for action in domain.tasks[found.task_id].reference]
    if found.reference is None or found.reference == canonical_json(reference):
        return found
    if not group.setting.source.startswith("adopted:"):
        return found.but(Fate.OTHER_TASK, f"task {found.task_id}")
    group.changed_tasks += 1
    return found


def _conversation(setting: Setting, file: SourceFile, found: Found, at: float) -> Conversation:
    timed = found.started_at is not None and found.finished_at is not None
    return Conversation(
        setting_id=setting.id,
        env=setting.env,
        task_id=found.task_id,
        trial=found.trial,
        outcome=found.outcome,
        reward=found.reward,
        reward_info=dict(found.reward_info),
        messages=list(found.messages),
        deeds=list(found.deeds),
        seed=found.seed,
        started_at=found.started_at if timed else at,
        finished_at=found.finished_at if timed else at,
        error=found.error,
        simulated=found.simulated,
        adopted=Adopted(file=file.path.name, sha256=file.sha256, format=file.format, row=found.row, at=at, timed=timed),
    )
