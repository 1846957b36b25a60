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
from latency_truth import ask, histograms

from tautools.bench.blame import may_refuse_words, refused_side
from tautools.errors import CallFault, ModelCallError
from tautools.http import http_get
from tautools.llm import ModelClient, Retry, Timeouts
from tautools.llm.types import CallTag, Endpoint, Reply, ToolCall
from tautools.records import ModelConfig, Role, Sampling, Thinking, ThinkingSwitch
from tautools.stats import time_per_output_token_s

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.xdist_group("vllm")]

_FLAGS = (
    "--enable-auto-tool-choice --tool-call-parser hermes --tool-strict-level parameter --max-model-len 4096 "
    "--enforce-eager --dtype float32 --block-size 32 --kv-cache-memory-bytes 67108864 "
    "--enable-prompt-tokens-details --enable-per-request-metrics --trust-request-chat-template"
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


async def _times_are_named_as_the_server_means_them(endpoint: Endpoint) -> None:
    """Its per-request times are those of its histograms, and our TPOT of them is its own."""
    before = histograms(endpoint)
    records = await ask(endpoint, 2, 8, (4, 24))
    after = histograms(endpoint)

    def gained(name: str) -> float:
        return after[f"{name}_seconds"][0] - before[f"{name}_seconds"][0]

    assert sum(record.server_prefill_s or 0.0 for record in records) == pytest.approx(gained("request_prefill_time"))
    assert gained("time_to_first_token") > gained("request_prefill_time")
    decoded = sum(record.server_generation_s or 0.0 for record in records)
    assert decoded == pytest.approx(gained("request_decode_time"))
    assert decoded == pytest.approx(gained("inter_token_latency"))
    tpot = [time_per_output_token_s(record.server_generation_s, record.output_tokens) for record in records]
    assert sum(value or 0.0 for value in tpot) == pytest.approx(gained("request_time_per_output_token"))


_NO_EMPTY_WORDS = (
    "{% for m in messages %}{% if m.role == 'assistant' and not m.content and not m.tool_calls %}"
    "{{ raise_exception('an assistant message is empty') }}{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
)


async def _refused_words_are_told_from_a_refusing_server(endpoint: Endpoint, tool: Any) -> None:
    template = {"chat_template": _NO_EMPTY_WORDS}
    models = {"agent": ModelConfig(model="tiny", sampling=Sampling(max_tokens=2, extra_body=template))}
    hello = [{"role": "system", "content": "Help."}, {"role": "user", "content": "Hello."}]
    call = ToolCall("a", "get_order", '{"order_id": "\\ud83d"}').as_message()
    called = [{"role": "assistant", "content": "", "tool_calls": [call]}, _said("tool", "It left.", tool_call_id="a")]
    async with ModelClient(lambda _: [endpoint], models, retry=Retry(attempts=2, first_wait_s=0.01)) as client:

        async def accepts(messages: Any) -> bool:
            try:
                await client.complete(CallTag(role=Role.AGENT), messages, [tool])
            except ModelCallError as error:
                if not may_refuse_words(error):
                    raise
                return False
            return True

        empty = [*hello, _said("assistant", ""), _said("user", "Are you there?")]
        assert not await accepts(empty)
        assert await refused_side(accepts, empty, [tool]) == "assistant"
        models["agent"] = ModelConfig(model="tiny", sampling=Sampling(max_tokens=2))
        assert await accepts(empty)
        half_a_letter = [*hello, *called]
        assert not await accepts(half_a_letter)
        assert await refused_side(accepts, half_a_letter, [tool]) == "assistant"
        models["agent"] = ModelConfig(model="tiny", sampling=Sampling(max_tokens=2, extra_body={"n": -1}))
        assert not await accepts(half_a_letter)
        assert await refused_side(accepts, half_a_letter, [tool]) == ""


def _said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


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

    await _times_are_named_as_the_server_means_them(endpoint)
    await _refused_words_are_told_from_a_refusing_server(endpoint, tool)

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
