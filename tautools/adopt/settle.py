"""Under which setting rows are adopted: what the file tells, completed by flags, never guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tautools.bench import open_source
from tautools.bench.sources import ADOPTED
from tautools.errors import BenchError, ParamsError
from tautools.params import resolve_run
from tautools.records import Party, Setting
from tautools.run import prepare_cell, read_setting, results_of
from tautools.run.roles import cast_roles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.adopt.rows import Facts, SourceFile
    from tautools.bench.types import Domain
    from tautools.params.models import RunParams

__all__ = ["Settled", "Wish", "settle"]

_REQUIRED = {
    "env": "--env",
    "strategy": "--strategy",
    "agent.model": "--model",
    "user.model": "--user-model",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person said with the files."""

    workspace: Path
    flags: Mapping[str, Any]
    """Dotted params name to value, as `resolve_run` takes them."""
    overrides: Sequence[str] = ()
    comparable: bool = False
    """Whether rows may stand beside conversations held here under the same flags."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A setting for rows of one env, with the benchmark where it is at hand."""

    setting: Setting
    run: RunParams | None
    """The run that goes on with it; None for our own setting, which its folder tells in full."""
    domain: Domain | None
    why_unchecked: str = ""
    """Why task ids could not be checked."""


def settle(file: SourceFile, env: str, wish: Wish, *, simulated: bool) -> Settled:
    """Return the setting of a file's rows of one env.

    Raises
    ------
    ParamsError
        When something is not told by file and flags, or they contradict each other.
    BenchError
        When rows shall be comparable with a run of a benchmark that is not at hand.
    """
    known = _our_own(file, wish.workspace)
    if known is not None:
        return Settled(known, None, *_domain_of(known.bench, known.source, known.env, known.split))
    run = _run_of(file, env, wish)
    if wish.comparable:
        return _comparable(run, wish.workspace, simulated=simulated)
    domain, why = _domain_of(run.bench, _played_by(run), run.env, run.tasks.split, run.path, run.python)
    return Settled(_setting(file.facts, run, domain, wish.workspace, simulated=simulated), run, domain, why)


def _our_own(file: SourceFile, workspace: Path) -> Setting | None:
    """Return the setting that a view of ours names, from the workspace or from the folder that the file lies in."""
    wanted = file.facts.setting_id
    if wanted is None:
        return None
    beside = read_setting(file.path.parent)
    candidates = [*results_of(workspace), *([beside] if beside else [])]
    return next((each.setting for each in candidates if each.id == wanted == each.setting.id), None)


def _run_of(file: SourceFile, env: str, wish: Wish) -> RunParams:
    told = _told(file.facts, env)
    given = {name: value for name, value in wish.flags.items() if value is not None}
    if str(given.get("source", "")).startswith(ADOPTED):
        given.pop("source")
    for name in told.keys() & given.keys():
        _agree(file, name, told[name], given[name])
    flags = told | given
    named = {"agent.model": ("agent.server",), "user.model": ("user.server",)}
    missing = [name for name in _REQUIRED if not any(each in flags for each in (name, *named.get(name, ())))]
    overridden = {text.partition("=")[0] for text in wish.overrides}
    nobody = {"user.model"} if flags.get("user_strategy") == "human" else set()
    missing = [name for name in missing if name not in overridden | nobody]
    if missing:
        raise ParamsError(
            f"{file.path.name} does not tell {_words(missing)}.",
            evidence=f"Told: {', '.join(f'{name} {value}' for name, value in sorted(told.items())) or 'nothing'}.",
            next_step=f"Add {' and '.join(_REQUIRED[name] for name in missing)}.",
        )
    return resolve_run(flags, workspace=wish.workspace, overrides=wish.overrides).params


def _told(facts: Facts, env: str) -> dict[str, Any]:
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


def _agree(file: SourceFile, name: str, told: Any, given: Any) -> None:
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


def _comparable(run: RunParams, workspace: Path, *, simulated: bool) -> Settled:
    cell = prepare_cell(run, workspace=workspace, need_servers=False)
    if simulated not in cell.cast.simulated:
        kind = ("SIMULATED", "real") if simulated else ("real", "SIMULATED")
        raise ParamsError(
            f"Conversations of {kind[0]} models are not comparable with those of {kind[1]} ones.",
            evidence=f"The run's models: {', '.join(each.model for each in cell.cast.parties.values())}.",
            next_step="Name other servers, or leave --comparable out.",
        )
    return Settled(cell.setting.model_copy(update={"simulated": simulated}), run, cell.domain)


def _setting(facts: Facts, run: RunParams, domain: Domain | None, workspace: Path, *, simulated: bool) -> Setting:
    parties = cast_roles(run, workspace=workspace, need_servers=False).parties
    default_split = "test" if run.bench == "tau-bench" else "base"
    return Setting(
        bench=run.bench,
        source=f"{ADOPTED}{facts.harness}",
        source_version=facts.source_version,
        protocol=facts.protocol,
        reward_basis=facts.reward_basis,
        env=run.env,
        split=run.tasks.split or (domain.split if domain else default_split),
        strategy=run.strategy,
        agent=parties["agent"],
        user=parties.get("user", Party(model="human", provider="human")),
        user_strategy=run.user_strategy,
        seed=facts.seed or 0,
        persona=run.persona,
        simulated=simulated,
    )


def _played_by(run: RunParams) -> str | None:
    return None if run.source is None or run.source.startswith(ADOPTED) else run.source


def _domain_of(
    bench: str, source: str | None, env: str, split: str | None, path: str | None = None, python: str | None = None
) -> tuple[Domain | None, str]:
    try:
        return open_source(bench, source, path, python).domain(env, split), ""
    except BenchError as error:
        return None, error.problem


def _words(names: Sequence[str]) -> str:
    words = {"env": "the env", "strategy": "the strategy", "agent.model": "the agent's model"}
    return " and ".join(words.get(name, "the customer's model") for name in names)
