"""What looks wrong in an answer, told by flags: a call that nobody parsed, leaked markup, repeats, mixed-up roles.

A flag says what is likely and changes nothing; `says_the_same` is what is certain. It is asked once for each answer, so
most answers must leave it after a few `in`: markup is only looked for where one of its first characters stands.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import orjson

from tautools.files import packaged_yaml
from tautools.llm.types import Completion, Message, ToolCall, ToolSpec
from tautools.records import Role

_CERTAIN_CHARS = 60
"""Words of the other side from which on saying the same is no coincidence; a farewell may be shorter."""
_REPEAT_CHARS = 40
_LONG_CHARS = 100
_LOOKED_BACK = 8
"""Messages of the history among which an answer's own words are looked for."""
_SHOWN_CHARS = 1000
_LOOKED_AT = 20_000
"""Characters of the beginning of a text, and as many of its end, that are looked at."""
_BARE = re.compile(r'"(?:name|function|tool|tool_name|action)"\s*:\s*"([^"]{1,99})"')
_ARGUMENTS = re.compile(r'"(?:arguments|parameters|args|input|action_input|tool_input)"\s*:')
_CALL_KEYS = {"type", "id", "name", "arguments", "parameters"}
_FENCED = re.compile(r"\s*```\w*\s*")
_PYTHONIC = re.compile(r"\[?\s*(?:print\()?([A-Za-z_][\w.]*)\(")
_NAME_END = re.compile(r"<|\s|\(|:\d|[\"'`]")
_RESPOND = "respond"
"""tau-bench's own word for speaking, which v1 obeys as a call too."""


class _Table(NamedTuple):
    calls: tuple[tuple[str, str, re.Pattern[str] | None], ...]
    """A mark, vLLM's parser, and what the text must fit besides."""
    untagged_calls: tuple[tuple[str, str, re.Pattern[str] | None], ...]
    """Those whose mark has no `<` in it."""
    markers: re.Pattern[str]
    agent_words: tuple[str, ...]
    flags: dict[str, dict[str, str]]


@cache
def _table() -> _Table:
    data = packaged_yaml("tautools.llm", "answers.yaml")
    calls = tuple((mark, parser, re.compile(more[0]) if more else None) for mark, parser, *more in data["calls"])
    untagged = tuple(row for row in calls if "<" not in row[0])
    return _Table(calls, untagged, re.compile(data["markers"]), tuple(data["agent_words"]), data["flags"])


def answer_flags(
    answer: Completion, tools: Sequence[ToolSpec] | None, messages: Sequence[Message], role: Role
) -> tuple[str, ...]:
    """Return what looks wrong in an answer; nothing for most.

    Parameters
    ----------
    answer : Completion
        The answer, thinking apart.
    tools : Sequence[ToolSpec], optional
        What was offered in the request.
    messages : Sequence[Message]
        The request's messages: what was said before, as the answering model sees it.
    role : Role
        Who answered. A judge's answer is only cut or empty; a probe's has no flags.

    Returns
    -------
    tuple of str
        Names of `flag_words`; some with a colon and what they found behind it, such as `unparsed_call:hermes`.
    """
    return () if role is Role.PROBE else tuple(_flags(answer, tools, messages, role))


def _flags(
    answer: Completion, tools: Sequence[ToolSpec] | None, messages: Sequence[Message], role: Role
) -> Iterator[str]:
    text, calls = answer.text, answer.tool_calls
    if answer.finish_reason == "length":
        yield "cut"
    if not calls and not text.strip():
        yield "empty"
        if tools and answer.thinking and call_markup(answer.thinking, _names(tools)) is not None:
            yield "call_in_thinking"
        return
    if role is Role.JUDGE:
        return
    if calls:
        yield from _name_flags(calls, tools)
    if text:
        yield from _text_flags(_looked_at(text), tools, role)
    yield from _repeat_flags(answer, tools, messages, role)


def _text_flags(text: str, tools: Sequence[ToolSpec] | None, role: Role) -> Iterator[str]:
    if role is Role.USER and any(map(f"\n{text.lower()}".__contains__, _table().agent_words)):
        yield "agent_voice"
    if not ("<" in text or "[" in text or "{" in text or "(" in text or "to=" in text):
        return
    if role is not Role.EXPERT:  # an expert is asked for calls in such tags
        parser = call_markup(text, _names(tools or ()))
        if parser is not None:
            kind = "unparsed_call" if tools else "agent_voice" if role is Role.USER else "native_call"
            yield f"{kind}:{parser}" if parser and kind != "agent_voice" else kind
            return
        if ("<" in text or "[" in text) and _table().markers.search(text):
            yield "leaked_marker"


def _looked_at(text: str) -> str:
    return text if len(text) <= 2 * _LOOKED_AT else text[:_LOOKED_AT] + text[-_LOOKED_AT:]


def _names(tools: Sequence[ToolSpec]) -> set[str]:
    return {tool["function"]["name"] for tool in tools}


def call_markup(text: str, names: Collection[str] = ()) -> str | None:
    """Return the parser of vLLM that would read a call which stands in a text; None where there is no call.

    Tags are known from every family of models. JSON and Python without tags are calls only where they call one of the
    tools' `names`, or are a call from beginning to end. The parser is empty where vLLM has none for such markup.
    """
    table = _table()
    for mark, parser, pattern in table.calls if "<" in text else table.untagged_calls:
        if mark in text and (pattern is None or pattern.search(text)):
            return parser
    return _bare_call(text, names) if names else None


def _bare_call(text: str, names: Collection[str]) -> str | None:
    fence = _FENCED.match(text)
    inside = text[fence.end() :].rstrip().removesuffix("```").strip() if fence else text.strip()
    if '"' in text and _ARGUMENTS.search(text):
        named = any(plain_name(match[1]) in names for match in _BARE.finditer(text))
        if named or _is_call(inside):
            return "xlam" if inside.startswith("[") else "llama3_json"
    call = _PYTHONIC.match(inside)
    if call and plain_name(call[1]) in names and inside.endswith((")", "]")):
        return "pythonic"
    return None


def _is_call(text: str) -> bool:
    """Whether a text is one call as JSON, or a list of such, and nothing else."""
    if not text.startswith(("{", "[")):
        return False
    try:
        value: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    every = value if isinstance(value, list) else [value]
    return bool(every) and all(
        isinstance(each, dict) and "name" in each and each.keys() <= _CALL_KEYS for each in every
    )


def plain_name(name: str) -> str:
    """Return a tool's name without what formats put around it: `functions.x:0` and `x<|channel|>commentary` are x."""
    return _NAME_END.split(name.strip("\"'` "), maxsplit=1)[0].rpartition(".")[2]


def _name_flags(calls: Sequence[ToolCall], tools: Sequence[ToolSpec] | None) -> Iterator[str]:
    wrong = [call.name for call in calls if not any(tool["function"]["name"] == call.name for tool in tools or ())]
    if not wrong or wrong == [_RESPOND]:
        return
    names = _names(tools or ())
    leaked = [name for name in wrong if "<|" in name or plain_name(name) in names]
    if leaked:
        yield "leaked_name"
    if len(leaked) < len(wrong):
        yield "unknown_tool"


def _repeat_flags(
    answer: Completion, tools: Sequence[ToolSpec] | None, messages: Sequence[Message], role: Role
) -> Iterator[str]:
    text, own = answer.text, [each for each in messages[-_LOOKED_BACK:] if each.get("role") == "assistant"]
    action = bool(answer.tool_calls) or (role is Role.AGENT and not tools)  # act and react write actions as text
    if _made_twice(answer, own) if action else _said_before(text, own):
        yield "repeated"
    last = messages[-1] if messages else {}
    if role in {Role.USER, Role.AGENT} and last.get("role") == "user":
        heard = last.get("content")
        if isinstance(heard, str) and len(text) >= len(heard) >= _CERTAIN_CHARS and _flat(heard) in _flat(text):
            yield "echo"


def _said_before(text: str, own: Sequence[Message]) -> bool:
    """Whether words were the last ones too, or long ones were said a while ago; a polite question may come twice."""
    compared = own if len(text) >= _LONG_CHARS else own[-1:]
    return len(text) >= _REPEAT_CHARS and any(each.get("content") == text for each in compared)


def _made_twice(answer: Completion, own: Sequence[Message]) -> bool:
    """Whether the two answers before were the same actions; once is common, even in tau2's own references."""
    if len(own) < 2:
        return False
    if not answer.tool_calls:
        return bool(answer.text) and own[-1].get("content") == own[-2].get("content") == answer.text
    return _calls_of(own[-1]) == _calls_of(own[-2]) == _calls(answer.tool_calls)


def _calls(calls: Sequence[ToolCall]) -> list[tuple[str, str]]:
    return [(call.name, "".join(call.arguments.split())) for call in calls]


def _calls_of(message: Message) -> list[tuple[str, str]]:
    functions = (call["function"] for call in message.get("tool_calls") or ())
    return [(each["name"], "".join(each["arguments"].split())) for each in functions]


def _flat(text: str) -> str:
    return " ".join(text.split())


def said_first(answer: Completion) -> str:
    """Return how an answer begins: what it says, else what it calls, else what it thinks."""
    calls = ", ".join(f"{call.name}({call.arguments})" for call in answer.tool_calls)
    return next(filter(str.strip, (answer.text, calls, answer.thinking)), "")[:_SHOWN_CHARS]


def says_the_same(text: str, heard: str) -> bool:
    """Whether a text is what the other side has just said, word for word, and too long for a coincidence."""
    return len(heard) >= _CERTAIN_CHARS and _flat(text) == _flat(heard)


def flag_words(flag: str, count: int = 2, *, calls_parsed: bool = False) -> tuple[str, str]:
    """Return how a flag of `count` answers is told, and its likely cause with what to do.

    `calls_parsed` says that the same server has parsed other calls.
    """
    name, _, found = flag.partition(":")
    row = _table().flags.get(name)
    if row is None:  # of a newer tautools
        return f"are flagged {flag}", ""
    verb, _, rest = row["says"].partition(" ")
    form = verb.split("/")[-1 if count == 1 else 0]
    cause = row["cause"].format(found) if found or "unknown" not in row else row["unknown"]
    if calls_parsed and "although" in row:
        cause = row["although"].format(found or "of a kind that vLLM does not know")
    return f"{form} {rest}", cause
