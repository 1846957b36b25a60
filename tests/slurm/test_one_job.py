"""Several servers in one job of a real Slurm: on one node, with cards of their own, each with its own fate."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from serving import fake_vllm, simulated
from slurm_site import ask, left_in, processes_of, site_with, wait_for

from tautools.cli.server import server_command
from tautools.errors import NotReadyError, ParamsError, ServerError
from tautools.params.models import ServerParams, SiteParams
from tautools.servers import Registry, State, launch, launch_one_job
from tautools.slurm.client import Slurm
from tautools.slurm.jobs import JobState

pytestmark = [pytest.mark.slurm]

HL_SMI = """#!/bin/bash
for index in 0 1 2 3 4 5 6 7; do echo "$index, $((7 - index)), {used}"; done
"""


def with_cards(folder: Path, used: int = 768) -> str:
    """Write a stand-in for hl-smi and return the line of a site that puts it on PATH."""
    folder.mkdir()
    (folder / "hl-smi").write_text(HL_SMI.format(used=used))
    (folder / "hl-smi").chmod(0o755)
    return f"export PATH={shlex.quote(str(folder))}:$PATH"


def tells_cards(name: str, cards: int) -> ServerParams:
    """Return a stand-in for vLLM that writes down which cards it was shown."""
    params = fake_vllm(name, vllm={"tensor_parallel_size": cards})
    told = 'echo "sees $HABANA_VISIBLE_MODULES"; exec "$@"'
    return params.model_copy(update={"serve_command": ["bash", "-c", told, "serve", *(params.serve_command or [])]})


def test_servers_of_one_job_share_its_cards_and_are_stopped_one_by_one(workspace: Path, tmp_path: Path) -> None:
    site = site_with(device="gaudi", activate=[with_cards(tmp_path / "bin")], cards_per_node=8)
    asked = [tells_cards("agent", 1).model_copy(update={"replicas": 2}), tells_cards("user", 2)]
    one, two, user = launch_one_job(asked, workspace=workspace, site=site)
    for server in (one, two, user):
        server.wait_ready()

    job = one.record.job_id
    assert {two.record.job_id, user.record.job_id} == {job}
    told = ask("scontrol", "show", "job", job)
    assert "gres/gpu:hl225=4" in told or "gres:gpu:hl225:4" in told.lower()
    assert "NumNodes=1 NumCPUs=3" in told
    assert len({each.record.base_url for each in (one, two, user)}) == 3
    seen = [next(line for line in each.tail() if line.startswith("sees ")) for each in (one, two, user)]
    cards = [line.removeprefix("sees ").split(",") for line in seen]
    assert [len(each) for each in cards] == [1, 1, 2]
    assert len({card for each in cards for card in each}) == 4

    two.stop()

    assert processes_of(two) == []
    assert two.state().state is State.STOPPED
    assert [one.state().state, user.state().state] == [State.READY, State.READY]
    assert Slurm().jobs([job])[job].state is JobState.RUNNING
    one.stop()
    user.stop()

    assert Slurm().jobs([job])[job].state is JobState.CANCELLED
    assert processes_of(one) + processes_of(user) == []
    assert left_in(workspace) == []


def test_one_that_fails_is_reported_and_started_again_while_the_others_go_on(workspace: Path) -> None:
    fails, works = launch_one_job(
        [fake_vllm("fails", "dies"), simulated("works", stagger=1)], workspace=workspace, site=site_with()
    )
    works.wait_ready()
    with pytest.raises(NotReadyError, match="KV cache"):
        fails.wait_ready()

    assert fails.state().state is State.FAILED
    assert works.state().state is State.READY
    again = launch(simulated("fails"), workspace=workspace, site=site_with()).wait_ready()
    assert again.record.job_id != works.record.job_id
    assert works.state().state is State.READY


def test_a_cancelled_job_takes_all_of_them_and_none_stays_ready(workspace: Path) -> None:
    servers = launch_one_job([simulated("a"), simulated("b")], workspace=workspace, site=site_with())
    for server in servers:
        server.wait_ready()

    ask("scancel", servers[0].record.job_id)

    for server in servers:
        wait_for(lambda server=server: server.state().state is State.STOPPED)
        wait_for(lambda server=server: processes_of(server) == [])
    wait_for(lambda: not list((workspace / "servers").glob("*.json")))


def test_held_cards_end_the_job_and_each_server_says_why(workspace: Path, tmp_path: Path) -> None:
    site = site_with(device="gaudi", activate=[with_cards(tmp_path / "bin", used=60000)])
    servers = launch_one_job([fake_vllm("a"), fake_vllm("b")], workspace=workspace, site=site)

    for server in servers:
        with pytest.raises(NotReadyError, match=r"2 idle cards are needed|in use"):
            server.wait_ready()
        assert server.state().state is State.FAILED


def test_the_next_one_starts_when_the_former_has_loaded(workspace: Path) -> None:
    first, second = launch_one_job(
        [simulated("first", stagger="loaded"), simulated("second")], workspace=workspace, site=site_with()
    )
    second.wait_ready()

    began = [Path(each.record.log_out).stat().st_ctime for each in (first, second)]
    assert first.wait_ready().state().state is State.READY
    assert began == sorted(began)


def test_the_command_shows_the_plan_and_the_script_and_starts_them(workspace: Path) -> None:
    path = workspace / "params" / "sites" / "here.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(site_with().model_dump(mode="json")))
    words = ["sim-small", "sim-user", "--one-job", "--site", "here", "--workspace", str(workspace)]

    planned = CliRunner().invoke(server_command, ["plan", *words, "--json"])
    assert json.loads(planned.stdout)["nodes"] == 1
    shown = CliRunner().invoke(server_command, ["up", *words, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "#SBATCH --job-name=sim-small+sim-user" in shown.stdout
    assert "sim-small, sim-user: Slurm would take this job" in shown.stderr
    assert not (workspace / "servers").exists()

    done = CliRunner().invoke(server_command, ["up", *words])
    assert done.exit_code == 0, done.output
    records = Registry(workspace).list()
    assert [record.name for record in records] == ["sim-small", "sim-user"]
    assert len({record.job_id for record in records}) == 1
    assert CliRunner().invoke(server_command, ["stop", "--all", "--workspace", str(workspace)]).exit_code == 0
    assert left_in(workspace) == []


def test_what_cannot_be_one_job_is_refused(workspace: Path) -> None:
    with pytest.raises(ParamsError, match="no job for them to share"):
        launch_one_job([simulated()], workspace=workspace, site=SiteParams(name="local"))
    with pytest.raises(ParamsError, match="names its cards"):
        launch_one_job([fake_vllm(cards=[1])], workspace=workspace, site=site_with(device="gaudi"))
    too_many = [fake_vllm("big", vllm={"tensor_parallel_size": 4}).model_copy(update={"replicas": 3})]
    with pytest.raises(ServerError, match="cannot be started like that"):
        launch_one_job(too_many, workspace=workspace, site=site_with(device="gaudi", cards_per_node=8))
    assert Registry(workspace).list() == []
