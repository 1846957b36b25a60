"""`tautools fidelity`: compare our conversation loop with tau-bench's own."""

import shlex
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from tautools.bench import open_source
from tautools.bench.fidelity.check import REASONS, SHIPPED_HASHES, FidelityRow, HashFile, check_fidelity, plan_checks
from tautools.bench.fidelity.scripts import VARIANTS
from tautools.bench.fidelity.traces import Original
from tautools.bench.sources.tau_bench import TauBench
from tautools.cli.commands import ListOption, command, exit_if
from tautools.cli.options import json_option
from tautools.cli.output import emit, plain_table, print_wide, progress_bars
from tautools.errors import BenchError
from tautools.params.models import TaskParams
from tautools.records import Strategy, UserStrategy
from tautools.run.replays import ReplayedRow, replay_file
from tautools.stats import TaskCounts, largest_k, mean_over_tasks, pass_hat_k

_DIFFERENT = click.style("DIFFERENT", fg="red", bold=True)
_PASSED_FROM = 1 - 1e-6
_SHOWN = 5
"""Differences that are printed in full."""

_STRATEGIES = [each.value for each in Strategy if each is not Strategy.EXPERTS]
_USERS = [each.value for each in UserStrategy if each is not UserStrategy.HUMAN]
"""What v1 has and a script can play."""


@command(
    "tautools fidelity --path ~/tau-bench --limit 5          a minute: five tasks of every env and split",
    "tautools fidelity --path ~/tau-bench --jobs 4           all of it",
    "tautools fidelity --path ~/tau-bench --env airline --strategy react --task-ids 3,17",
    "tautools fidelity --path ~/tau-bench --write            write the hashes of the original's requests again",
    "tautools fidelity --path ~/tau-bench --replay historical_trajectories/gpt-4o-airline.json",
    name="fidelity",
    notes="The original runs in a process of its own and needs pydantic there, not litellm. No model is asked.\n"
    "Exit codes: 0 equal, 1 different, 2 bad input.",
)
@click.option("--bench", default="tau-bench", show_default=True, help="The benchmark; only tau-bench (v1).")
@click.option("--path", help="Checkout of tau-bench.  [default: TAUTOOLS_TAU_BENCH_PATH, or where it is installed]")
@click.option("--env", "envs", multiple=True, help="Only this env; may be given several times.")
@click.option("--split", "splits", multiple=True, help="Only this split; may be given several times.")
@click.option("--strategy", type=click.Choice(_STRATEGIES), help="Only this strategy.")
@click.option("--user-strategy", type=click.Choice(_USERS),
              help="Only this user strategy.  [default: every agent with llm, every user with fc]")  # fmt: skip
@click.option("--task-ids", cls=ListOption, help="Only these tasks, such as 0-3,7.")
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
        source = _opened(given["path"])
        replays = {str(path): replay_file(path, source) for path in given["files"]}
        emit(replays, text=lambda: _show_replays(replays))
        explained = all(row.explained for rows in replays.values() for row in rows)
    else:
        explained = _compare_with_original(given)
    exit_if(not explained)


def _show_replays(replays: Mapping[str, Sequence[ReplayedRow]]) -> None:
    """Print what became of each file's rows."""
    for name, rows in replays.items():
        envs = Counter(row.env for row in rows if row.env)
        click.secho(name, bold=True)
        click.echo(f"  {len(rows)} rows: {', '.join(f'{count} of {env}' for env, count in envs.items())}")
        for (status, explained), count in Counter((row.status, row.explained) for row in rows).items():
            click.echo(f"  {count:>5}  {click.style(status.value, fg='green' if explained else 'red')}")
        recorded, others = sum(row.observations for row in rows), sum(row.other_observations for row in rows)
        first = next((f"; the first: {row.detail}" for row in rows if row.other_observations and row.detail), "")
        click.echo(f"  tool answers: {recorded} recorded, {others} different now{first}")
        click.echo(f"  pass^k recorded: {_pass_k(rows, lambda row: row.recorded)}")
        click.echo(f"  pass^k replayed: {_pass_k(rows, lambda row: row.reward)}")
        for row in rows:
            if not row.explained:
                rewards = f"recorded {row.recorded:g}, now {row.reward:g}"
                click.echo(f"  {_DIFFERENT} task {row.task_id}, trial {row.trial}: {rewards}. {row.detail}")


def _pass_k(rows: Sequence[ReplayedRow], reward: Callable[[ReplayedRow], float]) -> str:
    """Return pass^k up to the number of trials that every task has."""
    by_task: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in rows:
        by_task[row.env, row.task_id].append(reward(row) >= _PASSED_FROM)
    counts = [TaskCounts(len(passed), sum(passed)) for passed in by_task.values()]
    return "  ".join(f"{k}: {mean_over_tasks(counts, k, pass_hat_k):.4f}" for k in range(1, largest_k(counts) + 1))


def _compare_with_original(given: Mapping[str, Any]) -> bool:
    """Compare, print, keep or check the hashes, and say whether both sides are equal."""
    if given["bench"] != "tau-bench":
        raise BenchError(
            f"This command compares with tau-bench (v1), not with {given['bench']}.",
            evidence="tau2 is compared with inspect's and with tau2-bench's own loops by tests.",
            next_step="docs/fidelity.md names them: `pytest tests/bench`, a checkout in TAUTOOLS_TAU2_BENCH_PATH.",
        )
    checkout = _opened(given["path"])
    single = given["domain_path"] is not None  # hashes of single conversations are of any scripts
    whole = not (given["task_ids"] or given["limit"] or (given["variants"] and not single))
    if given["write"] and not whole:
        raise BenchError(
            "Hashes are kept of whole splits only.",
            next_step="Leave out --task-ids, --limit and --variant; --env, --split and --strategy may stay.",
        )
    hash_file = HashFile.read(given["hashes"] or SHIPPED_HASHES)
    version = f"files-{checkout.checkout.digest[:12]}"
    rows = _compare(checkout, given)
    verdicts: dict[str, str] = {}
    if given["write"]:
        hash_file.write(version, {row.name: row.as_kept(single=single) for row in rows}, _regenerates(given))
    elif whole and hash_file.is_for(version):
        verdicts = {row.name: hash_file.verdict(row.name, row.sha256) for row in rows}
    listed = [row.as_dict() | {"kept_hash": verdicts.get(row.name) or None} for row in rows]
    value = {"version": version, "rows": listed}
    emit(value, text=lambda: _show_comparison(rows, verdicts))
    return not (any(row.differences for row in rows) or "differs" in verdicts.values())


def _opened(path: str | None) -> TauBench:
    source = open_source("tau-bench", path=path)
    assert isinstance(source, TauBench)  # noqa: S101 - what the name stands for
    return source


def _compare(checkout: TauBench, given: Mapping[str, Any]) -> list[FidelityRow]:
    """Compare everything that was asked for; bad names end it before anything starts."""
    original = Original(checkout.checkout.root, given["domain_path"], given["python"], given["jobs"])
    checks = plan_checks(
        _opened(str(original.domain_path or original.path)),
        TaskParams(ids=given["task_ids"], limit=given["limit"]),
        **{name: given[name] for name in ("envs", "splits", "strategy", "user_strategy")},
    )
    variants = given["variants"] or VARIANTS
    rows: list[FidelityRow] = []
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with progress_bars(*columns) as bar:
        task = bar.add_task("comparing", total=sum(len(tasks) for *_, tasks in checks) * len(variants))

        def show(done: int) -> None:
            bar.update(task, completed=done + sum(row.conversations for row in rows))

        for domain, approach, tasks in checks:
            row = check_fidelity(original, domain, approach, tasks=tasks, variants=variants, on_progress=show)
            rows.append(row)
            show(0)
            bar.update(task, description=row.name)
            if not bar.console.is_terminal:
                bar.console.print(f"{row.name}: {_result(row)}")
    return rows


def _show_comparison(rows: Sequence[FidelityRow], verdicts: Mapping[str, str]) -> None:
    """Print the table, the deviations by kind, and where the two sides part."""
    lines: list[tuple[object, ...]] = []
    for row in rows:
        names = (f"{row.env}/{row.split}", row.approach.strategy.value, row.approach.user_strategy.value)
        result = Text(_result(row), "red" if row.differences else "green")
        counts = (row.conversations, row.requests, row.rewards)
        lines.append((*names, *counts, verdicts.get(row.name) or "-", result))
    totals = zip(*((row.conversations, row.requests, row.rewards) for row in rows), strict=True)
    lines.append(("all", "", "", *map(sum, totals)))
    numbers = ("talks", "requests", "rewards")
    print_wide(plain_table("env/split", "agent", "user", *numbers, "hash", "result", rows=lines, right=numbers))
    deviations = sum((row.deviations for row in rows), Counter())
    oddities = sum((row.oddities for row in rows), Counter())
    click.echo(f"\nOdd answers that both sides got: {oddities.total()} of {len(oddities)} kinds.")
    click.echo("Intended deviations (docs/fidelity.md), and in how many conversations:")
    width, indent = min(100, shutil.get_terminal_size().columns), " " * 10
    for kind, count in deviations.most_common():
        click.echo(f"  {count:>6}  {kind.value}")
        click.echo(click.wrap_text(REASONS[kind], width=width, initial_indent=indent, subsequent_indent=indent))
    differences = [difference for row in rows for difference in row.differences]
    for difference in differences[:_SHOWN]:
        click.echo(f"\n{_DIFFERENT} {difference}")
    if len(differences) > _SHOWN:
        click.echo(f"\nand {len(differences) - _SHOWN} more; --json lists all.")


def _result(row: FidelityRow) -> str:
    return f"{len(row.differences)} differ" if row.differences else "equal"


def _regenerates(given: Mapping[str, Any]) -> str:
    """Return the command that makes a file of hashes, as anybody can type it."""
    words = [f"--on {given['domain_path']}"] if given["domain_path"] else []
    words += [f"--hashes {given['hashes']}"] if given["hashes"] else []
    words += [f"--variant {shlex.quote(each)}" for each in given["variants"]]
    return " ".join(["tautools fidelity --path CHECKOUT --write", *words])
