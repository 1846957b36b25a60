"""`tautools fidelity`: our loop beside tau-bench's own agents, users and rewards."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.errors import EXIT_FAILED, guard
from tautools.cli.options import json_option
from tautools.errors import BenchError
from tautools.records import Strategy, UserStrategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tautools.bench.fidelity import Original, Row
    from tautools.bench.sources.tau_bench import TauBench
    from tautools.bench.types import Approach, Domain, Task

__all__ = ["command"]

_STRATEGIES = [each.value for each in Strategy if each is not Strategy.EXPERTS]
_USERS = [each.value for each in UserStrategy if each is not UserStrategy.HUMAN]
"""What v1 has and a script can play."""

_EPILOG = """\b
Examples:
  tautools fidelity --path ~/tau-bench --limit 5          a minute: five tasks of every env and split
  tautools fidelity --path ~/tau-bench --jobs 4           all of it
  tautools fidelity --path ~/tau-bench --env airline --strategy react --tasks 3,17
  tautools fidelity --path ~/tau-bench --write            keep the hashes of the original's requests anew
  tautools fidelity --path ~/tau-bench --replay historical_trajectories/gpt-4o-airline.json

\b
The original runs in a process of its own and needs pydantic there, not litellm. No model is asked.
Exit codes: 0 equal, 1 different, 2 bad input.
"""


@click.command("fidelity", epilog=_EPILOG)
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
@click.option("--truth", type=click.Path(dir_okay=False, path_type=Path),
              help="File of kept hashes.  [default: the one that comes with tautools]")  # fmt: skip
@click.option("--replay", "files", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Replay a result file of tau-bench instead; may be given several times.")  # fmt: skip
@click.option("--write", is_flag=True, help="Write the hashes of the original's requests to that file.")
@json_option
@guard
def command(**given: Any) -> None:
    """Compare our loop with tau-bench's own agents and users: every request, observation, end and reward.

    Both sides hear the same scripted answers: one that follows the reference of a task, one strewn with oddities, one
    that the original does not live through. Intended deviations are counted by kind; docs/fidelity.md has the reasons.
    With --replay, the actions that tau-bench recorded are done again, and the rewards compared.
    """
    if given["files"]:
        return _replay(given)
    return _check(given)


def _replay(given: Mapping[str, Any]) -> None:
    from tautools.cli.fidelity_replay import show_replay
    from tautools.run.recorded import replay_file

    source = _opened(given["path"])
    found = {str(path): replay_file(path, source) for path in given["files"]}
    show_replay(found, as_json=given["as_json"])
    if not all(each.explained for reruns in found.values() for each in reruns):
        raise SystemExit(EXIT_FAILED)


def _check(given: Mapping[str, Any]) -> None:
    from tautools.bench.fidelity import SHIPPED, Truth
    from tautools.cli.fidelity_table import show

    if given["bench"] != "tau-bench":
        raise BenchError(
            f"This command compares with tau-bench (v1), not with {given['bench']}.",
            evidence="tau2 is held to inspect's and to tau2-bench's own loops by tests.",
            next_step="docs/fidelity.md names them: `pytest tests/bench`, a checkout in TAUTOOLS_TAU2_BENCH_PATH.",
        )
    checkout = _opened(given["path"])
    each = given["domain_path"] is not None  # hashes of single conversations speak of any scripts
    whole = not (given["tasks"] or given["limit"] or (given["variants"] and not each))
    if given["write"] and not whole:
        raise BenchError(
            "Hashes are kept of whole splits only.",
            next_step="Leave out --tasks, --limit and --variant; --env, --split and --strategy may stay.",
        )
    truth = Truth.read(given["truth"] or SHIPPED)
    version = f"files-{checkout.checkout.digest[:12]}"
    rows = _compare(_original(checkout, given), given)
    verdicts = {row.name: truth.verdict(row.name, row.kept) for row in rows if whole and truth.speaks_of(version)}
    if given["write"]:
        truth.write(version, [(row.name, row.kept) for row in rows], _regenerates(given), each=each)
    show(rows, {} if given["write"] else verdicts, version=version, as_json=given["as_json"])
    if any(row.differences for row in rows) or (not given["write"] and "differs" in verdicts.values()):
        raise SystemExit(EXIT_FAILED)


def _opened(path: str | None) -> TauBench:
    from tautools.bench import open_source
    from tautools.bench.sources.tau_bench import TauBench

    source = open_source("tau-bench", path=path)
    assert isinstance(source, TauBench)  # noqa: S101 - what the name stands for
    return source


def _original(checkout: TauBench, given: Mapping[str, Any]) -> Original:
    from tautools.bench.fidelity import Original

    return Original(checkout.checkout.root, given["domain_path"], given["python"], given["jobs"])


def _compare(original: Original, given: Mapping[str, Any]) -> list[Row]:
    """Compare everything that was asked for; bad names are told before anything starts."""
    from tautools.bench.fidelity import VARIANTS, check
    from tautools.cli.fidelity_table import progress

    planned = _planned(_opened(str(original.domain_path or original.path)), given)
    variants = given["variants"] or VARIANTS
    total = sum(len(tasks) for _, _, tasks in planned) * len(variants)
    rows = []
    with progress(total, quiet=given["as_json"]) as tell:
        for domain, approach, tasks in planned:
            row = check(original, domain, approach, tasks=tasks, variants=variants, on_progress=tell)
            rows.append(row)
            tell.finished(row)
    return rows


def _planned(source: TauBench, given: Mapping[str, Any]) -> list[tuple[Domain, Approach, list[Task]]]:
    from tautools.bench import check_approach, select_tasks
    from tautools.params.models import TaskParams

    ids = [each.strip() for each in given["tasks"].split(",") if each.strip()] if given["tasks"] else None
    wanted = TaskParams(ids=ids, limit=given["limit"])
    having = [env for env in source.envs() if set(given["splits"]) <= set(source.splits(env))]
    domains = [
        source.domain(env, split)
        for env in given["envs"] or having or source.envs()
        for split in given["splits"] or source.splits(env)
    ]
    approaches = _approaches(given["strategy"], given["user_strategy"])
    for domain in domains:
        for approach in approaches:
            check_approach(domain, approach)
    return [(domain, approach, select_tasks(domain, wanted)) for domain in domains for approach in approaches]


def _approaches(strategy: str | None, user_strategy: str | None) -> list[Approach]:
    from tautools.bench.fidelity import APPROACHES
    from tautools.bench.types import Approach

    if strategy and user_strategy:
        return [Approach(Strategy(strategy), UserStrategy(user_strategy))]
    found = [each for each in APPROACHES if strategy in {None, each.strategy}]
    return [each for each in found if user_strategy in {None, each.user_strategy}] or [
        Approach(Strategy(strategy or "fc"))
    ]


def _regenerates(given: Mapping[str, Any]) -> str:
    """Return the command that makes a file of hashes, as anybody can type it."""
    words = [f"--on {given['domain_path']}"] if given["domain_path"] else []
    words += [f"--truth {given['truth']}"] if given["truth"] else []
    words += [f"--variant {shlex.quote(each)}" for each in given["variants"]]
    return " ".join(["tautools fidelity --path CHECKOUT --write", *words])
