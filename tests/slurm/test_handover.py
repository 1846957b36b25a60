"""A server's next job takes over its name before the time limit of the first."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from serving import FAKE_VLLM, simulated
from slurm_site import left_in, site_with

from tautools.cli.server import server_command
from tautools.errors import NotReadyError, ServerError
from tautools.params.models import RoleParams, RunParams, ServerParams
from tautools.run import CellResult, run_cell
from tautools.servers import Registry, State, endpoints, launch, open_server
from tautools.servers.backends.slurm_handover import hand_over
from tautools.slurm import JobState, Slurm

pytestmark = [pytest.mark.slurm]


def test_a_cell_goes_on_while_its_server_is_handed_over(workspace: Path) -> None:
    first = launch(simulated(simulate={"speed": 0.5}), workspace=workspace, site=site_with()).wait_ready()
    run = RunParams.model_validate(
        {"env": "retail", "agent": "sim", "user": "sim", "tasks": {"limit": 2}, "concurrency": 2}
    )
    done: list[CellResult] = []
    held = threading.Event()

    def hold() -> None:
        done.append(run_cell(run, workspace=workspace, on_event=lambda _event: held.set()))

    cell = threading.Thread(target=hold)
    cell.start()
    assert held.wait(30)
    second = hand_over("sim", workspace=workspace, lead_s=3600)
    cell.join(120)

    assert (done[0].done, done[0].pending) == (2, 0)
    assert second.record.job_id != first.record.job_id
    assert second.state().state is State.READY
    assert [record.name for record in Registry(workspace).list()] == ["sim"]
    assert Slurm().jobs([first.record.job_id])[first.record.job_id].state is JobState.CANCELLED
    (found,) = endpoints(RoleParams(server="sim"), workspace=workspace, role_name="agent")
    assert found.base_url == second.record.base_url
    assert first.state().state is State.STOPPED
    key_file = Path(second.record.key_file).name
    assert left_in(workspace) == sorted([key_file, "sim.json"])

    second.stop()

    assert left_in(workspace) == []


def test_a_successor_that_fails_changes_nothing_and_another_one_may_follow(workspace: Path) -> None:
    broken = workspace / "broken"
    script = f"if [ -e '{broken}' ]; then echo 'ValueError: broken' >&2; exit 3; fi; exec \"$@\""
    params = ServerParams.model_validate(
        {
            "name": "fake",
            "model": "org/Some-4B",
            "serve_command": ["sh", "-c", script, "sh", sys.executable, str(FAKE_VLLM)],
            "vllm": {"max_model_len": 4096, "tool_call_parser": "hermes"},
        }
    )
    first = launch(params, workspace=workspace, site=site_with()).wait_ready()
    broken.touch()

    with pytest.raises(NotReadyError, match=r"fake\.next"):
        hand_over("fake", workspace=workspace, lead_s=3600)

    assert first.state().state is State.READY
    assert open_server("fake.next", workspace=workspace).state().state is State.FAILED
    broken.unlink()
    told = CliRunner().invoke(server_command, ["handover", "fake", "--lead", "60", "--workspace", str(workspace)])
    assert told.exit_code == 0, told.output
    assert "fake: http://" in told.stdout
    assert open_server("fake", workspace=workspace).state().state is State.READY
    assert [record.name for record in Registry(workspace).list()] == ["fake"]


def test_a_successor_waits_for_its_time(workspace: Path) -> None:
    launch(simulated(), workspace=workspace, site=site_with(time_limit="02:00:00")).wait_ready()
    done: list[ServerError] = []

    def hand() -> None:
        try:
            hand_over("sim", workspace=workspace, lead_s=1800, on_progress=lambda seen: seens.append(str(seen)))
        except ServerError as error:
            done.append(error)

    seens: list[str] = []
    waiting = threading.Thread(target=hand)
    waiting.start()
    while not any("Its time to start has not come" in seen for seen in seens):
        waiting.join(0.2)
        assert waiting.is_alive()
    heir = open_server("sim.next", workspace=workspace)
    begins = Slurm().jobs([heir.record.job_id])[heir.record.job_id].starts_at
    assert begins is not None
    assert 85 * 60 < begins - heir.record.started_at < 91 * 60
    heir.stop()
    waiting.join(30)

    assert "sim.next" in str(done[0])
    assert open_server("sim", workspace=workspace).state().state is State.READY


def test_only_a_ready_job_is_handed_over(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace, site=site_with())

    with pytest.raises(ServerError, match="'sim' cannot be handed over"):
        hand_over("sim", workspace=workspace)
    server.stop()
