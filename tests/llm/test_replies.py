"""What is read from a stream, over a real socket."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import Say, ScriptedServer

from tautools.llm.stream import StreamParser, split_thinking
from tautools.records import ModelConfig, Thinking
from tautools.stats import time_per_output_token_s


async def test_text_usage_and_finish_reason_are_read(open_client: Any) -> None:
    async with ScriptedServer(Say("The order is on its way.")) as server, open_client(server) as opened:
        reply = await opened.ask()
    assert (reply.text, reply.finish_reason, reply.tool_calls) == ("The order is on its way.", "stop", ())
    record = reply.record
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens) == (11, 7, 6)
    assert (record.status, record.fault, record.source, record.endpoint) == (200, "", "streamed", server.base_url)
    assert opened.records == [record]


async def test_missing_usage_leaves_the_token_counts_open(open_client: Any) -> None:
    async with ScriptedServer(Say("Fine.", usage=None)) as server, open_client(server) as opened:
        record = (await opened.ask()).record
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens) == (None, None, None)


async def test_usage_without_details_is_read(open_client: Any) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None}
    async with ScriptedServer(Say("Fine.", usage=usage)) as server, open_client(server) as opened:
        record = (await opened.ask()).record
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens) == (5, None, 2)


async def test_vllms_own_times_are_kept_beside_ours(open_client: Any) -> None:
    metrics = {"time_to_first_token_ms": 12.5, "generation_time_ms": 300, "queue_time_ms": 2, "mean_itl_ms": 3.0}
    async with ScriptedServer(Say("Fine.", metrics=metrics)) as server, open_client(server) as opened:
        record = (await opened.ask()).record
    assert (record.server_prefill_s, record.server_generation_s, record.server_queue_s) == (0.0125, 0.3, 0.002)


async def test_times_add_up_to_what_the_server_took(open_client: Any) -> None:
    say = Say("abcdefgh", chunk_chars=2, first_s=0.1, gap_s=0.05)
    async with ScriptedServer(say) as server, open_client(server, keep_itl=True) as opened:
        record = (await opened.ask()).record
    assert record.chunks == 4
    assert record.itl_s is not None
    assert len(record.itl_s) == 3
    assert record.ttft_s is not None
    assert record.decode_s is not None
    assert record.e2e_s is not None
    assert record.ttft_s >= 0.1
    assert sum(record.itl_s) <= record.decode_s + 1e-9, "the end token comes after the last chunk with text"
    assert record.ttft_s + record.decode_s <= record.e2e_s
    assert record.itl_mean_s == pytest.approx(sum(record.itl_s) / 3)
    assert record.itl_max_s == max(record.itl_s)
    assert sorted(record.itl_s)[1] == record.itl_p50_s


def _event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': delta, 'finish_reason': finish_reason}]})}\n\n".encode()


def test_decoding_ends_with_the_end_token_which_brings_no_text() -> None:
    """vLLM sends it as the finish reason, and counts it in its usage and in its own time per output token."""
    parser = StreamParser("here")
    parser.feed(_event({"role": "assistant", "content": ""}), 1.0)
    for at, text in ((1.0, "Yes"), (1.2, "."), (1.4, "")):
        parser.feed(_event({"content": text}, None if text else "stop"), at)
    parser.feed(b'data: {"choices":[],"usage":{"completion_tokens":3}}\n\ndata: [DONE]\n\n', 1.6)
    assert parser.first is not None
    assert time_per_output_token_s(parser.last - parser.first, parser.usage["completion_tokens"]) == pytest.approx(0.2)


def test_the_first_token_of_a_call_is_that_of_the_answers_first_chunk() -> None:
    """A tool parser holds `<tool_call>` and the name back; words are seen as soon as they come."""
    call = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}
    for delta, first in ((call, 1.0), ({"content": "Yes"}, 2.0), ({"reasoning": "Hm"}, 2.0)):
        parser = StreamParser("here")
        parser.feed(_event({"role": "assistant", "content": ""}), 1.0)
        parser.feed(_event(delta), 2.0)
        assert parser.first == first


async def test_gaps_are_not_kept_unless_asked_for(open_client: Any) -> None:
    async with ScriptedServer(Say("abcdefgh")) as server, open_client(server) as opened:
        assert (await opened.ask()).record.itl_s is None


async def test_thinking_tokens_count_as_the_first_token(open_client: Any) -> None:
    say = Say("Yes.", thinking="Hm, hm.", gap_s=0.05)
    async with ScriptedServer(say) as server, open_client(server) as opened:
        record = (await opened.ask()).record
    assert record.chunks == 3
    assert record.decode_s is not None
    assert record.decode_s > 0
    assert record.thinking_chars == len("Hm, hm.")


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
async def test_thinking_in_a_field_of_its_own_is_kept_apart(open_client: Any, name: str) -> None:
    say = Say("It left.", thinking="Let me look.", thinking_field=name)
    async with ScriptedServer(say) as server, open_client(server) as opened:
        reply = await opened.ask()
    assert (reply.text, reply.thinking) == ("It left.", "Let me look.")
    assert "look" not in json.dumps(reply.message)


@pytest.mark.parametrize(
    ("content", "text", "thinking"),
    [
        ("<think>Let me look.</think>\n\nIt left.", "It left.", "Let me look."),
        ("Let me look.\n</think>\n\nIt left.", "It left.", "Let me look."),
        ("<think>Let me look", "", "Let me look"),
        ("<think></think>It left.", "It left.", ""),
        ("<think>one</think>It <think>two</think>left.", "It left.", "onetwo"),
        ("<think>a <think> in it</think>It left.", "It left.", "a  in it"),
        ("<think>one</think>two</think>It left.", "It left.", "onetwo"),
        ("I <b>think</b> it left.", "I <b>think</b> it left.", ""),
        ("  It left.\n", "  It left.\n", ""),
    ],
)
@pytest.mark.parametrize("width", [1, 3, 0])
async def test_thinking_between_tags_is_cut_out(
    open_client: Any, content: str, text: str, thinking: str, width: int
) -> None:
    async with ScriptedServer(Say(content, chunk_chars=width)) as server, open_client(server) as opened:
        reply = await opened.ask()
    assert (reply.text, reply.thinking) == (text, thinking)


@given(st.lists(st.sampled_from(["<think>", "</think>", "word", "other"]), max_size=12))
def test_what_follows_an_opening_tag_or_precedes_a_closing_one_was_thought(parts: list[str]) -> None:
    said, thought = [], []
    for place, part in enumerate(parts):
        if "think" in part:
            continue
        before = next((each for each in reversed(parts[:place]) if "think" in each), "")
        after = next((each for each in parts[place:] if "think" in each), "")
        (thought if before == "<think>" or after == "</think>" else said).append(part)
    assert split_thinking("".join(parts)) == ("".join(said), "".join(thought))


async def test_thinking_cut_off_by_its_length_is_no_text(open_client: Any) -> None:
    """The template opened the tag in the prompt and the answer ended before it was closed."""
    say = Say("Let me look at the", finish_reason="length")
    config = ModelConfig(model="scripted", thinking=Thinking.ON)
    async with ScriptedServer(say) as server:
        async with open_client(server, config=config) as opened:
            thought = await opened.ask()
        async with open_client(server) as opened:
            said = await opened.ask()
    assert (thought.text, thought.thinking) == ("", "Let me look at the")
    assert (said.text, said.thinking) == ("Let me look at the", "")


async def test_several_tool_calls_are_put_together(open_client: Any, tool: Any) -> None:
    calls = [("get_order", {"order_id": "#W1"}), ("get_order", {"order_id": "#W2"})]
    async with ScriptedServer(Say("Looking.", calls=calls, chunk_chars=3)) as server, open_client(server) as opened:
        reply = await opened.ask(tools=[tool])
    assert [(call.name, json.loads(call.arguments)) for call in reply.tool_calls] == calls
    assert [call.id for call in reply.tool_calls] == ["call_0", "call_1"]
    assert (reply.text, reply.finish_reason) == ("Looking.", "tool_calls")
    assert reply.message["tool_calls"][1]["function"]["name"] == "get_order"


def _call(**parts: Any) -> dict[str, Any]:
    function = {name: parts.pop(name) for name in ("name", "arguments") if name in parts}
    return {"tool_calls": [{**parts, "function": function}]}


@pytest.mark.parametrize(
    "deltas",
    [
        pytest.param(
            [
                _call(id="a", name="f", arguments='{"x"'),
                _call(arguments=":1}"),
                _call(id="b", name="g", arguments="{}"),
            ],
            id="no index",
        ),
        pytest.param(
            [_call(index=0, id="a", name="f", arguments='{"x":1}'), _call(index=0, id="b", name="g", arguments="{}")],
            id="always index 0",
        ),
        pytest.param(
            [
                _call(index=0, id="a", name="f"),
                _call(index=0, id="z", arguments='{"x"'),
                _call(index=0, id="y", arguments=":1}"),
                _call(index=1, id="b", name="g", arguments="{}"),
            ],
            id="a fresh id in every delta",
        ),
        pytest.param(
            [
                {
                    "tool_calls": [
                        {"index": 0, "id": "a", "function": {"name": "f", "arguments": None}},
                        {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}},
                    ]
                },
                _call(index=0, arguments='{"x":1}'),
            ],
            id="two in one delta, then the first goes on",
        ),
        pytest.param(
            [_call(index=0, id="a", name="f", arguments={"x": 1}), _call(index=1, id="b", name="g", arguments={})],
            id="arguments that are no text",
        ),
    ],
)
async def test_the_habits_of_other_servers_are_understood(open_client: Any, deltas: list[Any]) -> None:
    say = Say(deltas=deltas, finish_reason="tool_calls")
    async with ScriptedServer(say) as server, open_client(server) as opened:
        calls = (await opened.ask()).tool_calls
    assert [(call.id, call.name, json.loads(call.arguments)) for call in calls] == [
        ("a", "f", {"x": 1}),
        ("b", "g", {}),
    ]


async def test_a_tool_call_without_an_id_gets_one(open_client: Any) -> None:
    say = Say(deltas=[_call(index=0, name="f", arguments="{}"), _call(index=1, name="g", arguments="{}")])
    async with ScriptedServer(say) as server, open_client(server) as opened:
        first, second = (await opened.ask()).tool_calls
    assert first.id
    assert second.id
    assert first.id != second.id


async def test_one_json_object_in_place_of_a_stream_is_an_answer_without_a_first_token(open_client: Any) -> None:
    say = Say("It left.", thinking="Hm.", calls=[("get_order", {"order_id": "#W1"})], whole=True)
    async with ScriptedServer(say) as server, open_client(server) as opened:
        reply = await opened.ask()
    assert (reply.text, reply.thinking, reply.tool_calls[0].name) == ("It left.", "Hm.", "get_order")
    record = reply.record
    assert (record.source, record.ttft_s, record.decode_s, record.chunks) == ("wall", None, None, 0)
    assert record.e2e_s is not None
    assert record.prompt_tokens == 11


async def test_an_empty_answer_is_an_answer(open_client: Any) -> None:
    async with ScriptedServer(Say("")) as server, open_client(server) as opened:
        reply = await opened.ask()
    assert (reply.text, reply.tool_calls, reply.record.fault, reply.record.chunks) == ("", (), "", 0)
    assert reply.record.ttft_s is None


async def test_a_simulated_answer_is_marked_by_its_fingerprint(open_client: Any) -> None:
    async with ScriptedServer([Say("a", fingerprint="SIMULATED-1"), Say("b")]) as server, open_client(server) as opened:
        assert (await opened.ask()).record.simulated
        assert not (await opened.ask()).record.simulated


_STREAM = b"".join(
    (
        b": a comment\r\n\r\n",
        b'event: message\ndata:{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
        'data: {"choices":[{"index":0,"delta":{"content":"Grüße, 世"}}]}\r\n\r\n'.encode(),
        b'id: 7\ndata: {"choices":[{"index":0,"delta":{"content":" and\\n\\ndata: more"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    )
)


@given(st.lists(st.integers(0, len(_STREAM)), max_size=40))
def test_a_stream_reads_the_same_however_it_is_cut(cuts: list[int]) -> None:
    endpoints = [0, *sorted(cuts), len(_STREAM)]
    parser = StreamParser("here")
    for start, end in itertools.pairwise(endpoints):
        parser.feed(_STREAM[start:end], time.perf_counter())
    assert parser.done
    assert parser.finish().text == "Grüße, 世 and\n\ndata: more"
    assert parser.chunks == 2
