"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from tautools.errors import ParamsError
from tautools.params import RUN_OPTIONS, list_params, workspace_path
from tautools.params.paths import WORKSPACE_VARIABLE
from tautools.records import Strategy, UserStrategy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tautools.params import Kind


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


def _existing(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Path:
    return workspace_path(value, must_exist=True)


def _any(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Path:
    return workspace_path(value)


def workspace_option(function: F) -> F:
    """Add `--workspace`, a folder that must exist, as `workspace: Path`."""
    return _workspace(_existing)(function)


def new_workspace_option(function: F) -> F:
    """Add `--workspace`, a folder that may not exist yet, as `workspace: Path`."""
    return _workspace(_any)(function)


def _workspace(read: Callable[[click.Context, click.Parameter, str | None], Path]) -> Callable[[F], F]:
    return click.option(
        "--workspace",
        metavar="FOLDER",
        callback=read,
        is_eager=True,
        help=f"The workspace.  [default: {WORKSPACE_VARIABLE} or the current folder]",
    )


def json_option(function: F) -> F:
    """Add `--json` as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")(function)


def set_option(function: F) -> F:
    """Add `--set key=value`, several times, as `overrides: tuple[str, ...]`."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override one value, such as agent.temperature=0.2; may be given several times.",
    )(function)


def show_config_option(function: F) -> F:
    """Add `--show-config` as `show_config: bool`."""
    return click.option(
        "--show-config", is_flag=True, help="Print what would be used and where each value came from; start nothing."
    )(function)


def site_option(function: F) -> F:
    """Add `--site` as `site: str | None`."""
    return click.option("--site", type=ParamsName("sites"), default=None, help="Where the work runs, by name or path.")(
        function
    )


_RUN_HELP: dict[str, tuple[Any, str]] = {
    "env": (str, "Environment: airline, retail, telecom (tau2)."),
    "strategy": (str, f"How the agent is prompted: {', '.join(each.value for each in Strategy)}."),
    "agent.model": (
        str,
        "Served model name of the agent, at a registered server or at OPENAI_API_BASE.",
    ),
    "agent.server": (str, "Server of the agent: a running one, or a file of params/servers/."),
    "agent.base_url": (str, "Address of the agent's server, ending in /v1."),
    "agent.api_key_env": (str, "Environment variable that holds the key of the agent's server."),
    "agent.provider": (str, "openai (any compatible server), or a hosted provider of litellm's."),
    "agent.temperature": (float, "Sampling temperature of the agent."),
    "few_shot_displays": (str, "File of solved examples for few-shot.  [default: the checkout's own]"),
    "user_strategy": (str, f"How the customer is played: {', '.join(each.value for each in UserStrategy)}."),
    "user.model": (str, "Served model name of the customer.  [default: the agent's]"),
    "user.server": (str, "Server of the customer."),
    "user.base_url": (str, "Address of the customer's server, ending in /v1."),
    "user.api_key_env": (str, "Environment variable that holds the key of the customer's server."),
    "user.provider": (str, "Provider of the customer's model."),
    "user.temperature": (float, "Sampling temperature of the customer."),
    "experts": (str, "NAME=SERVER: an expert for the strategy experts; several times."),
    "persona": (str, "How the customer behaves: anger, or anger:strong; `tautools persona list` shows all."),
    "judge.server": (str, "Server of the judge of natural-language assertions; nobody judges them without one."),
    "judge.model": (str, "Served model name of the judge."),
    "judge.base_url": (str, "Address of the judge's server, ending in /v1."),
    "judge.api_key_env": (str, "Environment variable that holds the key of the judge's server."),
    "num_trials": (int, "Trials of each task."),
    "tasks.split": (str, "Split of the tasks."),
    "tasks.ids": (str, "Task ids, separated by commas."),
    "tasks.start_index": (int, "First task, counted from 0."),
    "tasks.end_index": (int, "Task to stop before; -1: to the last."),
    "tasks.limit": (int, "At most so many tasks."),
    "concurrency": (int, "Conversations at a time."),
    "seed": (int, "Seed of the conversations."),
    "limits.time_s": (float, "Time limit of one conversation [s]."),
    "grace_s": (float, "Time that running conversations get after an interrupt [s]."),
    "bench": (str, "tau2 or tau-bench."),
    "source": (str, "Where the benchmark is loaded from."),
    "path": (str, "Checkout of the benchmark, for sources that need one."),
    "python": (str, "Interpreter of the checkout's own environment, for sources that run in one."),
}


_SEVERAL = {"experts"}


def run_options(function: F) -> F:
    """Add the options of one run; `run_flags` makes them into what `resolve_run` takes."""
    for name in reversed(_RUN_HELP):
        kind, text = _RUN_HELP[name]
        several = {"multiple": True, "metavar": "NAME=SERVER"} if name in _SEVERAL else {"default": None}
        function = click.option(RUN_OPTIONS[name], _variable(name), type=kind, help=text, **several)(function)
    return function


def run_flags(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options of `run_options` by the name of the params they set."""
    flags = {name: options[_variable(name)] for name in RUN_OPTIONS if options.get(_variable(name)) is not None}
    if experts := dict(_expert(text) for text in flags.pop("experts", ())):
        flags["experts"] = experts
    if "tasks.ids" in flags:
        flags["tasks.ids"] = [part.strip() for part in flags["tasks.ids"].split(",") if part.strip()]
    return flags


def _expert(text: str) -> tuple[str, str]:
    name, equals, server = text.partition("=")
    if not (name and equals and server):
        raise ParamsError(
            f"--expert {text}: this does not read NAME=SERVER.",
            next_step="Write it like --expert strong=qwen3-32b-fp8; the rest of a role can be --set "
            "experts.strong.thinking=off.",
        )
    return name, server


def _variable(name: str) -> str:
    return name.replace(".", "__")
