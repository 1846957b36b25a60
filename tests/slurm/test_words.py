"""What Slurm says, read and put into words."""

from __future__ import annotations

import time

import pytest

from tautools.errors import ParamsError
from tautools.slurm.client import clean_env
from tautools.slurm.jobs import JobState, explain_reason, job_state, parse_duration, parse_sacct, parse_squeue
from tautools.slurm.script import render_sbatch


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("RUNNING", JobState.RUNNING),
        ("CANCELLED by 1000", JobState.CANCELLED),
        ("CANCELLED+", JobState.CANCELLED),
        ("OUT_OF_MEMORY", JobState.OUT_OF_MEMORY),
        ("OUT_OF_ME+", JobState.OUT_OF_MEMORY),
        ("NODE_FA+", JobState.NODE_FAIL),
        ("NEW_WOR+", JobState.UNKNOWN),
        ("BOOT_FAIL", JobState.NODE_FAIL),
        ("DEADLINE", JobState.TIMEOUT),
        ("CONFIGURING", JobState.PENDING),
        ("REQUEUED", JobState.PENDING),
        ("POWERED_BY_MAGIC", JobState.UNKNOWN),
        ("", JobState.UNKNOWN),
    ],
)
def test_every_word_for_a_state_is_read_and_an_unknown_one_is_unknown(word: str, state: JobState) -> None:
    assert job_state(word) is state


def test_jobs_in_the_queue_are_read_with_reason_time_left_and_start() -> None:
    found = parse_squeue(
        "12|PENDING|8:00:00|2030-01-02T03:04:05||Priority\n"
        "13|RUNNING|1-02:03:04|2026-01-02T03:04:05|gaudi002|None\n"
        "14|PENDING|INVALID|N/A||ReqNodeNotAvail, UnavailableNodes:gaudi[001-002]\n"
        "slurm_load_jobs error: nonsense\n"
    )

    assert list(found) == ["12", "13", "14"]
    assert (found["12"].state, found["12"].reason, found["12"].left_s) == (JobState.PENDING, "Priority", 28800.0)
    assert time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(found["12"].starts_at)) == "2030-01-02T03:04:05"
    assert (found["13"].node, found["13"].left_s, found["13"].reason) == ("gaudi002", 93784.0, "")
    assert (found["14"].left_s, found["14"].starts_at) == (None, None)
    assert "down, drained or reserved" in explain_reason(found["14"].reason)


def test_ended_jobs_are_read_from_the_accounting() -> None:
    found = parse_sacct("7|TIMEOUT|0:0|gaudi001\n8|CANCELLED by 0|0:15|None assigned\n\n")

    assert {job_id: job.state for job_id, job in found.items()} == {"7": JobState.TIMEOUT, "8": JobState.CANCELLED}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:58", 58.0),
        ("30", 1800.0),
        ("8:00:00", 28800.0),
        ("2-0", 172800.0),
        ("1-01:30", 91800.0),
        ("0-08:00:00", 28800.0),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_durations_are_read_in_all_of_their_forms(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Resources", "are in use"),
        ("Priority", "higher priority"),
        ("QOSMaxGRESPerUser", "A limit of the QOS on cards is reached (QOSMaxGRESPerUser)."),
        ("AssocGrpCpuLimit", "A limit of the account on cores is reached (AssocGrpCpuLimit)."),
        ("MaxMemPerLimit", "A limit of the account on memory is reached (MaxMemPerLimit)."),
        ("FromTheFuture", "Slurm says: FromTheFuture."),
        ("", "waits for the scheduler"),
    ],
)
def test_reasons_are_reported_in_sentences(reason: str, said: str) -> None:
    assert said in explain_reason(reason)


def test_what_slurm_left_of_the_session_does_not_reach_a_submission() -> None:
    session = {
        "PATH": "/bin",
        "SLURM_CONF": "/etc/slurm/slurm.conf",
        "SLURM_CPUS_PER_TASK": "20",
        "SLURM_MEM_PER_NODE": "40960",
        "SBATCH_ACCOUNT": "other",
        "SRUN_CPUS_PER_TASK": "2",
        "SLURMD_NODENAME": "gaudi001",
    }

    assert clean_env(session) == {"PATH": "/bin", "SLURM_CONF": "/etc/slurm/slurm.conf"}


@pytest.mark.parametrize("field", ["job-name", "account", "partition", "qos", "gres", "time", "constraint", "output"])
@pytest.mark.parametrize("value", ["x\n#SBATCH --qos=mine", "x\ry", "x\0y", "x\u2028y"])
def test_a_line_break_in_what_a_job_asks_for_is_refused(field: str, value: str) -> None:
    with pytest.raises(ParamsError, match="line break"):
        render_sbatch({"job-name": "job", "output": "o", "error": "e"} | {field: value}, [])
