"""What one cell plans, what is finished and what is pending. Nothing is made here: bad input ends before any work.

Models are known by name at first, as far as params and registry tell; before a run starts, every role's server is asked
and verified. A source `imported:…` continues imported results: the one imported setting that fits the run's parameters
is used, and new conversations are stored next to the imported ones, each marked for what it is.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tautools.bench import approach_of, build_setting, check_approach, open_ref, select_tasks
from tautools.bench.persona import refuse_task_facts
from tautools.bench.sources import IMPORTED_PREFIX
from tautools.bench.types import Approach, Domain, Source, Task
from tautools.errors import ParamsError, RunError, TautoolsError
from tautools.llm.request import default_max_tokens, switch_of
from tautools.llm.types import Endpoint
from tautools.params import load_persona, load_server
from tautools.params.models import LimitParams, RoleParams, RunParams
from tautools.records import CommitRow, Demand, ModelConfig, SeedRule, ServerRecord, Setting, Strategy, Thinking
from tautools.run.folder import SETTING_FILE, SettingFolder, find_folder, make_folder, open_recorded_source, results_of
from tautools.run.ledger import Key, Ledger, count_user_errors, passed_and_scored
from tautools.servers.addresses import address_from_env, endpoints, servers_for_role
from tautools.servers.demands import require_demand
from tautools.servers.registry import Registry

Pair = tuple[str, int]
"""Task id and trial."""


@dataclass(frozen=True)
class Models:
    """The models of a run, by the part they play: `agent`, `user`, `judge`, `expert:<name>`."""

    configs: Mapping[str, ModelConfig]
    simulated: tuple[bool, ...]
    """Whether any of them is simulated; both answers, the likelier first, when no server could be asked."""
    endpoints: Mapping[str, Sequence[Endpoint]] = field(default_factory=dict)
    """Where each part answers; empty when servers were not needed."""


@dataclass(frozen=True)
class Cell:
    """One cell, ready to run: a view of `num_trials` trials on the pool of its setting."""

    run: RunParams
    workspace: Path
    source: Source = field(repr=False)
    domain: Domain = field(repr=False)
    tasks: list[Task] = field(repr=False)
    approach: Approach
    models: Models = field(repr=False)
    setting: Setting
    results: SettingFolder = field(repr=False)
    """Where its results are, or will be."""
    ledger: Ledger = field(repr=False)
    """What is finished, as far as it was read."""
    known: dict[Key, CommitRow] = field(repr=False)
    """Every finished conversation of the setting, planned here or not."""

    @property
    def folder(self) -> Path:
        """The path of the results."""
        return self.results.path

    @property
    def planned(self) -> list[Pair]:
        """Every conversation of the cell: trials 0 to num_trials - 1 of each task."""
        return [(task.id, trial) for trial in range(self.run.num_trials) for task in self.tasks]

    @cached_property
    def keys(self) -> frozenset[Key]:
        """The ledger's keys of the planned conversations."""
        return frozenset(map(self.key, self.planned))

    @property
    def done(self) -> dict[Key, CommitRow]:
        """The planned conversations that are finished."""
        return {key: row for key, row in self.known.items() if key in self.keys}

    @property
    def pending(self) -> list[Pair]:
        """The planned conversations that are not finished."""
        return [pair for pair in self.planned if self.key(pair) not in self.known]

    def counts(self) -> dict[str, int]:
        """Return the counts that events carry."""
        rows = self.done.values()
        passed, scored = passed_and_scored(rows)
        planned, done = len(self.keys), len(rows)
        return {
            "planned": planned,
            "done": done,
            "pending": planned - done,
            "passed": passed,
            "scored": scored,
            "user_errors": count_user_errors(rows),
        }

    def key(self, pair: Pair) -> Key:
        """Return the ledger's key of a planned conversation."""
        return (self.setting.id, *pair)

    def refreshed(self) -> "Cell":
        """Return the cell with what has been finished by now; only what was added to the ledger is read."""
        if self.results.exists != (self.folder / SETTING_FILE).is_file():  # made, or moved away, since then
            return replace(self, **_stored([self.setting], self.workspace))
        return replace(self, known=self.ledger.refresh().rows(self.setting.id))

    def with_servers(self) -> "Cell":
        """Return the cell with its models as their servers tell them, each of which is asked and verified.

        Raises
        ------
        ServerError, ParamsError, ModelCallError
            A server that is not there, refuses the key, serves another model, or does not answer what the run asks.
        """
        registered = Registry(self.workspace).list()
        found = {
            part: endpoints(role, workspace=self.workspace, role_name=part, records=registered)
            for part, role in self.run.roles.items()
        }
        configs = _configs(self.run, {part: each[0].model for part, each in found.items()})
        for part, each in found.items():
            require_demand(each, self._demand(part, configs[part]), workspace=self.workspace, role_name=part)
        models = Models(configs, (any(endpoint.simulated for each in found.values() for endpoint in each),), found)
        settings = _settings(self.run, self.source, self.domain, self.approach, models, self.workspace)
        changed = {} if settings[0].id == self.setting.id else _stored(settings, self.workspace)
        return replace(self, models=models, **changed)

    def _demand(self, part: str, config: ModelConfig) -> Demand:
        """Return what the run will ask of the servers of a part."""
        by_text = self.run.strategy in {Strategy.ACT, Strategy.REACT}
        tools = self.domain.user_tools if part == "user" else () if by_text else self.domain.tools
        asked = {} if config.thinking is Thinking.DEFAULT else {"thinking_switch": config.thinking_switch}
        return Demand(
            sampling=config.sampling,
            thinking=config.thinking,
            **asked,
            tool_calls=bool(tools) and part != "judge",
            seeded=self.run.seed_rule is not SeedRule.NONE,
            concurrency=self.run.concurrency,
        )

    def with_folder(self, provenance: dict[str, Any]) -> "Cell":
        """Return the cell with its folder made, if it was not there; errors as `claim_folder`."""
        results = make_folder(self.results, provenance)
        ledger = self.ledger if results.path == self.folder else Ledger(results.path)
        return replace(self, results=results, ledger=ledger)

    def __str__(self) -> str:
        return f"{self.folder}: {len(self.done)} done, {len(self.pending)} pending"


def prepare_cell(run: RunParams, *, workspace: Path, to_read: bool = False) -> Cell:
    """Plan one cell: its tasks, its models, its setting, its folder, what is done and what is pending.

    Models are known by what params and registry tell of them; `Cell.with_servers` asks their servers.

    Parameters
    ----------
    run : RunParams
        The cell.
    workspace : Path
        Where `results/` is, or will be.
    to_read : bool
        Whether results are only looked at: those of another user need not be writable.

    Raises
    ------
    BenchError
        An env, split or task that the benchmark does not have.
    ParamsError
        A persona that does not exist, or that names facts of the tasks; a source `imported:…` of which nothing was
        imported that fits.
    RunError
        A workspace that cannot be written, unless `to_read`.
    """
    if not to_read:
        check_writable(workspace / "results" / run.env / run.strategy.value)
    source = open_recorded_source(run, workspace) if to_read else open_ref(run.ref)
    domain = source.domain(run.env, run.tasks.split)
    approach = approach_of(run)
    check_approach(domain, approach)
    if run.persona is not None:
        persona = load_persona(run.persona, workspace=workspace)
        refuse_task_facts(persona, domain)
        if persona.block:  # one that adds nothing is none, and the setting stays what it is without
            approach = replace(approach, persona=persona)
    tasks = list(select_tasks(domain, run.tasks))
    models = named_models(run, workspace=workspace)
    settings = _settings(run, source, domain, approach, models, workspace)
    return Cell(run, workspace, source, domain, tasks, approach, models, **_stored(settings, workspace))


def _settings(
    run: RunParams, source: Source, domain: Domain, approach: Approach, models: Models, workspace: Path
) -> list[Setting]:
    """Return the settings that the run may be of: two while it is not known whether a model is simulated."""
    if run.source and run.source.startswith(IMPORTED_PREFIX):
        return [_imported_setting(run, models, domain.ref.split, workspace)]
    return [
        build_setting(run, domain, source, approach, parties=models.configs, simulated=simulated)
        for simulated in models.simulated
    ]


def _stored(settings: Sequence[Setting], workspace: Path) -> dict[str, Any]:
    """Return the fields of a cell that say which setting it is of, where its results are, and what is finished."""
    folders = [find_folder(workspace / "results", each) for each in settings]
    # With a server that cannot be asked, the setting that has results already is the one that is meant.
    index = next((index for index, folder in enumerate(folders) if folder.exists), 0)
    setting, ledger = settings[index], Ledger(folders[index].path).refresh()
    return {"setting": setting, "results": folders[index], "ledger": ledger, "known": ledger.rows(setting.id)}


def check_writable(path: Path) -> None:
    """Raise `RunError` when `path` could not be made or written to; makes nothing."""
    existing = next(each for each in (path, *path.absolute().parents) if each.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return
    raise RunError(
        f"The folder {path} cannot be written.",
        evidence=f"{existing} is not a folder." if not existing.is_dir() else f"No permission to write in {existing}.",
        next_step="Choose a workspace you can write to with --workspace (or TAUTOOLS_WORKSPACE).",
    )


def limits_note(run: RunParams, configs: Mapping[str, ModelConfig]) -> str:
    """Return a sentence on what ends an answer, and a conversation, that would go on for ever."""
    parts: dict[str, list[str]] = {}
    for part, config in configs.items():
        chosen, own = config.sampling.max_tokens, config.default_max_tokens
        text = (
            f"at most {chosen} tokens" if chosen else f"at most {own} tokens (default)" if own else "no limit of ours"
        )
        parts.setdefault(text, []).append(part)
    answers = "; ".join(f"{', '.join(each)} {text}" for text, each in parts.items())
    time_s = run.limits.time_s
    default = " (default)" if time_s == LimitParams().time_s else ""
    time = f"at most {time_s:g} s{default}, without what faults cost" if time_s else "no time limit"
    return f"Limits: answers of {answers}, never more than the context leaves; a conversation {time}"


def judging_note(setting: Setting, tasks: Iterable[Task], waiting: int = 0) -> str:
    """Return a sentence on what nobody judged; empty when there is nothing to judge, or all of it was judged.

    Parameters
    ----------
    setting : Setting
        Whether it has a judge.
    tasks : iterable of Task
        The tasks that a score is about.
    waiting : int
        Conversations that are stored without their verdict.
    """
    every = list(tasks)
    asserting = sum(bool(task.assertions) for task in every)
    judged_there = setting.source.startswith(IMPORTED_PREFIX) and "NL_ASSERTION" in setting.reward_basis
    if setting.judge is None and asserting and not judged_there:
        whose = "The task has" if len(every) == 1 else f"{asserting} of {len(every)} tasks have"
        return f"{whose} natural-language assertions that nobody judged; they are no part of the reward"
    return f"{waiting} finished conversations still need their judge's verdict" if waiting else ""


def named_models(run: RunParams, *, workspace: Path) -> Models:
    """Return the models of a run, as far as params and registry tell."""
    registered = Registry(workspace).list()
    named = {part: _named(role, workspace, registered) for part, role in run.roles.items()}
    known = {simulated for _, simulated in named.values()}
    configs = _configs(run, {part: name for part, (name, _) in named.items()})
    return Models(configs, (True,) if True in known else (False, True) if None in known else (False,))


def _configs(run: RunParams, names: Mapping[str, str]) -> dict[str, ModelConfig]:
    """Return how the model of each part is asked; a run that goes on with imported results adds no limit of ours."""
    configs = {part: model_config_of(role, names[part]) for part, role in run.roles.items()}
    return unlimited(configs) if (run.source or "").startswith(IMPORTED_PREFIX) else configs


def unlimited(configs: Mapping[str, ModelConfig]) -> dict[str, ModelConfig]:
    """Return models without our default length of an answer, as other programs ask them."""
    return {part: each.model_copy(update={"default_max_tokens": None}) for part, each in configs.items()}


def model_config_of(role: RoleParams, model: str) -> ModelConfig:
    """Return how the model of a role is asked; raise `ParamsError` when it cannot think as it should."""
    name = role.model or model
    own = role.provider == "openai" and role.max_tokens == "auto"  # hosted models end by their provider's limits
    return ModelConfig(
        model=name,
        provider=role.provider,
        sampling=role.sampling,
        thinking=role.thinking,
        thinking_switch=switch_of(name, role.thinking, role.thinking_switch),
        default_max_tokens=default_max_tokens(name, role.thinking) if own else None,
    )


def _named(role: RoleParams, workspace: Path, records: Sequence[ServerRecord]) -> tuple[str, bool | None]:
    """Return the model's name and whether it is simulated; None when only its server could tell and does not."""
    wanted = role.model or role.server or ""
    if role.provider != "openai":
        return wanted, False
    registered = servers_for_role(role, records) if role.base_url is None else []
    if registered:
        return role.model or registered[0].model, registered[0].simulated
    if role.base_url is not None or address_from_env(role) is not None:
        try:
            asked = endpoints(role, workspace=workspace, role_name="planned", records=records, try_out=False)
        except TautoolsError:  # nobody there yet
            return wanted, None
        return wanted, any(each.simulated for each in asked)
    if role.server is None or "/" in role.server:
        return wanted, None
    server = load_server(role.server, workspace=workspace)
    return role.model or server.serves, server.simulated


def _imported_setting(run: RunParams, models: Models, split: str, workspace: Path) -> Setting:
    """Return the one imported setting that a run's params fit."""
    every = [each.setting for each in results_of(workspace) if each.setting.source == run.source]
    fitting = [each for each in every if _fits(each, run, models, split)]
    if len(fitting) != 1:
        raise ParamsError(
            f"{len(fitting) or 'No'} imported settings of source {run.source} fit this run.",
            evidence="\n".join(map(_setting_text, fitting or every)) or "Nothing of that source was imported here.",
            next_step="Name env, strategy, split, models and sampling (--temperature, --user-temperature, --set "
            "agent.top_p=…) as they stand there.",
        )
    if fitting[0].simulated not in models.simulated:
        raise ParamsError(
            "Real models cannot continue SIMULATED results."
            if fitting[0].simulated
            else "SIMULATED models cannot continue results of real ones.",
            evidence=_setting_text(fitting[0]),
            next_step="Name servers of the models that the imported results were made with.",
        )
    return fitting[0]


def _fits(setting: Setting, run: RunParams, models: Models, split: str) -> bool:
    """Whether a run is of a setting; where a model is served does not matter."""
    user = models.configs.get("user", setting.user)
    pairs = ((setting.agent, models.configs["agent"]), (setting.user, user))
    return (
        (setting.bench, setting.env, setting.split) == (run.bench, run.env, split)
        and (setting.strategy, setting.user_strategy) == (run.strategy, run.user_strategy)
        and setting.persona == run.persona
        and all((there.model, there.sampling) == (asked.model, asked.sampling) for there, asked in pairs)
    )


def _setting_text(setting: Setting) -> str:
    agent, user = (
        " ".join([each.model, *(f"{k}={v}" for k, v in each.sampling.model_dump(exclude_defaults=True).items())])
        for each in (setting.agent, setting.user)
    )
    return f"{setting.id}: {setting.env} {setting.split} {setting.strategy.value}, agent {agent}, user {user}"
