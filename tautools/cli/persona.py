"""`tautools persona`: list personas, verify their runs, compare them with the run without one."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tautools.cli.commands import EXIT_FAILED, EXIT_UNFINISHED, VerbGroup
from tautools.cli.options import (
    ParamsName,
    dry_run_option,
    json_option,
    judge_role,
    run_options,
    setting_options,
    workspace_option,
)
from tautools.cli.output import broken_rows, emit, plain_table, show_broken, simulated_mark
from tautools.errors import ParamsError
from tautools.params import find_params, load_all, resolve, shipped
from tautools.params.personas import PersonaParams, choose_level
from tautools.run.personas.comparison import compare as compare_group
from tautools.run.personas.comparison import keep_certificate
from tautools.run.personas.labels import keep_labels
from tautools.run.personas.pairing import groups_of
from tautools.run.show import choose_folders, folder_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tautools.run.folder import SettingFolder
    from tautools.run.personas.comparison import ComparedPersona, PersonaCertificate, PersonaComparison
    from tautools.run.personas.pairing import PersonaGroup
    from tautools.stats import PairedEffect

_MARKS = {True: "[green]yes[/]", False: "[red]NO[/]", None: "[yellow]?[/]"}
_LARGE = 100
"""From here on figures are shown without decimals."""


def print_personas(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what can be chosen."""
    table = plain_table("persona", "intensities", "")
    for row in rows:
        levels = ", ".join(f"{level}*" if level == row["default"] else str(level) for level in row["levels"])
        own = "" if row["shipped"] else "[dim](your own)[/] "
        table.add_row(escape(str(row["name"])), escape(levels or "-"), f"{own}{escape(str(row['description']))}")
    console = Console(highlight=False)
    console.print(table)
    console.print("* when none is asked for; --persona NAME:INTENSITY asks for another", style="dim")


def print_certificate(certificate: PersonaCertificate) -> None:
    """Print what one persona's records show."""
    console = Console(highlight=False)
    run = f"{certificate.env} {certificate.strategy}{_customer(certificate.user_strategy)} {certificate.persona}"
    title = f"{escape(run)}: {certificate.conversations} conversations, setting {certificate.setting_id}"
    console.print(f"\n[bold]{title}[/]{simulated_mark(simulated=certificate.simulated)}")  # a rule would cut the mark
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in certificate.checks:
        table.add_row(_MARKS[check.passed], check.name, escape(check.detail))
    console.print(table)
    if (labels := certificate.labels) is not None:
        console.print(
            f"blind labels by {escape(labels.judge)}{simulated_mark(simulated=labels.simulated)}: {labels.right} of "
            f"{labels.conversations} right ({labels.right / labels.conversations:.2f}, exact 95 % interval "
            f"{labels.low:.2f} to {labels.high:.2f}; chance {labels.chance:.2f}, p = {labels.p:.2g})"
        )
    if not certificate.wording:
        console.print("wording: not known, control was not run on the same tasks yet (n = 0)")
        return
    figures = ("mean", "95 % interval", "d", "tasks")
    table = plain_table("difference to control", *figures, right=figures)
    for name, effect in certificate.wording.items():
        size = "" if effect.d is None else f"{effect.d:+.2f}"
        star = "*" if name in certificate.distinct else ""
        table.add_row(f"{name}{star}", f"{effect.mean:+.2f}", _interval(effect, 2), size, str(effect.tasks))
    console.print(table)
    console.print(
        f"distinct from control in {len(certificate.distinct)} of {len(certificate.wording)} measures "
        "(*: the interval, widened for their number, leaves 0 out)",
        style="dim",
    )


def _customer(user_strategy: str) -> str:
    return "" if user_strategy == "llm" else f" (customer by {user_strategy})"


_MEASURES = (
    ("turns", "prompt tokens", "output tokens", "facts told"),
    ("apologies", "clarifications", "transfers"),
)
_WORDING = {
    "words": "words per message",
    "questions": "questions per message",
    "exclamations": "exclamations per message",
    "capitals": "capitals per 100 words",
}
"""Column to the measure under it."""


def print_comparison(comparison: PersonaComparison) -> None:
    """Print the personas of one setting and control."""
    console = Console(highlight=False)
    what = f"{comparison.env} {comparison.strategy} {comparison.agent}, customer {comparison.user}"
    what += _customer(comparison.user_strategy)
    console.print(f"\n[bold]{escape(what)}[/]{simulated_mark(simulated=comparison.simulated)}")
    console.print(_scores(comparison))
    for names in _MEASURES:  # control's means, and for each persona the difference to them
        table = plain_table("persona", *names, right=names)
        for each in comparison.personas:
            figures = (_figure(each.effects.get(name), each.means.get(name)) for name in names)
            table.add_row(escape(each.label), *figures)
        console.print(table)
    console.print(_wording_table(comparison.personas))
    if not comparison.has_control:
        console.print("[yellow]Control was not run: nothing to compare with. Run the same without --persona.[/]")
    console.print(
        "Differences are to control (whose own means are shown) on the same tasks and trials: means over tasks, below "
        "them 95 % intervals by drawing tasks. Wording: per message; capitals and the persona's words per 100 words.",
        style="dim",
    )


def _scores(comparison: PersonaComparison) -> Table:
    most = max((len(each.pass_hat) for each in comparison.personas), default=0)
    ks = [1] if most < 2 else [1, most]
    columns = ("n", "user errors", *(f"pass^{k}" for k in ks), "pass^1 - control", "certificate")
    table = plain_table("persona", *columns, right=columns)
    for each in comparison.personas:
        passes = [f"{each.pass_hat[k - 1]:.3f}" if len(each.pass_hat) >= k else "n = 0" for k in ks]
        change = "" if each.difference is None else _change(each.difference, 3)
        verdict = "" if each.certificate is None else _MARKS[each.certificate.passed]
        table.add_row(escape(each.label), str(each.conversations), str(each.user_errors), *passes, change, verdict)
    return table


def _wording_table(personas: Sequence[ComparedPersona]) -> Table:
    """Return the differences in wording; the last column is of the persona's own words."""
    columns = (*_WORDING, "words of its persona")
    table = plain_table("persona", *columns, right=columns)
    for each in personas:
        if each.certificate is not None:
            wording = each.certificate.wording
            own = next((name for name in wording if each.label.startswith(name.partition(" words")[0])), "")
            table.add_row(escape(each.label), *(_figure(wording.get(name), None) for name in (*_WORDING.values(), own)))
    return table


def _figure(change: PairedEffect | None, mean: float | None) -> str:
    if change is not None:
        return _change(change, 0 if abs(change.mean) >= _LARGE else 2)
    return "" if mean is None else f"{mean:.{0 if abs(mean) >= _LARGE else 2}f}"


def _change(effect: PairedEffect, digits: int) -> str:
    interval = _interval(effect, digits)
    return f"{effect.mean:+.{digits}f}" + (f"\n[dim]{interval}[/]" if interval else "")


def _interval(effect: PairedEffect, digits: int) -> str:
    if effect.low is None or effect.high is None:
        return ""
    return f"{effect.low:+.{digits}f} to {effect.high:+.{digits}f}"


_PERSONA_EPILOG = """\b
Examples:
  tautools persona list
  tautools persona show anger --level strong           the text as the customer's model gets it
  tautools run --env retail --model M --persona anger:strong --limit 20
  tautools persona check --env retail                  certificates, read from the records
  tautools persona compare --env retail --strategy fc
  tautools persona label --env retail --judge-server qwen3-32b   a judge labels the customers blind

\b
Exit codes of check: 0 all hold, 1 one does not, 3 one cannot be decided yet.
"""


@click.group("persona", cls=VerbGroup, epilog=_PERSONA_EPILOG)
def persona_command() -> None:
    """Personas of the simulated customer."""


@persona_command.command("list")
@workspace_option
@json_option
def persona_list(workspace: Path, as_json: bool) -> None:
    """List the personas: the workspace's own and the shipped ones."""
    rows = []
    personas, broken = load_all(PersonaParams, workspace)
    for name, params in personas.items():
        file = find_params("personas", name, workspace)
        own = {"file": file, "shipped": file.is_relative_to(shipped("params"))}
        fields = {"levels": list(params.levels), "default": params.default, "description": params.description}
        rows.append({"name": name} | fields | own)
    emit(rows + broken_rows(broken), as_json=as_json, text=lambda: print_personas(rows))
    show_broken(broken)


@persona_command.command()
@click.argument("name", type=ParamsName("personas"))
@click.option("--level", default=None, help="The intensity.  [default: the persona's usual one]")
@workspace_option
@json_option
def show(name: str, level: str | None, workspace: Path, as_json: bool) -> None:
    """Print what is appended to the customer's system prompt, word for word."""
    base, _, behind = name.partition(":")
    persona = choose_level(resolve(PersonaParams, base, workspace=workspace).params, level or behind or None)
    value = {"persona": persona.label, "intensity": persona.intensity, "sha256": persona.sha256, "text": persona.block}
    text = f"{persona.label} adds nothing: a run with it is the run without a persona."
    if persona.block:
        mark = click.style(f"sha256 {persona.sha256}", dim=True)
        text = persona.block.strip("\n") + f"\n{mark}"
    emit(value, as_json=as_json, text=text)


def persona_results(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add what chooses settings with a persona; the command gets their `folders` and the `workspace`."""

    @setting_options
    @click.option("--persona", help="Only this persona, as its folder is named: anger, anger-strong.")
    @functools.wraps(verb)
    def chosen(folder: Path | None, workspace: Path, **options: Any) -> Any:
        wanted = {name: options.pop(name) for name in ("env", "strategy", "model", "persona")}
        return verb(_folders(folder, workspace, **wanted), workspace, **options)

    return chosen


def _folders(folder: Path | None, workspace: Path, *, persona: str | None, **wanted: str | None) -> list[SettingFolder]:
    """Return the settings with a persona that are meant."""
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
        "No results of a persona fit.",
        evidence="\n".join(str(each.path) for each in found),
        next_step="Run one: `tautools run … --persona anger`; `tautools show` lists what there is.",
    )


def _is_of(folder: SettingFolder, model: str) -> bool:
    return model in {folder.setting.agent.model, folder.id, folder.path.name, folder.path.name.partition("+")[0]}


@persona_command.command()
@json_option
@persona_results
def check(folders: list[SettingFolder], workspace: Path, *, as_json: bool) -> None:
    """Verify each persona's run from its records, and write its certificate next to the results."""
    certificates = [keep_certificate(workspace, folder) for folder in folders]
    if as_json:
        emit(certificates, as_json=True)
    else:
        for certificate in certificates:
            print_certificate(certificate)
    results = {certificate.passed for certificate in certificates}
    if results != {True}:
        raise SystemExit(EXIT_FAILED if False in results else EXIT_UNFINISHED)


@persona_command.command()
@json_option
@persona_results
def compare(folders: list[SettingFolder], workspace: Path, *, as_json: bool) -> None:
    """Compare personas with control: scores, length, tokens, the agent's manners, wording; paired by task and trial."""
    comparisons = [compare_group(group) for group in groups_of(workspace, folders)]
    if as_json:
        emit(comparisons, as_json=True)
        return
    for comparison in comparisons:
        print_comparison(comparison)


@persona_command.command()
@run_options("judge.")
@dry_run_option
@json_option
@persona_results
def label(folders: list[SettingFolder], workspace: Path, *, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Ask a judge, blind, which persona each customer shows; the certificates then count it."""
    groups = groups_of(workspace, folders)
    if dry_run:
        rows = [{"persona": each.folder.setting.persona, **_where(group)} for group in groups for each in group.runs]
        lines = [f"{row['env']} {row['strategy']} {row['persona']}: would be labelled" for row in rows]
        emit(rows, as_json=as_json, text="\n".join(lines))
        return
    judge = judge_role(options)
    labelled: list[dict[str, Any]] = [
        {"persona": persona, "labelled": number, **_where(group)}
        for group in groups
        for persona, number in keep_labels(group, judge, workspace=workspace).items()
    ]
    lines = [
        f"{row['env']} {row['strategy']} {row['persona']}: {row['labelled']} conversations labelled" for row in rows
    ]
    lines.append("Next: `tautools persona check` compares them with chance.")
    emit(labelled, as_json=as_json, text="\n".join(lines))


def _where(group: PersonaGroup) -> dict[str, str]:
    setting = group.runs[0].folder.setting
    return {"env": setting.env, "strategy": setting.strategy.value, "agent": setting.agent.model}
