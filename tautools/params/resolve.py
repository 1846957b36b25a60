"""Params as they will be used: defaults, then a file, then flags; each value with where it came from."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from tautools.errors import ParamsError
from tautools.params.check import validated
from tautools.params.expand import expand_tree
from tautools.params.find import Kind, find_params
from tautools.params.models import RunParams, ServerParams, SiteParams, SweepParams
from tautools.params.overrides import apply_flags, apply_overrides
from tautools.params.personas import PersonaParams
from tautools.params.secrets import without_secrets
from tautools.params.tree import Origin, OriginKind, Tree, dotted
from tautools.params.yaml_tree import Document, read_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tautools.params.yaml_tree import Trail

__all__ = ["RUN_OPTIONS", "ConfigRow", "Resolved", "resolve", "resolve_run"]

P = TypeVar("P", bound=BaseModel)

MODELS: dict[Kind, type[BaseModel]] = {
    "sites": SiteParams,
    "servers": ServerParams,
    "sweeps": SweepParams,
    "personas": PersonaParams,
}

RUN_OPTIONS = {
    "bench": "--bench",
    "source": "--source",
    "path": "--path",
    "python": "--python",
    "env": "--env",
    "strategy": "--strategy",
    "agent.server": "--server",
    "agent.model": "--model",
    "agent.base_url": "--base-url",
    "agent.api_key_env": "--key-env",
    "agent.provider": "--provider",
    "agent.temperature": "--temperature",
    "few_shot_displays": "--few-shot-displays",
    "user_strategy": "--user-strategy",
    "user.server": "--user-server",
    "user.model": "--user-model",
    "user.base_url": "--user-base-url",
    "user.api_key_env": "--user-key-env",
    "user.provider": "--user-provider",
    "user.temperature": "--user-temperature",
    "experts": "--expert",
    "persona": "--persona",
    "judge.server": "--judge-server",
    "judge.model": "--judge-model",
    "judge.base_url": "--judge-base-url",
    "judge.api_key_env": "--judge-key-env",
    "num_trials": "--num-trials",
    "tasks.split": "--split",
    "tasks.ids": "--task-ids",
    "tasks.start_index": "--start-index",
    "tasks.end_index": "--end-index",
    "tasks.limit": "--limit",
    "concurrency": "--concurrency",
    "seed": "--seed",
    "limits.time_s": "--time-limit",
    "grace_s": "--grace",
}
"""The options of `tautools run` by the params they set."""

_WHO = ("server", "model", "base_url", "api_key_env", "provider")


class ConfigRow(NamedTuple):
    """One value that will be used."""

    key: str
    value: Any
    origin: Origin


@dataclass(frozen=True)
class Resolved(Generic[P]):
    """Params, and where each of their values came from."""

    params: P
    tree: Tree
    file: Path | None = None

    def rows(self) -> list[ConfigRow]:
        """Return every value with its origin, secrets removed."""
        return [
            ConfigRow(dotted(trail), without_secrets(value, name=str(trail[-1])), self.tree.origin_of_value(trail))
            for trail, value in _values(self.params, ())
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the rows as JSON data: `{"file": …, "values": [{"key", "value", "from", "place"}]}`."""
        return {
            "file": str(self.file) if self.file else None,
            "values": [
                {"key": row.key, "value": row.value, "from": row.origin.kind.value, "place": row.origin.place}
                for row in self.rows()
            ],
        }


def resolve(
    kind: Kind, model: type[P], name: str | Path, *, workspace: Path | None, overrides: Sequence[str] = ()
) -> Resolved[P]:
    """Find params by name, lay overrides over them, expand and check them.

    Parameters
    ----------
    kind : {"sites", "servers", "sweeps", "personas"}
        What is looked for.
    model : type
        The model of that kind, which checks them.
    name : str or Path
        A path to a YAML file, or a bare name; the params get the file's name where they give none.
    workspace : Path, optional
        Its files come before the shipped ones, and relative paths in them count from it; from the working folder
        without one. Those in `overrides` always count from the working folder.
    overrides : sequence of str
        `key=value` texts of `--set`, the last one wins.

    Raises
    ------
    ParamsError
        For everything that is wrong with them, before anything is started.
    """
    file = find_params(kind, name, workspace)
    tree = Tree(read_document(file, shown=_short(file)))
    if isinstance(tree.data, dict) and "name" not in tree.data:
        tree.data["name"] = file.stem
        tree.noted[("name",)] = Origin(OriginKind.DEFAULT, "the file's name")
    return _finish(model, tree, overrides, workspace=workspace, file=file)


def resolve_run(
    flags: Mapping[str, Any] | None = None,
    *,
    workspace: Path,
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Resolved[RunParams]:
    """Settle one run from flags: defaults < file < flags < `--set`.

    Parameters
    ----------
    flags : mapping, optional
        Dotted params name to value, such as `{"env": "retail", "agent.model": "m"}`; None values were not given. The
        names of `RUN_OPTIONS` are told to the user as options.
    workspace : Path
        Where relative paths in `file` count from.
    file : str or Path, optional
        A YAML file with run params.
    overrides : sequence of str
        `key=value` texts of `--set`.

    Notes
    -----
    Without any `user` role the agent's model plays the customer too.

    Raises
    ------
    ParamsError
        For everything that is wrong, before anything is started.
    """
    path = Path(file).expanduser() if file is not None else None
    tree = Tree(read_document(path, shown=_short(path)) if path is not None else Document("the command line", {}))
    _spell_out_roles(tree)
    apply_flags(tree, flags or {}, RUN_OPTIONS)
    return _finish(RunParams, tree, overrides, workspace=workspace, file=path)


def _finish(
    model: type[P], tree: Tree, overrides: Sequence[str], *, workspace: Path | None, file: Path | None
) -> Resolved[P]:
    _spell_out_roles(tree)
    apply_overrides(tree, overrides)
    _spell_out_roles(tree)
    if model is RunParams:
        if file is None:
            _require_agent(tree)
        _default_user(tree)

    def base(trail: Trail) -> Path:
        return Path.cwd() if tree.origin(trail).kind is OriginKind.FLAG else (workspace or Path.cwd())

    data = expand_tree(copy.deepcopy(tree.data), base=base, where=tree.where)
    return Resolved(validated(model, data, tree), tree, file)


def _spell_out_roles(tree: Tree) -> None:
    """Write `user: name` as `user: {server: name}`, so that a part of a role can be overridden and traced."""
    data = tree.data
    if not isinstance(data, dict):
        return
    grid = data.get("grid")
    agents = grid.get("agent") if isinstance(grid, dict) else None
    spots: list[tuple[Any, Any, Trail]] = [(data, name, (name,)) for name in ("user", "agent", "judge")]
    experts = data.get("experts")
    if isinstance(experts, dict):
        spots += [(experts, name, ("experts", name)) for name in experts]
    if isinstance(agents, list):
        spots += [(agents, index, ("grid", "agent", index)) for index in range(len(agents))]
    for around, key, trail in spots:
        text = around[key] if isinstance(around, list) else around.get(key)
        if isinstance(text, str):
            around[key] = {"server": text}
            origin = tree.origin(trail)
            if origin.kind is OriginKind.FLAG:
                tree.flags[(*trail, "server")] = origin
            else:
                tree.document.values[(*trail, "server")] = tree.document.place(trail)


def _require_agent(tree: Tree) -> None:
    if isinstance(tree.data, dict) and not tree.data.get("agent"):
        raise ParamsError(
            "No model was named for the agent.",
            next_step="Add --server NAME (`tautools server ls` lists what runs), or --model M --base-url URL.",
        )


def _default_user(tree: Tree) -> None:
    agent = tree.data.get("agent") if isinstance(tree.data, dict) else None
    user = tree.data.get("user")
    if not isinstance(agent, dict) or not (user is None or isinstance(user, dict)):
        return
    if user and any(user.get(key) is not None for key in ("server", "model")):
        return
    who = {key: agent[key] for key in _WHO if agent.get(key) is not None}
    tree.data["user"] = who | (user or {})
    for key in who:
        tree.noted.setdefault(("user", key), Origin(OriginKind.DEFAULT, "the agent's"))


def _values(params: BaseModel, trail: Trail) -> Iterator[tuple[Trail, Any]]:
    for name in type(params).model_fields:
        value = getattr(params, name)
        here = (*trail, name)
        if isinstance(value, BaseModel):
            yield from _values(value, here)
        elif isinstance(value, list) and value and all(isinstance(each, BaseModel) for each in value):
            for index, each in enumerate(value):
                yield from _values(each, (*here, index))
        else:
            yield here, params.model_dump(mode="json", include={name})[name]


def _short(path: Path) -> str:
    """Return the path as seen from the current folder when that is shorter."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
