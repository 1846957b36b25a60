"""What goes over the wire."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_server import Say, ScriptedServer

from tautools.errors import CallFault, ModelCallError, ParamsError
from tautools.llm.request import switch_of
from tautools.llm.types import CallTag
from tautools.records import BenchRef, ModelConfig, Role, Sampling, Thinking, ThinkingSwitch


def _nulls(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_nulls(each) for each in value.values())
    if isinstance(value, list):
        return any(_nulls(each) for each in value)
    return value is None


@pytest.mark.parametrize("tools", [None, []])
async def test_a_request_without_tools_has_no_such_key_and_no_null(open_client: Any, hello: Any, tools: Any) -> None:
    async with ScriptedServer() as server, open_client(server) as opened:
        await opened.ask(tools=tools)
    body = server.requests[0].body
    assert body == {
        "model": "scripted",
        "messages": hello,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert not _nulls(body)


async def test_tools_go_over_as_they_are(open_client: Any, tool: Any) -> None:
    async with ScriptedServer() as server, open_client(server) as opened:
        await opened.ask(tools=[tool])
    assert server.requests[0].body["tools"] == [tool]
    assert "tool_choice" not in server.requests[0].body


async def test_sampling_and_seed_are_sent_and_extra_body_has_the_last_word(open_client: Any) -> None:
    extra = {"top_p": 0.5, "min_p": 0.1, "tool_choice": "required"}
    sampling = Sampling(temperature=0.0, top_p=0.9, top_k=20, max_tokens=64, extra_body=extra)
    config = ModelConfig(model="scripted", sampling=sampling)
    async with ScriptedServer() as server, open_client(server, config=config) as opened:
        await opened.ask(seed=0)
    body = server.requests[0].body
    assert (body["temperature"], body["top_k"], body["max_tokens"], body["seed"]) == (0.0, 20, 64, 0)
    assert (body["top_p"], body["min_p"], body["tool_choice"]) == (0.5, 0.1, "required")


@pytest.mark.parametrize(
    ("thinking", "extra", "sent"),
    [
        (Thinking.OFF, {}, {"enable_thinking": False}),
        (Thinking.ON, {}, {"enable_thinking": True}),
        (Thinking.DEFAULT, {}, None),
        (Thinking.OFF, {"chat_template_kwargs": {"a": 1}}, {"enable_thinking": False, "a": 1}),
        (Thinking.OFF, {"chat_template_kwargs": {"enable_thinking": True}}, {"enable_thinking": True}),
    ],
)
async def test_the_thinking_switch(open_client: Any, thinking: Thinking, extra: dict[str, Any], sent: Any) -> None:
    config = ModelConfig(model="scripted", thinking=thinking, sampling=Sampling(extra_body=extra))
    async with ScriptedServer() as server, open_client(server, config=config) as opened:
        await opened.ask()
        await opened.ask()
    for request in server.requests:
        assert request.body.get("chat_template_kwargs") == sent


@pytest.mark.parametrize(
    ("thinking", "mark"), [(Thinking.OFF, " /no_think"), (Thinking.ON, " /think"), (Thinking.DEFAULT, "")]
)
async def test_qwens_mark_ends_every_user_message_and_no_history(
    open_client: Any, hello: Any, thinking: Thinking, mark: str
) -> None:
    config = ModelConfig(model="scripted", thinking=thinking, thinking_switch=ThinkingSwitch.NO_THINK)
    said = [{"role": "system", "content": "Be kind."}, *hello, {"role": "assistant", "content": "Hi."}, *hello]
    async with ScriptedServer() as server, open_client(server, config=config) as opened:
        await opened.client.complete(CallTag(role=Role.AGENT), said)
        await opened.client.complete(CallTag(role=Role.AGENT), said[:1])
    first, alone = (request.body for request in server.requests)
    assert [each["content"] for each in first["messages"]] == ["Be kind.", f"Hello.{mark}", "Hi.", f"Hello.{mark}"]
    assert alone["messages"][0]["content"] == f"Be kind.{mark}", "without a user message it ends the system prompt"
    assert "chat_template_kwargs" not in first
    assert said[1] == {"role": "user", "content": "Hello."}


@pytest.mark.parametrize(
    ("model", "thinking", "sent"),
    [
        ("openai/gpt-oss-20b", Thinking.OFF, {"reasoning_effort": "low"}),
        ("openai/gpt-oss-20b", Thinking.ON, {"reasoning_effort": "medium"}),
        ("openai/gpt-oss-20b", Thinking.DEFAULT, {}),
        ("Qwen/Qwen3-32B-FP8", Thinking.OFF, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("nvidia/Nemotron-Orchestrator-8B", Thinking.OFF, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("deepseek-ai/DeepSeek-V3.1", Thinking.ON, {"chat_template_kwargs": {"thinking": True}}),
        ("ibm-granite/granite-3.3-8b-instruct", Thinking.OFF, {"chat_template_kwargs": {"thinking": False}}),
        ("Qwen/Qwen3-4B-Instruct-2507", Thinking.OFF, {}),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct-FP8", Thinking.OFF, {}),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507", Thinking.ON, {}),
        ("/data/ckpt/mine", Thinking.OFF, {"chat_template_kwargs": {"enable_thinking": False}}),
    ],
)
async def test_each_family_is_switched_in_its_own_way(
    open_client: Any, model: str, thinking: Thinking, sent: dict[str, Any]
) -> None:
    config = ModelConfig(model=model, thinking=thinking, thinking_switch=switch_of(model, thinking))
    async with ScriptedServer(model=model) as server, open_client(server, config=config) as opened:
        await opened.ask()
    body = server.requests[0].body
    assert {name: body[name] for name in ("chat_template_kwargs", "reasoning_effort") if name in body} == sent


@pytest.mark.parametrize(
    ("model", "thinking", "text"),
    [
        ("Qwen/Qwen3-4B-Instruct-2507", Thinking.ON, "never thinks"),
        ("Qwen/Qwen3-4B-Thinking-2507", Thinking.OFF, "always thinks"),
        ("Qwen/QwQ-32B", Thinking.OFF, "always thinks"),
    ],
)
def test_what_a_family_cannot_do_is_said_before_anything_is_asked(model: str, thinking: Thinking, text: str) -> None:
    with pytest.raises(ParamsError, match=text):
        switch_of(model, thinking)
    assert switch_of(model, thinking, ThinkingSwitch.NO_THINK) is ThinkingSwitch.NO_THINK, "the role has the last word"


async def test_a_server_that_refuses_the_template_switch_names_the_other_one(open_client: Any) -> None:
    refused = Say(status=400, body='{"error": {"message": "Unrecognized argument: chat_template_kwargs"}}')
    config = ModelConfig(model="scripted", thinking=Thinking.OFF)
    async with ScriptedServer(refused) as server, open_client(server, config=config) as opened:
        with pytest.raises(ModelCallError) as caught:
            await opened.ask()
    assert caught.value.fault is CallFault.REFUSED
    assert "thinking_switch: no_think" in caught.value.next_step


async def test_only_simulated_servers_learn_which_task_they_play(open_client: Any, hello: Any) -> None:
    tag = CallTag(role=Role.USER, ref=BenchRef("tau2", "retail", "base"), task_id="7", trial=2, strategy="act", seed=99)
    async with ScriptedServer() as server:
        async with open_client(server, endpoint={"simulated": True}) as opened:
            record = (await opened.client.complete(tag, hello)).record
        async with open_client(server) as opened:
            await opened.client.complete(tag, hello)
    assert server.requests[0].body["tautools_task"] == {
        "bench": "tau2",
        "env": "retail",
        "split": "base",
        "task_id": "7",
        "trial": 2,
        "role": "user",
        "strategy": "act",
        "seed": 99,
    }
    assert "tautools_task" not in server.requests[1].body
    assert record.simulated


async def test_a_simulated_server_learns_where_the_benchmark_was_loaded_from(open_client: Any, hello: Any) -> None:
    place = {"source": "tau2-bench", "path": "/checkout", "python": "/checkout/.venv/bin/python"}
    tag = CallTag(role=Role.USER, ref=BenchRef("tau2", "retail", **place))
    async with ScriptedServer() as server, open_client(server, endpoint={"simulated": True}) as opened:
        await opened.client.complete(tag, hello)
    assert place.items() <= server.requests[0].body["tautools_task"].items()


async def test_the_record_says_where_in_the_conversation_the_call_was_made(open_client: Any) -> None:
    where = {"task_id": "7", "trial": 2, "turn": 3, "step": 5, "setting_id": "abc", "purpose": "probe"}
    async with ScriptedServer() as server, open_client(server) as opened:
        record = (await opened.ask(ref=BenchRef("tau2", "retail"), **where)).record
    assert {name: getattr(record, name) for name in where} == where
    assert record.env == "retail"
    assert (record.role, record.model, record.attempt) == (Role.AGENT, "scripted", 0)


async def test_the_key_travels_as_a_bearer_token_only(open_client: Any, key: str) -> None:
    async with ScriptedServer(key=key) as server, open_client(server) as opened:
        reply = await opened.ask()
    assert server.requests[0].headers["Authorization"] == f"Bearer {key}"
    assert key not in repr(server.requests[0].body)
    assert key not in repr(reply)
    assert key not in repr(opened.client)
    assert key not in reply.record.model_dump_json()


async def test_connections_are_used_again(open_client: Any) -> None:
    async with ScriptedServer() as server, open_client(server) as opened:
        for _ in range(5):
            await opened.ask()
        assert len(server.connections) == 1
