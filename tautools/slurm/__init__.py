"""Slurm: job scripts that a person can read, the states of jobs, and what Slurm means by its reasons.

::

    slurm = Slurm()
    slurm.test_only(text)          # would it be taken, and when would it start
    job_id = slurm.submit(path)
    slurm.jobs([job_id])           # one query for all
    slurm.cancel(job_id)
"""

from __future__ import annotations

from tautools.slurm.client import Slurm, clean_env
from tautools.slurm.jobs import JobState, SlurmJob, job_state, parse_duration, parse_sacct, parse_squeue
from tautools.slurm.reasons import explain_reason
from tautools.slurm.script import JobScript, render_sbatch

__all__ = [
    "JobScript",
    "JobState",
    "Slurm",
    "SlurmJob",
    "clean_env",
    "explain_reason",
    "job_state",
    "parse_duration",
    "parse_sacct",
    "parse_squeue",
    "render_sbatch",
]
