"""Options that several verbs share; those of a run come from the fields of its params."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.shell_completion import CompletionItem
from pydantic import BaseModel, ValidationError

from tautools.cli.commands import GroupedOption, ListOption, refuse_if
from tautools.errors import ParamsError
from tautools.params import RUN_OPTIONS, Kind, list_params, workspace_path, workspace_site
from tautools.params.models import RoleParams, RunParams, ServerParams
from tautools.params.paths import WORKSPACE_VARIABLE
from tautools.params.yaml import schema_at
from tautools.records import Strategy

if TYPE_CHECKING:
    from tautools.run.folder import SettingFolder


F = TypeVar("F", bound="Callable[..., Any]")


class ParamsName(click.ParamType[str]):
    """The name of a site, server or sweep, or a path to its file; the shell completes the names."""

    name = "name"

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind

    def shell_complete(self, ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the known names, then files."""
        workspace = ctx.params.get("workspace")
        known = list_params(self.kind, workspace if isinstance(workspace, Path) else workspace_path())
        items = [CompletionItem(name) for name in known if name.startswith(incomplete)]
        return items or [CompletionItem(incomplete, type="file")]


def stacked(*options: Callable[..., Any]) -> Callable[[F], F]:
    """Return a decorator that adds several arguments and options, in the order in which help lists them."""
    return lambda verb: functools.reduce(lambda inner, option: option(inner), reversed(options), verb)


def gathered(name: str, build: Callable[..., Any], *options: Callable[..., Any]) -> Callable[..., Any]:
    """Return a decorator that adds options which the command gets as one value, made by `build` from them by name."""
    parts = inspect.signature(build).parameters

    def add(verb: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(verb)
        def with_value(**given: Any) -> Any:
            return verb(**{name: build(**{part: given.pop(part) for part in parts})}, **given)

        return stacked(*options)(with_value)

    return add


workspace_option = click.option(
    "--workspace",
    metavar="FOLDER",
    callback=lambda _ctx, _param, value: workspace_path(value, must_exist=True),
    is_eager=True,
    help=f"The workspace.  [default: {WORKSPACE_VARIABLE} or the current folder]",
)
json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    callback=lambda ctx, _param, value: ctx.meta.update(json=value),
    help="Print JSON for a program to read.",
)
"""Adds `--json`, which no command takes: what prints asks `wants_json`."""
dry_run_option = click.option("--dry-run", is_flag=True, help="Print what would be done; do nothing.")
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one value, such as agent.temperature=0.2; may be given several times.",
)
show_config_option = click.option(
    "--show-config", is_flag=True, help="Print what would be used and where each value came from; start nothing."
)
site_option = click.option(
    "--site",
    type=ParamsName("sites"),
    callback=lambda ctx, _param, value: workspace_site(ctx.params["workspace"], value),
    help="Where the work runs, by name or path.  [default: the workspace's own site, else this machine]",
)
"""Adds `--site` as `site: SiteParams`; the command has `workspace_option`, too."""

usual_options = stacked(workspace_option, json_option)
site_options = stacked(site_option, set_option)


@dataclass(frozen=True, slots=True)
class ChosenResults:
    """The settings with results that a command is about."""

    folders: list[SettingFolder]
    workspace: Path
    narrowed: bool
    """Whether a folder or a part of the setting was named."""


setting_options = stacked(
    click.argument("folder", required=False, type=click.Path(exists=True, path_type=Path)),
    click.option("--env", help="Only this env."),
    click.option("--strategy", help="Only this strategy."),
    click.option("--model", help="Only this agent model: its name, its folder's name or a setting id."),
    usual_options,
)
"""Adds the argument and options that name settings with results, the workspace, and `--json`."""


def _chosen_results(
    folder: Path | None, workspace: Path, env: str | None, strategy: str | None, model: str | None
) -> ChosenResults:
    from tautools.run.folder import choose_folders, folder_at

    strategy = Strategy.FC.value if strategy == "tool-calling" else strategy
    folders = [folder_at(folder)] if folder else choose_folders(workspace, env=env, strategy=strategy, model=model)
    return ChosenResults(folders, workspace, bool(folder or env or strategy or model))


results_options = gathered("chosen", _chosen_results, setting_options)
"""Adds the argument and options that choose settings; the command gets them as `chosen: ChosenResults`."""


def stagger_value(_ctx: click.Context, option: click.Parameter, value: str | None) -> float | str | None:
    """Read `--stagger`: seconds, or the word `loaded`."""
    if value in (None, "loaded"):
        return value
    with contextlib.suppress(ValueError):
        if 0 <= float(value or "") < float("inf"):
            return float(value or "")
    raise click.BadParameter(f"{value!r} is neither seconds nor `loaded`", param=option)


@dataclass(frozen=True, slots=True)
class LayoutRequest:
    """How the command line lays servers out, in place of what their files say."""

    replicas: tuple[str, ...] = ()
    gpu_ids: list[int] | None = None
    start_port: int | None = None
    stagger: float | Literal["loaded"] | None = None
    force: bool = False
    one_job: bool = False

    def arranged(self, servers: Sequence[ServerParams]) -> list[ServerParams]:
        """Return the servers with it; errors as `tautools.servers.placement.apply_layout_options`."""
        from tautools.servers.placement import apply_layout_options

        counts: dict[str, int] = {}
        for text in self.replicas:
            name, _, count = text.rpartition("=")
            wrong = not count.isdigit() or not 1 <= int(count) <= 256
            refuse_if(wrong, f"--replicas {text}: write NAME=N, or N for all; N from 1 to 256")
            counts |= dict.fromkeys([name] if name else [params.name for params in servers], int(count))
        return apply_layout_options(servers, replicas=counts, start_port=self.start_port, stagger=self.stagger)


_layout_option = functools.partial(click.option, cls=GroupedOption, group="Cards, ports, order")

layout_options = gathered(
    "layout",
    LayoutRequest,
    _layout_option("--replicas", multiple=True, metavar="NAME=N", help="Servers of one model; a bare N for all."),
    _layout_option("--gpu-ids", cls=ListOption, numbers=True, help="Use these cards only, such as 0 1 2 3 or 0-3."),
    _layout_option("--start-port", type=click.IntRange(1, 65535), help="First port; the others follow."),
    _layout_option("--stagger", metavar="SECONDS|loaded", callback=stagger_value,
                   help="Start the next after SECONDS, or when one has `loaded`."),
    _layout_option("--one-job", is_flag=True, help="With Slurm: all in one job on one node, not a job each."),
    _layout_option("--force", is_flag=True, help="Use cards that are in use."),
)  # fmt: skip
"""Adds the options of a layout; the command gets them as `layout: LayoutRequest`."""


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
    return params_options(RunParams, {name: names[name] for name in groups}, groups=groups)


def params_options(
    model: type[BaseModel], names: Mapping[str, str], *, groups: Mapping[str, str] | None = None
) -> Callable[[F], F]:
    """Add an option for each of the named fields of a params model; type, bounds and help come from the field.

    `names` has the option of each field by its dotted name, such as `{"tasks.limit": "--limit"}`; `groups` the title
    that help lists it under.
    """
    titles = groups or {}
    return stacked(*(_field_option(model, name, option, titles.get(name, "")) for name, option in names.items()))


def _field_option(model: type[BaseModel], name: str, option: str, group: str) -> Callable[[F], F]:
    schema = schema_at(model, tuple(name.split(".")))
    parts = [" ".join(schema.get("description", "").replace("`", "").split())]
    if words := schema.get("enum"):
        parts.append(f"One of {', '.join(words)}.")
    if schema.get("default") not in (None, ""):
        parts.append(f" [default: {schema['default']}]")
    more: dict[str, Any] = {"cls": GroupedOption, "default": None}
    if schema.get("type") == "object":
        more |= {"multiple": True, "metavar": "NAME=SERVER"}
    elif schema.get("type") == "array":
        more = {"cls": ListOption}
    elif schema.get("type") in {"integer", "number"}:
        whole = schema["type"] == "integer"
        # The params check a run's numbers, and say what to do; limits that a number may not reach are theirs too.
        checked = () if model is RunParams else ("minimum", "maximum")
        bounds = {name[:3]: schema[name] for name in checked if name in schema}
        more["type"] = (click.IntRange if whole else click.FloatRange)(**bounds) if bounds else int if whole else float
    return click.option(option, name.replace(".", "__"), group=group, help=" ".join(parts), **more)


def run_flags(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options of `run_options` by the name of the params they set."""
    given = {name: options.get(name.replace(".", "__")) for name in RUN_OPTIONS}
    flags = {name: value for name, value in given.items() if value is not None}
    experts = {}
    for text in flags.pop("experts", ()):
        name, _, experts[name] = text.partition("=")
        if not (name and experts[name]):
            raise ParamsError(
                f"--expert {text}: this is not of the form NAME=SERVER.",
                next_step="Write it like --expert strong=qwen3-32b-fp8; the rest of a role can be --set "
                "experts.strong.thinking=off.",
            )
    return flags | ({"experts": experts} if experts else {})


def judge_role(options: Mapping[str, Any]) -> RoleParams:
    """Return the judge that `run_options("judge.")` names; none, or an address without a model, is a `ParamsError`."""
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
