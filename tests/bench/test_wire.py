"""What goes over the wire, read at a real server, beside what inspect's own tau2 sends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module

import inspect_wire  # gives inspect the model provider `wire`
import pytest
from inspect_ai.agent import AgentState
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.model._model import init_active_model
from inspect_ai.util import Store
from inspect_ai.util._store import init_subtask_store
from inspect_oracle import samples_of
from scripted_server import Request, Say, ScriptedServer
from telecom_oracle import PackageTelecom

from tautools.bench import open_source, run_conversation
from tautools.bench.types import Approach, Domain, Task
from tautools.llm import ModelClient
from tautools.llm.types import Endpoint
from tautools.records import Conversation, Limits, ModelConfig, Outcome, Role, Strategy

AGENT = [
    Say("Let me look.", calls=[("find_user_id_by_email", {"email": "nobody@example.com"})]),
    Say(calls=[("get_order_details", '{"order_id": '), ("get_product_details", {"product_id": 6086499569})]),
    Say(
        calls=[("get_order_details", {"order_id": "#W2378156"}), ("list_all_product_types", {}), ("no_tool", {"a": 1})]
    ),
    Say("I found your order; what shall I do?"),
    Say(calls=[("calculate", {"expression": "2 * (3 + 4)"})]),
    Say("Done: 14."),
]
USER = [Say("Hi, it is about my order."), Say("Cancel it, please. é"), Say("Thank you. ###STOP###")]


def playing(agent: Sequence[Say], user: Sequence[Say]) -> Callable[[Request], Say]:
    """Return a model of both roles, each with answers of its own, told apart by their system prompts."""
    given = {"agent": 0, "user": 0}

    def answer(request: Request) -> Say:
        role = role_of(request)
        lines = agent if role == "agent" else user
        given[role] += 1
        return lines[given[role] - 1]

    return answer


def role_of(request: Request) -> str:
    """Return who asked."""
    return "user" if "<scenario>" in request.body["messages"][0]["content"] else "agent"


async def ours(domain: Domain, task: Task, server: ScriptedServer, strategy: Strategy = Strategy.FC) -> Conversation:
    """Run a conversation through the real client."""
    parties = {role: ModelConfig(model=server.model) for role in (Role.AGENT, Role.USER)}
    async with ModelClient(lambda _: [Endpoint(server.base_url, server.model)], parties) as client:
        return await run_conversation(
            domain, task, approach=Approach(strategy), client=client, limits=Limits(), trial=0, seed=9
        )


async def both(
    domain: Domain, task_id: str, agent: Sequence[Say], user: Sequence[Say]
) -> tuple[Conversation, list[Request], list[Request]]:
    """Return our conversation, what we sent and what inspect sends, for the same answers."""
    async with ScriptedServer(playing(agent, user)) as server:
        played = await ours(domain, domain.tasks[task_id], server)
        sent = list(server.requests)
    async with ScriptedServer(playing(agent, user)) as server:
        await theirs(domain.ref.env, task_id, server)
        return played, sent, list(server.requests)


async def theirs(env: str, task_id: str, server: ScriptedServer) -> None:
    """Let inspect's own agent and simulated user have the same conversation."""
    if env == "telecom":
        await PackageTelecom(task_id).start()
    else:
        init_subtask_store(Store())
    model = get_model(f"{inspect_wire.PROVIDER}/{server.model}", base_url=server.base_url, memoize=False)
    init_active_model(model, GenerateConfig())
    agent = import_module(f"inspect_evals.tau2.{env}.agents").get_user_agent(f"{env.title()}Agent")
    async with model:
        await agent(AgentState(messages=list(samples_of(env)[task_id].input)))


@pytest.mark.usefixtures("bearable_package")
async def test_under_fc_every_request_carries_the_messages_and_tools_that_inspect_sends(retail: Domain) -> None:
    played, sent, expected = await both(retail, "0", AGENT, USER)
    assert played.outcome is Outcome.FAILED
    assert [role_of(request) for request in sent] == [role_of(request) for request in expected]
    assert len(sent) == len(AGENT) + len(USER)
    for mine, original in zip(sent, expected, strict=True):
        assert mine.body["messages"] == original.body["messages"]
        assert mine.body.get("tools") == original.body.get("tools")


PHONE_USER = [
    Say("My data does not work."),
    Say("One moment.", calls=[("check_status_bar", {}), ("toggle_data", {"surplus": 1}), ("run_speed_test", {})]),
    Say(calls=[("grant_app_permission", '{"app_name": '), ("get_customer_by_id", {"customer_id": "C1001"})]),
    Say(calls=[("grant_app_permission", {"app_name": "messaging", "permission": "camera"})]),
    Say("It says that the camera is not tracked. é"),
    Say(calls=[("check_payment_request", {}), ("make_payment", {}), ("set_apn_settings", {"apn_settings": {}})]),
    Say("I have paid. ###STOP###"),
]
PHONE_AGENT = [
    Say(calls=[("get_customer_by_phone", {"phone_number": "555-123-2002"}), ("toggle_data", {})]),
    Say("Please look at your phone."),
    Say(calls=[("send_payment_request", {"customer_id": "C1001", "bill_id": "B1002"}), ("no_tool", {})]),
    Say("Please pay the bill."),
]


@pytest.mark.usefixtures("bearable_package")
async def test_a_customer_with_tools_is_sent_what_inspect_sends_it_call_by_call() -> None:
    telecom = open_source().domain("telecom")
    task_id = next(iter(telecom.tasks))
    played, sent, expected = await both(telecom, task_id, PHONE_AGENT, PHONE_USER)
    assert played.outcome is Outcome.FAILED
    assert [role_of(request) for request in sent] == [role_of(request) for request in expected]
    assert len(sent) == len(PHONE_AGENT) + len(PHONE_USER)
    for mine, original in zip(sent, expected, strict=True):
        assert mine.body["messages"] == original.body["messages"]
        assert mine.body["tools"] == original.body["tools"]
    said = [message for message in played.user_messages if message["role"] == "tool"]
    assert [message["content"].startswith("Error") for message in said[:5]] == [False, True, False, True, True]
    assert "Payment of 150.0 USD has been made for bill B1002." in [message["content"] for message in said]


@pytest.mark.parametrize("strategy", [Strategy.ACT, Strategy.REACT])
async def test_act_and_react_send_no_tools_key_at_all(retail: Domain, strategy: Strategy) -> None:
    action = json.dumps({"name": "calculate", "arguments": {"expression": "1 + 1"}})
    agent = [Say(f"Thought:\nI count.\nAction:\n{action}"), Say("Two.")]
    async with ScriptedServer(playing(agent, [USER[0], USER[2]])) as server:
        played = await ours(retail, retail.tasks["0"], server, strategy)
    assert played.outcome is Outcome.FAILED
    assert len(server.requests) == 4
    assert not any("tools" in request.body or "tool_choice" in request.body for request in server.requests)
    last = next(request for request in reversed(server.requests) if role_of(request) == "agent")
    assert last.body["messages"][-1] == {"role": "user", "content": "API output: 2.0"}


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content", "tags"])
async def test_thinking_never_reaches_the_other_party(retail: Domain, field: str) -> None:
    def think(text: str) -> Say:
        if field == "tags":
            return Say(f"<think>a secret plan</think>{text}")
        return Say(text, thinking="a secret plan", thinking_field=field)

    script = playing([think("Hello."), think("Bye.")], [think("Hi."), think("Go on."), think("###STOP###")])
    async with ScriptedServer(script) as server:
        played = await ours(retail, retail.tasks["0"], server)
    assert len(server.requests) == 5
    assert "secret" not in json.dumps([request.body for request in server.requests])
    assert "secret" not in json.dumps([played.messages, played.user_messages])
