"""`tautools fidelity`: compare our conversation loop with tau-bench's own."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.commands import EXIT_FAILED, VerbCommand
from tautools.cli.options import json_option
from tautools.errors import BenchError
from tautools.records import Strategy, UserStrategy
from tautools.run.recorded import ReplayStatus
from tautools.stats import TaskCounts, largest_k, mean_over_tasks, pass_hat_k

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.progress import Progress, TaskID

    from tautools.bench.fidelity.check import FidelityRow
    from tautools.bench.fidelity.traces import Original
    from tautools.bench.sources.tau_bench import TauBench
    from tautools.run.recorded import ReplayedRow


_PASSED_FROM = 1 - 1e-6


def show_replay(found: Mapping[str, Sequence[ReplayedRow]], *, as_json: bool) -> None:
    """Print what became of each file's rows.

    Parameters
    ----------
    found : mapping of str to sequence of Rerun
        By file.
    as_json : bool
        For a program to read, row by row.
    """
    if as_json:
        click.echo(json.dumps({name: [asdict(each) for each in reruns] for name, reruns in found.items()}, indent=1))
        return
    for name, reruns in found.items():
        _show_file(name, reruns)


def _show_file(name: str, reruns: Sequence[ReplayedRow]) -> None:
    places = Counter(each.env for each in reruns if each.env)
    click.echo(click.style(name, bold=True))
    click.echo(f"  {len(reruns)} rows: {', '.join(f'{count} of {place}' for place, count in places.items())}")
    for status, count in Counter(each.status for each in reruns).items():
        ok = status not in {ReplayStatus.DIFFERENT, ReplayStatus.UNKNOWN_TASK}
        click.echo(f"  {count:>5}  {click.style(status.value, fg='green' if ok else 'red')}")
    others, told = sum(each.other_observations for each in reruns), sum(each.observations for each in reruns)
    first = next((each.detail for each in reruns if each.other_observations and each.detail), "")
    click.echo(
        f"  tool answers: {told} recorded, {others} read otherwise now" + (f"; the first: {first}" if first else "")
    )
    for word, reward in (("recorded", lambda each: each.recorded), ("replayed", lambda each: each.reward)):
        click.echo(f"  pass^k {word}: {_pass_k(reruns, reward)}")
    for each in reruns:
        if not each.explained:
            click.echo(f"  {click.style('DIFFERENT', fg='red', bold=True)} task {each.task_id}, trial {each.trial}: "
                       f"recorded {each.recorded:g}, now {each.reward:g}. {each.detail}")  # fmt: skip


def _pass_k(reruns: Sequence[ReplayedRow], reward: Callable[[ReplayedRow], float]) -> str:
    """Return pass^k up to the number of trials that every task has."""
    by_task: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for each in reruns:
        by_task[each.env, each.task_id].append(reward(each) >= _PASSED_FROM)
    counts = [TaskCounts(len(passed), sum(passed)) for passed in by_task.values()]
    return "  ".join(f"{k}: {mean_over_tasks(counts, k, pass_hat_k):.4f}" for k in range(1, largest_k(counts) + 1))


_SHOWN = 5
"""Differences that are printed in full."""


class ComparisonProgress:
    """A bar over all conversations, moved on by each part that is compared."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task
        self._before = 0

    def __call__(self, done: int) -> None:
        """Show how much of the row under way is done."""
        self._bar.update(self._task, completed=self._before + done)

    def finished(self, row: FidelityRow) -> None:
        """Show a row that is done; a terminal has the bar, everything else a line."""
        self._before += row.conversations
        self._bar.update(self._task, completed=self._before, description=row.name)
        if not self._bar.console.is_terminal:
            self._bar.console.print(f"{row.name}: {_result(row)}", highlight=False)


@contextlib.contextmanager
def comparison_progress(total: int, *, quiet: bool) -> Iterator[ComparisonProgress]:
    """Show a bar over all conversations while the block runs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, quiet=quiet)
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    bar = Progress(*columns, console=console, disable=quiet or not console.is_terminal)
    with bar:
        yield ComparisonProgress(bar, bar.add_task("comparing", total=total))


def show_comparison(rows: Sequence[FidelityRow], verdicts: Mapping[str, str], *, version: str, as_json: bool) -> None:
    """Print what was found.

    Parameters
    ----------
    rows : sequence of FidelityRow
        In order.
    verdicts : mapping of str to str
        By row, how it stands to the hashes that were kept: `same`, `differs`, or not at all.
    version : str
        Of the original's files.
    as_json : bool
        For a program to read.
    """
    if as_json:
        listed = [row.as_dict() | {"kept_hash": verdicts.get(row.name) or None} for row in rows]
        click.echo(json.dumps({"version": version, "rows": listed}, indent=1))
        return
    _print_table(rows, verdicts)
    _print_deviations(rows)
    _print_differences(rows)


def _print_table(rows: Sequence[FidelityRow], verdicts: Mapping[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("env/split", "agent", "user"):
        table.add_column(title, no_wrap=True)
    for title in ("talks", "requests", "rewards"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("hash", "result"):
        table.add_column(title, no_wrap=True)
    for row in rows:
        names = (f"{row.env}/{row.split}", row.approach.strategy.value, row.approach.user_strategy.value)
        counts = map(str, (row.conversations, row.requests, row.rewards))
        colour = "red" if row.differences else "green"
        table.add_row(*names, *counts, verdicts.get(row.name) or "-", f"[{colour}]{_result(row)}[/]")
    totals = (
        sum(row.conversations for row in rows),
        sum(row.requests for row in rows),
        sum(row.rewards for row in rows),
    )
    table.add_row("all", "", "", *map(str, totals))
    Console(highlight=False).print(table)


def _result(row: FidelityRow) -> str:
    return f"{len(row.differences)} differ" if row.differences else "equal"


def _print_deviations(rows: Sequence[FidelityRow]) -> None:
    from tautools.bench.fidelity.check import REASONS

    counted = sum((row.deviations for row in rows), Counter())
    oddities = sum((row.oddities for row in rows), Counter())
    click.echo(f"\nOdd answers that both sides got: {oddities.total()} of {len(oddities)} kinds.")
    click.echo("Intended deviations (docs/fidelity.md), and in how many conversations:")
    for kind, count in counted.most_common():
        click.echo(f"  {count:>6}  {kind.value}")
        click.echo(click.wrap_text(REASONS[kind], width=min(100, _width()), initial_indent=" " * 10,
                                   subsequent_indent=" " * 10))  # fmt: skip


def _print_differences(rows: Sequence[FidelityRow]) -> None:
    differences = [difference for row in rows for difference in row.differences]
    for difference in differences[:_SHOWN]:
        click.echo(f"\n{click.style('DIFFERENT', fg='red', bold=True)} {difference}")
    if len(differences) > _SHOWN:
        click.echo(f"\nand {len(differences) - _SHOWN} more; --json lists all.")


def _width() -> int:
    import shutil

    return shutil.get_terminal_size().columns


_STRATEGIES = [each.value for each in Strategy if each is not Strategy.EXPERTS]
_USERS = [each.value for each in UserStrategy if each is not UserStrategy.HUMAN]
"""What v1 has and a script can play."""

_FIDELITY_EPILOG = """\b
Examples:
  tautools fidelity --path ~/tau-bench --limit 5          a minute: five tasks of every env and split
  tautools fidelity --path ~/tau-bench --jobs 4           all of it
  tautools fidelity --path ~/tau-bench --env airline --strategy react --tasks 3,17
  tautools fidelity --path ~/tau-bench --write            write the hashes of the original's requests again
  tautools fidelity --path ~/tau-bench --replay historical_trajectories/gpt-4o-airline.json

\b
The original runs in a process of its own and needs pydantic there, not litellm. No model is asked.
Exit codes: 0 equal, 1 different, 2 bad input.
"""


@click.command("fidelity", cls=VerbCommand, epilog=_FIDELITY_EPILOG)
@click.option("--bench", default="tau-bench", show_default=True, help="The benchmark; only tau-bench (v1).")
@click.option("--path", help="Checkout of tau-bench.  [default: TAUTOOLS_TAU_BENCH_PATH, or where it is installed]")
@click.option("--env", "envs", multiple=True, help="Only this env; may be given several times.")
@click.option("--split", "splits", multiple=True, help="Only this split; may be given several times.")
@click.option("--strategy", type=click.Choice(_STRATEGIES), help="Only this strategy.")
@click.option("--user-strategy", type=click.Choice(_USERS),
              help="Only this user strategy.  [default: every agent with llm, every user with fc]")  # fmt: skip
@click.option("--tasks", help="Only these task ids, separated by commas.")
@click.option("--limit", type=click.IntRange(1), help="At most so many tasks of each split.")
@click.option("--variant", "variants", multiple=True, metavar="NAME",
              help="Scripts: solve, mixed, broken, or more such as 'mixed 2'.  [default: the three]")  # fmt: skip
@click.option("--on", "domain_path", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Play the tasks of another package of its shape; fixed texts count as equal.")  # fmt: skip
@click.option("--python", default=sys.executable, help="Interpreter of the original.  [default: this one]")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes of the original.")
@click.option("--hashes", type=click.Path(dir_okay=False, path_type=Path),
              help="File of kept hashes.  [default: the one that comes with tautools]")  # fmt: skip
@click.option("--replay", "files", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Replay a result file of tau-bench instead; may be given several times.")  # fmt: skip
@click.option("--write", is_flag=True, help="Write the hashes of the original's requests to that file.")
@json_option
def fidelity_command(**given: Any) -> None:
    """Compare our loop with tau-bench's own agents and users: every request, observation, end and reward.

    Both sides get the same scripted answers: a script that follows the reference of a task, one strewn with oddities,
    one at which the original raises. Intended deviations are counted by kind; docs/fidelity.md has the reasons. With
    --replay, the actions that tau-bench recorded are done again, and the rewards compared.
    """
    if given["files"]:
        return _replay(given)
    return _compare_with_original(given)


def _replay(given: Mapping[str, Any]) -> None:
    from tautools.run.recorded import replay_file

    source = _opened(given["path"])
    found = {str(path): replay_file(path, source) for path in given["files"]}
    show_replay(found, as_json=given["as_json"])
    if not all(each.explained for reruns in found.values() for each in reruns):
        raise SystemExit(EXIT_FAILED)


def _compare_with_original(given: Mapping[str, Any]) -> None:
    from tautools.bench.fidelity.hashes import SHIPPED_HASHES, HashFile

    if given["bench"] != "tau-bench":
        raise BenchError(
            f"This command compares with tau-bench (v1), not with {given['bench']}.",
            evidence="tau2 is compared with inspect's and with tau2-bench's own loops by tests.",
            next_step="docs/fidelity.md names them: `pytest tests/bench`, a checkout in TAUTOOLS_TAU2_BENCH_PATH.",
        )
    checkout = _opened(given["path"])
    single = given["domain_path"] is not None  # hashes of single conversations are of any scripts
    whole = not (given["tasks"] or given["limit"] or (given["variants"] and not single))
    if given["write"] and not whole:
        raise BenchError(
            "Hashes are kept of whole splits only.",
            next_step="Leave out --tasks, --limit and --variant; --env, --split and --strategy may stay.",
        )
    hash_file = HashFile.read(given["hashes"] or SHIPPED_HASHES)
    version = f"files-{checkout.checkout.digest[:12]}"
    rows = _compare(_original(checkout, given), given)
    current = whole and hash_file.is_for(version)
    verdicts = {row.name: hash_file.verdict(row.name, row.hashes) for row in rows} if current else {}
    if given["write"]:
        hash_file.write(version, {row.name: row.hashes for row in rows}, _regenerates(given), single=single)
    show_comparison(rows, {} if given["write"] else verdicts, version=version, as_json=given["as_json"])
    if any(row.differences for row in rows) or (not given["write"] and "differs" in verdicts.values()):
        raise SystemExit(EXIT_FAILED)


def _opened(path: str | None) -> TauBench:
    from tautools.bench import open_source
    from tautools.bench.sources.tau_bench import TauBench

    source = open_source("tau-bench", path=path)
    assert isinstance(source, TauBench)  # noqa: S101 - what the name stands for
    return source


def _original(checkout: TauBench, given: Mapping[str, Any]) -> Original:
    from tautools.bench.fidelity.traces import Original

    return Original(checkout.checkout.root, given["domain_path"], given["python"], given["jobs"])


def _compare(original: Original, given: Mapping[str, Any]) -> list[FidelityRow]:
    """Compare everything that was asked for; bad names end it before anything starts."""
    from tautools.bench.fidelity.check import check_fidelity, plan_checks
    from tautools.bench.fidelity.scripts import VARIANTS
    from tautools.params.models import TaskParams

    ids = [each.strip() for each in given["tasks"].split(",") if each.strip()] if given["tasks"] else None
    checks = plan_checks(
        _opened(str(original.domain_path or original.path)),
        TaskParams(ids=ids, limit=given["limit"]),
        **{name: given[name] for name in ("envs", "splits", "strategy", "user_strategy")},
    )
    variants = given["variants"] or VARIANTS
    rows = []
    with comparison_progress(sum(len(tasks) for *_, tasks in checks) * len(variants), quiet=given["as_json"]) as bar:
        for domain, approach, tasks in checks:
            row = check_fidelity(original, domain, approach, tasks=tasks, variants=variants, on_progress=bar)
            rows.append(row)
            bar.finished(row)
    return rows


def _regenerates(given: Mapping[str, Any]) -> str:
    """Return the command that makes a file of hashes, as anybody can type it."""
    words = [f"--on {given['domain_path']}"] if given["domain_path"] else []
    words += [f"--hashes {given['hashes']}"] if given["hashes"] else []
    words += [f"--variant {shlex.quote(each)}" for each in given["variants"]]
    return " ".join(["tautools fidelity --path CHECKOUT --write", *words])
