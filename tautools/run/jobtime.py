"""How long the job that a run is part of may still go on, so that nothing is begun that cannot be finished."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from tautools.errors import SlurmError
from tautools.slurm import Slurm

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["JobTime"]

_SPARE_S = 30.0
"""Left over at the end, for the results to be written."""

_ASK_AGAIN_S = 300.0
"""A limit may have been moved: it is asked again before work is left, and at most this often [s]."""


class JobTime:
    """The time until the time limit of the Slurm job that this process runs in.

    Parameters
    ----------
    environ : mapping, optional
        Where SLURM_JOB_ID is read; this process's environment by default.
    slurm : Slurm, optional
        The door to Slurm.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, slurm: Slurm | None = None) -> None:
        self._job_id = (os.environ if environ is None else environ).get("SLURM_JOB_ID", "")
        # An answer is not worth waiting for while conversations run.
        self._slurm = slurm or Slurm(timeout_s=5.0)
        self._ends_at: float | None = None
        self._asked_at: float | None = None

    def left_s(self) -> float | None:
        """Return the seconds until the limit, less a little; None outside of a job, without a limit, or unknown."""
        if not self._job_id:
            return None
        if self._asked_at is None:
            self._ask()
        return None if self._ends_at is None else self._ends_at - time.monotonic() - _SPARE_S

    def allows(self, seconds: float) -> bool:
        """Whether something that takes so long can still be begun."""
        left = self.left_s()
        if left is None or left >= seconds:
            return True
        if self._asked_at is not None and time.monotonic() - self._asked_at > _ASK_AGAIN_S:
            self._ask()
            left = self.left_s()
        return left is None or left >= seconds

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        try:
            left = self._slurm.time_left(self._job_id)
        except SlurmError:
            return
        self._ends_at = None if left is None else time.monotonic() + left
