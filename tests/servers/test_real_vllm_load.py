"""What a real vLLM tells on `/metrics`, and that it ends by itself; TAUTOOLS_TEST_VLLM names its `vllm` command."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tautools.http import http_post
from tautools.params.models import ServerParams
from tautools.servers import Registry, Server, State, launch
from tautools.servers.lease import LeaseTerms, start_watchdog
from tautools.servers.metrics import WatchedServer, poll_servers, sample_servers
from tautools.shell import group_members

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.xdist_group("vllm")]


@pytest.fixture
def server(vllm_command: str, tiny_model: Path, workspace: Path) -> Server:
    params = ServerParams.model_validate(
        {
            "name": "tiny",
            "model": str(tiny_model),
            "served_model_name": "tiny",
            "serve_command": [vllm_command, "serve"],
            "env": {"HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCH_COMPILE_DISABLE": "1"},
            "vllm": {
                "max_model_len": 8192,
                "tool_call_parser": "hermes",
                "enforce_eager": True,
                "dtype": "float32",
                "args": {
                    "tool_strict_level": "parameter",
                    "block_size": 32,
                    "kv_cache_memory_bytes": 67108864,
                    "enable_chunked_prefill": False,
                    "max_num_batched_tokens": 8192,
                },
            },
        }
    )
    return launch(params, workspace=workspace).wait_ready()


def _ask(server: Server, tokens: int) -> None:
    end = server.endpoint()
    prompt = {"role": "user", "content": "Say something about everything. " * 40}
    body = {"model": end.model, "messages": [prompt], "max_tokens": tokens, "ignore_eos": True}
    assert http_post(f"{end.base_url}/chat/completions", body, key=end.key, timeout_s=120).status == 200


def _keep_asking(server: Server, enough: threading.Event) -> None:
    """Give the server work until it was seen at it, for a minute at most."""
    deadline = time.monotonic() + 60
    while not enough.is_set() and time.monotonic() < deadline:
        _ask(server, 2000)


def test_a_real_vllm_at_work_shows_its_load_and_ends_when_idle(server: Server, workspace: Path) -> None:
    _ask(server, 5)
    before = poll_servers(workspace)
    seen_at_work = threading.Event()
    asking = threading.Thread(target=_keep_asking, args=(server, seen_at_work))
    asking.start()
    busy: WatchedServer | None = None
    while asking.is_alive() and busy is None:
        (seen,) = sample_servers(workspace)
        busy = seen if seen.load.running and seen.load.output_tokens_s else None
    seen_at_work.set()
    asking.join()
    (after,) = poll_servers(workspace, before)

    assert busy is not None
    assert (busy.load.running, busy.load.waiting, busy.load.preempted) == (1, 0, 0)
    assert 0 < (busy.load.kv_usage or 0) < 1
    assert (after.load.output_tokens_s or 0) > 0
    assert (after.load.prefix_hit_rate or 0) > 0.5  # the same long prompt a second time
    start_watchdog(server, LeaseTerms(idle_s=1.0, every_s=0.2))
    deadline = time.monotonic() + 60
    while Registry(workspace).find("tiny") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert server.state().state is State.STOPPED
    assert group_members(server.record.pid or 0, server.record.pid_started_at or 0.0) == []
