"""The upper checks at a real vLLM on the CPU; TAUTOOLS_TEST_VLLM names its `vllm` command."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from serving import wait_for

from tautools.errors import VerifyError
from tautools.params.models import RoleParams, ServerParams
from tautools.servers import State, attach, endpoints, launch

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.fixture
def params(vllm_command: str, tmp_path: Path, repo: Path) -> ServerParams:
    model = tmp_path / "tiny"
    words = [Path(vllm_command).with_name("python"), repo / "tests" / "support" / "make_tiny_model.py", model]
    subprocess.run([*words, "--first", "<tool_call>=0.6"], check=True, capture_output=True)
    small = {"HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCH_COMPILE_DISABLE": "1"}
    vllm = {
        "max_model_len": 16384,
        "tool_call_parser": "hermes",
        "chat_template_kwargs": {"enable_thinking": False},
        "enforce_eager": True,
        "dtype": "float32",
        # In one chunk each: on the CPU a prompt in several cannot have a seed, which check 11 finds.
        "args": {
            "tool_strict_level": "parameter",
            "block_size": 32,
            "kv_cache_memory_bytes": 67108864,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": 16384,
        },
    }
    return ServerParams.model_validate(
        {"name": "tiny", "model": str(model), "serve_command": [vllm_command, "serve"], "env": small, "vllm": vllm}
    )


def test_a_real_vllm_passes_every_check_and_can_be_attached(
    workspace: Path, tmp_path: Path, params: ServerParams
) -> None:
    server = launch(params, workspace=workspace).wait_ready()

    checks = {check.number: check for check in server.verify(concurrency=32).checks}

    assert {number: check.passed for number, check in checks.items()} == dict.fromkeys(range(12), True)
    assert checks[6].detail == "it does not think"
    assert checks[8].detail == "16368 of 16384 tokens are answered, more are refused with 400"
    assert checks[9].detail.endswith("preemptions")
    endpoint = server.endpoint()
    elsewhere = tmp_path / "elsewhere"
    attached = attach("mine", endpoint.base_url, workspace=elsewhere, key=endpoint.key)
    (found,) = endpoints(RoleParams(server="mine"), workspace=elsewhere, role_name="agent")
    assert (found.base_url, found.model, found.key) == (endpoint.base_url, endpoint.model, endpoint.key)
    attached.stop()
    assert server.verify().passed


def test_a_real_vllm_that_a_seed_and_chunks_end_is_found_by_its_verification(
    workspace: Path, params: ServerParams
) -> None:
    params.vllm.args.update(enable_chunked_prefill=True, max_num_batched_tokens=2048)
    server = launch(params, workspace=workspace)

    with pytest.raises(VerifyError, match="check 11, as a run") as caught:
        server.wait_ready()

    assert "a seed" in caught.value.evidence
    wait_for(lambda: server.state().state is State.FAILED)  # a busy machine takes its time over the end
    assert "A request with a seed was computed in several parts" in server.state().detail
    assert "enable_chunked_prefill: false" in server.state().next_step
