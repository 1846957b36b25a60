"""Replies of the simulated model: text or one tool call, as each strategy writes it, and as chunks of a stream."""

import itertools
import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from tautools.simulate.requests import ChatRequest
from tautools.simulate.tokens import split_tokens

DONE = b"data: [DONE]\n\n"

_ACTION = re.compile(r"Action:\s*(\{.*\})", re.DOTALL)
_TEXT_STRATEGIES = {"act", "react"}
_FORMATS = {
    "date": "2024-05-15",
    "date-time": "2024-05-15T15:00:00Z",
    "time": "15:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_MAX_DEPTH = 8


class SchemaFiller:
    """Fills schemas with the names and numbers of a text, each used once, in their order.

    "Paris" and 17 become arguments where the schema takes them. `root` is the outermost schema, for `$ref`.
    """

    def __init__(self, text: str, root: Mapping[str, Any]) -> None:
        self.text = text
        self.root = root
        self._numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
        quoted = [a or b for a, b in re.findall(r"\"([^\"]+)\"|'([^']+)'", text)]
        # Ids such as #W0000000 come first, then names that do not begin a sentence.
        ids = re.findall(r"#?\b[A-Z]+\d+\b", text)
        self._names = quoted + ids + re.findall(r"(?<![.!?] )(?<!^)\b[A-Z][a-z]+\b", text)

    def value(self, schema: Mapping[str, Any], depth: int = 0) -> Any:
        """Return a value that `schema` accepts."""
        schema = self._resolved(schema)
        if options := [schema["const"]] if "const" in schema else schema.get("enum"):
            text = self.text.lower()
            return next((option for option in options if str(option).lower() in text), options[0])
        kind = schema.get("type") or ("object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = next((item for item in kind if item != "null"), "null")
        if kind == "object":
            properties = schema.get("properties") or {}
            return {name: self.value(properties.get(name, {}), depth + 1) for name in schema.get("required", [])}
        if kind == "array":
            # A schema that contains itself would never end.
            count = max(1, schema.get("minItems", 1)) if depth < _MAX_DEPTH else 0
            return [self.value(schema.get("items") or {}, depth + 1) for _ in range(count)]
        if kind in {"integer", "number"}:
            return self._number(schema, whole=kind == "integer")
        return self._words(schema) if kind == "string" else kind == "boolean" or None

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        for _ in range(_MAX_DEPTH):
            if "$ref" in schema:
                target: Any = self.root
                for key in filter(None, str(schema["$ref"]).lstrip("#").split("/")):
                    target = target[key]
                schema = target
            elif options := schema.get("anyOf") or schema.get("oneOf"):
                plain = [option for option in options if option.get("type") != "null"]
                schema = (plain or options)[0]
            elif schema.get("allOf"):
                schema = _merged_schema(schema)
            else:
                break
        return schema

    def _number(self, schema: Mapping[str, Any], *, whole: bool) -> float:
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1 if "exclusiveMinimum" in schema else None)
        most = schema.get("maximum", schema.get("exclusiveMaximum", 0) - 1 if "exclusiveMaximum" in schema else None)
        value = float(self._numbers.pop(0) if self._numbers else 1)
        value = value if least is None else max(value, least)
        value = value if most is None else min(value, most)
        step = schema.get("multipleOf")
        if step:
            value = -(-value // step) * step
        return int(value) if whole or float(value).is_integer() else value

    def _words(self, schema: Mapping[str, Any]) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        words = self._names.pop(0) if self._names else "example"
        words = words.ljust(schema.get("minLength", 0), "x")
        return words[: schema.get("maxLength", len(words))]


def _merged_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        for key, value in part.items():
            if key == "properties":
                merged["properties"] = {**merged.get("properties", {}), **value}
            elif key == "required":
                merged["required"] = [*merged.get("required", []), *value]
            else:
                merged.setdefault(key, value)
    return merged


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a conversation, before it is cut into tokens: words, or one tool call."""

    text: str = ""
    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of the tool call."""
    reasoning: str = ""

    def call_text(self) -> str:
        """Return the tool call as the JSON object that models without tools of their own write."""
        return json.dumps({"name": self.tool, "arguments": dict(self.arguments)})


def render(step: Step, thought: str, strategy: str) -> Step:
    """Write a step as the strategy wants it: as it is for `fc`, as text for `act` and `react`."""
    if strategy not in _TEXT_STRATEGIES:
        return step
    call = step if step.tool else Step(tool="respond", arguments={"content": step.text})
    text = f"Action:\n{call.call_text()}"
    return Step(f"Thought:\n{thought}\n{text}" if strategy == "react" else text)


def turns_so_far(request: ChatRequest, strategy: str) -> list[str]:
    """Return the agent's turns so far: names of tools, and empty text where it spoke to the user.

    What stands before the user's first words (a fixed greeting) does not come from the model and is left out.
    """
    since_user = itertools.dropwhile(lambda message: message["role"] != "user", request.messages)
    return [_turn_of(message, strategy) for message in since_user if message["role"] == "assistant"]


def last_tool_called(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the name of the tool whose answer is the last message; empty text when the last is something else."""
    called = [message for message in messages if message.get("tool_calls")]
    return _turn_of(called[-1], "") if called and messages[-1]["role"] == "tool" else ""


def _turn_of(message: Mapping[str, Any], strategy: str) -> str:
    calls: Sequence[Mapping[str, Any]] = message.get("tool_calls") or []
    if calls:
        return str(calls[0].get("function", {}).get("name", ""))
    if strategy not in _TEXT_STRATEGIES:
        return ""
    action = _ACTION.search(str(message.get("content") or ""))
    try:
        name = json.loads(action[1])["name"] if action else ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""  # cut short: it went to the user as it was
    return "" if name == "respond" else str(name)


def sse_event(value: Mapping[str, Any]) -> bytes:
    """Return one event of a stream."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def deltas_of(reply: Step, most: int, mark: str) -> tuple[list[dict[str, Any]], bool]:
    """Cut a reply into one delta per token, `most` at most; return them and whether something was cut off.

    `mark` names the request and the reply's tool call: the same conversation has the same ids each time.
    """
    deltas = list(_deltas(reply, mark))
    if len(deltas) <= most:
        return deltas, False
    if reply.tool:
        # A call that was cut off reaches the caller as the raw text that the parser could not read, as from vLLM.
        raw = f"<tool_call>\n{reply.call_text()}\n</tool_call>"
        deltas = [{"content": piece} for piece in split_tokens(raw)]
    return deltas[:most], True


def _deltas(reply: Step, mark: str) -> Iterator[dict[str, Any]]:
    for piece in split_tokens(reply.reasoning):
        yield {"reasoning": piece}
    for piece in split_tokens(reply.text):
        yield {"content": piece}
    if not reply.tool:
        return
    first = {"id": f"call_{mark}", "type": "function", "index": 0}
    yield {"tool_calls": [{**first, "function": {"name": reply.tool, "arguments": ""}}]}
    for piece in split_tokens(json.dumps(dict(reply.arguments))):
        yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


@dataclass(slots=True)
class ChatAnswer:
    """The answer to one request, token by token."""

    model: str
    fingerprint: str
    """Marks it as simulated."""
    deltas: Sequence[Mapping[str, Any]]
    """One for each token."""
    due: Sequence[float]
    """When each token is to be sent, from the request's arrival [s]; of an empty answer when it ends."""
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    include_usage: bool
    sent: list[float] = field(default_factory=list)
    """When each token was sent, from the arrival [s]."""
    id: str = field(default_factory=lambda: f"chatcmpl-simulated-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self) -> dict[str, Any]:
        """Return the answer as one object."""
        texts = {
            name: "".join(str(delta.get(name) or "") for delta in self.deltas) for name in ("content", "reasoning")
        }
        message: dict[str, Any] = {"role": "assistant"} | {name: text or None for name, text in texts.items()}
        calls = [delta["tool_calls"][0] for delta in self.deltas if "tool_calls" in delta]
        if calls:
            arguments = "".join(call["function"]["arguments"] for call in calls)
            function = {"name": calls[0]["function"]["name"], "arguments": arguments}
            message["tool_calls"] = [{"id": calls[0]["id"], "type": "function", "function": function}]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        return self._envelope("chat.completion", [choice]) | self._usage()

    def chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
        """Return one event of the answer's stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return sse_event(self._envelope("chat.completion.chunk", [choice]))

    def last_chunks(self) -> bytes:
        """Return the events that close the stream."""
        usage = sse_event(self._envelope("chat.completion.chunk", []) | self._usage()) if self.include_usage else b""
        return self.chunk({}, self.finish_reason) + usage + DONE

    def _usage(self) -> dict[str, Any]:
        made = len(self.deltas)
        usage = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": made,
            "total_tokens": self.prompt_tokens + made,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }
        return {"usage": usage}

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }
