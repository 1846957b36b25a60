"""The notebook that is executed for each cell: check its parameters and start it in a process of its own.

papermill only warns of a parameter that the notebook does not have, and takes a value of any type; the run would then
go on with the notebook's own default. So names and types are checked here, before anything is started.
"""

import ast
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from tautools.errors import SweepError
from tautools.files import ensure_folder, write_atomic
from tautools.imports import without_iri_grammar
from tautools.params import shipped
from tautools.params.models import SweepParams
from tautools.shell import Process, start_detached, this_process
from tautools.sweep.cells import runs_folder
from tautools.sweep.plan import PlannedCell

UNLIMITED_CONVERSATION_S = 3600
"""Assumed longest time of a conversation that has no time limit of its own [s]."""

HANG_MARGIN_S = 3600
"""Added to the longest time of a cell's conversations; a notebook that takes longer hangs [s]."""

_PYTHON_TYPES = {"str": str, "int": int, "bool": bool, "float": float, "list": list, "dict": dict}

ParameterValue = str | int | float | bool


def run_cell_notebook() -> Path:
    """Return the path of the notebook that runs one cell."""
    return shipped("notebooks") / "run_cell.ipynb"


def parameters_of(notebook: Path) -> dict[str, str]:
    """Return the parameters a notebook declares: name to annotation, from the cell tagged `parameters`."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
        body = ast.parse("".join(tagged[0]["source"])).body
    except (OSError, ValueError, KeyError, IndexError, SyntaxError) as error:
        raise SweepError(
            f"{notebook} cannot be used to run a cell.",
            evidence=f"{type(error).__name__}: {error}",
            next_step="Give it a cell tagged `parameters`, as the shipped run_cell.ipynb has.",
        ) from error
    annotated = (node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name))
    return {node.target.id: ast.unparse(node.annotation) for node in annotated if isinstance(node.target, ast.Name)}


def check_parameters(notebook: Path, values: Mapping[str, ParameterValue]) -> None:
    """Raise `SweepError` for a value that the notebook has no parameter for, or of another type than it declares."""
    declared = parameters_of(notebook)
    for name, value in values.items():
        if name not in declared:
            raise SweepError(
                f"{notebook.name} has no parameter `{name}`.",
                evidence=f"It has: {', '.join(declared) or 'none with a type'}.",
                next_step="Add it to the cell tagged `parameters`, with a type and a default.",
            )
        wanted = _PYTHON_TYPES.get(declared[name])
        if wanted is not None and type(value) is not wanted:
            raise SweepError(
                f"Parameter `{name}` of {notebook.name} is {declared[name]}, and was given {value!r}.",
                next_step="Correct the annotation in the cell tagged `parameters`.",
            )


def execute_notebook(
    notebook: Path, out: Path, parameters: Mapping[str, Any], *, timeout_s: int, **options: Any
) -> str:
    """Execute a notebook through papermill and keep it, with its results, as `out`.

    `options` are papermill's own; `timeout_s` is the longest time of one cell, which also wakes a kernel client that
    missed a reply. Returns why the notebook did not run to its end; empty when it did.
    """
    with without_iri_grammar():
        import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        papermill.execute_notebook(
            str(notebook),
            str(out).replace("{", "{{").replace("}", "}}"),  # papermill reads braces in a path as parameters
            parameters=dict(parameters),
            progress_bar=False,
            log_output=False,
            start_timeout=180,
            execution_timeout=timeout_s,
            coalesce_streams=True,
            store_widget_state=False,
            **options,
        )
    except PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    except CellTimeoutError:
        return f"A cell of the notebook did not end within {timeout_s} s."
    except DeadKernelError:
        return "The kernel died; the machine may have run out of memory."
    return ""


class NotebookJob(BaseModel):
    """What a process that executes one notebook is told, as JSON: `python -m tautools.sweep.execute JSON`."""

    notebook: Path
    out: Path
    """Where the executed notebook goes."""
    attempt: Path
    """Where the attempt is recorded."""
    parameters: dict[str, Any]
    timeout_s: int
    """The longest time of one cell [s]."""
    log: str = ""
    """Where standard output goes, for the record."""
    owner: Process | None = None
    """The process whose end stops it."""


class NotebookLauncher:
    """Starts the notebooks of one sweep, which is written next to them with its overrides; they read it from there."""

    def __init__(self, sweep: SweepParams, *, workspace: Path, notebook: Path) -> None:
        self._sweep = sweep
        self._workspace = workspace
        self._notebook = notebook
        self._folder = runs_folder(workspace, sweep.name)
        check_parameters(notebook, self._parameters(0, Path("sweep.yaml")))
        # The hash in its name keeps runs of the sweep with other overrides apart.
        text = yaml.safe_dump(sweep.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)
        self._file = ensure_folder(self._folder) / f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:8]}.yaml"
        write_atomic(self._file, text)
        self._job = f"{sweep.name}_{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"

    def attempt_path(self, cell: PlannedCell) -> Path:
        """Return where a cell's attempt is recorded."""
        return self._folder / f"{cell.name}.json"

    def start(self, cell: PlannedCell, on_exit: Callable[[int], None]) -> Process:
        """Start a cell's notebook and return at once; `on_exit` receives its exit status, in another thread."""
        out = ensure_folder(self._workspace / "logs") / f"{self._job}_{cell.index}.out"
        err = ensure_folder(self._workspace / "errors") / f"{self._job}_{cell.index}.err"
        longest_s = cell.run.limits.time_s or UNLIMITED_CONVERSATION_S
        job = NotebookJob(
            notebook=self._notebook,
            out=self._folder / f"{cell.name}.ipynb",
            attempt=self.attempt_path(cell),
            log=str(out),
            parameters=self._parameters(cell.index, self._file),
            timeout_s=math.ceil(cell.planned / self._sweep.concurrency * longest_s) + HANG_MARGIN_S,
            owner=this_process(),
        )
        argv = [sys.executable, "-m", "tautools.sweep.execute", job.model_dump_json()]
        environment = {
            **os.environ,
            # litellm asks the network for prices when it is imported, unless this is set.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            # A kernel spec in the home folder may name another Python than the one that runs here.
            "JUPYTER_PREFER_ENV_PATH": "1",
            "PYTHONUNBUFFERED": "1",
        }
        return start_detached(argv, env=environment, cwd=Path.cwd(), stdout=out, stderr=err, on_exit=on_exit)

    def _parameters(self, index: int, sweep_file: Path) -> dict[str, ParameterValue]:
        return {
            "sweep": str(sweep_file),
            "cell": index,
            "workspace": str(self._workspace),
            "limit": 0,
            # The sweep keeps the servers running; a notebook of it must not start a second one of the same name.
            "start_servers": False,
        }
