"""Executes one report notebook through papermill, with a kernel whose sockets only its owner can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["execute"]

TIMEOUT_S = 1800
"""Longest time that one cell may take; a bound also wakes a kernel client that missed a reply."""


def execute(notebook: Path, out: Path, *, parameters: Mapping[str, str], folder: Path) -> None:
    """Execute `notebook` in `folder` and keep it, with its results, as `out`.

    Parameters
    ----------
    notebook : Path
        The notebook; it is only read.
    out : Path
        Where the executed one goes.
    parameters : mapping of str to str
        Values for the names in its cell tagged `parameters`.
    folder : Path
        Working folder of its kernel.

    Raises
    ------
    RunError
        When a cell fails, the kernel dies or a cell takes longer than half an hour.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    try:
        papermill.execute_notebook(
            str(notebook),
            str(out).replace("{", "{{").replace("}", "}}"),  # papermill reads braces in a path as parameters
            parameters=dict(parameters),
            kernel_name="python3",
            config=Config({"KernelManager": {"transport_encryption": "required"}}),
            cwd=str(folder.resolve()),
            progress_bar=False,
            log_output=False,
            start_timeout=180,
            execution_timeout=TIMEOUT_S,
            coalesce_streams=True,
            store_widget_state=False,
        )
    except PapermillExecutionError as error:
        raise _failed(notebook, out, f"{error.ename}: {error.evalue}") from error
    except (CellTimeoutError, DeadKernelError) as error:
        raise _failed(notebook, out, str(error)) from error


def _failed(notebook: Path, out: Path, evidence: str) -> RunError:
    return RunError(
        f"{notebook.name} did not run to its end.",
        evidence=evidence,
        next_step=f"Open {out} to see the cell that failed.",
    )
