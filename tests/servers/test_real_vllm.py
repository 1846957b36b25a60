"""Servers with a real vLLM on the CPU and a tiny random model; TAUTOOLS_TEST_VLLM names its `vllm` command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tautools.errors import NotReadyError, ParamsError
from tautools.http import http_post
from tautools.params import list_params, load_server
from tautools.params.models import ServerParams, SiteParams
from tautools.servers import Registry, State, launch, open_server, server_states, verify_target
from tautools.servers.checks.target import CheckTarget
from tautools.servers.diagnose import diagnose_refusal
from tautools.servers.start import plan_restart, restart
from tautools.servers.vllm.command import server_argv
from tautools.servers.vllm.flags import check_flags, deprecated_flags, installed_flags
from tautools.shell import group_members

if TYPE_CHECKING:
    from tautools.servers import Server, Snapshot

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.xdist_group("vllm")]


SMALL = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process less
    "TORCH_COMPILE_DISABLE": "1",  # no C++ compiler for the first tool call
}


@pytest.fixture(scope="session")
def flags(vllm_command: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ask this vLLM for its flags once for all tests."""
    folder = tmp_path_factory.mktemp("asked") / "flags"
    assert installed_flags([vllm_command, "serve"], env=os.environ, folder=folder) is not None
    return folder


@pytest.fixture
def tiny(vllm_command: str, tiny_model: Path, flags: Path, workspace: Path) -> Any:
    shutil.copytree(flags, workspace / "servers" / "flags")

    def params(**vllm: Any) -> ServerParams:
        args = {"tool_strict_level": "parameter", "block_size": 32, "kv_cache_memory_bytes": 67108864}
        # On the CPU a prompt in several chunks cannot have a seed.
        args |= {"enable_chunked_prefill": False, "max_num_batched_tokens": vllm.get("max_model_len") or 65536}
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
    deadline = time.monotonic() + 180
    while not any(text in line for line in server.tail()):
        assert time.monotonic() < deadline, "\n".join(server.tail(20))
        time.sleep(0.1)


def test_a_real_vllm_is_started_verified_listed_read_tested_and_stopped(workspace: Path, tiny: Any) -> None:
    seen: list[Snapshot] = []

    server = launch(tiny(), workspace=workspace).wait_ready(on_progress=seen.append)

    certificate = server.record.certificate
    assert certificate is not None
    assert {check.number: check.passed for check in certificate.checks} == dict.fromkeys(
        (0, 1, 2, 3, 4, 5, 7, 11), True
    )
    assert certificate.max_model_len == 65536
    assert certificate.versions["server"]
    percents = [snapshot.percent for snapshot in seen]
    assert percents == sorted(percent or 0 for percent in percents)
    assert len({snapshot.stage for snapshot in seen}) >= 4
    assert [(record.name, snapshot.state) for record, snapshot in server_states(workspace)] == [("tiny", State.READY)]
    assert any("Application startup complete" in line for line in server.tail())
    endpoint = server.endpoint()
    assert verify_target(CheckTarget(endpoint.base_url, model=endpoint.model, key=endpoint.key)).passed
    for log in (server.record.log_out, server.record.log_err):
        assert endpoint.key not in Path(log).read_text()
    server.stop()
    assert members(server) == []
    assert Registry(workspace).list() == []


@pytest.mark.parametrize("line", ["version", "Starting to load model"])
def test_a_real_vllm_is_stopped_while_it_starts(workspace: Path, tiny: Any, line: str) -> None:
    server = launch(tiny(), workspace=workspace)
    wait_for_line(server, line)

    server.stop()

    assert members(server) == []
    assert Registry(workspace).list() == []


LAUNCHER = """
import sys
from pathlib import Path
from tautools.params.models import ServerParams
from tautools.servers import launch
server = launch(ServerParams.model_validate_json(sys.argv[1]), workspace=Path(sys.argv[2]))
print("started", flush=True)
server.wait_ready()
"""


def test_a_start_outlives_its_killed_launcher_and_the_engines_of_a_killed_vllm_are_ended(
    workspace: Path, tiny: Any
) -> None:
    words = [sys.executable, "-c", LAUNCHER, tiny().model_dump_json(), str(workspace)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"started\n"
        launcher.kill()

    server = open_server("tiny", workspace=workspace)
    assert server.state().state is State.STARTING
    assert server.wait_ready().state().state is State.READY

    os.kill(server.record.pid or 0, signal.SIGKILL)
    time.sleep(0.5)

    snapshot = open_server("tiny", workspace=workspace).state()
    assert snapshot.state is State.FAILED
    assert "of its workers still run" in snapshot.detail
    server.stop()
    assert members(server) == []


def test_a_vllm_without_a_tool_parser_is_ready_without_tool_calls(workspace: Path, tiny: Any) -> None:
    params = tiny(tool_call_parser=None)
    server = launch(params, workspace=workspace).wait_ready()

    assert server.record.certificate is not None
    assert "--tool-call-parser" in server.record.certificate.without["tool calls"]
    endpoint = server.endpoint()
    tool = {"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}
    body = {"model": endpoint.model, "messages": [{"role": "user", "content": "hello"}], "tools": [tool]}
    refused = diagnose_refusal(http_post(f"{endpoint.base_url}/chat/completions", body, key=endpoint.key).text)
    assert refused is not None
    assert refused.id == "26"
    assert str(server.state()) == "ready: without tool calls"


def test_a_real_kv_cache_that_is_too_small_is_mended_by_the_length_in_its_log(workspace: Path, tiny: Any) -> None:
    # With the shipped template: this random model reads any.
    template = load_server("nemotron-orchestrator-8b", workspace=workspace).vllm.chat_template
    asked = tiny(chat_template=template, args={"kv_cache_memory_bytes": 2097152})
    server = launch(asked, workspace=workspace)
    with pytest.raises(NotReadyError, match="The KV cache cannot hold one request"):
        server.wait_ready()
    assert members(server) == []
    plan = plan_restart("tiny", workspace=workspace, fix=True)
    length = plan.record.spec["vllm"]["max_model_len"]
    assert plan.diagnosis is not None
    assert plan.diagnosis.id == "2"
    assert str(length) in plan.diagnosis.evidence

    again = restart(plan, workspace=workspace).wait_ready()

    assert again.record.certificate is not None
    assert again.record.certificate.max_model_len == length
    assert again.record.changes[0].startswith(f"vllm.max_model_len: 65536 -> {length} ")
    answers = [
        {"model": again.record.model, "messages": [{"role": "user", "content": "word " * 65536}]},
        {"model": "nope", "messages": [{"role": "user", "content": "hello"}]},
    ]
    endpoint = again.endpoint()
    texts = [http_post(f"{endpoint.base_url}/chat/completions", body, key=endpoint.key).text for body in answers]
    found = [diagnose_refusal(text) for text in texts]
    assert [each.id for each in found if each] == ["C1", "C2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"args": {"swap_space": 4}}, "does not know `--swap-space`"),
        ({"tool_call_parser": "hermess"}, "Did you mean `hermes`"),
    ],
)
def test_what_a_real_vllm_does_not_take_is_an_error_before_it_is_started(
    workspace: Path, tiny: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        launch(tiny(**changes), workspace=workspace)

    assert Registry(workspace).list() == []


def test_every_flag_of_the_shipped_server_files_is_known(flags: Path, vllm_command: str, tmp_path: Path) -> None:
    for name in list_params("servers"):
        params = load_server(name, workspace=tmp_path)
        if params.engine == "vllm":
            command = [vllm_command, "serve"]
            argv = server_argv(
                params.model_copy(update={"serve_command": command}), SiteParams(name="here"), port=8007, alias="a"
            )
            check_flags(argv, command=command, env=os.environ, folder=flags)


def test_no_flag_that_is_called_gone_is_in_this_vllm(flags: Path, vllm_command: str) -> None:
    known = installed_flags([vllm_command, "serve"], env=os.environ, folder=flags)

    assert known is not None
    newer = {"default-chat-template-kwargs", "tool-strict-level"}
    assert deprecated_flags().keys() & known.names == newer
    assert {
        gone["renamed"].replace("_", "-") for gone in deprecated_flags().values() if "renamed" in gone
    } <= known.names
