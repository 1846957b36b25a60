"""`tautools persona`: list personas, verify their runs, compare them with the run without one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from tautools.cli.commands import EXIT_FAILED, EXIT_UNFINISHED, VerbGroup, examples_text, exit_if
from tautools.cli.options import (
    ChosenResults,
    ParamsName,
    dry_run_option,
    gathered,
    judge_role,
    run_options,
    setting_options,
    usual_options,
)
from tautools.cli.output import emit, emit_each, emit_files, pick, plain_table, simulated_mark
from tautools.errors import ParamsError
from tautools.params import find_params, load_all, resolve, shipped
from tautools.params.personas import PersonaParams, choose_level
from tautools.run.folder import SettingFolder, choose_folders, folder_at
from tautools.run.personas.comparison import PersonaCertificate, PersonaComparison, keep_certificate
from tautools.run.personas.comparison import compare as compare_group
from tautools.run.personas.measures import groups_of, keep_labels
from tautools.stats import PairedEffect

_MARKS = {True: Text("yes", "green"), False: Text("NO", "red"), None: Text("?", "yellow")}
_LARGE = 100
"""From here on figures are shown without decimals."""


def print_certificate(certificate: PersonaCertificate) -> None:
    """Print what one persona's records show."""
    console = Console(highlight=False)
    run = f"{certificate.env} {certificate.strategy}{_customer(certificate.user_strategy)} {certificate.persona}"
    title = f"{escape(run)}: {certificate.conversations} conversations, setting {certificate.setting_id}"
    console.print(f"\n[bold]{title}[/]{simulated_mark(simulated=certificate.simulated)}")  # a rule would cut the mark
    checks = plain_table(
        "", "", "", rows=((_MARKS[each.passed], each.name, each.detail) for each in certificate.checks)
    )
    checks.show_header = False
    console.print(checks)
    if (labels := certificate.labels) is not None:
        console.print(
            f"blind labels by {escape(labels.judge)}{simulated_mark(simulated=labels.simulated)}: {labels.right} of "
            f"{labels.conversations} right ({labels.right / labels.conversations:.2f}, exact 95 % interval "
            f"{labels.low:.2f} to {labels.high:.2f}; chance {labels.chance:.2f}, p = {labels.p:.2g})"
        )
    if not certificate.wording:
        console.print("wording: not known, control was not run on the same tasks yet (n = 0)")
        return
    lines = []
    for name, effect in certificate.wording.items():
        size = "" if effect.d is None else f"{effect.d:+.2f}"
        star = "*" if name in certificate.distinct else ""
        lines.append((f"{name}{star}", f"{effect.mean:+.2f}", _interval(effect, 2), size, effect.tasks))
    figures = ("mean", "95 % interval", "d", "tasks")
    console.print(plain_table("difference to control", *figures, rows=lines, right=figures))
    console.print(
        f"distinct from control in {len(certificate.distinct)} of {len(certificate.wording)} measures "
        "(*: the interval, widened for their number, leaves 0 out)",
        style="dim",
    )


_MEASURES = (("turns", "prompt tokens", "output tokens", "facts told"), ("apologies", "clarifications", "transfers"))
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

    def table(titles: Sequence[str], rows: Mapping[str, Sequence[object]]) -> None:
        lines = ((label, *row) for label, row in rows.items())
        console.print(plain_table("persona", *titles, rows=lines, right=titles))

    personas = comparison.personas
    most = max((len(each.pass_hat) for each in personas), default=0)
    ks = [1] if most < 2 else [1, most]
    scores, words = {}, {}
    for each in personas:
        passes = [f"{each.pass_hat[k - 1]:.3f}" if len(each.pass_hat) >= k else "n = 0" for k in ks]
        change = "" if each.difference is None else _change(each.difference, 3)
        verdict = _MARKS[each.certificate.passed] if each.certificate else ""
        scores[each.label] = [each.conversations, each.user_errors, *passes, change, verdict]
        if each.certificate:
            wording = each.certificate.wording
            own = next((name for name in wording if each.label.startswith(name.partition(" words")[0])), "")
            words[each.label] = [_figure(wording.get(name), None) for name in (*_WORDING.values(), own)]
    table(("n", "user errors", *(f"pass^{k}" for k in ks), "pass^1 - control", "certificate"), scores)
    for names in _MEASURES:  # control's means, and for each persona the difference to them
        figures = {
            each.label: [_figure(each.effects.get(name), each.means.get(name)) for name in names] for each in personas
        }
        table(names, figures)
    table((*_WORDING, "words of its persona"), words)
    if not comparison.has_control:
        console.print("[yellow]Control was not run: nothing to compare with. Run the same without --persona.[/]")
    console.print(
        "Differences are to control (whose own means are shown) on the same tasks and trials: means over tasks, below "
        "them 95 % intervals by drawing tasks. Wording: per message; capitals and the persona's words per 100 words.",
        style="dim",
    )


def _customer(user_strategy: str) -> str:
    return "" if user_strategy == "llm" else f" (customer by {user_strategy})"


def _figure(change: PairedEffect | None, mean: float | None) -> object:
    if change is not None:
        return _change(change, 0 if abs(change.mean) >= _LARGE else 2)
    return "" if mean is None else f"{mean:.{0 if abs(mean) >= _LARGE else 2}f}"


def _change(effect: PairedEffect, digits: int) -> Text:
    interval = _interval(effect, digits)
    return Text.assemble(f"{effect.mean:+.{digits}f}", (f"\n{interval}" if interval else "", "dim"))


def _interval(effect: PairedEffect, digits: int) -> str:
    if effect.low is None or effect.high is None:
        return ""
    return f"{effect.low:+.{digits}f} to {effect.high:+.{digits}f}"


@click.group(
    "persona",
    cls=VerbGroup,
    epilog=examples_text(
        "tautools persona list",
        "tautools persona show anger --level strong           the text as the customer's model gets it",
        "tautools run --env retail --model M --persona anger:strong --limit 20",
        "tautools persona check --env retail                  certificates, read from the records",
        "tautools persona compare --env retail --strategy fc",
        "tautools persona label --env retail --judge-server qwen3-32b   a judge labels the customers blind",
        notes="Exit codes of check: 0 all hold, 1 one does not, 3 one cannot be decided yet.",
    ),
)
def persona_command() -> None:
    """Personas of the simulated customer."""


@persona_command.command("list")
@usual_options
def persona_list(workspace: Path) -> None:
    """List the personas: the workspace's own and the shipped ones."""
    personas, broken = load_all(PersonaParams, workspace)
    rows: list[dict[str, Any]] = []
    lines = []
    for name, params in personas.items():
        file = find_params("personas", name, workspace)
        own = {"file": file, "shipped": file.is_relative_to(shipped("params"))}
        rows.append({"name": name, "levels": list(params.levels)} | pick(params, "default description") | own)
        levels = ", ".join(f"{level}*" if level == params.default else level for level in params.levels)
        mark = "" if own["shipped"] else "(your own) "
        lines.append((name, levels or "-", Text.assemble((mark, "dim"), params.description)))

    def show_table() -> None:
        Console(highlight=False).print(plain_table("persona", "intensities", "", rows=lines))
        click.secho("* when none is asked for; --persona NAME:INTENSITY asks for another", dim=True)

    emit_files(rows, broken, text=show_table)


@persona_command.command()
@click.argument("name", type=ParamsName("personas"))
@click.option("--level", default=None, help="The intensity.  [default: the persona's usual one]")
@usual_options
def show(name: str, level: str | None, workspace: Path) -> None:
    """Print what is appended to the customer's system prompt, word for word."""
    base, _, behind = name.partition(":")
    persona = choose_level(resolve(PersonaParams, base, workspace=workspace).params, level or behind or None)
    value = {"persona": persona.label, "intensity": persona.intensity, "sha256": persona.sha256, "text": persona.block}
    nothing = f"{persona.label} adds nothing: a run with it is the run without a persona."
    mark = click.style(f"sha256 {persona.sha256}", dim=True)
    text = "{}\n{}".format(persona.block.strip("\n"), mark) if persona.block else nothing
    emit(value, text=text)


def _persona_folders(
    folder: Path | None, workspace: Path, env: str | None, strategy: str | None, model: str | None, persona: str | None
) -> ChosenResults:
    """Return the settings with a persona that are meant; a model's name means all of its personas, a folder's one."""

    def fits(each: SettingFolder) -> bool:
        names = {each.setting.agent.model, each.id, each.path.name, each.path.name.partition("+")[0]}
        return persona in {None, each.setting.persona} and bool(folder or model is None or model in names)

    every = [folder_at(folder)] if folder else choose_folders(workspace, env=env, strategy=strategy)
    personas = [each for each in every if each.setting.persona and fits(each)]
    if personas:
        return ChosenResults(personas, workspace, narrowed=True)
    raise ParamsError(
        "No results of a persona fit.",
        evidence="\n".join(str(each.path) for each in every),
        next_step="Run one: `tautools run … --persona anger`; `tautools show` lists what there is.",
    )


persona_option = click.option("--persona", help="Only this persona, as its folder is named: anger, anger-strong.")
persona_results = gathered("chosen", _persona_folders, persona_option, setting_options)


@persona_command.command()
@persona_results
def check(chosen: ChosenResults) -> None:
    """Verify each persona's run from its records, and write its certificate next to the results."""
    certificates = [keep_certificate(chosen.workspace, folder) for folder in chosen.folders]
    emit_each(certificates, print_certificate)
    results = {certificate.passed for certificate in certificates}
    exit_if(results != {True}, EXIT_FAILED if False in results else EXIT_UNFINISHED)


@persona_command.command()
@persona_results
def compare(chosen: ChosenResults) -> None:
    """Compare personas with control: scores, length, tokens, the agent's manners, wording; paired by task and trial."""
    groups = groups_of(chosen.workspace, chosen.folders)
    emit_each([compare_group(group) for group in groups], print_comparison)


@persona_command.command()
@run_options("judge.")
@dry_run_option
@persona_results
def label(chosen: ChosenResults, *, dry_run: bool, **options: Any) -> None:
    """Ask a judge, blind, which persona each customer shows; the certificates then count it."""
    judge = None if dry_run else judge_role(options)
    rows: list[dict[str, Any]] = []
    lines = []
    for group in groups_of(chosen.workspace, chosen.folders):
        setting = group[0].folder.setting
        labelled = (
            keep_labels(group, judge, workspace=chosen.workspace) if judge else {each.label: None for each in group}
        )
        for persona, number in labelled.items():
            where = {"env": setting.env, "strategy": setting.strategy.value, "agent": setting.agent.model}
            rows.append({"persona": persona, "labelled": number, **where})
            done = "would be labelled" if number is None else f"{number} conversations labelled"
            lines.append(f"{setting.env} {setting.strategy.value} {persona}: {done}")
    if not dry_run:
        lines.append("Next: `tautools persona check` compares them with chance.")
    emit(rows, text="\n".join(lines))
