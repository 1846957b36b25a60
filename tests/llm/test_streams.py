"""Streams as servers really send them, over a real socket: each is read as its expectation says.

`streams.json` has bodies made after public reports, each with what a reader should make of it: `text`, `thinking`,
`calls` (name, and arguments or, where they are unreadable, their text), `finish`, `tokens` (prompt, cached, output) or
a `fault`. What follows here are others of their kinds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from scripted_server import Say, ScriptedServer

from tautools.errors import ModelCallError

_REPORTED = json.loads((Path(__file__).parent / "streams.json").read_text(encoding="utf-8"))
_NOTHING = {"text": "", "thinking": "", "calls": [], "finish": "", "tokens": [None, None, None], "fault": ""}


async def _read(open_client: Any, say: Say) -> dict[str, Any]:
    """Return what the client makes of an answer, in the form of an expectation."""
    async with ScriptedServer(say) as server, open_client(server) as opened:
        try:
            reply = await opened.ask()
        except ModelCallError as error:
            return {**_NOTHING, "fault": error.fault.value}
    record = reply.record
    assert orjson.loads(orjson.dumps(record.model_dump(mode="json")))["fault"] == ""
    return {
        "text": reply.text,
        "thinking": reply.thinking,
        "calls": [[call.name, _arguments(call.arguments)] for call in reply.tool_calls],
        "finish": reply.finish_reason,
        "tokens": [record.prompt_tokens, record.cached_tokens, record.output_tokens],
        "fault": "",
    }


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@pytest.mark.parametrize("case", _REPORTED, ids=[case["name"] for case in _REPORTED])
async def test_a_stream_as_reported_is_read_as_wanted(open_client: Any, case: dict[str, Any]) -> None:
    wanted = {**_NOTHING, **{name: value for name, value in case.items() if name not in {"name", "body"}}}
    assert await _read(open_client, Say(raw=case["body"].encode())) == wanted


def _events(*events: Any, done: bool = True) -> bytes:
    """Return a stream; a dictionary that is no whole event is a delta, a text a finish reason."""
    lines = [
        each if isinstance(each, bytes) else b"data: " + json.dumps(_event(each)).encode() + b"\n\n" for each in events
    ]
    return b"".join(lines) + (b"data: [DONE]\n\n" if done else b"")


def _event(given: Any) -> Any:
    if isinstance(given, str):
        return {"choices": [{"index": 0, "delta": {}, "finish_reason": given}]}
    if isinstance(given, dict) and not {"choices", "error", "usage"} & given.keys():
        return {"choices": [{"index": 0, "delta": given, "finish_reason": None}]}
    return given


def _call(**parts: Any) -> dict[str, Any]:
    function = {name: parts.pop(name) for name in ("name", "arguments") if name in parts}
    return {"tool_calls": [{**parts, "function": function}]}


def _usage(usage: Any) -> dict[str, Any]:
    return {"choices": [], "usage": usage}


_HI = {"content": "hi"}
_SAYS_HI = {"text": "hi", "finish": "stop"}
_F, _G = ["f", {"x": 1}], ["g", {}]
_HALF_LETTER = json.dumps({"choices": [{"delta": {"content": "ä?"}}]}, ensure_ascii=False).encode()

_OTHERS: dict[str, tuple[bytes, dict[str, Any]]] = {
    # How calls are told apart.
    "index 0 for all, no ids, cut in pieces, one tool twice": (
        _events(
            _call(index=0, name="f", arguments=""),
            _call(index=0, arguments='{"x":'),
            _call(index=0, arguments="1}"),
            _call(index=0, name="f", arguments=""),
            _call(index=0, arguments='{"x":2}'),
            "tool_calls",
        ),
        {"calls": [_F, ["f", {"x": 2}]], "finish": "tool_calls"},
    ),
    "name, fresh id and index 0 in every delta": (
        _events(
            _call(index=0, id="a", name="f", arguments='{"x":'),
            _call(index=0, id="b", name="f", arguments="1}"),
            "stop",
        ),
        {"calls": [_F], "finish": "stop"},
    ),
    "the name once more at the end": (
        _events(_call(index=0, name="f", arguments='{"x":1}'), _call(index=0, name="f", arguments=""), "stop"),
        {"calls": [_F], "finish": "stop"},
    ),
    "one id for all calls": (
        _events(_call(id="0", name="f", arguments='{"x":1}'), _call(id="0", name="g", arguments="{}"), "stop"),
        {"calls": [_F, _G], "finish": "stop"},
    ),
    "turn by turn, told apart by id alone": (
        _events(
            _call(id="a", name="f"),
            _call(id="b", name="g"),
            _call(id="a", arguments='{"x":'),
            _call(id="b", arguments="{"),
            _call(id="a", arguments="1}"),
            _call(id="b", arguments="}"),
            "stop",
        ),
        {"calls": [_F, _G], "finish": "stop"},
    ),
    "turn by turn, told apart by index": (
        _events(
            _call(index=0, name="f"),
            _call(index=1, name="g"),
            _call(index=0, arguments='{"x":'),
            _call(index=1, arguments="{}"),
            _call(index=0, arguments="1}"),
            "stop",
        ),
        {"calls": [_F, _G], "finish": "stop"},
    ),
    "an index of its own in every piece": (
        _events(
            _call(index=0, name="f", arguments='{"x"'),
            _call(index=1, arguments=":1}"),
            _call(index=2, name="g"),
            "stop",
        ),
        {"calls": [_F, _G], "finish": "stop"},
    ),
    "an index only at first, an id as a number, an index as text": (
        _events(
            _call(index="0", id=7, name="f", arguments='{"x":'),
            _call(arguments="1}"),
            _call(index="1", id=8, name="g"),
            "stop",
        ),
        {"calls": [_F, _G], "finish": "stop"},
    ),
    "two tools without arguments": (
        _events(_call(index=0, name="f", arguments=""), _call(index=0, name="g", arguments=""), "stop"),
        {"calls": [["f", {}], _G], "finish": "stop"},
    ),
    "a call that is cut, and one after it": (
        _events(
            _call(index=0, id="a", name="f", arguments='{"x": 1'),
            _call(index=0, id="b", name="g", arguments="{}"),
            "stop",
        ),
        {"calls": [["f", '{"x": 1'], _G], "finish": "stop"},
    ),
    "a delta without a call in it": (_events({"tool_calls": [None, {}, {"index": 0}]}, _HI, "stop"), _SAYS_HI),
    "calls as an object": (
        _events({"tool_calls": {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":1}'}}}, "stop"),
        {"calls": [_F], "finish": "stop"},
    ),
    "calls as an object by number": (
        _events(
            {"tool_calls": {"0": {"function": {"name": "f", "arguments": {"x": 1}}}, "1": {"function": {"name": "g"}}}},
            "stop",
        ),
        {"calls": [_F, _G], "finish": "stop"},
    ),
    "function null, its fields beside it": (
        _events({"tool_calls": [{"index": 0, "function": None, "name": "f", "arguments": '{"x":1}'}]}, "stop"),
        {"calls": [_F], "finish": "stop"},
    ),
    "the field that tool_calls replaced": (
        _events(
            {"function_call": {"name": "f", "arguments": '{"x":'}},
            {"function_call": {"arguments": "1}"}},
            "function_call",
        ),
        {"calls": [_F], "finish": "function_call"},
    ),
    # What their arguments are.
    "an empty list for no arguments": (
        _events(_call(name="g", arguments=[]), "stop"),
        {"calls": [_G], "finish": "stop"},
    ),
    "a list of arguments": (_events(_call(name="g", arguments=[1]), "stop"), {"calls": [["g", [1]]], "finish": "stop"}),
    "arguments that are a number": (
        _events(_call(name="g", arguments=5), "stop"),
        {"calls": [["g", 5]], "finish": "stop"},
    ),
    "null, encoded twice": (_events(_call(name="g", arguments='"null"'), "stop"), {"calls": [_G], "finish": "stop"}),
    "an object encoded three times": (
        _events(_call(name="f", arguments=json.dumps(json.dumps('{"x": 1}'))), "stop"),
        {"calls": [_F], "finish": "stop"},
    ),
    "a text that is no object": (
        _events(_call(name="g", arguments='"x"'), "stop"),
        {"calls": [["g", "x"]], "finish": "stop"},
    ),
    "half a pair in arguments that are an object": (
        _events(_call(name="f", arguments={"x": "\ud83d"}), "stop"),
        {"calls": [["f", {"x": "\ufffd"}]], "finish": "stop"},
    ),
    "half a pair in a name": (
        _events(_call(name="f\ud83d", arguments={}), "stop"),
        {"calls": [["f\ufffd", {}]], "finish": "stop"},
    ),
    "a whole pair in arguments": (
        _events(_call(name="f", arguments='{"x": "\\ud83d\\ude00"}'), "stop"),
        {"calls": [["f", {"x": "\U0001f600"}]], "finish": "stop"},
    ),
    # What is text, and what thinking.
    "a pair of surrogates over two chunks": (
        _events({"content": "a\ud83d"}, {"content": "\ude00b"}, "stop"),
        {"text": "a\U0001f600b", "finish": "stop"},
    ),
    "half a letter": (
        b"data: " + _HALF_LETTER.replace("ä".encode(), b"\xc3") + b"\n\n" + _events("stop"),
        {"text": "\ufffd?", "finish": "stop"},
    ),
    "parts that are thinking": (
        _events(
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
            {"content": [{"type": "text", "text": "h"}, "i", {"type": "reference", "reference_ids": [1]}, None]},
            "stop",
        ),
        {**_SAYS_HI, "thinking": "hm"},
    ),
    "one part that is no list": (_events({"content": {"type": "text", "text": "hi"}}, "stop"), _SAYS_HI),
    "thinking in three fields at once": (
        _events(
            {
                "reasoning": "hm",
                "reasoning_content": "hm",
                "reasoning_details": [{"type": "reasoning.text", "text": "hm"}],
            },
            {
                "reasoning_details": [
                    {"type": "reasoning.summary", "summary": "!"},
                    {"type": "reasoning.encrypted", "data": "x"},
                ]
            },
            _HI,
            "stop",
        ),
        {**_SAYS_HI, "thinking": "hm!"},
    ),
    "thinking as an object": (_events({"reasoning": {"text": "hm"}}, _HI, "stop"), {**_SAYS_HI, "thinking": "hm"}),
    "a part that is a refusal": (
        _events({"content": [{"type": "refusal", "refusal": "No."}]}, "stop"),
        {"text": "No.", "finish": "stop"},
    ),
    "content that is a number": (_events({"content": 7}, "stop"), {"fault": "malformed"}),
    "the message in place of a delta": (
        _events(
            {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
        ),
        _SAYS_HI,
    ),
    "the whole message again at the end": (
        _events(_HI, {"choices": [{"delta": {}, "message": {"content": "hi"}, "finish_reason": "stop"}]}),
        _SAYS_HI,
    ),
    # Choices and ends.
    "a choice that is null, one that is another's": (
        _events(
            {"choices": [None]},
            {"choices": [{"index": 1, "delta": {"content": "NO"}, "finish_reason": "length"}]},
            _HI,
            "stop",
        ),
        _SAYS_HI,
    ),
    "two choices in one chunk": (
        _events(
            {
                "choices": [
                    {"index": 1, "delta": {"content": "NO"}},
                    {"index": "0", "delta": _HI, "finish_reason": "stop"},
                ]
            }
        ),
        _SAYS_HI,
    ),
    "a finish reason that is no text": (
        _events(_HI, {"choices": [{"delta": {}, "finish_reason": 3}]}),
        {"fault": "malformed"},
    ),
    "DONE after words, without a finish reason": (_events(_HI), {"fault": "broken_stream"}),
    "DONE after a call, without a finish reason": (
        _events(_call(name="g", arguments="{}")),
        {"fault": "broken_stream"},
    ),
    "DONE after usage alone": (_events(_usage({"prompt_tokens": 5})), {"fault": "malformed"}),
    "what comes after DONE": (_events(_HI, "stop") + b"rubbish\n", _SAYS_HI),
    "the last line without its end": (_events(_HI, "stop", done=False).rstrip(), _SAYS_HI),
    "the last line cut": (_events(_HI, "stop", done=False).rstrip()[:-9], {"fault": "malformed"}),
    # Lines.
    "CR alone": (_events(_HI, "stop").replace(b"\n", b"\r"), _SAYS_HI),
    "a BOM": (b"\xef\xbb\xbf" + _events(_HI, "stop"), _SAYS_HI),
    "a BOM before a comment": (b"\xef\xbb\xbf: hello\n\n" + _events(_HI, "stop"), _SAYS_HI),
    "several data lines of one event": (
        b'event: message\nid: 1\nretry: 10\ndata: {"choices": [{"index": 0,\n'
        b'data:  "delta": {"content":\ndata: "hi"}}]}\n\n' + _events("stop"),
        _SAYS_HI,
    ),
    "events without empty lines between": (_events(_HI, "stop").replace(b"\n\n", b"\n"), _SAYS_HI),
    "events that are no chunks": (
        b'event: ping\ndata: {"type": "ping"}\n\ndata:\n\ndata\n\ndata: {}\n\n' + _events(_HI, "stop"),
        _SAYS_HI,
    ),
    "an error page after the first words": (
        _events(_HI, b"<html>Bad gateway</html>\n", "stop"),
        {"fault": "malformed"},
    ),
    "a line without its beginning": (_events(_HI, b'ta: {"choices": []}\n\n', "stop"), {"fault": "malformed"}),
    "JSON that is cut, then more": (_events(_HI, b'data: {"choices": [{"del\n\n', "stop"), {"fault": "malformed"}),
    "half of one JSON in another event": (
        _events(b'data: {"choices":\n\ndata: []}\n\n', "stop"),
        {"fault": "malformed"},
    ),
    "bytes that are no text": (bytes(range(256)) * 40, {"fault": "malformed"}),
    "another number than JSON has": (
        _events(_HI, b'data: {"choices": [], "usage": NaN}\n\n', "stop"),
        {"fault": "malformed"},
    ),
    "depth without end": (b'data: {"choices": ' + b"[" * 100_000 + b"\n\n", {"fault": "malformed"}),
    # Errors after status 200.
    "an error as plain text": (_events(_HI, b"event: error\ndata: CUDA out of memory\n\n"), {"fault": "server_fault"}),
    "an error event without an error in it": (
        _events(_HI, b'event: error\ndata: {"message": "gone", "code": 500}\n\n'),
        {"fault": "server_fault"},
    ),
    "a bare error line": (_events(_HI, b'{"error": {"message": "gone"}}\n'), {"fault": "server_fault"}),
    "an error line that is text": (_events(b"error: engine is gone\n\n"), {"fault": "server_fault"}),
    "an error without its object": (
        _events(_HI, b'data: {"object": "error", "message": "x", "code": 400}\n\n'),
        {"fault": "server_fault"},
    ),
    "a detail": (_events(b'data: {"detail": "Internal Server Error"}\n\n'), {"fault": "server_fault"}),
    "a key that is refused in mid-answer": (
        _events(_HI, {"error": {"message": "x", "code": 401}}),
        {"fault": "server_fault"},
    ),
    "a limit of requests": (_events({"error": {"message": "slow down", "code": "429"}}), {"fault": "overloaded"}),
    "a code that is no status": (_events({"error": {"message": "x", "code": 10**20}}), {"fault": "server_fault"}),
    "half a pair in an error": (_events(_HI, {"error": {"message": "x\ud83d"}}), {"fault": "server_fault"}),
    "llama.cpp's context is full, which it calls 500": (
        _events(_HI, {"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}}),
        {"fault": "context_overflow"},
    ),
    "an overflow by its code": (
        _events({"error": {"message": "no", "code": "context_length_exceeded"}}),
        {"fault": "context_overflow"},
    ),
    "the model's own words in an error": (
        _events(
            _HI,
            {
                "error": {
                    "message": "unexpected tokens remaining in message header: Some(the context length)",
                    "code": 400,
                }
            },
        ),
        {"fault": "server_fault"},
    ),
    # Usage.
    "usage of zeros last": (
        _events(
            _HI,
            _usage({"prompt_tokens": 5, "completion_tokens": 2}),
            "stop",
            _usage({"prompt_tokens": 0, "completion_tokens": 0}),
        ),
        {**_SAYS_HI, "tokens": [5, None, 2]},
    ),
    "usage as a list": (_events(_HI, "stop", _usage([1, 2])), _SAYS_HI),
    "numbers as text": (
        _events(
            _HI,
            "stop",
            _usage({"prompt_tokens": "5", "completion_tokens": 2.0, "prompt_tokens_details": {"cached_tokens": "4"}}),
        ),
        {**_SAYS_HI, "tokens": [5, 4, 2]},
    ),
    "numbers that are none": (
        _events(_HI, "stop", _usage({"prompt_tokens": -5, "completion_tokens": 10**40, "prompt_tokens_details": [1]})),
        _SAYS_HI,
    ),
    "Groq's place": (
        _events(_HI, {"choices": [{"delta": {}, "finish_reason": "stop"}], "x_groq": {"usage": {"prompt_tokens": 5}}}),
        {**_SAYS_HI, "tokens": [5, None, None]},
    ),
    "other names": (
        _events(_HI, "stop", _usage({"input_tokens": 5, "output_tokens": 2, "cached_tokens": 4})),
        {**_SAYS_HI, "tokens": [5, 4, 2]},
    ),
}


@pytest.mark.parametrize("name", _OTHERS)
async def test_others_of_their_kinds_are_read(open_client: Any, name: str) -> None:
    body, wanted = _OTHERS[name]
    assert await _read(open_client, Say(raw=body)) == {**_NOTHING, **wanted}


@pytest.mark.parametrize("name", ["a BOM", "CR alone", "several data lines of one event", "half a letter"])
@pytest.mark.parametrize("width", [1, 2, 3, 7])
async def test_a_stream_reads_the_same_in_small_pieces(open_client: Any, name: str, width: int) -> None:
    body, wanted = _OTHERS[name]
    pieces = [body[at : at + width] for at in range(0, len(body), width)]
    assert await _read(open_client, Say(raw=pieces)) == {**_NOTHING, **wanted}
