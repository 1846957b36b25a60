"""What one cell plans, what is finished and what is pending. Nothing is made here: bad input ends before any work.

A source `imported:…` continues imported results: the one imported setting that fits the run's parameters is used, and
new conversations are stored next to the imported ones, each marked for what it is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tautools.bench import approach_of, build_setting, check_approach, open_ref, select_tasks
from tautools.bench.persona import refuse_task_facts
from tautools.bench.sources import IMPORTED_PREFIX
from tautools.errors import ParamsError, RunError
from tautools.params import load_persona
from tautools.run.folder import find_folder, open_recorded_source, read_setting, results_of
from tautools.run.ledger import read_ledger
from tautools.run.roles import resolve_models

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.bench.types import Approach, Domain, Task
    from tautools.params.models import RunParams
    from tautools.records import CommitRow, ModelConfig, Setting
    from tautools.run.ledger import Key
    from tautools.run.roles import Models


def continues_imported(run: RunParams) -> bool:
    """Whether a run goes on with imported results."""
    return bool(run.source and run.source.startswith(IMPORTED_PREFIX))


def imported_setting(run: RunParams, cast: Models, *, split: str, workspace: Path) -> Setting:
    """Return the one imported setting that a run's params fit.

    Raises
    ------
    ParamsError
        When none fits, or several, or when the models are simulated and the imported ones were not.
    """
    every = [each.setting for each in results_of(workspace) if each.setting.source == run.source]
    fitting = [each for each in every if _fits(each, run, cast, split)]
    if len(fitting) == 1:
        _check_simulated(fitting[0], cast)
        return fitting[0]
    raise ParamsError(
        f"{len(fitting) or 'No'} imported settings of source {run.source} fit this run.",
        evidence="\n".join(_setting_text(each) for each in fitting or every)
        or "Nothing of that source was imported here.",
        next_step="Name env, strategy, split, models and how they are asked (--temperature, --user-temperature, --set "
        "agent.top_p=…) as they stand there.",
    )


def _fits(setting: Setting, run: RunParams, cast: Models, split: str) -> bool:
    user = cast.parties.get("user")
    return (
        (setting.bench, setting.env, setting.split) == (run.bench, run.env, split)
        and (setting.strategy, setting.user_strategy) == (run.strategy, run.user_strategy)
        and setting.persona == run.persona
        and _same_model(setting.agent, cast.parties["agent"])
        and (user is None or _same_model(setting.user, user))
    )


def _same_model(there: ModelConfig, asked: ModelConfig) -> bool:
    """Whether a model is asked as it was; where it is served does not matter."""
    return (there.model, there.sampling) == (asked.model, asked.sampling)


def _check_simulated(setting: Setting, cast: Models) -> None:
    if setting.simulated in cast.simulated:
        return
    raise ParamsError(
        "SIMULATED models cannot go on with results of real ones."
        if not setting.simulated
        else "Real models cannot go on with SIMULATED results.",
        evidence=_setting_text(setting),
        next_step="Name servers of the models that the imported results were made with.",
    )


def _sampling_set(party: ModelConfig) -> dict[str, object]:
    return party.sampling.model_dump(exclude_defaults=True)


def _setting_text(setting: Setting) -> str:
    agent, user = (
        " ".join([each.model, *(f"{name}={value}" for name, value in _sampling_set(each).items())])
        for each in (setting.agent, setting.user)
    )
    return f"{setting.id}: {setting.env} {setting.split} {setting.strategy.value}, agent {agent}, user {user}"


Pair = tuple[str, int]
"""Task id and trial."""


@dataclass(frozen=True)
class Cell:
    """One cell, ready to run: a view of `num_trials` trials on the pool of its setting."""

    run: RunParams
    workspace: Path
    domain: Domain = field(repr=False)
    tasks: list[Task] = field(repr=False)
    cast: Models = field(repr=False)
    approach: Approach
    setting: Setting
    folder: Path
    """Where its results are, or will be."""
    known: dict[Key, CommitRow] = field(repr=False)
    """Every finished conversation of the setting, planned here or not."""

    @property
    def planned(self) -> list[Pair]:
        """Every conversation of the cell: trials 0 to num_trials - 1 of each task."""
        return [(task.id, trial) for trial in range(self.run.num_trials) for task in self.tasks]

    @property
    def done(self) -> dict[Key, CommitRow]:
        """The planned conversations that are finished."""
        keys = [self.key(pair) for pair in self.planned]
        return {key: self.known[key] for key in keys if key in self.known}

    @property
    def pending(self) -> list[Pair]:
        """The planned conversations that are not finished."""
        return [pair for pair in self.planned if self.key(pair) not in self.known]

    def refreshed(self) -> Cell:
        """Return the cell with what has been finished by now."""
        return replace(self, known=_known(self.folder, self.setting))

    def key(self, pair: Pair) -> Key:
        """Return the ledger's key of a planned conversation."""
        return (self.setting.id, *pair)

    def __str__(self) -> str:
        return f"{self.folder}: {len(self.done)} done, {len(self.pending)} pending"


def prepare_cell(run: RunParams, *, workspace: Path, need_servers: bool = True, to_read: bool = False) -> Cell:
    """Plan one cell: its tasks, its models, its setting, its folder, what is done and what is pending.

    Parameters
    ----------
    run : RunParams
        The cell.
    workspace : Path
        Where `results/` is, or will be.
    need_servers : bool
        Whether the servers of its roles must answer now. Without them the plan goes by names alone.
    to_read : bool
        Whether results are only looked at: those of somebody else need not be writable.

    Raises
    ------
    BenchError
        An env, split or task that the benchmark does not have.
    ParamsError
        A persona that does not exist, or that names facts of the tasks.
    ServerError, ParamsError, ModelCallError
        A server that is not there, refuses the key or serves another model.
    RunError
        A workspace that cannot be written, unless `to_read`.
    ParamsError
        A source `imported:…` of which nothing was imported that fits.
    """
    if not to_read:
        check_writable(workspace / "results" / run.env / run.strategy.value)
    source = open_recorded_source(run, workspace) if to_read else open_ref(run.ref)
    domain = source.domain(run.env, run.tasks.split)
    approach = approach_of(run)
    check_approach(domain, approach)
    approach = _with_persona(approach, run, domain, workspace)
    tasks = list(select_tasks(domain, run.tasks))
    cast = resolve_models(run, workspace=workspace, need_servers=need_servers)
    settings = (
        [imported_setting(run, cast, split=domain.ref.split, workspace=workspace)]
        if continues_imported(run)
        else [build_setting(run, domain, source, approach, parties=cast.parties, simulated=x) for x in cast.simulated]
    )
    folders = [find_folder(workspace / "results", each) for each in settings]
    # With a server that cannot be asked, the setting that has results already is the one that is meant.
    index = next((index for index, folder in enumerate(folders) if read_setting(folder) is not None), 0)
    setting, folder = settings[index], folders[index]
    return Cell(run, workspace, domain, tasks, cast, approach, setting, folder, _known(folder, setting))


def _with_persona(approach: Approach, run: RunParams, domain: Domain, workspace: Path) -> Approach:
    """Add the run's persona; one that adds nothing is none, and the setting stays what it is without."""
    if run.persona is None:
        return approach
    persona = load_persona(run.persona, workspace=workspace)
    refuse_task_facts(persona, domain)
    return replace(approach, persona=persona) if persona.block else approach


def _known(folder: Path, setting: Setting) -> dict[Key, CommitRow]:
    return {key: row for key, row in read_ledger(folder).items() if key[0] == setting.id}


def check_writable(path: Path) -> None:
    """Raise `RunError` when `path` could not be made or written to; makes nothing."""
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return
    raise RunError(
        f"The folder {path} cannot be written.",
        evidence=f"{existing} is not a folder." if not existing.is_dir() else f"No permission to write in {existing}.",
        next_step="Choose a workspace you can write to with --workspace (or TAUTOOLS_WORKSPACE).",
    )
