"""What the server answers, asked as a client asks: over HTTP on the loopback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp
import jsonschema
import pytest

import tautools
from tautools.errors import ServerError
from tautools.params.models import SimulateParams
from tautools.simulate import SimulatedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AT_ONCE = SimulateParams(speed=0)
SAY = {"model": "m", "messages": [{"role": "user", "content": "Reply with the word pong."}]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "days", "unit"],
        },
    },
}


@pytest.fixture
async def server() -> AsyncIterator[SimulatedServer]:
    async with SimulatedServer(AT_ONCE, model="m", aliases=["nonce-1"], key="secret") as running:
        yield running


async def get(server: SimulatedServer, path: str, key: str | None = "secret") -> tuple[int, str, dict[str, str]]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    url = server.base_url.removesuffix("/v1") + path
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.text(), dict(answer.headers)


async def chat(server: SimulatedServer, body: Any, key: str = "secret") -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{server.base_url}/chat/completions"
    data = body if isinstance(body, str) else json.dumps(body)
    async with aiohttp.ClientSession() as session, session.post(url, data=data, headers=headers) as answer:
        return answer.status, await answer.json()


async def stream(server: SimulatedServer, body: dict[str, Any]) -> list[Any]:
    """Return the events of a stream, `[DONE]` as text."""
    headers = {"Authorization": "Bearer secret"}
    url = f"{server.base_url}/chat/completions"
    whole = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with aiohttp.ClientSession() as session, session.post(url, json=whole, headers=headers) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = [line.decode().strip() async for line in answer.content]
    events = [line.removeprefix("data: ") for line in lines if line]
    return [event if event == "[DONE]" else json.loads(event) for event in events]


async def test_health_ping_and_version_need_no_key_and_tell_that_it_is_simulated(server: SimulatedServer) -> None:
    for path in ("/health", "/ping"):
        status, text, headers = await get(server, path, key=None)
        assert (status, text) == (200, "")
        assert headers["X-Tautools-Simulated"] == f"SIMULATED-{tautools.__version__}"
    status, text, _ = await get(server, "/version", key=None)
    assert (status, json.loads(text)) == (200, {"version": f"SIMULATED-{tautools.__version__}"})


async def test_models_lists_the_name_and_every_alias_with_the_context_length(server: SimulatedServer) -> None:
    status, text, _ = await get(server, "/v1/models")
    cards = json.loads(text)["data"]
    assert status == 200
    assert [card["id"] for card in cards] == ["m", "nonce-1"]
    assert {card["owned_by"] for card in cards} == {"tautools-simulate"}
    assert {card["max_model_len"] for card in cards} == {131072}


@pytest.mark.parametrize("key", [None, "wrong", "", "sécret"])
async def test_a_missing_or_wrong_key_is_refused_in_vllms_words(server: SimulatedServer, key: str | None) -> None:
    status, text, headers = await get(server, "/v1/models", key=key)
    assert (status, json.loads(text)) == (401, {"error": "Unauthorized"})
    assert headers["X-Tautools-Simulated"].startswith("SIMULATED")


async def test_a_server_without_a_key_asks_for_none() -> None:
    async with SimulatedServer(AT_ONCE) as server:
        status, _, _ = await get(server, "/v1/models", key=None)
    assert status == 200


async def test_a_chat_answers_the_word_asked_for_and_is_marked_simulated(server: SimulatedServer) -> None:
    status, answer = await chat(server, SAY)
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "pong"
    assert "tool_calls" not in answer["choices"][0]["message"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["system_fingerprint"] == f"SIMULATED-{tautools.__version__}"
    assert answer["model"] == "m"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_stream_has_the_role_then_small_tokens_then_the_reason_then_usage(server: SimulatedServer) -> None:
    events = await stream(server, {**SAY, "messages": [{"role": "user", "content": "Hello there"}]})
    assert events[-1] == "[DONE]"
    chunks = events[:-1]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    tokens = [chunk["choices"][0]["delta"]["content"] for chunk in chunks[1:-2]]
    assert all(3 <= len(token) <= 5 for token in tokens[:-1])
    assert "simulated model" in "".join(tokens)
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == len(tokens)
    assert {chunk["system_fingerprint"] for chunk in chunks} == {f"SIMULATED-{tautools.__version__}"}


async def test_usage_is_streamed_only_when_asked_for(server: SimulatedServer) -> None:
    headers = {"Authorization": "Bearer secret"}
    url = f"{server.base_url}/chat/completions"
    body = {**SAY, "stream": True}
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answer:
        text = await answer.text()
    assert '"usage"' not in text
    assert text.endswith("data: [DONE]\n\n")


async def test_the_same_prompt_again_is_found_in_the_prefix_cache(server: SimulatedServer) -> None:
    body = {"model": "m", "messages": [{"role": "system", "content": "policy " * 200}, *SAY["messages"]]}
    first = (await chat(server, body))[1]["usage"]
    second = (await chat(server, body))[1]["usage"]
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert first["prompt_tokens"] - 16 <= second["prompt_tokens_details"]["cached_tokens"] < first["prompt_tokens"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
async def test_a_forced_tool_call_fits_the_schema(server: SimulatedServer, choice: Any) -> None:
    asked = [{"role": "user", "content": "How warm will it be in Paris over the next 12 days, in fahrenheit?"}]
    status, answer = await chat(server, {"model": "m", "messages": asked, "tools": [WEATHER], "tool_choice": choice})
    assert status == 200
    choice_given = answer["choices"][0]
    call = choice_given["message"]["tool_calls"][0]
    arguments = json.loads(call["function"]["arguments"])
    jsonschema.validate(arguments, WEATHER["function"]["parameters"])
    assert arguments == {"city": "Paris", "days": 9, "unit": "fahrenheit"}
    assert choice_given["finish_reason"] == ("tool_calls" if choice == "required" else "stop")


async def test_tool_calls_are_streamed_in_pieces(server: SimulatedServer) -> None:
    asked = [{"role": "user", "content": "What is the weather in Rome?"}]
    events = await stream(server, {"model": "m", "messages": asked, "tools": [WEATHER]})
    deltas = [event["choices"][0]["delta"] for event in events[:-1] if event["choices"]]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["function"] == {"name": "get_weather", "arguments": ""}
    assert len(calls) > 3
    assert json.loads("".join(call["function"]["arguments"] for call in calls))["city"] == "Rome"
    assert events[-3]["choices"][0]["finish_reason"] == "tool_calls"


async def test_no_tool_is_called_when_the_choice_is_none(server: SimulatedServer) -> None:
    asked = [{"role": "user", "content": "What is the weather in Rome?"}]
    _, answer = await chat(server, {"model": "m", "messages": asked, "tools": [WEATHER], "tool_choice": "none"})
    assert "tool_calls" not in answer["choices"][0]["message"]


async def test_a_tools_result_is_answered_in_words(server: SimulatedServer) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "What is the weather in Rome?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "21 degrees"},
    ]
    _, answer = await chat(server, {"model": "m", "messages": messages, "tools": [WEATHER]})
    assert "21 degrees" in answer["choices"][0]["message"]["content"]


async def test_an_unknown_model_is_not_found(server: SimulatedServer) -> None:
    status, answer = await chat(server, {**SAY, "model": "nope"})
    assert status == 404
    assert answer["error"] == {
        "message": "The model `nope` does not exist. Valid aliases: m, nonce-1",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }


async def test_an_alias_is_answered_under_the_models_own_name(server: SimulatedServer) -> None:
    status, answer = await chat(server, {**SAY, "model": "nonce-1"})
    assert (status, answer["model"]) == (200, "m")


async def test_a_prompt_that_is_too_long_is_refused_in_vllms_words() -> None:
    async with SimulatedServer(SimulateParams(speed=0, max_model_len=1024), model="m") as server:
        long = {"model": "m", "messages": [{"role": "user", "content": "x" * 5000}]}
        status, answer = await chat(server, long)
        fits, _ = await chat(server, SAY)
    assert (status, fits) == (400, 200)
    assert answer["error"]["message"].startswith("This model's maximum context length is 1024 tokens. However, you")
    assert answer["error"]["param"] == "input_tokens"


async def test_an_answer_stops_at_max_tokens_and_says_so(server: SimulatedServer) -> None:
    _, answer = await chat(server, {**SAY, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3})
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


async def test_a_tool_call_cut_short_comes_back_as_raw_text(server: SimulatedServer) -> None:
    body = {**SAY, "tools": [WEATHER], "tool_choice": "required", "max_tokens": 5}
    _, answer = await chat(server, body)
    message = answer["choices"][0]["message"]
    assert "tool_calls" not in message
    assert message["content"].startswith("<tool_call>")
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("{not json", "body"),
        ("[]", "body"),
        ({"model": "m"}, "body.messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": ["hello"]}, "body.messages"),
        ({**SAY, "max_tokens": 0}, "max_tokens"),
        ({**SAY, "max_tokens": 200_000}, "max_tokens"),
        ({**SAY, "n": 2}, "n"),
        ({**SAY, "tool_choice": "required"}, "tool_choice"),
        ({**SAY, "tools": [WEATHER], "tool_choice": {"function": {"name": "fly"}}}, "tool_choice"),
        ({**SAY, "tautools_task": {"env": "retail"}}, "tautools_task"),
        ({**SAY, "tautools_task": 3}, "tautools_task"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_with_the_part_that_is_wrong(
    server: SimulatedServer, body: Any, param: str
) -> None:
    status, answer = await chat(server, body)
    assert (status, answer["error"]["param"]) == (400, param)


async def test_thinking_comes_apart_from_the_answer_and_only_when_asked_for(server: SimulatedServer) -> None:
    _, plain = await chat(server, SAY)
    _, thought = await chat(server, {**SAY, "chat_template_kwargs": {"enable_thinking": True}})
    assert plain["choices"][0]["message"]["reasoning"] is None
    assert thought["choices"][0]["message"]["reasoning"]
    assert thought["choices"][0]["message"]["content"] == "pong"


async def test_what_is_not_there_is_not_found(server: SimulatedServer) -> None:
    status, text, _ = await get(server, "/v1/models/m")
    assert (status, json.loads(text)) == (404, {"detail": "Not Found"})


async def test_a_port_in_use_is_refused_and_the_other_server_is_not_disturbed(server: SimulatedServer) -> None:
    with pytest.raises(ServerError, match=f"cannot listen on 127.0.0.1:{server.port}") as caught:
        async with SimulatedServer(AT_ONCE, port=server.port):
            pass
    assert "address already in use" in str(caught.value)
    assert (await get(server, "/health"))[0] == 200
