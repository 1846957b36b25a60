"""Expand a sweep file into its cells, slowest axis first, with indices that never change.

The order is env, strategy, agent, persona, num_trials. Index and name of a cell depend on the sweep file alone, so
several people can share one sweep by index.
"""

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tautools.errors import ParamsError
from tautools.params import load_sweep
from tautools.params.models import RoleParams, RunParams, SharedRunParams, SweepParams, split_ids
from tautools.run import model_slug

_INDICES = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


@dataclass(frozen=True, slots=True)
class SweepCell:
    """One row of a sweep."""

    index: int
    """Its place in the sweep, from 0."""
    run: RunParams
    name: str
    """`<index>_<env>_<strategy>_<model slug>[+<persona>]_<num_trials>`: the name of its executed notebook."""

    @property
    def pool(self) -> str:
        """What cells have in common that are views on one pool of trials: everything but `num_trials`."""
        return self.run.model_copy(update={"num_trials": 1}).model_dump_json()

    def as_dict(self) -> dict[str, Any]:
        """Return which cell it is, as JSON can hold it."""
        run = self.run
        names = {"index": self.index, "name": self.name, "env": run.env}
        return names | {"strategy": run.strategy.value, "num_trials": run.num_trials}

    def __str__(self) -> str:
        run = self.run
        who = f"{agent_name(run.agent)}{f' +{run.persona}' if run.persona else ''}"
        return f"cell {self.index}: {run.env} {run.strategy.value} {who}, {run.num_trials} trials"


def expand(sweep: SweepParams) -> list[SweepCell]:
    """Return the cells of a sweep in the order of their indices.

    Parameters
    ----------
    sweep : SweepParams
        The sweep. With `share_trials: false` each number of trials gets a seed of its own, so that cells which differ
        only in it have no conversation in common.
    """
    grid = sweep.grid
    shared = {name: getattr(sweep, name) for name in SharedRunParams.model_fields if name != "seed"}
    personas: list[str | None] = [*grid.persona] or [None]
    axes = itertools.product(grid.env, grid.strategy, grid.agent, personas, grid.num_trials)
    cells = []
    for index, (env, strategy, agent, persona, num_trials) in enumerate(axes):
        run = RunParams(
            **shared,
            env=env,
            strategy=strategy,
            agent=agent,
            persona=persona,
            num_trials=num_trials,
            seed=sweep.seed if sweep.share_trials else _own_seed(sweep.seed, num_trials),
        )
        who = f"{model_slug(agent_name(agent))}{f'+{_file_name(persona)}' if persona else ''}"
        name = f"{index}_{_file_name(env)}_{strategy.value}_{who}_{num_trials}"
        cells.append(SweepCell(index, run, name))
    return cells


def select_cells(cells: Sequence[SweepCell], only: Sequence[int] | None) -> list[SweepCell]:
    """Return the cells with the given indices, or all of them for None; `ParamsError` for one that is not there."""
    wanted = {cell.index for cell in cells} if only is None else set(only)
    if unknown := sorted(wanted - {cell.index for cell in cells}):
        raise ParamsError(
            f"The sweep has no cell {', '.join(str(index) for index in unknown)}.",
            evidence=f"It has {len(cells)} cells: 0 to {len(cells) - 1}.",
            next_step="`tautools sweep status NAME` lists the cells with their indices.",
        )
    return [cell for cell in cells if cell.index in wanted]


def open_cell(sweep: str, index: int, *, workspace: Path, limit: int = 0) -> SweepCell:
    """Return one cell of a sweep file.

    Parameters
    ----------
    sweep : str
        The file's name or path.
    index : int
        Which cell.
    workspace : Path
        Whose sweep files are found first.
    limit : int
        The most tasks; 0 leaves it to the sweep.

    Raises
    ------
    ParamsError
        When there is no such sweep or cell.
    """
    overrides = [f"tasks.limit={limit}"] if limit else []
    return select_cells(expand(load_sweep(sweep, workspace=workspace, overrides=overrides)), [index])[0]


def parse_indices(text: str) -> list[int]:
    """Read indices as Slurm writes them: `0-3,7` is 0, 1, 2, 3 and 7.

    Parameters
    ----------
    text : str
        What a person wrote.

    Raises
    ------
    ParamsError
        When the text is not of that form.
    """
    written = text.replace(" ", "")
    try:
        if not _INDICES.fullmatch(written):
            raise ValueError(written)
        return sorted(map(int, split_ids([written])))
    except ValueError as error:
        raise ParamsError(
            f"`{text}` does not name cells.", next_step="Write indices and ranges, such as 7 or 0-3,7."
        ) from error


def runs_folder(workspace: Path, sweep: str) -> Path:
    """Return where a sweep's executed notebooks are, or will be."""
    return workspace / "runs" / sweep


def agent_name(role: RoleParams) -> str:
    """Return the name of a role's model as far as it is known without asking a server."""
    return role.model or role.server or "model"


def _own_seed(seed: int, num_trials: int) -> int:
    digest = hashlib.sha256(f"{seed}/{num_trials}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)
