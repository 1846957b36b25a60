"""Experts: who is shown what, whose move counts, and what becomes of an answer that cannot be read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scripted_client import ScriptedClient, fault

from tautools.bench import run_conversation
from tautools.bench.agents.experts import MAX_CONSULTATIONS, read_tagged
from tautools.bench.types import Approach, Domain, Expert
from tautools.errors import CallFault
from tautools.records import Conversation, Limits, Outcome, Role, Strategy

STRONG, QUICK = Expert("strong", "solves hard cases", thinks=True), Expert("quick")
ORDER = ("get_order_details", '{"order_id": "#W2378156"}')
CALL = f'<tool_call>{{"name": "{ORDER[0]}", "arguments": {ORDER[1]}}}</tool_call>'


def call(expert: str) -> list[tuple[str, str]]:
    return [("call_expert", json.dumps({"expert": expert}))]


async def play(domain: Domain, client: ScriptedClient, **limits: Any) -> Conversation:
    return await run_conversation(
        domain,
        domain.tasks["0"],
        approach=Approach(Strategy.EXPERTS, experts=(STRONG, QUICK)),
        client=client,
        limits=Limits(**limits),
        trial=0,
        seed=1,
    )


@pytest.mark.parametrize(
    ("text", "said", "calls", "unusable"),
    [
        ("<message>Hello.</message>", "Hello.", [], False),
        ("Hello.", "Hello.", [], False),
        ("So: <message> one </message> and <message>two</message>", "two", [], False),
        ("<message>cut off", "cut off", [], False),
        (CALL, "", [ORDER], False),
        (f"<message>A moment.</message>\n{CALL}", "", [ORDER], False),
        (f"<tool_call>nonsense</tool_call>{CALL}", "", [ORDER], False),
        ('<tool_call>\n```json\n{"name": "f", "arguments": {}}\n```</tool_call>', "", [("f", "{}")], False),
        ('<tool_call>{"name": "f"}', "", [("f", "{}")], False),
        ('<tool_call>{"name": "f", "parameters": {"a": 1}}</tool_call>', "", [("f", '{"a": 1}')], False),
        ("<tool_call>{name: f}</tool_call>", "", [], True),
        ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "", [], True),
        ("<message> </message>", "", [], True),
        ("  ", "", [], True),
    ],
)
def test_the_tagged_form_is_read(text: str, said: str, calls: list[tuple[str, str]], unusable: bool) -> None:
    turn = read_tagged(text)
    assert (turn.text, [(each.name, each.arguments) for each in turn.calls], turn.unusable) == (
        said,
        calls,
        unusable,
    )
    assert all(each.id for each in turn.calls), "the history needs an id"


@pytest.mark.parametrize("answer", [CALL, [ORDER]], ids=["tagged", "by the server's parser"])
async def test_an_experts_call_is_run_and_stands_in_the_history_as_the_agents(retail: Domain, answer: Any) -> None:
    client = ScriptedClient([call("quick"), "It is on its way."], expert=[answer])
    played = await play(retail, client)
    assert [action.call for action in played.actions] == [ORDER[0], ""]
    turn, result, words = played.messages[2:5]
    assert (turn["expert"], turn["tool_calls"][0]["function"]["name"]) == ("quick", ORDER[0])
    assert result["role"] == "tool"
    assert "#W2378156" in result["content"]
    assert result["tool_call_id"] == turn["tool_calls"][0]["id"]
    assert words == {"role": "assistant", "content": "It is on its way."}
    asked = client.of(Role.AGENT)[1].messages
    assert asked[2:] == [{key: value for key, value in turn.items() if key != "expert"}, result], "no server is told"


async def test_an_experts_words_reach_the_customer_without_tags(retail: Domain) -> None:
    client = ScriptedClient([call("strong")], expert=["<message>May I have your email?</message>"])
    await play(retail, client)
    assert client.of(Role.USER)[1].messages[-1] == {"role": "user", "content": "May I have your email?"}


async def test_who_is_offered_and_shown_what(retail: Domain) -> None:
    client = ScriptedClient([call("strong"), call("quick")], expert=[CALL, "Done."])
    await play(retail, client)
    agent, (strong, quick) = client.of(Role.AGENT)[0], client.of(Role.EXPERT)
    assert agent.tools is not None
    assert agent.tools[:-1] == list(retail.tools) == strong.tools
    offered = agent.tools[-1]["function"]
    assert offered["name"] == "call_expert"
    assert offered["parameters"]["properties"]["expert"]["enum"] == ["strong", "quick"]
    assert "strong: solves hard cases" in offered["parameters"]["properties"]["expert"]["description"]
    assert agent.messages[0]["content"] == retail.agent_system
    for request in (strong, quick):
        assert request.messages[0]["content"].startswith(retail.agent_system)
        assert "<tool_call>" in request.messages[0]["content"]
        assert request.messages[1] == {"role": "user", "content": "Hello, please help me."}
    assert "<think>" in strong.messages[0]["content"]
    assert "think" not in quick.messages[0]["content"].removeprefix(retail.agent_system)
    assert [(each.tag.part, each.tag.turn, each.tag.step) for each in (strong, quick)] == [
        ("expert:strong", 0, 0),
        ("expert:quick", 0, 1),
    ]


async def test_an_answer_that_cannot_be_read_is_told_to_the_agent_and_to_no_expert(retail: Domain) -> None:
    client = ScriptedClient([call("quick"), call("strong"), "Goodbye."], expert=["<tool_call>{", CALL])
    played = await play(retail, client)
    asked, result = client.of(Role.AGENT)[1].messages[-2:]
    assert asked["tool_calls"][0]["function"] == {"name": "call_expert", "arguments": '{"expert": "quick"}'}
    assert result["content"].startswith(
        "Error: the answer of quick holds no step that can be taken. It wrote: <tool_call>{"
    )
    assert "call_expert" not in json.dumps(client.of(Role.EXPERT)[1].messages)
    assert [action.call for action in played.actions] == [ORDER[0], ""]
    assert played.outcome is Outcome.FAILED


@pytest.mark.parametrize("arguments", ['{"expert": "gpt-9"}', "{}", "[]", "gpt-9"])
async def test_an_expert_that_is_not_there_is_told_with_those_that_are(retail: Domain, arguments: str) -> None:
    client = ScriptedClient([[("call_expert", arguments)], "Goodbye."])
    await play(retail, client)
    assert "There are: strong, quick." in client.of(Role.AGENT)[1].messages[-1]["content"]
    echoed = client.of(Role.AGENT)[1].messages[-2]["tool_calls"][0]["function"]["arguments"]
    assert isinstance(json.loads(echoed), dict), "a server refuses a history whose arguments are no JSON object"


async def test_experts_that_never_answer_cost_one_unusable_answer_a_move(retail: Domain) -> None:
    client = ScriptedClient([call("quick")], user=["Help."], expert=[""])
    played = await play(retail, client, max_errors=2)
    assert played.outcome is Outcome.AGENT_ERROR
    assert len(client.of(Role.AGENT)) == len(client.of(Role.EXPERT)) == 2 * MAX_CONSULTATIONS


async def test_an_experts_prompt_that_no_longer_fits_ends_the_conversation(retail: Domain) -> None:
    client = ScriptedClient([call("quick")], expert=[fault(CallFault.CONTEXT_OVERFLOW)])
    played = await play(retail, client)
    assert (played.outcome, played.reward) == (Outcome.CONTEXT_OVERFLOW, 0.0)
    assert played.error.startswith("The expert's prompt no longer fits")


def test_what_models_are_told_of_experts_is_part_of_the_setting(retail: Domain) -> None:
    def texts(*experts: Expert) -> dict[str, str]:
        return dict(retail.instructions(Approach(Strategy.EXPERTS, experts=experts)))

    assert texts(QUICK) != texts(Expert("quick", "described")), "descriptions"
    assert texts(QUICK) != texts(Expert("quick", thinks=True)), "where to think"
    assert texts(QUICK)["policy"] == retail.prompts["policy"]
