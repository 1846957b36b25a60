"""Decide which rows are imported, under which setting, and why the rest is not. Nothing is written here."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tautools.bench import open_domain, select_tasks
from tautools.bench.sources import IMPORTED_PREFIX
from tautools.bench.types import Domain
from tautools.errors import BenchError, ParamsError
from tautools.importers.rows import LOST, RowStatus, SourceFacts, SourceFile, SourceRow
from tautools.params import resolve_run
from tautools.params.models import RunParams
from tautools.records import BenchRef, Conversation, ImportedFrom, ModelConfig, Setting, canonical_json
from tautools.run import prepare_cell, read_setting, results_of
from tautools.run.folder import find_folder
from tautools.run.ledger import read_ledger
from tautools.run.plan import named_models, unlimited

# What a file or its flags must say: params name, the flag, the param that may stand in for it, the words for it.
_REQUIRED = (
    ("env", "--env", "", "the env"),
    ("strategy", "--strategy", "", "the strategy"),
    ("agent.model", "--model", "agent.server", "the agent's model"),
    ("user.model", "--user-model", "user.server", "the customer's model"),
)

_COPIED = ("task_id", "trial", "outcome", "reward", "reward_info", "messages", "actions", "seed", "error", "simulated")
"""What a conversation takes from its row as it is."""


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What a person said about the files."""

    workspace: Path
    flags: Mapping[str, Any]
    """Dotted params name to value, as `resolve_run` takes them."""
    overrides: Sequence[str] = ()
    comparable: bool = False
    """Whether rows join the setting of conversations that were run here with the same flags."""


@dataclass(slots=True)
class ImportGroup:
    """The rows of one setting."""

    setting: Setting
    run: RunParams | None
    """The run that completes the setting; None for a setting of our own, which its folder describes."""
    domain: Domain | None
    """The benchmark's tasks; None when it is not installed."""
    unchecked_reason: str = ""
    """Why task ids could not be checked."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Of `run`, by dotted name, as the files and the person gave them."""
    overrides: Sequence[str] = ()
    folder: Path = field(default_factory=Path)
    num_trials: int = 1
    kept: dict[tuple[str, int], tuple[Conversation, dict[str, int]]] = field(default_factory=dict)
    """Task and trial to the conversation as it will be written, with its counts of calls and tokens."""
    lost: list[tuple[SourceFile, SourceRow]] = field(default_factory=list)
    """Begun and lost: faults of the setting, pending unless another row has the same task and trial."""
    known: frozenset[tuple[str, int]] = frozenset()
    """Task and trial of what the ledger has."""
    changed_tasks: int = 0
    """Rows of tasks whose reference differs from the installed benchmark's."""
    files: list[SourceFile] = field(default_factory=list)

    @property
    def tasks(self) -> list[str]:
        """The tasks that a run with these flags plans; without the benchmark, those seen in the rows."""
        if self.domain is None:
            return sorted({task for task, _ in self.known | self.kept.keys()} | {row.task_id for _, row in self.lost})
        return [task.id for task in select_tasks(self.domain, self.run.tasks)] if self.run else list(self.domain.tasks)

    @property
    def planned(self) -> int:
        """Conversations of all tasks and trials."""
        return len(self.tasks) * self.num_trials

    @property
    def pending(self) -> int:
        """Planned conversations that are not finished after the import."""
        done = self.known | self.kept.keys()
        return sum((task, trial) not in done for task in self.tasks for trial in range(self.num_trials))


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What will be imported."""

    groups: list[ImportGroup]
    statuses: dict[SourceFile, Counter[RowStatus]]
    reasons: dict[SourceFile, Counter[str]]
    """More about why rows are not kept."""
    refused: Mapping[Path, ParamsError] = field(default_factory=dict)
    """Files of folders whose format is not known."""

    @property
    def kept(self) -> int:
        """Conversations that are new."""
        return sum(len(group.kept) for group in self.groups)

    @property
    def pending(self) -> int:
        """Planned conversations that will still be missing."""
        return sum(group.pending for group in self.groups)


def plan_import(
    files: Sequence[SourceFile], request: ImportRequest, refused: Mapping[Path, ParamsError] | None = None
) -> ImportPlan:
    """Decide on every row of files; of rows without a finish time the first in the order given counts.

    Raises
    ------
    ParamsError
        When file and flags do not say to which setting rows belong.
    BenchError, RunError
        A benchmark that is needed and not installed; results that cannot be read.
    """
    plan = ImportPlan([], {file: Counter() for file in files}, {file: Counter() for file in files}, refused or {})
    now = time.time()
    undecided: list[tuple[ImportGroup | None, SourceFile, SourceRow]] = []
    for file in files:
        for env, rows in _rows_by_env(file, request).items():
            group = None if env is None else _group_for(plan.groups, file, env, rows, request)
            undecided += [(group, file, row) for row in rows]
    # The first that was finished counts; rows without a time keep their order, after those with one.
    for group, file, row in sorted(undecided, key=lambda each: each[2].finished_at or math.inf):
        decided = _decide(group, file, row, now) if group else row
        plan.statuses[file][decided.status] += 1
        if decided.why:
            plan.reasons[file][f"{decided.status.value}: {decided.why}"] += 1
    return plan


def _rows_by_env(file: SourceFile, request: ImportRequest) -> dict[str | None, list[SourceRow]]:
    """Return the rows by env; under None those of another env than asked for and those that cannot be read."""
    asked = request.flags.get("env")
    envs = {row.env for row in file.rows if row.env}
    only = asked or file.facts.params.get("env") or (envs.pop() if len(envs) == 1 else "")
    by_env: dict[str | None, list[SourceRow]] = {}
    for row in file.rows:
        env = row.env or only
        if row.status is RowStatus.UNREADABLE or (row.status in LOST and not env):
            by_env.setdefault(None, []).append(row)
        elif asked and env != asked:
            by_env.setdefault(None, []).append(row.but(RowStatus.OTHER_ENV, env))
        else:
            by_env.setdefault(env, []).append(row)
    return by_env


def _group_for(
    groups: list[ImportGroup], file: SourceFile, env: str, rows: Sequence[SourceRow], request: ImportRequest
) -> ImportGroup:
    simulated = {row.simulated for row in rows if row.status is RowStatus.KEPT} or {False}
    if len(simulated) > 1:
        raise ParamsError(
            f"{file.path.name} holds conversations of SIMULATED and of real models.",
            evidence=str(file.path),
            next_step="Import them from two files.",
        )
    resolved = _resolve_setting(file, env, request, simulated=simulated.pop())
    group = next((each for each in groups if each.setting.id == resolved.setting.id), resolved)
    if group is resolved:
        group.folder = find_folder(request.workspace / "results", group.setting).path
        group.known = frozenset(key[1:] for key in read_ledger(group.folder) if key[0] == group.setting.id)
        groups.append(group)
    trials = [row.trial + 1 for row in rows if row.status is RowStatus.KEPT or row.status in LOST]
    num_trials = request.flags.get("num_trials") or max([file.facts.num_trials or 1, *trials])
    group.num_trials = max(group.num_trials, num_trials)
    group.files.append(file)
    return group


def _decide(group: ImportGroup, file: SourceFile, row: SourceRow, now: float) -> SourceRow:
    """Add a row to its group where it belongs there; return it with what becomes of it."""
    key = (row.task_id, row.trial)
    row = _checked_by_benchmark(group, row)
    if row.status in LOST:
        group.lost.append((file, row))
    if row.status is not RowStatus.KEPT:
        return row
    if key in group.known or key in group.kept:
        return row.but(RowStatus.ALREADY if key in group.known else RowStatus.DUPLICATE)
    group.kept[key] = (_to_conversation(group.setting, file, row, now), dict(row.counts))
    return row


def _checked_by_benchmark(group: ImportGroup, row: SourceRow) -> SourceRow:
    if group.domain is None or row.status is not RowStatus.KEPT:
        return row
    task = group.domain.tasks.get(row.task_id)
    if task is None:
        return row.but(RowStatus.UNKNOWN_TASK, f"task {row.task_id}")
    reference = canonical_json([[action.name, dict(action.arguments)] for action in task.reference])
    if row.reference is not None and row.reference != reference:
        if not group.setting.source.startswith(IMPORTED_PREFIX):
            return row.but(RowStatus.OTHER_TASK, f"task {row.task_id}")
        group.changed_tasks += 1
    return row


def _to_conversation(setting: Setting, file: SourceFile, row: SourceRow, now: float) -> Conversation:
    timed = row.started_at is not None and row.finished_at is not None
    times = {"started_at": row.started_at if timed else now, "finished_at": row.finished_at if timed else now}
    return Conversation(
        setting_id=setting.id,
        env=setting.env,
        imported=ImportedFrom(**file.origin, row=row.index, at=now, timed=timed),
        **times,
        **{name: getattr(row, name) for name in _COPIED},
    )


def _resolve_setting(file: SourceFile, env: str, request: ImportRequest, *, simulated: bool) -> ImportGroup:
    """Return an empty group with the setting of a file's rows of one env; nothing is guessed."""
    if (own := _own_setting(file, request.workspace)) is not None:
        return ImportGroup(own, None, *_find_domain(own.ref))
    flags = _flags_of(file, env, request)
    run = resolve_run(flags, workspace=request.workspace, overrides=request.overrides).params
    domain: Domain | None
    if request.comparable:
        setting, domain = _comparable_setting(run, request.workspace, simulated=simulated)
        reason = ""
    else:
        imported = run.ref.source.startswith(IMPORTED_PREFIX)
        domain, reason = _find_domain(run.ref._replace(source="") if imported else run.ref)
        setting = _imported_setting(file.facts, run, domain, request.workspace, simulated=simulated)
    return ImportGroup(setting, run, domain, reason, flags, request.overrides)


def _own_setting(file: SourceFile, workspace: Path) -> Setting | None:
    """Return the setting that our own num_trials file names, from the workspace or from the file's folder."""
    if file.facts.setting_id is None:
        return None
    candidates = [*results_of(workspace), read_setting(file.path.parent)]
    known = (each.setting for each in candidates if each and each.id == file.facts.setting_id == each.setting.id)
    return next(known, None)


def _flags_of(file: SourceFile, env: str, request: ImportRequest) -> dict[str, Any]:
    """Return what the file and the person say of the run, which must agree and be enough."""
    from_file = {name: value for name, value in file.facts.params.items() if value is not None}
    from_file |= {"env": env} if env else {}
    given = {name: value for name, value in request.flags.items() if value is not None}
    if str(given.get("source", "")).startswith(IMPORTED_PREFIX):
        given.pop("source")
    for name in from_file.keys() & given.keys():
        _check_agreement(file, name, from_file[name], given[name])
    flags = from_file | given
    known = flags.keys() | {text.partition("=")[0] for text in request.overrides}
    if flags.get("user_strategy") == "human":
        known.add("user.model")
    missing = [row for row in _REQUIRED if row[0] not in known and row[2] not in known]
    if missing:
        described = ", ".join(f"{name} {value}" for name, value in sorted(from_file.items())) or "nothing"
        raise ParamsError(
            f"{file.path.name} does not say {' and '.join(words for *_, words in missing)}.",
            evidence=f"It says: {described}.",
            next_step=f"Add {' and '.join(flag for _, flag, *_ in missing)}.",
        )
    return flags


def _check_agreement(file: SourceFile, name: str, in_file: Any, given: Any) -> None:
    same = str(in_file) == str(given)
    if name in {"agent.model", "user.model"}:  # v1 writes the name without its owner
        same = str(in_file).rsplit("/", 1)[-1] == str(given).rsplit("/", 1)[-1]
    elif name.endswith("temperature"):
        same = float(in_file) == float(given)
    elif name == "strategy":  # their messages look alike
        same = same or {in_file, given} == {"fc", "few-shot"}
    if not same:
        raise ParamsError(
            f"{file.path.name} says {name} {in_file}; {given} was given.",
            evidence=str(file.path),
            next_step="Leave the flag out, or import this file on its own.",
        )


def _comparable_setting(run: RunParams, workspace: Path, *, simulated: bool) -> tuple[Setting, Domain]:
    cell = prepare_cell(run, workspace=workspace)
    if simulated not in cell.models.simulated:
        kind = ("SIMULATED", "real") if simulated else ("real", "SIMULATED")
        raise ParamsError(
            f"Conversations of {kind[0]} models are not comparable with those of {kind[1]} ones.",
            evidence=f"The run's models: {', '.join(each.model for each in cell.models.configs.values())}.",
            next_step="Name other servers, or leave --comparable out.",
        )
    return cell.setting.model_copy(update={"simulated": simulated}), cell.domain


def _imported_setting(
    facts: SourceFacts, run: RunParams, domain: Domain | None, workspace: Path, *, simulated: bool
) -> Setting:
    parties = unlimited(named_models(run, workspace=workspace).configs)
    default_split = "test" if run.bench == "tau-bench" else "base"
    return Setting(
        source=f"{IMPORTED_PREFIX}{facts.harness}",
        source_version=facts.source_version,
        protocol=facts.protocol,
        reward_basis=facts.reward_basis,
        split=run.tasks.split or (domain.ref.split if domain else default_split),
        agent=parties["agent"],
        user=parties.get("user", ModelConfig(model="human", provider="human")),
        seed=facts.seed or 0,
        seed_rule=facts.seed_rule,
        simulated=simulated,
        **run.model_dump(include={"bench", "env", "strategy", "user_strategy", "persona"}),
    )


def _find_domain(ref: BenchRef) -> tuple[Domain | None, str]:
    try:
        return open_domain(ref), ""
    except BenchError as error:
        return None, error.problem
