"""Params as they will be used: defaults, then a file, then flags; each value with where it came from."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from tautools.errors import ParamsError
from tautools.params.models import RunParams, ServerParams, SiteParams, SweepParams
from tautools.params.paths import Kind, default_site, expand_tree, find_params, list_params, misnamed_params
from tautools.params.personas import Persona, PersonaParams, choose_level
from tautools.params.yaml import KeyPath, Origin, OriginKind, ParamsTree, dotted, read_document, read_value, validated
from tautools.redaction import without_secrets

P = TypeVar("P", bound=BaseModel)

MODELS: dict[Kind, type[BaseModel]] = {
    "sites": SiteParams,
    "servers": ServerParams,
    "sweeps": SweepParams,
    "personas": PersonaParams,
}

_KINDS = {model: kind for kind, model in MODELS.items()}

_ROLE_OPTIONS = {
    "server": "server",
    "model": "model",
    "base_url": "base-url",
    "api_key_env": "key-env",
    "provider": "provider",
    "temperature": "temperature",
}
"""What may be given of each role; of the agent without the role's name before it."""
RUN_OPTIONS = {
    **{name: f"--{name}" for name in ("bench", "source", "path", "python", "env", "strategy")},
    **{f"agent.{name}": f"--{option}" for name, option in _ROLE_OPTIONS.items()},
    "few_shot_displays": "--few-shot-displays",
    "user_strategy": "--user-strategy",
    **{f"user.{name}": f"--user-{option}" for name, option in _ROLE_OPTIONS.items()},
    "experts": "--expert",
    "persona": "--persona",
    **{f"judge.{name}": f"--judge-{option}" for name, option in list(_ROLE_OPTIONS.items())[:4]},
    "num_trials": "--num-trials",
    "tasks.split": "--split",
    "tasks.ids": "--task-ids",
    "tasks.start_index": "--start-index",
    "tasks.end_index": "--end-index",
    "tasks.limit": "--limit",
    "concurrency": "--concurrency",
    "seed": "--seed",
    "seed_rule": "--seed-rule",
    "limits.time_s": "--time-limit",
    "grace_s": "--grace",
}
"""The options of `tautools run` by the params they set."""

_DOTTED_NAME = re.compile(r"[^\s.=]+(?:\.[^\s.=]+)*\Z")
_MODEL_KEYS = ("server", "model", "base_url", "api_key_env", "provider")


class ConfigRow(NamedTuple):
    """One value that will be used."""

    key: str
    value: Any
    origin: Origin


@dataclass(frozen=True)
class Resolved(Generic[P]):
    """Params, and where each of their values came from."""

    params: P
    tree: ParamsTree
    file: Path | None = None

    def rows(self) -> list[ConfigRow]:
        """Return every value with its origin, secrets removed."""
        return [
            ConfigRow(dotted(path), without_secrets(value, name=str(path[-1])), self.tree.origin_of_value(path))
            for path, value in _flat_values(self.params, ())
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
    model: type[P], name: str | Path, *, workspace: Path | None = None, overrides: Sequence[str] = ()
) -> Resolved[P]:
    """Find params by name, lay overrides over them, expand and check them; each value says where it came from.

    Parameters
    ----------
    model : type
        `SiteParams`, `ServerParams`, `SweepParams` or `PersonaParams`.
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
    file = find_params(_KINDS[model], name, workspace)
    tree = _read(file)
    if isinstance(tree.data, dict) and "name" not in tree.data:
        tree.data["name"] = file.stem
        tree.origins[("name",)] = Origin(OriginKind.DEFAULT, "the file's name")
    resolved = _resolve_tree(model, tree, overrides, workspace=workspace, file=file)
    if isinstance(resolved.params, SweepParams):
        try:
            find_params("sites", resolved.params.site, workspace)
        except ParamsError as error:
            raise ParamsError(
                f"{tree.where(('site',))}: {error.problem}", evidence=error.evidence, next_step=error.next_step
            ) from error
    return resolved


def resolve_run(
    flags: Mapping[str, Any] | None = None,
    *,
    workspace: Path,
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Resolved[RunParams]:
    """Return one run as it will be run: defaults < file < flags < `--set`.

    Parameters
    ----------
    flags : mapping, optional
        Dotted params name to value, such as `{"env": "retail", "agent.model": "m"}`; None values were not given. The
        names of `RUN_OPTIONS` are shown to the user as options.
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
    tree = _read(path) if path is not None else ParamsTree("the command line", {})
    _expand_role_names(tree)
    for name, value in (flags or {}).items():
        if value is not None:
            tree.put(tuple(name.split(".")), value, Origin(OriginKind.FLAG, RUN_OPTIONS.get(name, f"--{name}")))
    return _resolve_tree(RunParams, tree, overrides, workspace=workspace, file=path)


def _resolve_tree(
    model: type[P], tree: ParamsTree, overrides: Sequence[str], *, workspace: Path | None, file: Path | None
) -> Resolved[P]:
    _expand_role_names(tree)
    apply_overrides(tree, overrides)
    _expand_role_names(tree)
    if model is RunParams:
        if file is None and isinstance(tree.data, dict) and not tree.data.get("agent"):
            raise ParamsError(
                "No model was named for the agent.",
                next_step="Add --server NAME (`tautools server ls` lists what runs), or --model M --base-url URL.",
            )
        _default_user(tree)

    return Resolved(validated(model, expand_tree(tree, workspace), tree), tree, file)


def apply_overrides(tree: ParamsTree, overrides: Sequence[str]) -> None:
    """Lay `--set` values, `name.of.key=value` with a value in YAML, over a tree.

    In a sweep, `agent.…` means every agent of the grid.

    Raises
    ------
    ParamsError
        When a text has no `=`, its name is not a dotted name, or its value is not YAML.
    """
    for text in overrides:
        name, equals, value = text.partition("=")
        shown = f"--set {text}" if text.isprintable() else f"--set {text!r}"
        if not equals or not _DOTTED_NAME.match(name):
            raise ParamsError(
                f"{shown}: this does not read `key=value`.",
                next_step="Write it like `--set agent.temperature=0.2` or `--set grid.env=[airline]`.",
            )
        written = read_value(value, shown=shown)
        path: KeyPath = tuple(int(part) if part.isdecimal() else part for part in name.split("."))
        agents = _agents(tree.data) if path[0] == "agent" and len(path) > 1 else None
        targets = [path] if agents is None else [("grid", "agent", index, *path[1:]) for index in range(len(agents))]
        for target in targets:
            tree.put(target, written.data, Origin(OriginKind.FLAG, shown))
            tree.old_booleans |= {target + below: word for below, word in written.old_booleans.items()}


def _agents(data: Any) -> list[Any] | None:
    """Return the agents of a sweep's grid; None where there is no such list."""
    grid = data.get("grid") if isinstance(data, dict) else None
    agents = grid.get("agent") if isinstance(grid, dict) else None
    return agents if isinstance(agents, list) else None


def _expand_role_names(tree: ParamsTree) -> None:
    """Write `user: name` as `user: {server: name}`, so that a part of a role can be overridden and traced."""
    data = tree.data
    if not isinstance(data, dict):
        return
    roles: list[tuple[Any, KeyPath]] = [(data, (name,)) for name in ("user", "agent", "judge") if name in data]
    if isinstance(data.get("experts"), dict):
        roles += [(data["experts"], ("experts", name)) for name in data["experts"]]
    if agents := _agents(data):
        roles += [(agents, ("grid", "agent", index)) for index in range(len(agents))]
    for parent, path in roles:
        if isinstance(parent[path[-1]], str):
            parent[path[-1]] = {"server": parent[path[-1]]}
            origin = tree.origin(path)
            tree.origins[(*path, "server")] = replace(origin, place=origin.value_place or origin.place)


def _default_user(tree: ParamsTree) -> None:
    agent = tree.data.get("agent") if isinstance(tree.data, dict) else None
    user = tree.data.get("user")
    if not isinstance(agent, dict) or not (user is None or isinstance(user, dict)):
        return
    if user and any(user.get(key) is not None for key in ("server", "model")):
        return
    who = {key: agent[key] for key in _MODEL_KEYS if agent.get(key) is not None}
    tree.data["user"] = who | (user or {})
    for key in who:
        tree.origins.setdefault(("user", key), Origin(OriginKind.DEFAULT, "the agent's"))


def _flat_values(params: BaseModel, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    for name in type(params).model_fields:
        value = getattr(params, name)
        here = (*path, name)
        if isinstance(value, BaseModel):
            yield from _flat_values(value, here)
        elif isinstance(value, list) and value and all(isinstance(each, BaseModel) for each in value):
            for index, each in enumerate(value):
                yield from _flat_values(each, (*here, index))
        else:
            yield here, params.model_dump(mode="json", include={name})[name]


def _read(path: Path) -> ParamsTree:
    """Read a file; errors name it as seen from the current folder when that is shorter."""
    relative = os.path.relpath(path)
    return read_document(path, shown=relative if not relative.startswith("..") else str(path))


def load_all(model: type[P], workspace: Path | None = None) -> tuple[dict[str, P], dict[str, ParamsError]]:
    """Load every params file of a kind, so that one bad file does not stop the rest.

    Parameters
    ----------
    model : type
        `SiteParams`, `ServerParams`, `SweepParams` or `PersonaParams`.
    workspace : Path, optional
        Its files come before the shipped ones.

    Returns
    -------
    dict of str to params
        Those that can be used, by name, sorted.
    dict of str to ParamsError
        Those that cannot be read, or whose name cannot be used, each with the reason.
    """
    good: dict[str, P] = {}
    bad = misnamed_params(_KINDS[model], workspace)
    for name in list_params(_KINDS[model], workspace):
        try:
            good[name] = resolve(model, name, workspace=workspace).params
        except ParamsError as error:
            bad[name] = error
    return good, bad


def load_persona(chosen: str, *, workspace: Path | None = None) -> Persona:
    """Return a persona at an intensity, chosen as `anger` or `anger:strong`; errors as `resolve`."""
    name, _, level = chosen.partition(":")
    return choose_level(resolve(PersonaParams, name, workspace=workspace).params, level or None)


def load_site(name: str | Path, *, workspace: Path | None = None, overrides: Sequence[str] = ()) -> SiteParams:
    """Return a site by name or path; parameters and errors as `resolve`."""
    return resolve(SiteParams, name, workspace=workspace, overrides=overrides).params


def load_server(name: str | Path, *, workspace: Path | None = None, overrides: Sequence[str] = ()) -> ServerParams:
    """Return a server's params by name or path; parameters and errors as `resolve`."""
    return resolve(ServerParams, name, workspace=workspace, overrides=overrides).params


def load_sweep(name: str | Path, *, workspace: Path | None = None, overrides: Sequence[str] = ()) -> SweepParams:
    """Return a sweep by name or path; `agent.…` in `overrides` means every agent. Else as `resolve`."""
    return resolve(SweepParams, name, workspace=workspace, overrides=overrides).params


def workspace_site(workspace: Path, name: str | Path | None = None) -> SiteParams:
    """Return the site that is named, else the workspace's own one, else this machine; errors as `resolve`."""
    return load_site(default_site(workspace) if name is None else name, workspace=workspace)
