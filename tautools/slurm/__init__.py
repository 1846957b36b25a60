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
from tautools.slurm.jobs import Job, JobState, job_state, parse_duration, parse_sacct, parse_squeue
from tautools.slurm.script import JobScript, render_sbatch
from tautools.slurm.words import reason_in_words

__all__ = [
    "Job",
    "JobScript",
    "JobState",
    "Slurm",
    "clean_env",
    "job_state",
    "parse_duration",
    "parse_sacct",
    "parse_squeue",
    "reason_in_words",
    "render_sbatch",
]
