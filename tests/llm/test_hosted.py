"""Hosted providers: litellm itself, speaking to a scripted server over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from scripted_server import Say, ScriptedServer

from tautools.errors import CallFault, ModelCallError, ParamsError
from tautools.llm import Retry, Timeouts, check_hosted_key
from tautools.llm.types import Endpoint
from tautools.records import ModelConfig, Role, Sampling, Thinking

_VLLM = {"provider": "hosted_vllm"}
_QUICK = Retry(attempts=3, first_wait_s=0.01, most_wait_s=0.02)


async def test_a_hosted_reply_is_like_any_other(open_client: Any, tool: Any, key: str) -> None:
    """With tools, litellm imports `mcp`, which is not installed: it must be kept from that."""
    calls = [("get_order", {"order_id": "#W1"}), ("get_order", {"order_id": "#W2"})]
    say = Say("Looking.", thinking="Hm.", calls=calls)
    async with ScriptedServer(say, key=key) as server, open_client(server, endpoint=_VLLM) as opened:
        reply = await opened.ask(tools=[tool], seed=3)
    assert (reply.text, reply.thinking, reply.finish_reason) == ("Looking.", "Hm.", "tool_calls")
    assert [(call.name, json.loads(call.arguments)) for call in reply.tool_calls] == calls
    record = reply.record
    assert (record.prompt_tokens, record.cached_tokens, record.source) == (11, 7, "streamed")
    assert record.ttft_s is not None
    assert (record.cost_usd, record.fault) == (None, "")
    body = server.requests[0].body
    assert (body["tools"], body["seed"], body["model"]) == ([tool], 3, "scripted")
    assert server.requests[0].headers["Authorization"] == f"Bearer {key}"
    assert not [name for name in body if name.startswith("_") or "retries" in name]


async def test_a_hosted_request_without_tools_has_no_such_key_and_no_null(open_client: Any, hello: Any) -> None:
    config = ModelConfig(model="scripted", provider="hosted_vllm", sampling=Sampling(temperature=0.0, top_k=5))
    async with ScriptedServer() as server, open_client(server, endpoint=_VLLM, config=config) as opened:
        await opened.ask()
    assert server.requests[0].body == {
        "model": "scripted",
        "messages": hello,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "top_k": 5,
    }


async def test_thinking_tags_are_cut_out_of_a_hosted_reply_too(open_client: Any) -> None:
    say = Say("<think>Let me look.</think>\n\nIt left.", chunk_chars=2)
    async with ScriptedServer(say) as server, open_client(server, endpoint=_VLLM) as opened:
        reply = await opened.ask()
    assert (reply.text, reply.thinking) == ("It left.", "Let me look.")


async def test_the_thinking_switch_reaches_a_hosted_vllm_and_is_refused_elsewhere(open_client: Any) -> None:
    config = ModelConfig(model="scripted", thinking=Thinking.OFF)
    async with ScriptedServer() as server:
        async with open_client(server, endpoint=_VLLM, config=config) as opened:
            await opened.ask()
        async with open_client(server, endpoint={"provider": "deepseek", "key": "k"}, config=config) as opened:
            with pytest.raises(ModelCallError, match="Thinking cannot be switched for deepseek"):
                await opened.ask()
    assert [request.body["chat_template_kwargs"] for request in server.requests] == [{"enable_thinking": False}]


async def test_tokens_of_a_model_with_a_known_price_are_priced(open_client: Any) -> None:
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000, "total_tokens": 2_000_000}
    async with ScriptedServer(Say("Fine.", usage=usage), model="deepseek-chat") as server:
        endpoint = {"provider": "deepseek", "key": "k"}
        async with open_client(server, endpoint=endpoint) as opened:
            cost_usd = (await opened.ask()).record.cost_usd
    import litellm

    price = litellm.model_cost["deepseek/deepseek-chat"]
    assert cost_usd == pytest.approx(1e6 * (price["input_cost_per_token"] + price["output_cost_per_token"]))


@pytest.mark.parametrize(
    ("say", "fault"),
    [
        (Say(status=401, body={"error": "Unauthorized"}), CallFault.AUTH),
        (Say(status=404, body={"error": {"message": "no such model"}}), CallFault.NOT_FOUND),
        (Say(status=429, body={"error": {"message": "slow down"}}), CallFault.OVERLOADED),
        (Say(status=503, body="busy"), CallFault.OVERLOADED),
        (Say(status=500, body={"error": {"message": "boom"}}), CallFault.SERVER_FAULT),
        (Say(status=502, body="bad gateway"), CallFault.SERVER_FAULT),
        (Say(status=400, body={"error": {"message": "top_k must be positive"}}), CallFault.REFUSED),
        (
            Say(status=400, body={"error": {"message": "This model's maximum context length is 4096 tokens."}}),
            CallFault.CONTEXT_OVERFLOW,
        ),
        (Say("abcdefgh", cut_after=1), CallFault.BROKEN_STREAM),
        (Say("abcdefgh", end_after=1), CallFault.BROKEN_STREAM),
        (Say("abcdefgh", error_after=1), CallFault.SERVER_FAULT),
        (Say("abcdefgh", error_after=1, error={"message": "unexpected tokens", "code": 400}), CallFault.SERVER_FAULT),
    ],
)
async def test_a_hosted_fault_has_the_class_of_its_cause(
    open_client: Any, say: Say, fault: CallFault, key: str
) -> None:
    async with ScriptedServer(say) as server, open_client(server, endpoint={**_VLLM, "key": key}) as opened:
        with pytest.raises(ModelCallError) as raised:
            await opened.ask()
    assert raised.value.fault is fault
    assert [record.fault for record in opened.records] == [fault.value]
    assert key not in str(raised.value) + repr(opened.records)


async def test_a_hosted_overload_is_asked_again_as_late_as_it_asks(open_client: Any) -> None:
    script = [Say(status=429, headers={"Retry-After": "0.2"}, body="slow"), Say("Fine.")]
    async with ScriptedServer(script) as server, open_client(server, endpoint=_VLLM, retry=_QUICK) as opened:
        assert (await opened.ask()).text == "Fine."
    assert [wait_s for wait_s, _ in opened.retries] == [0.2]
    assert len(server.requests) == 2


async def test_a_hosted_address_without_a_server_is_unreachable_and_left(open_client: Any) -> None:
    async with ScriptedServer() as dead, ScriptedServer("here") as living:
        await dead.kill()
        endpoints = [Endpoint(each.base_url, "scripted", provider="hosted_vllm") for each in (dead, living)]

        def resolve(_: Role) -> Sequence[Endpoint]:
            return endpoints

        async with open_client(resolve=resolve) as opened:
            assert (await opened.ask(conversation="a")).text == "here"
    assert [record.fault for record in opened.records] == ["unreachable", ""]


async def test_a_silent_hosted_model_is_a_time_out(open_client: Any) -> None:
    limits = Timeouts(first_token_s=0.2)
    silent = Say("x", first_s=30)
    async with ScriptedServer(silent) as server, open_client(server, endpoint=_VLLM, timeouts=limits) as opened:
        with pytest.raises(ModelCallError, match="gave no first token") as raised:
            await opened.ask()
    assert raised.value.fault is CallFault.TIME_OUT


async def test_litellm_prints_nothing(open_client: Any, capfd: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(Say(status=500, body="boom")) as server, open_client(server, endpoint=_VLLM) as opened:
        with pytest.raises(ModelCallError):
            await opened.ask()
    assert "litellm" not in capfd.readouterr().out.lower()


async def test_a_key_from_the_environment_is_taken_out_of_what_a_provider_echoes(
    open_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", "sk-from-the-environment")
    echo = Say(status=401, body={"error": {"message": "Incorrect key: sk-from-the-environment."}})
    async with ScriptedServer(echo) as server, open_client(server, endpoint=_VLLM) as opened:
        with pytest.raises(ModelCallError) as raised:
            await opened.ask()
    assert "Incorrect key: (hidden)." in raised.value.evidence
    assert "sk-from-the-environment" not in str(vars(raised.value)) + repr(opened.records)


def test_a_missing_key_is_told_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(ModelCallError, match="key for anthropic") as raised:
        check_hosted_key("anthropic", "claude-sonnet-4-5")
    assert raised.value.fault is CallFault.AUTH
    assert "export ANTHROPIC_API_KEY=" in raised.value.next_step
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret-value")
    check_hosted_key("anthropic", "claude-sonnet-4-5")


def test_one_of_two_names_for_a_key_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.setenv("GEMINI_API_KEY", "secret-value")
    check_hosted_key("gemini", "gemini-2.5-flash")


def test_an_unknown_provider_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ModelCallError, match=r"no provider 'antropic' of litellm\. Did you mean `anthropic`") as raised:
        check_hosted_key("antropic", "claude-sonnet-4-5")
    assert "vLLM is `openai`" in raised.value.next_step


def test_the_model_client_loads_without_litellm_and_without_aiohttp() -> None:
    code = "import sys, tautools.llm; print(sorted({'litellm', 'openai', 'aiohttp', 'httpx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_hosted_providers_key_in_the_environment(open_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = "Zx81-planted/key+of=nobody"
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", f"{planted}\n")
    async with ScriptedServer(key=planted) as server, open_client(server, endpoint={**_VLLM, "key": ""}) as opened:
        await opened.ask()
        assert server.requests[0].headers["Authorization"] == f"Bearer {planted}"
    monkeypatch.setenv("GEMINI_API_KEY", f"{planted}\n{planted}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/home/me/my keys.json")
    with pytest.raises(ParamsError, match="The key in GEMINI_API_KEY cannot be used: there is a line break"):
        check_hosted_key("gemini", "gemini-2.5-flash")
    monkeypatch.setenv("GEMINI_API_KEY", " \n")
    with pytest.raises(ModelCallError, match="key for gemini"):
        check_hosted_key("gemini", "gemini-2.5-flash")
