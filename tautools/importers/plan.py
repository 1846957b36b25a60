"""Decide which rows are imported, under which setting, and why the rest is not. Nothing is written here."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tautools.bench import open_source
from tautools.bench.sources import IMPORTED_PREFIX
from tautools.errors import BenchError, ParamsError
from tautools.importers.rows import LOST, RowStatus, SourceFile, SourceRow
from tautools.params import resolve_run
from tautools.records import Conversation, ImportedFrom, ModelConfig, Setting, canonical_json
from tautools.run import prepare_cell, read_setting, results_of
from tautools.run.folder import find_folder
from tautools.run.ledger import read_ledger
from tautools.run.roles import resolve_models

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.bench.types import Domain
    from tautools.importers.rows import SourceFacts
    from tautools.params.models import RunParams


_REQUIRED = {
    "env": "--env",
    "strategy": "--strategy",
    "agent.model": "--model",
    "user.model": "--user-model",
}


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What a person said with the files."""

    workspace: Path
    flags: Mapping[str, Any]
    """Dotted params name to value, as `resolve_run` takes them."""
    overrides: Sequence[str] = ()
    comparable: bool = False
    """Whether rows may stand beside conversations held here under the same flags."""


@dataclass(frozen=True, slots=True)
class ResolvedSetting:
    """A setting for rows of one env, with the benchmark where it is at hand."""

    setting: Setting
    run: RunParams | None
    """The run that goes on with it; None for our own setting, which its folder tells in full."""
    domain: Domain | None
    why_unchecked: str = ""
    """Why task ids could not be checked."""


def resolve_setting(file: SourceFile, env: str, wish: ImportRequest, *, simulated: bool) -> ResolvedSetting:
    """Return the setting of a file's rows of one env.

    Raises
    ------
    ParamsError
        When something is not told by file and flags, or they contradict each other.
    BenchError
        When rows shall be comparable with a run of a benchmark that is not at hand.
    """
    known = _own_setting(file, wish.workspace)
    if known is not None:
        return ResolvedSetting(known, None, *_find_domain(known.bench, known.source, known.env, known.split))
    run = _run_of(file, env, wish)
    if wish.comparable:
        return _comparable_setting(run, wish.workspace, simulated=simulated)
    domain, why = _find_domain(run.bench, _source_of(run), run.env, run.tasks.split, run.path, run.python)
    return ResolvedSetting(
        _imported_setting(file.facts, run, domain, wish.workspace, simulated=simulated), run, domain, why
    )


def _own_setting(file: SourceFile, workspace: Path) -> Setting | None:
    """Return the setting that a view of ours names, from the workspace or from the folder that the file lies in."""
    wanted = file.facts.setting_id
    if wanted is None:
        return None
    beside = read_setting(file.path.parent)
    candidates = [*results_of(workspace), *([beside] if beside else [])]
    return next((each.setting for each in candidates if each.id == wanted == each.setting.id), None)


def _run_of(file: SourceFile, env: str, wish: ImportRequest) -> RunParams:
    told = _flags_from_file(file.facts, env)
    given = {name: value for name, value in wish.flags.items() if value is not None}
    if str(given.get("source", "")).startswith(IMPORTED_PREFIX):
        given.pop("source")
    for name in told.keys() & given.keys():
        _check_agreement(file, name, told[name], given[name])
    flags = told | given
    named = {"agent.model": ("agent.server",), "user.model": ("user.server",)}
    missing = [name for name in _REQUIRED if not any(each in flags for each in (name, *named.get(name, ())))]
    overridden = {text.partition("=")[0] for text in wish.overrides}
    nobody = {"user.model"} if flags.get("user_strategy") == "human" else set()
    missing = [name for name in missing if name not in overridden | nobody]
    if missing:
        raise ParamsError(
            f"{file.path.name} does not tell {_missing_in_words(missing)}.",
            evidence=f"Told: {', '.join(f'{name} {value}' for name, value in sorted(told.items())) or 'nothing'}.",
            next_step=f"Add {' and '.join(_REQUIRED[name] for name in missing)}.",
        )
    return resolve_run(flags, workspace=wish.workspace, overrides=wish.overrides).params


def _flags_from_file(facts: SourceFacts, env: str) -> dict[str, Any]:
    """Return what a file tells, by the names of params."""
    found: dict[str, Any] = {"bench": facts.bench if facts.harness != "tautools" else None, "env": env or None}
    found |= {"strategy": facts.strategy and facts.strategy.value, "tasks.split": facts.split}
    found |= {"user_strategy": facts.user_strategy and facts.user_strategy.value}
    for part, each in (("agent", facts.agent), ("user", facts.user)):
        if each is not None:
            found |= {f"{part}.model": each.model, f"{part}.provider": each.provider}
            found |= {
                f"{part}.{name}": value for name, value in each.sampling.model_dump(exclude_defaults=True).items()
            }
    return {name: value for name, value in found.items() if value is not None}


def _check_agreement(file: SourceFile, name: str, told: Any, given: Any) -> None:
    """Refuse a flag that contradicts the file."""
    same = str(told) == str(given)
    if name in {"agent.model", "user.model"}:  # v1 writes the name without its owner
        same = str(told).rsplit("/", 1)[-1] == str(given).rsplit("/", 1)[-1]
    if name.endswith("temperature"):
        same = float(told) == float(given)
    if name == "strategy":  # their messages look alike
        same = same or {told, given} == {"fc", "few-shot"}
    if not same:
        raise ParamsError(
            f"{file.path.name} says {name} {told}; {given} was given.",
            evidence=str(file.path),
            next_step="Leave the flag out, or adopt this file on its own.",
        )


def _comparable_setting(run: RunParams, workspace: Path, *, simulated: bool) -> ResolvedSetting:
    cell = prepare_cell(run, workspace=workspace, need_servers=False)
    if simulated not in cell.cast.simulated:
        kind = ("SIMULATED", "real") if simulated else ("real", "SIMULATED")
        raise ParamsError(
            f"Conversations of {kind[0]} models are not comparable with those of {kind[1]} ones.",
            evidence=f"The run's models: {', '.join(each.model for each in cell.cast.parties.values())}.",
            next_step="Name other servers, or leave --comparable out.",
        )
    return ResolvedSetting(cell.setting.model_copy(update={"simulated": simulated}), run, cell.domain)


def _imported_setting(
    facts: SourceFacts, run: RunParams, domain: Domain | None, workspace: Path, *, simulated: bool
) -> Setting:
    parties = resolve_models(run, workspace=workspace, need_servers=False).parties
    default_split = "test" if run.bench == "tau-bench" else "base"
    return Setting(
        bench=run.bench,
        source=f"{IMPORTED_PREFIX}{facts.harness}",
        source_version=facts.source_version,
        protocol=facts.protocol,
        reward_basis=facts.reward_basis,
        env=run.env,
        split=run.tasks.split or (domain.split if domain else default_split),
        strategy=run.strategy,
        agent=parties["agent"],
        user=parties.get("user", ModelConfig(model="human", provider="human")),
        user_strategy=run.user_strategy,
        seed=facts.seed or 0,
        persona=run.persona,
        simulated=simulated,
    )


def _source_of(run: RunParams) -> str | None:
    return None if run.source is None or run.source.startswith(IMPORTED_PREFIX) else run.source


def _find_domain(
    bench: str, source: str | None, env: str, split: str | None, path: str | None = None, python: str | None = None
) -> tuple[Domain | None, str]:
    try:
        return open_source(bench, source, path, python).domain(env, split), ""
    except BenchError as error:
        return None, error.problem


def _missing_in_words(names: Sequence[str]) -> str:
    words = {"env": "the env", "strategy": "the strategy", "agent.model": "the agent's model"}
    return " and ".join(words.get(name, "the customer's model") for name in names)


FileRow = tuple[SourceFile, SourceRow]


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row that is kept, as it will be written."""

    conversation: Conversation
    counts: dict[str, int]


@dataclass(slots=True)
class ImportGroup:
    """The rows of one setting."""

    settled: ResolvedSetting
    folder: Path
    num_trials: int = 1
    kept: list[KeptRow] = field(default_factory=list)
    lost: list[FileRow] = field(default_factory=list)
    """Begun and lost: faults of the setting, pending unless another row made up for them."""
    known: frozenset[tuple[str, int]] = frozenset()
    """Task and trial of what the ledger has."""
    changed_tasks: int = 0
    """Rows of tasks whose reference is another one in the benchmark at hand."""
    files: list[SourceFile] = field(default_factory=list)
    taken: set[tuple[str, int]] = field(default_factory=set)
    """Task and trial of what is kept."""

    @property
    def setting(self) -> Setting:
        """Under which it is imported."""
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
        """Task and trial of what is finished once this is imported."""
        return set(self.known) | self.taken

    @property
    def planned(self) -> int:
        """Conversations of all tasks and trials."""
        return len(self.tasks) * self.num_trials

    @property
    def pending(self) -> int:
        """Those of them that are not finished."""
        done = self.done
        return sum((task, trial) not in done for task in self.tasks for trial in range(self.num_trials))


@dataclass(frozen=True, slots=True, repr=False)
class ImportPlan:
    """What will be imported."""

    groups: list[ImportGroup]
    fates: dict[SourceFile, Counter[RowStatus]]
    reasons: dict[SourceFile, Counter[str]]
    """More about why rows are not kept."""
    refused: Mapping[Path, ParamsError] = field(default_factory=dict)
    """Files of folders that are of no known format."""

    def __str__(self) -> str:
        from tautools.importers.importing import format_import

        return format_import(self, dry_run=False)

    __repr__ = __str__

    @property
    def kept(self) -> int:
        """Conversations that are new."""
        return sum(len(group.kept) for group in self.groups)

    @property
    def pending(self) -> int:
        """Planned conversations that will still be missing."""
        return sum(group.pending for group in self.groups)


def plan_import(
    files: Sequence[SourceFile], wish: ImportRequest, refused: Mapping[Path, ParamsError] | None = None
) -> ImportPlan:
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
    adoption = ImportPlan([], {file: Counter() for file in files}, {file: Counter() for file in files}, refused or {})
    at = time.time()
    pending: list[tuple[ImportGroup, SourceFile, SourceRow]] = []
    for file in files:
        for env, rows in _rows_by_env(file, wish).items():
            if env is None:
                _count_rows(adoption, file, rows)
                continue
            group = _group_for(adoption.groups, file, env, rows, wish)
            pending += [(group, file, found) for found in rows]
    for group, file, found in sorted(pending, key=lambda each: _finish_time(each[2])):
        _decide(adoption, group, (file, found), at)
    return adoption


def _finish_time(found: SourceRow) -> float:
    """Return when a row was finished; those that do not tell keep their order, behind those that do."""
    return math.inf if found.finished_at is None else found.finished_at


def _rows_by_env(file: SourceFile, wish: ImportRequest) -> dict[str | None, list[SourceRow]]:
    """Return the rows by env; under None those of another env than asked for and those that cannot be read."""
    asked = wish.flags.get("env")
    told = {found.env for found in file.rows if found.env}
    only = asked or file.facts.env or (next(iter(told)) if len(told) == 1 else "")
    rows: dict[str | None, list[SourceRow]] = {}
    for found in file.rows:
        env: str | None = found.env or only
        if found.fate is RowStatus.UNREADABLE or (found.fate in LOST and not env):
            env = None
        elif asked and env != asked:
            env, found = None, found.but(RowStatus.OTHER_ENV, str(env))  # noqa: PLW2901 - the row with its fate
        rows.setdefault(env, []).append(found)
    if not file.rows and file.format == "tau2-bench" and only:
        rows[None] = []
    return rows


def _count_rows(adoption: ImportPlan, file: SourceFile, rows: Sequence[SourceRow]) -> None:
    for found in rows:
        adoption.fates[file][found.fate] += 1
        if found.why:
            adoption.reasons[file][f"{found.fate.value}: {found.why}"] += 1


def _group_for(
    groups: list[ImportGroup], file: SourceFile, env: str, rows: Sequence[SourceRow], wish: ImportRequest
) -> ImportGroup:
    kept = [found for found in rows if found.fate is RowStatus.KEPT]
    simulated = {found.simulated for found in kept} or {False}
    if len(simulated) > 1:
        raise ParamsError(
            f"{file.path.name} holds conversations of SIMULATED and of real models.",
            evidence=str(file.path),
            next_step="Adopt them from two files.",
        )
    settled = resolve_setting(file, env, wish, simulated=simulated.pop())
    group = next((each for each in groups if each.setting.id == settled.setting.id), None)
    if group is None:
        folder = find_folder(wish.workspace / "results", settled.setting)
        known = frozenset(key[1:] for key in read_ledger(folder) if key[0] == settled.setting.id)
        group = ImportGroup(settled, folder, known=known)
        groups.append(group)
    trials = [found.trial + 1 for found in rows if found.fate is RowStatus.KEPT or found.fate in LOST]
    told = wish.flags.get("num_trials") or max([file.facts.num_trials or 1, *trials])
    group.num_trials = max(group.num_trials, told)
    group.files.append(file)
    return group


def _decide(adoption: ImportPlan, group: ImportGroup, place: FileRow, at: float) -> None:
    file, found = place
    found = _checked_by_benchmark(group, found)
    key = (found.task_id, found.trial)
    if found.fate is RowStatus.KEPT and key in group.known:
        found = found.but(RowStatus.ALREADY)
    elif found.fate is RowStatus.KEPT and key in group.taken:
        found = found.but(RowStatus.DUPLICATE)
    if found.fate is RowStatus.KEPT:
        group.taken.add(key)
        group.kept.append(KeptRow(_to_conversation(group.setting, file, found, at), dict(found.counts)))
    if found.fate in LOST:
        group.lost.append((file, found))
    _count_rows(adoption, file, [found])


def _checked_by_benchmark(group: ImportGroup, found: SourceRow) -> SourceRow:
    """Return the row, judged by the benchmark where it is at hand."""
    domain = group.settled.domain
    if domain is None or found.fate is not RowStatus.KEPT:
        return found
    if found.task_id not in domain.tasks:
        return found.but(RowStatus.UNKNOWN_TASK, f"task {found.task_id}")
    reference = [[action.name, dict(action.arguments)] for action in domain.tasks[found.task_id].reference]
    if found.reference is None or found.reference == canonical_json(reference):
        return found
    if not group.setting.source.startswith("imported:"):
        return found.but(RowStatus.OTHER_TASK, f"task {found.task_id}")
    group.changed_tasks += 1
    return found


def _to_conversation(setting: Setting, file: SourceFile, found: SourceRow, at: float) -> Conversation:
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
        actions=list(found.actions),
        seed=found.seed,
        started_at=found.started_at if timed else at,
        finished_at=found.finished_at if timed else at,
        error=found.error,
        simulated=found.simulated,
        imported=ImportedFrom(
            file=file.path.name, sha256=file.sha256, format=file.format, row=found.row, at=at, timed=timed
        ),
    )
