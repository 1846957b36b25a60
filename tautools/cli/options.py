"""Options that several verbs share; those of a run come from the fields of its params."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_origin

import click
from click.shell_completion import CompletionItem
from pydantic_core import PydanticUndefined

from tautools.cli.commands import GroupedOption, ListOption
from tautools.errors import ParamsError
from tautools.params import RUN_OPTIONS, list_params, workspace_path, workspace_site
from tautools.params.check import allowed_values, schema_node_at, without_none
from tautools.params.models import RunParams
from tautools.params.paths import WORKSPACE_VARIABLE
from tautools.records import Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import BaseModel

    from tautools.params import Kind
    from tautools.params.models import RoleParams, SiteParams
    from tautools.run.folder import SettingFolder

F = TypeVar("F", bound="Callable[..., Any]")


class ParamsName(click.ParamType[str]):
    """The name of a site, server or sweep, or a path to its file; the shell completes the names."""

    name = "name"

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the known names, then files."""
        workspace = ctx.params.get("workspace")
        known = list_params(self.kind, workspace if isinstance(workspace, Path) else workspace_path())
        items = [CompletionItem(name) for name in known if name.startswith(incomplete)]
        return items or [CompletionItem(incomplete, type="file")]


def _existing_workspace(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Path:
    return workspace_path(value, must_exist=True)


def _site(ctx: click.Context, _param: click.Parameter, value: str | None) -> SiteParams:
    return workspace_site(ctx.params["workspace"], value)


workspace_option = click.option(
    "--workspace",
    metavar="FOLDER",
    callback=_existing_workspace,
    is_eager=True,
    help=f"The workspace.  [default: {WORKSPACE_VARIABLE} or the current folder]",
)
"""Adds `--workspace`, a folder that must exist, as `workspace: Path`."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")
"""Adds `--json` as `as_json: bool`."""

dry_run_option = click.option("--dry-run", is_flag=True, help="Print what would be done; do nothing.")
"""Adds `--dry-run` as `dry_run: bool`."""

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one value, such as agent.temperature=0.2; may be given several times.",
)
"""Adds `--set key=value`, several times, as `overrides: tuple[str, ...]`."""

show_config_option = click.option(
    "--show-config", is_flag=True, help="Print what would be used and where each value came from; start nothing."
)
"""Adds `--show-config` as `show_config: bool`."""

site_option = click.option(
    "--site",
    type=ParamsName("sites"),
    callback=_site,
    help="Where the work runs, by name or path.  [default: the workspace's own site, else this machine]",
)
"""Adds `--site` as `site: SiteParams`; the command has `workspace_option`, too."""


@dataclass(frozen=True, slots=True)
class ChosenResults:
    """The settings with results that a command is about."""

    folders: list[SettingFolder]
    workspace: Path
    narrowed: bool
    """Whether a folder or a part of the setting was named."""


def setting_options(verb: F) -> F:
    """Add the argument and options that name settings with results, and the workspace."""
    for option in (
        workspace_option,
        click.option("--model", help="Only this agent model: its name, its folder's name or a setting id."),
        click.option("--strategy", help="Only this strategy."),
        click.option("--env", help="Only this env."),
        click.argument("folder", required=False, type=click.Path(exists=True, path_type=Path)),
    ):
        verb = option(verb)
    return verb


def results_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument and options that choose settings; the command gets them as a `ChosenResults`."""

    @setting_options
    @functools.wraps(verb)
    def chosen(folder: Path | None, workspace: Path, **options: Any) -> Any:
        from tautools.run.show import choose_folders, folder_at

        wanted = {name: options.pop(name) for name in ("env", "strategy", "model")}
        if wanted["strategy"] == "tool-calling":
            wanted["strategy"] = Strategy.FC.value
        folders = [folder_at(folder)] if folder else choose_folders(workspace, **wanted)
        return verb(ChosenResults(folders, workspace, bool(folder or any(wanted.values()))), **options)

    return chosen


_GROUPS = {
    "Agent": ("strategy", "agent.", "few_shot_displays", "experts"),
    "Customer (the agent's model when none is named)": ("user", "persona"),
    "Judge": ("judge.",),
    "Tasks": ("env", "num_trials", "tasks."),
    "Benchmark": ("bench", "source", "path", "python"),
    "Pace and limits": ("concurrency", "seed", "limits.", "grace_s"),
}
"""Titles of `run --help`, and how the names of the params under each begin."""


def run_options(*beginnings: str) -> Callable[[F], F]:
    """Add the options of a run, or those whose params begin so; `run_flags` reads them for `resolve_run`."""
    names = {name: option for name, option in RUN_OPTIONS.items() if not beginnings or name.startswith(beginnings)}
    groups = {name: title for title, starts in _GROUPS.items() for name in names if name.startswith(starts)}
    ordered = sorted(names, key=lambda name: list(_GROUPS).index(groups[name]))
    return params_options(RunParams, {name: names[name] for name in ordered}, groups=groups)


def params_options(
    model: type[BaseModel],
    names: Mapping[str, str],
    *,
    groups: Mapping[str, str] | None = None,
    strict: bool = False,
) -> Callable[[F], F]:
    """Add an option for each of the named fields of a params model; type and help come from the field.

    Parameters
    ----------
    model : type
        The params model.
    names : mapping of str to str
        Dotted name of a field to the option's, such as `{"tasks.limit": "--limit"}`.
    groups : mapping of str to str, optional
        Dotted name to the title that help lists the option under.
    strict : bool
        Whether the command line checks the bounds of numbers; else the params do, which say where a value came from.
    """
    options = [
        _field_option(model, name, option, group=(groups or {}).get(name, ""), strict=strict)
        for name, option in names.items()
    ]

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def _field_option(model: type[BaseModel], name: str, option: str, *, group: str, strict: bool) -> Callable[[F], F]:
    node = schema_node_at(model, tuple(name.split(".")))
    kind, field = without_none(node.annotation), node.field
    parts = [" ".join(((field.description if field else "") or "").replace("`", "").split())]
    if words := allowed_values(kind):
        parts.append(f"One of {', '.join(words)}.")
    default = field.default if field else None
    default = default.value if isinstance(default, Enum) else default
    if default not in (None, "", PydanticUndefined):
        parts.append(f" [default: {default}]")
    more: dict[str, Any] = {"cls": GroupedOption, "default": None}
    if get_origin(kind) is dict:
        more = {"cls": GroupedOption, "multiple": True, "metavar": "NAME=SERVER"}
    elif get_origin(kind) is list:
        more = {"cls": ListOption}
    elif kind in (int, float):
        more["type"] = _number_range(kind, field.metadata if field else []) if strict else kind
    return click.option(option, name.replace(".", "__"), group=group, help=" ".join(parts), **more)


def _number_range(kind: type, rules: Sequence[Any]) -> click.ParamType[Any]:
    bounds = {
        end: getattr(rule, at) for rule in rules for end, at in (("min", "ge"), ("max", "le")) if hasattr(rule, at)
    }
    return click.IntRange(**bounds) if kind is int else click.FloatRange(**bounds)


def run_flags(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options of `run_options` by the name of the params they set."""
    given = {name: options.get(name.replace(".", "__")) for name in RUN_OPTIONS}
    flags = {name: value for name, value in given.items() if value is not None}
    if experts := dict(_expert(text) for text in flags.pop("experts", ())):
        flags["experts"] = experts
    return flags


def _expert(text: str) -> tuple[str, str]:
    name, equals, server = text.partition("=")
    if not (name and equals and server):
        raise ParamsError(
            f"--expert {text}: this is not of the form NAME=SERVER.",
            next_step="Write it like --expert strong=qwen3-32b-fp8; the rest of a role can be --set "
            "experts.strong.thinking=off.",
        )
    return name, server


def judge_role(options: Mapping[str, Any]) -> RoleParams:
    """Return the judge that `run_options("judge.")` names.

    Raises
    ------
    ParamsError
        When none is named, or an address is given without a model.
    """
    from pydantic import ValidationError

    from tautools.params.models import RoleParams

    given = {name.removeprefix("judge."): value for name, value in run_flags(options).items()}
    try:
        return RoleParams.model_validate(given)
    except ValidationError as error:
        raise ParamsError(
            "No judge was named.",
            evidence=error.errors()[0]["msg"].removeprefix("Value error, "),
            next_step="Add --judge-server NAME (`tautools server ls` lists what runs), or --judge-model and "
            "--judge-base-url.",
        ) from error
