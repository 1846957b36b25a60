"""How a server starts: launched, watched, verified, registered. Real processes throughout."""

from __future__ import annotations

import os
import socket
import stat
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
from serving import fake_vllm, members, simulated

import tautools
from tautools.errors import NotReadyError, ParamsError, ServerError, VerifyError
from tautools.servers import Registry, State, launch, server_states

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.params.models import ServerParams
    from tautools.servers import Snapshot


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_simulated_server_is_started_verified_found_and_stopped(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()

    assert server.state().state is State.READY
    record = Registry(workspace).get("sim")
    assert record.certificate is not None
    assert record.certificate.passed
    assert {check.number: check.passed for check in record.certificate.checks} == dict.fromkeys(
        (0, 1, 2, 3, 4, 5, 7, 11), True
    )
    assert record.simulated
    assert server.endpoint().simulated

    server.stop()

    assert members(server) == []
    assert Registry(workspace).list() == []
    assert server.state().state is State.STOPPED
    assert list((workspace / "servers").glob("*.*")) == []


def test_a_vllm_like_server_is_verified_check_by_check(workspace: Path) -> None:
    told: list[int] = []

    server = launch(fake_vllm(), workspace=workspace).wait_ready(on_check=lambda check: told.append(check.number))

    assert told == [0, 1, 2, 3, 4, 5, 7, 11]
    certificate = server.record.certificate
    assert certificate is not None
    assert (certificate.model, certificate.max_model_len, certificate.simulated) == ("org/Some-4B", 4096, False)
    assert certificate.versions == {"server": "0.0-fake", "tautools": tautools.__version__}


def test_the_start_is_reported_stage_by_stage_and_ready_comes_last(workspace: Path) -> None:
    seen: list[Snapshot] = []

    launch(fake_vllm(env={"FAKE_VLLM_LOAD_S": "1"}), workspace=workspace).wait_ready(on_progress=seen.append)

    assert {snapshot.state for snapshot in seen} == {State.STARTING}
    assert "loading weights" in {snapshot.stage for snapshot in seen}
    assert [snapshot.percent for snapshot in seen] == sorted(snapshot.percent or 0 for snapshot in seen)


def test_the_record_is_written_only_after_the_proof(workspace: Path) -> None:
    server = launch(fake_vllm(env={"FAKE_VLLM_LOAD_S": "1"}), workspace=workspace)

    assert [record.name for record in Registry(workspace).list()] == ["fake"]
    assert list((workspace / "servers").glob("*.json")) == []

    server.wait_ready()

    assert [path.name for path in (workspace / "servers").glob("*.json")] == ["fake.json"]


def test_the_key_is_private_and_nowhere_else(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()
    key = server.endpoint().key
    key_file = workspace / "servers" / "sim.key"

    assert len(key) >= 24
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((workspace / "servers").stat().st_mode) == 0o700
    assert key not in " ".join(psutil.Process(server.record.pid).cmdline())
    assert key not in repr(server.endpoint()) + repr(server)
    holding = [path for path in workspace.rglob("*") if path.is_file() and key in path.read_text(errors="replace")]
    assert holding == [key_file]


def test_logs_lie_where_the_notes_have_them_with_the_address_on_top(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace)
    (out,), (err,) = (workspace / "logs").iterdir(), (workspace / "errors").iterdir()

    assert out.name.startswith("sim_")
    assert out.name.endswith(f"-{server.record.pid}.out")
    assert err.name == out.with_suffix(".err").name
    lines = out.read_text().splitlines()
    assert lines[1] == f"Starting simulate server sim on node: {socket.gethostname()}"
    assert lines[2:4] == ["Model: sim-model", f"Server base: {server.record.base_url}"]


def test_several_servers_start_at_once_on_ports_of_their_own(workspace: Path) -> None:
    servers = [launch(simulated(f"sim-{number}"), workspace=workspace) for number in range(3)]
    for server in servers:
        server.wait_ready()

    assert len({server.record.base_url for server in servers}) == 3
    found = server_states(workspace)
    assert [(record.name, snapshot.state) for record, snapshot in found] == [
        (f"sim-{number}", State.READY) for number in range(3)
    ]


def test_two_servers_of_one_name_are_refused_and_the_first_is_not_disturbed(workspace: Path) -> None:
    first = launch(simulated(), workspace=workspace).wait_ready()

    with pytest.raises(ServerError, match="'sim' runs already") as caught:
        launch(simulated(), workspace=workspace)

    assert f"process {first.record.pid}" in caught.value.evidence
    assert first.state().state is State.READY


def test_one_file_gives_several_servers_under_several_names(workspace: Path) -> None:
    launch(simulated(), workspace=workspace, name="left")
    launch(simulated(), workspace=workspace, name="right")

    assert [record.name for record in Registry(workspace).list()] == ["left", "right"]


@pytest.mark.parametrize("name", ["../up", "a b", "", "-x", "a/b", "x" * 65, "a\nb"])
def test_a_name_that_is_not_a_plain_word_is_refused_before_anything_is_made(workspace: Path, name: str) -> None:
    with pytest.raises(ParamsError, match="cannot be the name of a server"):
        launch(simulated().model_copy(update={"name": name}), workspace=workspace)

    assert list(workspace.iterdir()) == []


def test_the_port_asked_for_is_used(workspace: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    server = launch(simulated(port=port), workspace=workspace).wait_ready()

    assert server.record.base_url == f"http://127.0.0.1:{port}/v1"


def test_a_taken_port_is_an_error_before_anything_is_started(workspace: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]

        with pytest.raises(ServerError, match=f"belongs to process {os.getpid()}"):
            launch(simulated(port=port), workspace=workspace)

    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize("modes", ["port_lost", "inner_port_lost"])
def test_a_port_that_is_lost_is_replaced_by_another(workspace: Path, modes: str) -> None:
    marker = workspace / "lost"
    params = fake_vllm(modes=modes, env={"FAKE_VLLM_LOST": str(marker)})
    server = launch(params, workspace=workspace)
    first = server.record

    server.wait_ready()

    assert marker.exists()
    assert server.record.pid != first.pid
    assert server.record.alias != first.alias
    assert server.state().state is State.READY


def test_a_command_that_is_not_installed_is_reported_before_anything_is_made(workspace: Path) -> None:
    params = fake_vllm().model_copy(update={"serve_command": ["no-such-vllm", "serve"]})

    with pytest.raises(ServerError, match=r"`no-such-vllm`.* is not installed") as caught:
        launch(params, workspace=workspace)

    assert "serve_command" in caught.value.next_step
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    ("modes", "check", "words"),
    [
        ("empty", 5, "an empty answer"),
        ("empty thinks", 5, "all its tokens on thinking and answered nothing. Switch thinking off"),
        ("open", 4, "the server is open: it answers without a key"),
        ("short", 3, "3096 tokens of context, 4096 were asked for"),
    ],
)
def test_a_server_that_fails_a_check_is_degraded_and_not_registered_as_verified(
    workspace: Path, modes: str, check: int, words: str
) -> None:
    server = launch(fake_vllm(modes=modes), workspace=workspace)

    with pytest.raises(VerifyError, match=f"fails check {check}") as caught:
        server.wait_ready()

    assert words in caught.value.evidence
    assert server.state().state is State.DEGRADED
    assert list((workspace / "servers").glob("*.json")) == []


@pytest.mark.parametrize(("modes", "words"), [("other_model", "some-other-model"), ("no_alias", "launch-")])
def test_another_server_on_the_port_is_never_ready(workspace: Path, modes: str, words: str) -> None:
    params = fake_vllm(modes=modes, port=free_port())
    server = launch(params, workspace=workspace)

    with pytest.raises(NotReadyError, match="Another server answers on its port") as caught:
        server.wait_ready()

    assert words in caught.value.problem
    checks = {check.number: check.passed for check in server.verify().checks}
    assert checks == {0: True, 1: True, 2: True, 3: False, 4: None, 5: None, 7: None, 11: None}


def test_a_twin_on_the_port_is_found(workspace: Path) -> None:
    params = fake_vllm(modes="reuse_port", port=free_port())
    server = launch(params, workspace=workspace).wait_ready()
    port = params.port
    with socket.socket() as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        twin.bind(("127.0.0.1", port))
        twin.listen()

        checks = {check.number: check for check in server.verify().checks}

    assert checks[1].passed is False
    assert f"port {port} is shared with process {os.getpid()}" in checks[1].detail
    assert checks[2].passed is None
    assert server.state().state is State.DEGRADED
    assert list((workspace / "servers").glob("*.json")) == []

    assert server.verify().passed
    assert server.state().state is State.READY


def test_a_damaged_record_hides_no_other(workspace: Path) -> None:
    launch(simulated(), workspace=workspace).wait_ready()
    (workspace / "servers" / "broken.json").write_text('{"name": "bro')

    assert [record.name for record in Registry(workspace).list()] == ["sim"]


def test_an_unknown_name_is_reported_with_the_nearest(workspace: Path) -> None:
    launch(simulated("sim-small"), workspace=workspace)

    with pytest.raises(ServerError, match="There is no server 'sim-smal' registered in") as caught:
        Registry(workspace).get("sim-smal")

    assert "sim-small" in caught.value.evidence


def test_params_travel_with_the_record(workspace: Path) -> None:
    params: ServerParams = simulated(simulate={"skill": 0.25})

    record = launch(params, workspace=workspace).record

    assert record.spec["simulate"]["skill"] == 0.25
    assert record.argv[:5] == [sys.executable, "-P", "-m", "tautools", "simulate"]
