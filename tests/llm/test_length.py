"""How long an answer may be by default, and what becomes of a request that a server refuses for it."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_server import Request, Say, ScriptedServer

from tautools.errors import ModelCallError
from tautools.llm.request import chat_body, default_max_tokens
from tautools.llm.types import CallTag, Endpoint
from tautools.params.models import RoleParams
from tautools.records import ModelConfig, Role, Sampling, Thinking
from tautools.run.plan import model_config_of


@pytest.mark.parametrize(
    ("model", "thinking", "expected"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "default", 4096),
        ("Qwen/Qwen3-4B-Instruct-2507", "default", 4096),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "default", 4096),
        ("Qwen/Qwen3-8B", "off", 4096),
        ("Qwen/Qwen3-8B", "default", 32768),
        ("Qwen/Qwen3-4B-Thinking-2507", "default", 32768),
        ("openai/gpt-oss-20b", "off", 32768),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "default", 32768),
        ("someone/unheard-of-9B", "default", 32768),
        ("someone/unheard-of-9B", "off", 4096),
    ],
)
def test_an_answer_has_room_for_what_its_model_does(model: str, thinking: str, expected: int) -> None:
    assert default_max_tokens(model, Thinking(thinking)) == expected


@pytest.mark.parametrize(
    ("role", "sent"),
    [
        ({}, 4096),
        ({"max_tokens": 77}, 77),
        ({"max_tokens": None}, None),
        ({"provider": "gemini"}, None),
    ],
)
def test_a_chosen_length_counts_and_a_hosted_model_has_its_providers(role: dict[str, Any], sent: int | None) -> None:
    config = model_config_of(RoleParams.model_validate({"model": "qwen2.5-7b"} | role), "qwen2.5-7b")
    tag, hello = CallTag(role=Role.AGENT), [{"role": "user", "content": "Hi."}]
    assert chat_body(Endpoint("http://x/v1", "m"), config, tag, hello, None).get("max_tokens") == sent


@pytest.mark.parametrize(("length", "words", "expected"), [(8192, 10, 4096), (8192, 2000, 4192), (8192, 3200, None)])
def test_the_default_is_never_more_than_the_context_leaves(length: int, words: int, expected: int | None) -> None:
    config = ModelConfig(model="m", default_max_tokens=32768 if expected == 4192 else 4096)
    messages = [{"role": "user", "content": "about " * words}]
    body = chat_body(
        Endpoint("http://x/v1", "m", max_model_len=length), config, CallTag(role=Role.AGENT), messages, None
    )
    found = body.get("max_tokens")
    assert found is None if expected is None else abs(found - expected) < 900
    assert (found or 0) < length


def refuses(request: Request) -> Say:
    """Refuse what a small model served by vLLM refuses: a prompt of 9000 tokens leaves 1000."""
    asked = request.body.get("max_tokens", 1)
    text = f"This model's maximum context length is 10000 tokens. However, you requested {asked} output tokens."
    return Say("Well.") if asked <= 1000 else Say(status=400, body={"error": {"message": text}})


@pytest.mark.parametrize(("length", "later"), [(10_000, [4096, None]), (None, [None])])
async def test_where_the_estimate_fails_the_server_is_asked_without_a_length(
    open_client: Any, length: int | None, later: list[int | None]
) -> None:
    """A server whose context is known may take the next one; of another one the refusal is remembered."""
    config, endpoint = ModelConfig(model="scripted", default_max_tokens=4096), {"max_model_len": length}
    async with ScriptedServer(refuses) as server, open_client(server, config=config, endpoint=endpoint) as opened:
        assert (await opened.ask()).text == "Well."
        assert (await opened.ask()).text == "Well."
    assert [request.body.get("max_tokens") for request in server.requests] == [4096, None, *later]


async def test_a_length_that_a_person_chose_is_refused_as_before(open_client: Any) -> None:
    config = ModelConfig(model="scripted", sampling=Sampling(max_tokens=4096))
    async with ScriptedServer(refuses) as server, open_client(server, config=config) as opened:
        with pytest.raises(ModelCallError, match="no longer fits"):
            await opened.ask()
    assert len(server.requests) == 1
