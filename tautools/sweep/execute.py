"""One notebook, executed by papermill in a process of its own: `python -m tautools.sweep.execute JSON`.

A SIGTERM to plain papermill skips all clean-up and leaves the kernel's children behind. Here SIGTERM, SIGINT and SIGHUP
become SIGINT *of the kernel*: the cell that runs ends in good order, the notebook is saved and says so, and the exit
status is 143. The same happens when the process that asked for the notebook is gone.

Exit status: 0 the notebook ran to its end, 1 a cell of it failed, 2 it could not be begun, 143 it was asked to stop.
What is finished is in the ledger whatever the status is.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from tautools.errors import TautoolsError
from tautools.imports import without_iri_grammar
from tautools.redaction import redacted
from tautools.shell import Process, process_alive, this_process
from tautools.sweep.notebook import NotebookJob, check_parameters, execute_notebook
from tautools.sweep.status import STOPPED, CellAttempt, write_note

_log = logging.getLogger(__name__)


class _AskedToStop(BaseException):
    """Raised where no cell runs, so there is nothing to interrupt."""


class _KernelInterrupter:
    """Takes over the signals that ask a process to end: the first becomes one SIGINT of the kernel."""

    def __init__(self, kernel_manager: Any) -> None:
        self.asked = False
        self._kernels = kernel_manager
        self._in_cell = False
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(name, self._on_signal)

    def on_cell_start(self, **_: Any) -> None:
        """Start no further cell after a stop was asked for."""
        if self.asked:
            raise _AskedToStop
        self._in_cell = True

    def on_cell_executed(self, **_: Any) -> None:
        """Remember that no cell runs."""
        self._in_cell = False

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:  # the grace that was given goes on; who cannot wait sends SIGKILL
            return
        self.asked = True
        pid = getattr(self._kernels.provisioner, "pid", None)
        if pid is None or not self._in_cell:
            raise _AskedToStop
        os.kill(pid, signal.SIGINT)


def _stop_with_owner(owner: Process) -> None:
    """Ask ourselves to stop when the process that wanted the notebook is gone."""
    while process_alive(owner.pid, owner.started_at):
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def _run_notebook(job: NotebookJob) -> tuple[int, str]:
    with without_iri_grammar():
        from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.utils import run_sync

    # Whole conversations cross the kernel's sockets; on a shared node they are not for everybody.
    kernels = AsyncKernelManager(kernel_name="python3", transport_encryption="required")
    interrupter = _KernelInterrupter(kernels)
    if job.owner is not None:
        threading.Thread(target=_stop_with_owner, args=(job.owner,), daemon=True).start()
    try:
        cause = execute_notebook(
            job.notebook,
            job.out,
            job.parameters,
            timeout_s=job.timeout_s,
            kernel_name=kernels.kernel_name,
            km=kernels,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            autosave_cell_every=5,
            on_cell_start=interrupter.on_cell_start,
            on_cell_executed=interrupter.on_cell_executed,
        )
    except _AskedToStop:
        cause = ""
    finally:
        if kernels.has_kernel:  # papermill ends only kernels that it chose itself
            run_sync(kernels.shutdown_kernel)(now=True)
    if interrupter.asked:
        return STOPPED, "stopped before the end"
    return (1, cause) if cause else (0, "")


def main(argv: Sequence[str] | None = None) -> int:
    """Execute one notebook as the JSON says that is the only argument; return the exit status."""
    (text,) = sys.argv[1:] if argv is None else argv
    job = NotebookJob.model_validate_json(text)
    me = this_process()
    attempt = CellAttempt(
        pid=me.pid,
        pid_started_at=me.started_at,
        host=socket.gethostname(),
        started_at=time.time(),
        stdout=job.log,
    )
    write_note(job.attempt, attempt)
    try:
        check_parameters(job.notebook, job.parameters)
        code, cause = _run_notebook(job)
    except TautoolsError as error:
        code, cause = 2, str(error)
    except Exception as error:  # noqa: BLE001 - papermill and zmq raise what they like; the cause must reach a person
        _log.exception("the notebook could not be executed")
        code, cause = 1, redacted(f"{type(error).__name__}: {error}")
    ended = {"finished_at": time.time(), "exit_code": code, "cause": cause}
    write_note(job.attempt, attempt.model_copy(update=ended))
    return code


if __name__ == "__main__":
    sys.exit(main())
