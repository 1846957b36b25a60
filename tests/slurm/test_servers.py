"""Servers as jobs of a real Slurm: submitted, verified, found again, ended in every way that Slurm knows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from click.testing import CliRunner
from real_slurm import URGENT
from serving import FAKE_VLLM, fake_vllm, simulated
from slurm_site import ask, left_in, processes_of, site_with, wait_for

from tautools.cli.server import server_command
from tautools.errors import NotReadyError, ServerError, SlurmError
from tautools.params.models import RoleParams
from tautools.servers import Registry, Snapshot, State, endpoints, launch, open_server, server_states
from tautools.shell import run_command
from tautools.slurm.client import Slurm
from tautools.slurm.jobs import JobState

pytestmark = [pytest.mark.slurm]


def test_a_server_is_submitted_verified_found_for_a_role_and_stopped_whole(workspace: Path) -> None:
    server = launch(fake_vllm(), workspace=workspace, site=site_with(host="0.0.0.0")).wait_ready()

    assert server.state().state is State.READY
    assert "min until its time limit" in server.state().detail
    record = Registry(workspace).get("fake")
    assert record.certificate is not None
    assert record.certificate.passed
    assert record.host in {"gaudi001", "gaudi002", "gaudi003"}
    assert Path(record.log_out) == workspace / "logs" / f"fake_{record.job_id}.out"
    head = Path(record.log_out).read_text().splitlines()
    assert head[1:4] == [
        f"Starting vllm server fake on node: {record.host}",
        "Model: org/Some-4B",
        f"Server base: {record.base_url}",
    ]
    (found,) = endpoints(RoleParams(server="fake"), workspace=workspace, role_name="agent")
    assert (found.base_url, found.key) == (record.base_url, server.endpoint().key)
    told = ask("scontrol", "show", "job", record.job_id)
    assert "Account=class_class59827694spring_2026 QOS=class_gaudi" in told
    assert processes_of(server) != []
    key = server.endpoint().key
    assert [p.name for p in workspace.rglob("*") if p.is_file() and key in p.read_text()] == ["fake.key"]
    assert key not in told + "".join(processes_of(server))

    server.stop()

    assert processes_of(server) == []
    assert left_in(workspace) == []
    assert Slurm().jobs([record.job_id])[record.job_id].state is JobState.CANCELLED
    assert server.state().state is State.STOPPED


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"qos": "nobodys"}, "The QOS is not one that this account may use."),
        ({"account": "nobodys"}, "The account is not one of yours"),
        ({"partition": "nowhere"}, "There is no such partition."),
        ({"gres": "gpu:h100:1"}, "cards"),
        ({"cores": 4000}, "No node of the partition has so many cores"),
        ({"time_limit": "soon"}, "time limit"),
        ({"constraint": "no-such"}, "No node has the asked-for constraint."),
    ],
)
def test_a_job_that_slurm_does_not_take_is_reported_in_words_and_leaves_nothing(
    workspace: Path, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(SlurmError, match="Slurm does not take this job") as caught:
        launch(simulated(), workspace=workspace, site=site_with(**wrong))

    assert said in str(caught.value)
    assert caught.value.next_step
    assert list(workspace.iterdir()) == []


def test_a_job_that_waits_is_queued_with_the_reason_in_words_and_starts_when_it_can(workspace: Path) -> None:
    account = ["--account=class_class59827694spring_2026", "--parsable", "--time=5", "--gres=gpu:hl225:8"]
    holders = [ask("sbatch", *account, "--output=/dev/null", "--wrap", "sleep 300").strip() for _ in range(3)]
    try:
        wait_for(lambda: all(job.state is JobState.RUNNING for job in Slurm().jobs(holders).values()))
        server = launch(simulated(), workspace=workspace, site=site_with())
        wait_for(lambda: "in use" in server.state().detail)

        seen = server.state()
        assert seen.state is State.QUEUED
        assert f"Job {server.record.job_id}: It is next in line" in seen.detail
        wait_for(lambda: "Slurm thinks it starts at" in server.state().detail)
        with pytest.raises(NotReadyError, match="it is at: queued"):
            server.wait_ready(timeout_s=0.5)
        states: list[Snapshot] = []
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting = pool.submit(server.wait_ready, on_progress=states.append)
            wait_for(lambda: states)
            ask("scancel", *holders)
            waiting.result()
    finally:
        for holder in holders:
            Slurm().cancel(holder)

    assert [states[0].state, server.state().state] == [State.QUEUED, State.READY]


def test_a_start_that_fails_is_reported_with_its_cause(workspace: Path) -> None:
    server = launch(fake_vllm(modes="dies"), workspace=workspace, site=site_with())

    with pytest.raises(NotReadyError, match="KV cache"):
        server.wait_ready()

    assert server.state().state is State.FAILED
    assert Registry(workspace).exit_code(server.record) == 1
    server.stop()
    assert left_in(workspace) == []


def test_a_job_cancelled_by_hand_is_stopped_and_never_ready_again(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace, site=site_with()).wait_ready()

    ask("scancel", server.record.job_id)
    wait_for(lambda: server.state().state is not State.READY)

    wait_for(lambda: server.state().state is State.STOPPED)
    assert "cancelled" in server.state().detail
    # The job itself takes its record back while it ends; Slurm may call it cancelled a moment before.
    wait_for(lambda: not (workspace / "servers" / "sim.json").exists())
    with pytest.raises(ServerError, match="sim is stopped"):
        endpoints(RoleParams(server="sim"), workspace=workspace, role_name="user")


def test_a_job_whose_server_ended_in_order_after_its_engine_died_has_failed(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace, site=site_with()).wait_ready()
    with Path(server.record.log_err).open("a") as log:
        log.write("ERROR 11-30 23:24:01 [async_llm.py:906] EngineDeadError: EngineCore encountered an issue.\n" * 3)
    (process,) = [
        each
        for each in psutil.process_iter(["cmdline"])
        if {"simulate", server.record.alias} <= {*(each.info["cmdline"] or ())}
    ]

    process.send_signal(signal.SIGTERM)

    wait_for(lambda: server.state().state.final)
    job = Slurm().jobs([server.record.job_id])[server.record.job_id]
    assert (job.state, server.state().state) == (JobState.COMPLETED, State.FAILED)
    server.stop()


def test_a_failed_node_is_reported(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace, site=site_with()).wait_ready()
    node = server.record.host

    ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        wait_for(lambda: server.state().state is State.NODE_FAIL)
        assert f"Its node failed. Job {server.record.job_id} on {node}." in server.state().detail
        assert "tautools server restart sim" in server.state().next_step
    finally:
        # A node that has answered meanwhile is back already, and Slurm refuses to resume it.
        run_command(["scontrol", "update", f"NodeName={node}", "State=RESUME"], timeout_s=30)
        wait_for(lambda: ask("sinfo", "-h", "-n", node, "-o", "%t").strip() in {"idle", "mix"})


def test_a_job_that_has_to_make_way_is_preempted_and_says_so(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace, site=site_with()).wait_ready()
    urgent = ["--account=class_class59827694spring_2026", "--parsable", "--time=5", f"--partition={URGENT}"]
    urgent += ["--gres=gpu:hl225:8", f"--nodelist={server.record.host}", "--output=/dev/null"]

    other = ask("sbatch", *urgent, "--wrap", "sleep 60").strip()
    try:
        wait_for(lambda: server.state().state is State.PREEMPTED)
        seen = server.state()
        assert f"had to make way for another one. Job {server.record.job_id}" in seen.detail
        assert "tautools server restart sim" in seen.next_step
        wait_for(lambda: not (workspace / "servers" / "sim.json").exists())
        wait_for(lambda: processes_of(server) == [])
        assert server.cause().kind == "preempted"
    finally:
        ask("scancel", other)
    again = launch(simulated(), workspace=workspace, site=site_with()).wait_ready()
    assert again.record.job_id != server.record.job_id


def test_a_job_that_takes_more_memory_than_it_asked_for_says_so(workspace: Path) -> None:
    eats = "import time; held = bytearray(1400 << 20); time.sleep(120)"
    greedy = fake_vllm().model_copy(update={"serve_command": [sys.executable, "-c", eats]})
    server = launch(greedy, workspace=workspace, site=site_with(memory_gib=1))

    # Without cgroups Slurm calls such a job FAILED; only its log knows why.
    with pytest.raises(NotReadyError, match="is failed: The job took more memory than it had asked for"):
        server.wait_ready()

    assert "Raise `memory_gib` in the site file" in server.state().next_step
    wait_for(lambda: processes_of(server) == [])


def test_a_second_job_of_one_name_is_refused_and_the_first_not_disturbed(workspace: Path) -> None:
    first = launch(simulated(), workspace=workspace, site=site_with()).wait_ready()

    with pytest.raises(ServerError, match="'sim' has a job"):
        launch(simulated(), workspace=workspace, site=site_with())
    with pytest.raises(ServerError, match="'sim' has a job"):
        launch(simulated(), workspace=workspace)

    assert first.state().state is State.READY


def test_a_script_submitted_by_hand_registers_its_server(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    (workspace / "here.yaml").write_text(yaml.safe_dump(site_with().model_dump(exclude_defaults=True)))
    words = ["script", "sim-user", "--site", "here.yaml", "--workspace", str(workspace)]
    printed = CliRunner().invoke(server_command, words)
    assert printed.exit_code == 0, printed.output
    assert "#SBATCH --qos=class_gaudi" in printed.stdout
    written = CliRunner().invoke(server_command, [*words, "-o", "by hand.sh"])
    assert "sbatch 'by hand.sh'" in written.stdout
    assert not (workspace / "servers").exists()

    job_id = ask("sbatch", "--parsable", "by hand.sh").strip()

    wait_for(lambda: Registry(workspace).find("sim-user") is not None)
    server = open_server("sim-user", workspace=workspace).wait_ready()
    assert server.record.job_id == job_id
    server.stop()
    assert left_in(workspace) == []
    assert Slurm().jobs([job_id])[job_id].state is JobState.CANCELLED


def test_a_session_inside_a_job_submits_as_one_outside(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_MEM_PER_CPU": "100", "SLURM_MEM_PER_NODE": "200", "SBATCH_QOS": "nobodys"}.items():
        monkeypatch.setenv(name, value)

    launch(simulated(), workspace=workspace, site=site_with()).wait_ready().stop()


def test_a_launcher_that_is_killed_leaves_a_server_that_others_find_and_stop(workspace: Path) -> None:
    (workspace / "here.yaml").write_text(yaml.safe_dump(site_with().model_dump(exclude_defaults=True)))
    folder = workspace / "params" / "servers"
    folder.mkdir(parents=True)
    hangs = {"name": "slow", "model": "org/slow", "serve_command": [sys.executable, str(FAKE_VLLM)]}
    (folder / "slow.yaml").write_text(yaml.safe_dump(hangs | {"env": {"FAKE_VLLM": "hangs"}}))
    words = [sys.executable, "-m", "tautools", "server", "up", "slow", "--site", "here.yaml"]
    env = os.environ | {"TAUTOOLS_WORKSPACE": str(workspace)}
    with subprocess.Popen(words, cwd=workspace, env=env, stderr=subprocess.PIPE) as up:
        wait_for(lambda: (found := Registry(workspace).find("slow")) is not None and found.base_url)
        up.send_signal(signal.SIGKILL)

    server = open_server("slow", workspace=workspace)
    assert server.state().state is State.STARTING
    server.stop()
    assert processes_of(server) == []
    assert left_in(workspace) == []


def test_fifty_servers_are_listed_with_one_question_to_slurm(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = launch(simulated(), workspace=workspace, site=site_with()).wait_ready()
    for number in range(49):
        (workspace / "servers" / f"copy-{number}.json").write_text(
            server.record.model_copy(update={"name": f"copy-{number}"}).model_dump_json()
        )
    asked = tmp_path / "asked"
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f'#!/bin/sh\necho once >> {asked}\nexec /usr/bin/squeue "$@"\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")

    began = time.perf_counter()
    found = server_states(workspace)
    print(f"50 servers of Slurm: {time.perf_counter() - began:.2f} s")

    assert [snapshot.state for _, snapshot in found] == [State.READY] * 50
    assert asked.read_text() == "once\n"
    for number in range(49):
        (workspace / "servers" / f"copy-{number}.json").unlink()
