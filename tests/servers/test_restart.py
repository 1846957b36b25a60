"""A failed server is started again with what its log asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from serving import fake_vllm, simulated

from tautools.cli.server import server_command
from tautools.errors import NotReadyError, ServerError
from tautools.servers import Registry, State, launch, open_server
from tautools.servers.start import apply_fix, plan_restart, restart


@pytest.fixture
def call(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TAUTOOLS_WORKSPACE", str(workspace))

    def tautools(*words: str, status: int = 0, answer: str | None = None) -> str:
        done = CliRunner().invoke(server_command, words, input=answer)
        assert done.exit_code == status, done.output
        return done.output

    return tautools


def fail(workspace: Path, modes: str = "small_cache") -> None:
    with pytest.raises(NotReadyError):
        launch(fake_vllm(modes=modes), workspace=workspace).wait_ready()


def test_the_length_that_the_log_gives_mends_the_server_and_is_written_down(workspace: Path) -> None:
    fail(workspace)
    plan = plan_restart("fake", workspace=workspace, fix=True)
    assert plan.changes == ["vllm.max_model_len: 4096 -> 2048"]

    server = restart(plan, workspace=workspace).wait_ready()

    assert server.record.certificate is not None
    assert server.record.certificate.max_model_len == 2048
    known = Registry(workspace).get("fake")
    assert known.spec["vllm"]["max_model_len"] == 2048
    assert known.changes == [
        "vllm.max_model_len: 4096 -> 2048 (The KV cache cannot hold one request of max_model_len tokens.)"
    ]


def test_a_restart_is_shown_and_asked_for_before_it_is_done(workspace: Path, call: Any) -> None:
    fail(workspace)

    refused = call("restart", "fake", "--fix", status=1, answer="n\n")
    assert "vllm.max_model_len: 4096 -> 2048" in refused
    assert open_server("fake", workspace=workspace).state().state is State.FAILED

    told = call("restart", "fake", "--fix", answer="y\n")
    assert "Cause:    The KV cache cannot hold one request" in told
    assert open_server("fake", workspace=workspace).state().state is State.READY


def test_a_failure_without_a_known_change_is_not_started_again(workspace: Path) -> None:
    fail(workspace, "exits")

    with pytest.raises(ServerError, match="No automatic fix is known") as caught:
        plan_restart("fake", workspace=workspace, fix=True)

    assert caught.value.next_step


def test_a_server_in_order_has_nothing_to_fix_and_can_be_started_again(workspace: Path) -> None:
    first = launch(simulated(), workspace=workspace).wait_ready()
    with pytest.raises(ServerError, match="has not failed"):
        plan_restart("sim", workspace=workspace, fix=True)

    again = restart(plan_restart("sim", workspace=workspace, fix=False), workspace=workspace).wait_ready()

    assert again.record.pid != first.record.pid
    assert again.record.changes == []


def test_why_reads_a_servers_log_and_anyones_log_files(workspace: Path, tmp_path: Path, call: Any) -> None:
    fail(workspace)
    assert json.loads(call("diagnose", "fake", "--json"))["changes"] == {"vllm.max_model_len": 2048}

    log = tmp_path / "user_vllm_1.err"
    log.write_text("x\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74 GiB.\n")
    assert "The card's memory is not enough." in call("diagnose", str(log))


def test_why_of_something_that_is_neither_says_so(workspace: Path, tmp_path: Path, call: Any) -> None:
    assert "nothing" in call("diagnose", "nothing", status=2)
    assert "log files that exist" in call("diagnose", "a.log", "b.log", status=2)


def test_a_fix_leaves_the_params_it_was_made_from_alone() -> None:
    spec = {"env": {"A": "1"}, "vllm": {"args": {"x.y": 1}}}

    tree, told = apply_fix(spec, {"env.A": None, "env.B": "2", "vllm.args.x.y": 2, "vllm.dtype": None})

    assert tree == {"env": {"B": "2"}, "vllm": {"args": {"x.y": 2}}}
    assert told == ['env.A: "1" -> not set', 'env.B: not set -> "2"', "vllm.args.x.y: 1 -> 2"]
    assert spec == {"env": {"A": "1"}, "vllm": {"args": {"x.y": 1}}}
