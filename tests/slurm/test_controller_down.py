"""A controller that does not answer is named as such; account, QOS and site file are not blamed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tautools.errors import SlurmError
from tautools.slurm.client import Slurm

REFUSED = {
    "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)": True,
    "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation": True,
    "sbatch: error: Batch job submission failed: Invalid qos specification": False,
}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for Slurm's commands that print the file `message` and fail."""
    message = tmp_path / "message"
    for name in ("sbatch", "squeue", "scancel", "sinfo"):
        command = tmp_path / name
        command.write_text(f"#!/bin/sh\ncat '{message}' >&2\nexit 1\n")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return message


@pytest.mark.parametrize(("text", "down"), REFUSED.items())
def test_a_submission_says_whether_the_job_or_the_controller_is_wrong(commands: Path, text: str, down: bool) -> None:
    commands.write_text(text)

    for ask in (lambda: Slurm().test_only("#!/bin/bash\n"), lambda: Slurm().submit(commands)):
        with pytest.raises(SlurmError) as caught:
            ask()

        assert caught.value.problem.startswith(
            "The Slurm controller does not answer" if down else "Slurm does not take"
        )
        assert ("account" in caught.value.next_step) is not down
        assert text in caught.value.evidence


def test_jobs_nodes_and_cancellation_say_it_too(commands: Path) -> None:
    commands.write_text("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")

    for ask in (lambda: Slurm().jobs(["1"]), lambda: Slurm().nodes("gaudi"), lambda: Slurm().cancel("1")):
        with pytest.raises(SlurmError, match="The Slurm controller does not answer") as caught:
            ask()

        assert "scontrol ping" in caught.value.next_step
