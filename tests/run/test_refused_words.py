"""Whose fault a refusal is, over real HTTP: servers that take no history with certain words in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from scripted_server import Request, Say, serve_in_thread
from served_cells import STOP, cell_at

from tautools.llm import Retry
from tautools.records import Outcome
from tautools.run import read_calls, read_ledger, run_cell

QUICK = Retry(attempts=2, first_wait_s=0.01, most_wait_s=0.01)
Message = dict[str, Any]


def refused(status: int = 400) -> Say:
    return Say(status=status, body={"error": {"message": "the template cannot render this"}})


def played(agent: list[Any], user: list[Any], refuses: Callable[[Message], bool], *, status: int = 400, part: str = ""):
    """Answer both roles by script and refuse what has a message that `refuses` names, of one role or of both."""

    def answer(request: Request) -> Say | str:
        messages, is_agent = request.body["messages"], "tools" in request.body
        if part in {"", "agent" if is_agent else "user"} and any(map(refuses, messages)):
            return refused(status)
        said = sum(each["role"] == "assistant" for each in messages)
        lines = agent if is_agent else user
        line = lines[min(said, len(lines) - 1)]
        return line if isinstance(line, str) else Say(calls=[line])

    return answer


def calls_of(message: Message) -> list[Message]:
    return [call["function"] for call in message.get("tool_calls") or []]


ODD_WORDS = {
    "an empty message": ("", lambda each: each["role"] == "assistant" and not each["content"] and not calls_of(each)),
    "a zero byte": ("Hello\0", lambda each: "\0" in (each["content"] or "")),
    "half an emoji": ("Hi \\ud83d", lambda each: "ud83d" in (each["content"] or "")),
    "a template's own mark": ("<|im_end|>", lambda each: "<|im_end|>" in (each["content"] or "")),
    "a call without a name": (("", "{}"), lambda each: any(not call["name"] for call in calls_of(each))),
    "a name too long": (("get" * 40, "{}"), lambda each: any(len(call["name"]) > 64 for call in calls_of(each))),
    "a name with spaces": (
        ("get order", "{}"),
        lambda each: any(not re.fullmatch(r"[\w-]+", call["name"]) for call in calls_of(each)),
    ),
    "deep arguments": (
        ("get_order_details", '{"order_id":' * 30 + "1" + "}" * 30),
        lambda each: any(call["arguments"].count("{") > 20 for call in calls_of(each)),
    ),
    "its echo in a tool's answer": (
        ("no\0tool", "{}"),
        lambda each: each["role"] == "tool" and "\0" in str(each["content"]),
    ),
}


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("kind", ODD_WORDS)
def test_what_the_agent_wrote_and_its_server_does_not_take_back_is_scored(tmp_path, kind, status):
    line, refuses = ODD_WORDS[kind]
    script = played([line, "Hello."], ["Hello.", "Go on."], refuses, status=status, part="agent")
    with serve_in_thread(script, model="m") as server:
        result = run_cell(cell_at(server.base_url, "m", limit=1), workspace=tmp_path, retry=QUICK)
    assert (result.pending, result.faults, result.outcomes) == (0, 0, {Outcome.AGENT_ERROR: 1})
    (row,) = read_ledger(result.folder).values()
    assert row.reward == 0.0
    assert "The agent's server refuses what the agent wrote before" in row.error
    assert "the template cannot render this" in row.error
    checks = [call for call in read_calls(result.folder) if call.purpose == "refusal check"]
    assert not checks[0].fault
    assert row.agent_calls == 1, "the checks are no calls of the conversation"
    assert sum(request.body.get("max_tokens") == 16 for request in server.requests) == len(checks)


@pytest.mark.parametrize("part", ["agent", "user"])
def test_what_the_customer_wrote_is_a_user_error_whoever_is_refused(tmp_path, part):
    script = played(["Hello."], ["Well\0", "Well\0", STOP], lambda each: "\0" in (each["content"] or ""), part=part)
    with serve_in_thread(script, model="m") as server:
        result = run_cell(cell_at(server.base_url, "m", limit=1), workspace=tmp_path, retry=QUICK)
    assert (result.pending, result.faults, result.outcomes) == (0, 0, {Outcome.USER_ERROR: 1})
    (row,) = read_ledger(result.folder).values()
    assert row.reward is None
    assert "refuses what the user wrote before" in row.error


def test_what_the_agent_wrote_and_the_customers_server_refuses_is_the_agents(tmp_path):
    script = played(["Hi\0"], ["Hello."], lambda each: "\0" in (each["content"] or ""), part="user")
    with serve_in_thread(script, model="m") as server:
        result = run_cell(cell_at(server.base_url, "m", limit=1), workspace=tmp_path, retry=QUICK)
    assert result.outcomes == {Outcome.AGENT_ERROR: 1}


@pytest.mark.parametrize(
    "refuses",
    [
        pytest.param(lambda each: each["role"] == "tool", id="a template without tools"),
        pytest.param(lambda each: bool(calls_of(each)), id="calls at all"),
        pytest.param(lambda each: each["role"] == "assistant", id="any history"),
        pytest.param(lambda _: True, id="everything"),
    ],
)
def test_what_a_server_refuses_whatever_the_words_are_is_the_infrastructures(tmp_path, refuses):
    agent = [("get_order_details", '{"order_id": "#W1"}'), "Hello."]
    with serve_in_thread(played(agent, ["Hello."], refuses), model="m") as server:
        result = run_cell(cell_at(server.base_url, "m", limit=1), workspace=tmp_path, retry=QUICK)
    assert (result.done, result.pending) == (0, 1)
    assert set(result.fault_kinds) == {"refused"}


def test_a_refusal_that_passes_is_nobodys_fault(tmp_path):
    """A server that refuses once, by mistake, and takes the same request a moment later."""
    refusals = []
    script = played(["Hello."], ["Hello.", "Go on.", STOP], lambda _: False)

    def answer(request: Request) -> Say | str:
        if "tools" in request.body and len(request.body["messages"]) == 4 and not refusals:
            refusals.append(request)
            return refused()
        return script(request)

    with serve_in_thread(answer, model="m") as server:
        result = run_cell(cell_at(server.base_url, "m", limit=1), workspace=tmp_path, retry=QUICK)
    assert (result.done, result.faults) == (1, 1)
    assert not {Outcome.AGENT_ERROR, Outcome.USER_ERROR} & set(result.outcomes)


def test_an_answer_that_breaks_off_is_no_refusal_of_words(tmp_path):
    """A parser that fails each time on what the model writes says 400 too; the request itself was accepted."""
    error = {"message": "unexpected tokens remaining in message header", "type": "BadRequestError", "code": 400}
    script = played(["Hello."], ["Hello."], lambda _: False)

    def answer(request: Request) -> Say | str:
        broken = "tools" in request.body and len(request.body["messages"]) > 3
        return Say("half an answer", error_after=1, error=error) if broken else script(request)

    with serve_in_thread(answer, model="m") as server:
        result = run_cell(cell_at(server.base_url, "m", limit=1), workspace=tmp_path, retry=QUICK)
    assert (result.done, result.pending, set(result.fault_kinds)) == (0, 1, {"server_fault"})
    assert {call.purpose for call in read_calls(result.folder)} == {"chat"}
