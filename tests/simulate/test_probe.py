"""Answers to requests that name no task."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tautools.simulate.reply import SchemaFiller
from tautools.simulate.requests import read_request
from tautools.simulate.responder import answer_probe


def ask(text: str, **further: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **further}
    return answer_probe(read_request(json.dumps(body).encode()))


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Reply with the word pong.", "pong"),
        ("Answer with the one word: ready", "ready"),
        ('Please reply with exactly "READY" and nothing else.', "READY"),
        ("Say hello", "hello"),
        ("Respond only with: OK", "OK"),
        ("Output just the single word `blue`", "blue"),
    ],
)
def test_the_word_that_was_asked_for_is_the_answer(text: str, word: str) -> None:
    assert ask(text).text == word


def test_anything_else_gets_a_short_answer_that_says_what_it_is() -> None:
    assert "simulated" in ask("Who won the cup in 1998?").text


def test_an_agent_without_a_task_gives_up_and_a_customer_without_one_reads_its_scenario() -> None:
    def told(system: str) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": "I want to return my lamp."}]
        return answer_probe(read_request(json.dumps({"model": "m", "messages": messages}).encode())).text

    assert "I am unable to do that" in told("You are a customer service agent.")
    assert told("<scenario>\nReason for call:\n\tYou want a lamp.\n</scenario>") == "Hi! I want a lamp."


def test_content_in_parts_is_read_too() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Say hello"}]}]}
    assert answer_probe(read_request(json.dumps(body).encode())).text == "hello"


def test_a_single_tool_is_called_when_its_subject_is_spoken_of() -> None:
    answer = ask("What is the status of my order #W0000000?", tools=[tool("get_order_status")])
    assert answer.tool == "get_order_status"


def test_of_many_tools_none_is_called_unless_it_is_named() -> None:
    tools = [tool("cancel_order"), tool("get_order_details")]
    assert ask("I want to cancel my order.", tools=tools).tool == ""
    assert ask("Call get_order_details now.", tools=tools).tool == "get_order_details"


SCHEMAS: list[dict[str, Any]] = [
    {"type": "string", "minLength": 12, "maxLength": 14},
    {"type": "integer", "minimum": 5, "maximum": 6},
    {"type": "integer", "exclusiveMinimum": 3},
    {"type": "number", "maximum": -2},
    {"type": "integer", "multipleOf": 7},
    {"const": 3},
    {"enum": ["a", 2, None]},
    {"type": ["null", "boolean"]},
    {"type": "null"},
    {"anyOf": [{"type": "null"}, {"type": "string"}]},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2},
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False},
    {"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"type": "object"}]},
    {
        "$defs": {"leg": {"type": "object", "properties": {"day": {"type": "string", "format": "date"}},
                          "required": ["day"]}},
        "type": "object",
        "properties": {"legs": {"type": "array", "items": {"$ref": "#/$defs/leg"}}},
        "required": ["legs"],
    },
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS)
@given(text=st.sampled_from(["", "Fly to Rome on 2024-05-20 with 3 bags", "'Bob' owes -4.5 to Ann"]))
def test_a_made_value_fits_its_schema(schema: dict[str, Any], text: str) -> None:
    jsonschema.validate(SchemaFiller(text, schema).value(schema), schema)


def test_a_schema_that_holds_itself_ends() -> None:
    schema = {
        "type": "object",
        "properties": {"children": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["children"],
    }
    jsonschema.validate(SchemaFiller("", schema).value(schema), schema)
