"""What ends a conversation, and what is only a fault: the table of the design's decision 3, row by row."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scripted_client import ScriptedClient, action, fault

from tautools.bench import run_conversation
from tautools.bench.types import Approach, Domain
from tautools.errors import CallFault, ModelCallError
from tautools.llm.types import REFUSAL_CHECK
from tautools.records import Conversation, Limits, Outcome, Role, Strategy


async def run_scripted(
    domain: Domain, client: ScriptedClient, strategy: Strategy = Strategy.FC, **limits: Any
) -> Conversation:
    """Run a conversation of the first task."""
    task = next(iter(domain.tasks.values()))
    return await run_conversation(
        domain, task, approach=Approach(strategy), client=client, limits=Limits(**limits), trial=0, seed=0
    )


@pytest.mark.parametrize("stop", ["###STOP###", "Thanks! ###OUT-OF-SCOPE###", "###TRANSFER### bye"])
async def test_a_stop_word_of_the_user_ends_it_and_it_is_scored(retail: Domain, stop: str) -> None:
    conversation = await run_scripted(retail, ScriptedClient(["Hi."], ["Hello.", stop]))
    assert (conversation.outcome, conversation.reward) == (Outcome.FAILED, 0.0)
    assert "scorer_reward" not in conversation.reward_info


async def test_a_stop_word_at_once_leaves_the_agent_unasked(retail: Domain) -> None:
    client = ScriptedClient(["Hi."], ["###STOP###"])
    await run_scripted(retail, client)
    assert client.of(Role.AGENT) == []


async def test_the_round_limit_gives_nothing_even_where_the_scorer_would(retail: Domain) -> None:
    nothing = next(task for task in retail.tasks.values() if retail.env_state(task).reward([]).value == 1)
    client = ScriptedClient(["Wait."], ["Hello."])
    conversation = await run_conversation(
        retail, nothing, approach=Approach(Strategy.FC), client=client, limits=Limits(max_rounds=3), trial=0, seed=0
    )
    assert (conversation.outcome, conversation.reward) == (Outcome.STEP_LIMIT, 0.0)
    assert conversation.reward_info["scorer_reward"] == 1.0
    assert (len(client.of(Role.USER)), len(client.of(Role.AGENT))) == (3, 3)


async def test_the_benchs_own_hundred_rounds_hold_under_a_larger_limit(retail: Domain) -> None:
    client = ScriptedClient(["Wait."], ["Hello."])
    conversation = await run_scripted(retail, client, max_rounds=500, max_steps=500)
    assert conversation.outcome is Outcome.STEP_LIMIT
    assert len(client.of(Role.AGENT)) == 100


async def test_the_step_limit_counts_the_agents_requests(retail: Domain) -> None:
    client = ScriptedClient([[("list_all_product_types", "{}")]])
    conversation = await run_scripted(retail, client, max_steps=7)
    assert (conversation.outcome, conversation.reward) == (Outcome.STEP_LIMIT, 0.0)
    assert len(client.of(Role.AGENT)) == 7


async def test_the_conversations_own_time_limit(retail: Domain) -> None:
    conversation = await run_scripted(retail, ScriptedClient(["Wait."], ["Hello."], slow_s=0.02), time_s=0.1)
    assert (conversation.outcome, conversation.reward) == (Outcome.TIME_LIMIT, 0.0)
    assert "0.1 s" in conversation.error


async def test_a_time_out_that_is_not_the_conversations_is_not_swallowed(retail: Domain) -> None:
    class Late(ScriptedClient):
        async def complete(self, *_: Any, **__: Any) -> Any:
            raise TimeoutError("some other clock")

    with pytest.raises(TimeoutError, match="some other clock"):
        await run_scripted(retail, Late(["Hi."]), time_s=60.0)


async def test_a_time_limit_that_ends_while_the_server_is_asked_what_it_refuses_leaves_it_pending(
    retail: Domain,
) -> None:
    class Refusing(ScriptedClient):
        async def complete(self, tag: Any, messages: Any, tools: Any = None) -> Any:
            if tag.purpose == REFUSAL_CHECK:
                await asyncio.sleep(60)
            if tag.role is Role.AGENT:
                raise ModelCallError("It refuses.", fault=CallFault.REFUSED, status=400)
            return await super().complete(tag, messages, tools)

    with pytest.raises(ModelCallError, match="It refuses"):
        await run_scripted(retail, Refusing(["Hi."], ["Hello."]), time_s=0.2)


async def test_an_agents_prompt_that_no_longer_fits_scores_nothing(retail: Domain) -> None:
    conversation = await run_scripted(retail, ScriptedClient([fault(CallFault.CONTEXT_OVERFLOW)]))
    assert (conversation.outcome, conversation.reward) == (Outcome.CONTEXT_OVERFLOW, 0.0)


@pytest.mark.parametrize(
    "user", [[fault(CallFault.CONTEXT_OVERFLOW)], [" \n"], [[("get_order_details", "{}")]], ["Hello.", ""]]
)
async def test_a_user_that_overflows_says_nothing_or_calls_tools_is_a_user_error(
    retail: Domain, user: list[Any]
) -> None:
    conversation = await run_scripted(retail, ScriptedClient(["Hi."], user))
    assert (conversation.outcome, conversation.reward) == (Outcome.USER_ERROR, None)
    assert conversation.error


@pytest.mark.parametrize("kind", [kind for kind in CallFault if kind is not CallFault.CONTEXT_OVERFLOW])
@pytest.mark.parametrize("role", ["agent", "user"])
async def test_a_fault_of_the_infrastructure_is_raised_and_no_outcome(
    retail: Domain, kind: CallFault, role: str
) -> None:
    lines: dict[str, Any] = {"agent": ["Hi."], "user": ["Hello.", "###STOP###"]} | {role: [fault(kind)]}
    with pytest.raises(ModelCallError) as caught:
        await run_scripted(retail, ScriptedClient(**lines))
    assert caught.value.fault is kind


async def test_being_cancelled_leaves_no_conversation(retail: Domain) -> None:
    running = asyncio.ensure_future(run_scripted(retail, ScriptedClient(["Hi."], slow_s=60)))
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(
    ("strategy", "line"),
    [
        (Strategy.FC, ""),
        (Strategy.FC, [("get_order_details", '{"order_id": ')]),
        (Strategy.ACT, "Action:\nget_order_details(#W1)"),
        (Strategy.ACT, ""),
        (Strategy.REACT, "Thought:\nhm\nAction:\n{'name': 'respond'}"),
        (Strategy.ACT, action("respond", content=" ")),
    ],
)
async def test_unusable_answers_end_it_at_the_error_limit(retail: Domain, strategy: Strategy, line: Any) -> None:
    client = ScriptedClient([line], ["Hello."])
    conversation = await run_scripted(retail, client, strategy, max_errors=4)
    assert (conversation.outcome, conversation.reward) == (Outcome.AGENT_ERROR, 0.0)
    assert len(client.of(Role.AGENT)) == 4


@pytest.mark.parametrize(
    ("strategy", "line"),
    [
        (Strategy.FC, "Could you say more?"),
        (Strategy.FC, [("get_order_details", "{}")]),
        (Strategy.FC, [("get_order_details", '{"order_id": "no such"}')]),
        (Strategy.FC, [("no_such_tool", "{}")]),
        (Strategy.ACT, "Could you say more?"),
        (Strategy.REACT, "Thought:\nI ask.\nCould you say more?"),
    ],
)
async def test_wrong_arguments_and_plain_words_are_no_unusable_answers(
    retail: Domain, strategy: Strategy, line: Any
) -> None:
    conversation = await run_scripted(retail, ScriptedClient([line], ["Hello."]), strategy, max_errors=4, max_steps=20)
    assert conversation.outcome is Outcome.STEP_LIMIT
