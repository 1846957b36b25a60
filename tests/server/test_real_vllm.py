"""Servers with a real vLLM on the CPU and a tiny random model; TAUTOOLS_TEST_VLLM names its `vllm` command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tautools.errors import NotReadyError, VerifyError
from tautools.params.models import ServerParams
from tautools.server import Registry, State, launch, open_server, server_states, verify_url
from tautools.shell import group_members

if TYPE_CHECKING:
    from tautools.server import Server, Snapshot

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

SMALL = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process less
    "TORCH_COMPILE_DISABLE": "1",  # no C++ compiler for the first tool call
}


@pytest.fixture(scope="session")
def tiny_model(vllm_command: str, tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    python = Path(vllm_command).with_name("python")
    maker = repo / "tests" / "support" / "make_tiny_model.py"
    subprocess.run([python, maker, folder, "--first", "<tool_call>=0.6"], check=True, capture_output=True)
    return folder


@pytest.fixture
def tiny(vllm_command: str, tiny_model: Path) -> Any:
    def params(**vllm: Any) -> ServerParams:
        args = {"tool_strict_level": "parameter", "block_size": 32, "kv_cache_memory_bytes": 67108864}
        options = {
            "max_model_len": 65536,
            "tool_call_parser": "hermes",
            "enforce_eager": True,
            "dtype": "float32",
            "args": args | vllm.pop("args", {}),
        }
        return ServerParams.model_validate(
            {
                "name": "tiny",
                "model": str(tiny_model),
                "served_model_name": "Qwen/Qwen3-4B-Instruct-2507",
                "serve_command": [vllm_command, "serve"],
                "env": SMALL,
                "vllm": {key: value for key, value in (options | vllm).items() if value is not None},
            }
        )

    return params


def members(server: Server) -> list[int]:
    return group_members(server.record.pid or 0, server.record.pid_started_at or 0.0)


def wait_for_line(server: Server, text: str) -> None:
    deadline = time.monotonic() + 60
    while not any(text in line for line in server.tail()):
        assert time.monotonic() < deadline, "\n".join(server.tail(20))
        time.sleep(0.1)


def test_a_real_vllm_is_started_proven_listed_read_tested_and_stopped(workspace: Path, tiny: Any) -> None:
    seen: list[Snapshot] = []

    server = launch(tiny(), workspace=workspace).wait_ready(on_progress=seen.append)

    certificate = server.record.certificate
    assert certificate is not None
    assert {rung.number: rung.passed for rung in certificate.rungs} == dict.fromkeys((0, 1, 2, 3, 4, 5, 7), True)
    assert certificate.max_model_len == 65536
    assert certificate.versions["server"]
    percents = [snapshot.percent for snapshot in seen]
    assert percents == sorted(percent or 0 for percent in percents)
    assert len({snapshot.stage for snapshot in seen}) >= 4
    assert [(record.name, snapshot.state) for record, snapshot in server_states(workspace)] == [("tiny", State.READY)]
    assert any("Application startup complete" in line for line in server.tail())
    endpoint = server.endpoint()
    assert verify_url(endpoint.base_url, model=endpoint.model, key=endpoint.key).passed
    for log in (server.record.log_out, server.record.log_err):
        assert endpoint.key not in Path(log).read_text()
    server.stop()
    assert members(server) == []
    assert Registry(workspace).list() == []


@pytest.mark.parametrize("line", ["version", "Initializing a V1 LLM engine", "Starting to load model"])
def test_a_real_vllm_is_stopped_while_it_starts(workspace: Path, tiny: Any, line: str) -> None:
    server = launch(tiny(), workspace=workspace)
    wait_for_line(server, line)

    server.stop()

    assert members(server) == []
    assert Registry(workspace).list() == []


def test_engines_of_a_killed_vllm_are_found_and_ended(workspace: Path, tiny: Any) -> None:
    server = launch(tiny(), workspace=workspace).wait_ready()

    os.kill(server.record.pid or 0, signal.SIGKILL)
    time.sleep(0.5)

    snapshot = open_server("tiny", workspace=workspace).state()
    assert snapshot.state is State.FAILED
    assert "of its workers still run" in snapshot.detail
    server.stop()
    assert members(server) == []


LAUNCHER = """
import sys
from pathlib import Path
from tautools.params.models import ServerParams
from tautools.server import launch
server = launch(ServerParams.model_validate_json(sys.argv[1]), workspace=Path(sys.argv[2]))
print("started", flush=True)
server.wait_ready()
"""


def test_a_start_outlives_its_killed_launcher_and_is_proven_later(workspace: Path, tiny: Any) -> None:
    words = [sys.executable, "-c", LAUNCHER, tiny().model_dump_json(), str(workspace)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"started\n"
        launcher.kill()

    server = open_server("tiny", workspace=workspace)
    assert server.state().state is State.STARTING
    assert server.wait_ready().state().state is State.READY


def test_a_vllm_without_a_tool_parser_is_not_ready(workspace: Path, tiny: Any) -> None:
    params = tiny(tool_call_parser=None)
    server = launch(params, workspace=workspace)

    with pytest.raises(VerifyError, match="fails rung 7") as caught:
        server.wait_ready()

    assert "tool_call_parser" in caught.value.evidence
    assert server.state().state is State.DEGRADED


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"args": {"no_such_flag": 1}}, "does not know --no-such-flag"),
        ({"tool_call_parser": "nope"}, "no tool parser named nope"),
        ({"max_model_len": 1000000}, "max_model_len 1000000 is more than the model was made for (131072)"),
        ({"args": {"kv_cache_memory_bytes": 1048576}}, "The KV cache cannot hold one request"),
    ],
)
def test_a_real_failure_is_told_by_its_first_cause(
    workspace: Path, tiny: Any, changes: dict[str, Any], cause: str
) -> None:
    server = launch(tiny(**changes), workspace=workspace)

    with pytest.raises(NotReadyError) as caught:
        server.wait_ready()

    assert cause in caught.value.problem
    assert members(server) == []


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        ("/no/such/folder", "neither a folder on this machine nor a name"),
        ("some-org/some-model", "not in the local cache"),
    ],
)
def test_a_model_that_is_not_there_is_told(workspace: Path, tiny: Any, model: str, cause: str) -> None:
    server = launch(tiny().model_copy(update={"model": model}), workspace=workspace)

    with pytest.raises(NotReadyError) as caught:
        server.wait_ready()

    assert cause in caught.value.problem
