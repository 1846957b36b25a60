"""How an answer of `act` or `react` is read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tautools.bench.agents.text import read_action

LOOK = '{"name": "get_order_details", "arguments": {"order_id": "#W1"}}'
SAY = '{"name": "respond", "arguments": {"content": "Hello!"}}'


@pytest.mark.parametrize(
    "text",
    [
        f"Action:\n{LOOK}",
        f"Thought:\nI look.\nAction:\n{LOOK}",
        f"Action: {LOOK}",
        f"Action:\n```json\n{LOOK}\n```",
        f"**Action:**\n{LOOK}",
        f"Action:\n{LOOK}\n\nAPI output: made up\n\nAction:\n{SAY}",
        f"Thought: Action: is next.\nAction:\nsoon\nAction:\n{LOOK}",
    ],
)
def test_an_action_is_found(text: str) -> None:
    turn = read_action(text)
    assert [(call.name, json.loads(call.arguments)) for call in turn.calls] == [
        ("get_order_details", {"order_id": "#W1"})
    ]
    assert not turn.unusable


def test_to_respond_is_to_say() -> None:
    turn = read_action(f"Thought:\nGreet.\nAction:\n{SAY}")
    assert (turn.text, turn.calls, turn.unusable) == ("Hello!", (), False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Action:\nget_order_details", "get_order_details"),
        ("Thought:\nsecret\nAction:\n{'name': 1}", "{'name': 1}"),
        ('Action:\n{"name": "respond", "arguments": {}}', '{"name": "respond", "arguments": {}}'),
        ('Action:\n{"name": "x", "arguments": "y"}', '{"name": "x", "arguments": "y"}'),
        ("Action:\n[1]", "[1]"),
        ("Action:", ""),
    ],
)
def test_an_action_that_cannot_be_read_is_said_and_counts_as_unusable(text: str, said: str) -> None:
    turn = read_action(text)
    assert (turn.text, turn.calls, turn.unusable) == (said, (), True)


def test_plain_words_are_said() -> None:
    assert read_action("  Could you tell me your zip code? ").text == "Could you tell me your zip code?"
    assert not read_action("No Action: needed.").unusable
    assert read_action(" \n").unusable


def test_line_breaks_that_a_model_forgot_to_escape_are_read() -> None:
    turn = read_action('Action:\n{"name": "respond", "arguments": {"content": "one\ntwo"}}')
    assert turn.text == "one\ntwo"


@given(st.text(), st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_what_is_written_by_the_format_is_read_back(name: str, arguments: dict[str, object]) -> None:
    turn = read_action("Action:\n" + json.dumps({"name": f"t{name}", "arguments": arguments}))
    assert (turn.calls[0].name, json.loads(turn.calls[0].arguments)) == (f"t{name}", arguments)


@given(st.text(alphabet='Action:{}"\n`[] nr\\', max_size=60))
def test_nothing_that_a_model_writes_breaks_the_reader(text: str) -> None:
    turn = read_action(text)
    assert turn.unusable or turn.text or turn.calls
