"""`tautools persona`: what personas say, what their runs prove, and how they compare with control."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.errors import EXIT_FAILED, EXIT_UNFINISHED, guard
from tautools.cli.options import ParamsName, json_option, workspace_option
from tautools.errors import ParamsError
from tautools.params import find_params, list_params, resolve_persona, shipped

if TYPE_CHECKING:
    from collections.abc import Callable

    from tautools.run.folder import SettingFolder
    from tautools.run.personas import Group

__all__ = ["command"]

_EPILOG = """\b
Examples:
  tautools persona list
  tautools persona show anger --level strong           the text as the customer's model gets it
  tautools run --env retail --model M --persona anger:strong --limit 20
  tautools persona check --env retail                  certificates, read from the records
  tautools persona compare --env retail --strategy fc
  tautools persona label --env retail --server qwen3-32b   a judge labels the customers blind

\b
Exit codes of check: 0 all hold, 1 one does not, 3 one cannot be told yet.
"""


@click.group("persona", epilog=_EPILOG)
def command() -> None:
    """Moods of the simulated customer."""


@command.command("list")
@workspace_option
@json_option
@guard
def list_command(workspace: Path, as_json: bool) -> None:
    """List the personas: the workspace's own and the shipped ones."""
    ours = str(shipped("params"))
    rows = []
    for name in list_params("personas", workspace):
        params = resolve_persona(name, workspace=workspace).params
        file = str(find_params("personas", name, workspace))
        rows.append(
            {
                "name": name,
                "levels": list(params.levels),
                "default": params.default,
                "description": params.description,
                "file": file,
                "shipped": file.startswith(ours),
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    from tautools.cli.persona_table import print_personas

    print_personas(rows)


@command.command()
@click.argument("name", type=ParamsName("personas"))
@click.option("--level", default=None, help="The intensity.  [default: the persona's usual one]")
@workspace_option
@json_option
@guard
def show(name: str, level: str | None, workspace: Path, as_json: bool) -> None:
    """Print what is appended to the customer's system prompt, word for word."""
    from tautools.params.personas import choose_level

    base, _, behind = name.partition(":")
    persona = choose_level(resolve_persona(base, workspace=workspace).params, level or behind or None)
    if as_json:
        told = {"persona": persona.label, "intensity": persona.intensity, "sha256": persona.sha256}
        click.echo(json.dumps({**told, "text": persona.block}, indent=1, ensure_ascii=False))
    elif persona.block:
        click.echo(persona.block.strip("\n"))
        click.secho(f"sha256 {persona.sha256}", dim=True)
    else:
        click.echo(f"{persona.label} adds nothing: a run with it is the run without a persona.")


def _chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--persona", help="Only this persona, as its folder says it: anger, anger-strong."),
        click.option("--model", help="Only this agent model: its name, its folder's name or a setting id."),
        click.option("--strategy", help="Only this strategy."),
        click.option("--env", help="Only this env."),
        click.argument("folder", required=False, type=click.Path(exists=True, path_type=Path)),
    ):
        function = option(function)
    return function


@command.command()
@_chosen
@workspace_option
@json_option
@guard
def check(folder: Path | None, workspace: Path, as_json: bool, **wanted: str | None) -> None:
    """Prove each persona's run from its records, and write its certificate beside the results."""
    from tautools.run.personas import keep_certificate

    found = [keep_certificate(workspace, each) for each in _folders(folder, workspace, **wanted)]
    if as_json:
        click.echo(json.dumps([each.as_dict() for each in found], indent=1, ensure_ascii=False))
    else:
        from tautools.cli.persona_table import print_certificate

        for each in found:
            print_certificate(each)
    results = {each.passed for each in found}
    if False in results or None in results:
        raise SystemExit(EXIT_FAILED if False in results else EXIT_UNFINISHED)


@command.command()
@_chosen
@workspace_option
@json_option
@guard
def compare(folder: Path | None, workspace: Path, as_json: bool, **wanted: str | None) -> None:
    """Set personas beside control: scores, length, tokens, the agent's manners, wording; paired by task and trial."""
    from tautools.run.personas import compare as compare_group

    found = [compare_group(group) for group in _groups(folder, workspace, **wanted)]
    if as_json:
        click.echo(json.dumps([each.as_dict() for each in found], indent=1, ensure_ascii=False))
        return
    from tautools.cli.persona_table import print_comparison

    for each in found:
        print_comparison(each)


@command.command()
@_chosen
@click.option("--server", default=None, help="The judge: a running server, or a file of params/servers/.")
@click.option("--judge-model", default=None, help="Served model name of the judge.")
@click.option("--base-url", default=None, help="Address of the judge's server, ending in /v1.")
@click.option("--key-env", default=None, help="Environment variable that holds its key.")
@click.option("--provider", default="openai", show_default=True, help="openai, or a hosted provider of litellm's.")
@workspace_option
@json_option
@guard
def label(folder: Path | None, workspace: Path, as_json: bool, **options: str | None) -> None:
    """Have a judge say, without being told, which mood each customer shows; the certificates then count it."""
    from tautools.run.personas import keep_labels

    judge = _judge(options)
    wanted = {name: options[name] for name in ("env", "strategy", "model", "persona")}
    told: list[dict[str, Any]] = []
    for group in _groups(folder, workspace, **wanted):
        for persona, number in keep_labels(group, judge, workspace=workspace).items():
            told.append({"persona": persona, "labelled": number, **_where(group)})
    if as_json:
        click.echo(json.dumps(told, indent=1, ensure_ascii=False))
        return
    for each in told:
        click.echo(f"{each['env']} {each['strategy']} {each['persona']}: {each['labelled']} conversations labelled")
    click.echo("Next: `tautools persona check` counts them against chance.")


def _judge(options: dict[str, str | None]) -> Any:
    from pydantic import ValidationError

    from tautools.params.models import RoleParams

    names = {"server": "server", "model": "judge_model", "base_url": "base_url", "api_key_env": "key_env"}
    given = {key: options[name] for key, name in names.items() if options[name] is not None}
    try:
        return RoleParams.model_validate({**given, "provider": options["provider"]})
    except ValidationError as error:
        raise ParamsError(
            "No judge was named.",
            evidence=str(error.errors()[0]["msg"]),
            next_step="Add --server NAME, or --judge-model M with --base-url URL.",
        ) from error


def _where(group: Group) -> dict[str, str]:
    setting = group.played[0].folder.setting
    return {"env": setting.env, "strategy": setting.strategy.value, "agent": setting.agent.model}


def _groups(folder: Path | None, workspace: Path, **wanted: str | None) -> list[Group]:
    from tautools.run.personas import groups_of

    return groups_of(workspace, _folders(folder, workspace, **wanted))


def _folders(folder: Path | None, workspace: Path, *, persona: str | None, **wanted: str | None) -> list[SettingFolder]:
    """Return the settings with a persona that are meant."""
    from tautools.run.show import choose_folders, folder_at

    if wanted.get("model") and persona is None and folder is None:
        # A model's name means all of its personas; a folder's name means one.
        every = choose_folders(workspace, env=wanted.get("env"), strategy=wanted.get("strategy"))
        found = [each for each in every if _is_of(each, str(wanted["model"]))]
    else:
        found = [folder_at(folder)] if folder else choose_folders(workspace, **wanted)
    personas = [each for each in found if each.setting.persona and persona in {None, each.setting.persona}]
    if personas:
        return personas
    raise ParamsError(
        "No results of a persona are meant.",
        evidence="\n".join(str(each.path) for each in found),
        next_step="Run one: `tautools run … --persona anger`; `tautools show` lists what there is.",
    )


def _is_of(folder: SettingFolder, model: str) -> bool:
    return model in {folder.setting.agent.model, folder.id, folder.path.name, folder.path.name.partition("+")[0]}
