"""Slurm's commands, run as processes."""

import os
import re
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from tautools.errors import ShellError, SlurmError
from tautools.shell import Completed, run_command
from tautools.slurm.jobs import (
    NODE_FORMAT,
    SACCT_FIELDS,
    SQUEUE_FORMAT,
    JobState,
    Node,
    SlurmJob,
    explain_refusal,
    is_unreachable,
    parse_moment,
    parse_nodes,
    parse_sacct,
    parse_squeue,
)

_OF_A_JOB = ("SLURM_", "SBATCH_", "SRUN_", "SLURMD_")
_ESTIMATE = re.compile(r"to start at (\S+) ")


def clean_env(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what Slurm left of the job that we run in; where Slurm is (`SLURM_CONF`) stays.

    Inherited variables are taken for options: a job submitted from a session of 20 cores would ask for 20 cores, or be
    refused because two of them exclude each other.
    """
    return {name: value for name, value in environ.items() if name == "SLURM_CONF" or not name.startswith(_OF_A_JOB)}


class Slurm:
    """The Slurm that this session's commands speak to; a `SlurmError` says when it refuses or does not answer.

    Parameters
    ----------
    timeout_s : float
        Seconds that a command may take.
    """

    def __init__(self, *, timeout_s: float = 30.0) -> None:
        self._timeout_s = timeout_s

    def submit(self, script: Path) -> str:
        """Submit a job script and return the job's id."""
        done = self._submit("--parsable", str(script))
        return done.stdout.strip().splitlines()[-1].split(";")[0]

    def test_only(self, text: str) -> float | None:
        """Ask whether a job script would be taken, and when it would start [s since the epoch], if Slurm can tell."""
        done = self._submit("--test-only", text=text)
        match = _ESTIMATE.search(done.stderr + done.stdout)
        return parse_moment(match.group(1)) if match else None

    def jobs(self, job_ids: Collection[str]) -> dict[str, SlurmJob]:
        """Return what Slurm knows of these jobs, by id; a job that it knows nothing of is left out.

        One query covers all that run, wait or ended lately. For older ones the accounting is asked, if there is one.
        """
        wanted = {job_id for job_id in job_ids if job_id}
        if not wanted:
            return {}
        queue = self._run("squeue", "--me", "--noheader", "--states=all", f"--format={SQUEUE_FORMAT}")
        if queue.exit_code != 0:
            raise _failure(queue, "Slurm does not list its jobs.", "Try `squeue --me`.")
        jobs = {job_id: job for job_id, job in parse_squeue(queue.stdout).items() if job_id in wanted}
        missing = wanted - set(jobs)
        return jobs | (self._accounted(missing) if missing else {})

    def cancel(self, job_id: str, *, timeout_s: float = 120.0) -> None:
        """Cancel a job and return when nothing of it runs."""
        done = self._run("scancel", "--", job_id) if job_id else Completed(0, "", "")
        if done.exit_code != 0 and "Invalid job id" not in done.stderr:
            raise _failure(done, f"Job {job_id} could not be cancelled.", f"Try `scancel {job_id}`.")
        deadline = time.monotonic() + timeout_s
        while (job := self.jobs([job_id]).get(job_id)) is not None and not job.state.ended:
            if job.state is JobState.UNKNOWN or time.monotonic() > deadline:
                raise SlurmError(
                    f"Job {job_id} did not end within {timeout_s:g} s; Slurm says {job.state.value}.",
                    next_step=f"Look at it with `scontrol show job {job_id}`.",
                )
            time.sleep(0.2)

    def time_left(self, job_id: str) -> float | None:
        """Return the seconds until a job's time limit; None when it does not run or has none."""
        job = self.jobs([job_id]).get(job_id)
        return job.left_s if job is not None and job.state is JobState.RUNNING else None

    def nodes(self, partition: str | None) -> list[Node]:
        """Return the nodes of a partition with their cards; all nodes when none is named."""
        where = [f"--partition={partition}"] if partition else []
        done = self._run("sinfo", "--noheader", "--Node", *where, f"--Format={NODE_FORMAT}")
        if done.exit_code != 0 and is_unreachable(done.stderr):
            raise _failure(done, "Slurm does not list its nodes.", "Try `sinfo`.")
        return parse_nodes(done.stdout) if done.exit_code == 0 else []

    def _accounted(self, job_ids: Collection[str]) -> dict[str, SlurmJob]:
        """Return what the accounting knows; nothing where there is none."""
        words = [f"--jobs={','.join(sorted(job_ids))}", f"--format={SACCT_FIELDS}"]
        try:
            done = self._run("sacct", "--allocations", "--noheader", "--parsable2", *words)
        except SlurmError:
            return {}
        return parse_sacct(done.stdout) if done.exit_code == 0 else {}

    def _submit(self, *words: str, text: str = "") -> Completed:
        done = self._run("sbatch", *words, text=text)
        if done.exit_code != 0:
            raise _failure(
                done,
                f"Slurm does not take this job. {explain_refusal(done.stderr or done.stdout)}".strip(),
                "Correct account, partition, QOS, cards, memory or time in the site file; "
                "`sacctmgr show assoc user=$USER format=account,partition,qos` and `sinfo -o '%P %G %l'` list yours.",
            )
        return done

    def _run(self, *words: str, text: str = "") -> Completed:
        try:
            return run_command(words, timeout_s=self._timeout_s, env=clean_env(os.environ), input=text)
        except ShellError as error:
            raise SlurmError(
                f"`{words[0]}` cannot be asked.",
                evidence=error.seen,
                next_step="Work in a session on the cluster, with Slurm's commands on PATH; try `sinfo`.",
            ) from error


def _failure(done: Completed, problem: str, next_step: str) -> SlurmError:
    """Return the error for a command that failed; a controller that is down is named, not the job."""
    message = (done.stderr or done.stdout).strip()[-800:]
    if is_unreachable(message):
        problem = "The Slurm controller does not answer."
        next_step = "Nothing needs to be corrected: `scontrol ping` says when it is up again; then repeat the command."
    return SlurmError(problem, evidence=message, next_step=next_step)
