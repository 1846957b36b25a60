"""The model client and a real vLLM (on the CPU, with a tiny random model); TAUTOOLS_TEST_VLLM names its command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tautools.errors import CallFault, ModelCallError
from tautools.http import http_get
from tautools.llm import ModelClient, Retry, Timeouts
from tautools.llm.types import CallTag, Endpoint, Reply
from tautools.records import ModelConfig, Role, Sampling, Thinking, ThinkingSwitch

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.xdist_group("vllm")]

_FLAGS = (
    "--enable-auto-tool-choice --tool-call-parser hermes --tool-strict-level parameter --max-model-len 4096 "
    "--enforce-eager --dtype float32 --block-size 32 --kv-cache-memory-bytes 67108864 "
    "--enable-prompt-tokens-details --enable-per-request-metrics"
)


@pytest.fixture
def vllm(vllm_command: str, key: str, tmp_path: Path, repo: Path) -> Iterator[tuple[Endpoint, subprocess.Popen[bytes]]]:
    """Start a vLLM and wait until it answers."""
    maker = repo / "tests" / "support" / "make_tiny_model.py"
    subprocess.run([Path(vllm_command).with_name("python"), maker, tmp_path / "tiny"], check=True, capture_output=True)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    small = {"HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCH_COMPILE_DISABLE": "1"}
    argv = [vllm_command, "serve", tmp_path / "tiny", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, "--served-model-name", "tiny", *_FLAGS.split()],
            env={**os.environ, **small, "VLLM_API_KEY": key},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, tmp_path / "log")
            yield Endpoint(f"http://127.0.0.1:{port}/v1", "tiny", key=key), process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        try:
            if http_get(url).status == 200:
                return
        except ModelCallError:
            time.sleep(0.5)
    pytest.fail(f"vLLM did not start: {log.read_text()[-2000:]}")


async def _ask(endpoint: Endpoint, text: str = "Hello.", tools: Any = None, **config: Any) -> Reply:
    sampling = Sampling(temperature=0, **config.pop("sampling", {}))
    models = {Role.AGENT: ModelConfig(model="tiny", sampling=sampling, **config)}
    async with ModelClient(
        lambda _: [endpoint], models, timeouts=Timeouts(idle_s=5.0), retry=Retry(attempts=1)
    ) as client:
        return await client.complete(CallTag(role=Role.AGENT, seed=1), [{"role": "user", "content": text}], tools)


async def _fault(endpoint: Endpoint, *args: Any, **options: Any) -> CallFault:
    with pytest.raises(ModelCallError) as raised:
        await _ask(endpoint, *args, **options)
    return raised.value.fault


async def test_a_real_vllm_is_understood(vllm: tuple[Endpoint, subprocess.Popen[bytes]], tool: Any) -> None:
    """One start serves all checks: it takes a quarter of a minute."""
    endpoint, process = vllm
    long = "word " * 400
    first, again = await _ask(endpoint, long), await _ask(endpoint, long)
    assert (first.text, first.finish_reason) == (again.text, again.finish_reason)
    record = again.record
    assert record.prompt_tokens is not None
    assert record.cached_tokens is not None
    assert record.output_tokens is not None
    assert record.prompt_tokens > record.cached_tokens > 300
    assert 0 < record.chunks <= record.output_tokens
    assert record.ttft_s is not None
    assert record.server_prefill_s is not None
    assert 0 < record.server_prefill_s <= record.ttft_s
    assert record.server_queue_s is not None
    assert not record.simulated

    plain = await _ask(endpoint)
    quiet = await _ask(endpoint, thinking=Thinking.OFF)
    assert plain.record.prompt_tokens != quiet.record.prompt_tokens
    marked = await _ask(endpoint, thinking=Thinking.OFF, thinking_switch=ThinkingSwitch.NO_THINK)
    assert marked.record.prompt_tokens == (await _ask(endpoint, "Hello. /no_think")).record.prompt_tokens
    assert (await _ask(endpoint, thinking=Thinking.OFF, thinking_switch=ThinkingSwitch.REASONING_EFFORT)).finish_reason

    called = await _ask(endpoint, tools=[tool], sampling={"extra_body": {"tool_choice": "required"}})
    assert {call.name for call in called.tool_calls} == {"get_order"}
    assert all(isinstance(json.loads(call.arguments), dict) for call in called.tool_calls)

    assert await _fault(endpoint, "word " * 9000) is CallFault.CONTEXT_OVERFLOW
    assert await _fault(endpoint, sampling={"max_tokens": 5000}) is CallFault.REFUSED
    assert await _fault(Endpoint(endpoint.base_url, "tiny", key="wrong")) is CallFault.AUTH
    assert await _fault(Endpoint(endpoint.base_url, "nope", key=endpoint.key)) is CallFault.NOT_FOUND

    # Asked to stop once, vLLM 0.32 ends its engine and then may wait for ever for the client, which waits for tokens:
    # the limit of silence ends that.
    ignoring = {"max_tokens": 3500, "extra_body": {"ignore_eos": True}}
    asking = asyncio.create_task(_fault(endpoint, sampling=ignoring))
    await asyncio.sleep(0.5)
    process.terminate()
    assert (await asking).transient
    process.terminate()
    await asyncio.to_thread(process.wait, 30)
    assert await _fault(endpoint) is CallFault.UNREACHABLE
