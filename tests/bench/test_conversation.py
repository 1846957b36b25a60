"""The conversation loop: who is sent what, in which order, and what a whole conversation leaves behind."""

from __future__ import annotations

import json
from typing import Any

from inspect_evals.tau2.common.dataset import USER_MESSAGE
from inspect_oracle import samples_of
from scripted_client import ScriptedClient, action

from tautools.bench import conversation_seed, run_conversation
from tautools.bench.sources.tau2 import STRATEGIES
from tautools.bench.types import Approach, Domain, Task
from tautools.llm.types import Message
from tautools.records import Conversation, Limits, Outcome, Role, Strategy


async def run_scripted(
    domain: Domain, task: Task, client: ScriptedClient, strategy: Strategy = Strategy.FC, **limits: Any
) -> Conversation:
    """Run one conversation with a scripted client."""
    return await run_conversation(
        domain,
        task,
        approach=Approach(strategy),
        client=client,
        limits=Limits(**limits),
        trial=2,
        seed=77,
        setting_id="abc",
    )


def reference_script(task: Task, strategy: Strategy) -> list[Any]:
    """Return an agent that does what the reference does and says what must be said."""
    said = "It is done: " + ", ".join(task.communicate)
    if strategy in {Strategy.FC, Strategy.EXPERTS}:
        return [*([(result.name, json.dumps(dict(result.arguments)))] for result in task.reference), said]
    return [*(action(result.name, **result.arguments) for result in task.reference), action("respond", content=said)]


async def test_following_the_reference_passes_under_every_strategy(domain: Domain) -> None:
    for task in list(domain.tasks.values())[:12]:
        for strategy in STRATEGIES:
            client = ScriptedClient(reference_script(task, strategy))
            done = await run_scripted(domain, task, client, strategy)
            assert (done.outcome, done.reward) == (Outcome.PASSED, 1.0), f"{task.id} {strategy} {done.reward_info}"


async def test_the_first_requests_are_those_that_inspect_sends(retail: Domain) -> None:
    task = retail.tasks["3"]
    client = ScriptedClient(["How can I help?"])
    done = await run_scripted(retail, task, client)
    system = samples_of("retail")["3"].input[0].text
    user, agent = client.of(Role.USER)[0], client.of(Role.AGENT)[0]
    assert user.messages == [{"role": "system", "content": system}, {"role": "user", "content": USER_MESSAGE.text}]
    assert user.tools is None
    assert agent.messages == [
        {"role": "system", "content": retail.agent_system},
        {"role": "user", "content": "Hello, please help me."},
    ]
    assert agent.tools == list(retail.tools)
    assert client.of(Role.USER)[1].messages[2:] == [
        {"role": "assistant", "content": "Hello, please help me."},
        {"role": "user", "content": "How can I help?"},
    ]
    assert (done.outcome, done.reward) == (Outcome.FAILED, 0.0)
    assert done.messages[-1] == {"role": "user", "content": "###STOP###"}
    assert done.user_messages[-1] == {"role": "assistant", "content": "###STOP###"}


async def test_the_agents_system_prompt_is_the_one_in_the_package(domain: Domain) -> None:
    assert domain.agent_system.startswith("<instructions>\n    You are a customer service agent that helps the user")
    assert f"<policy>\n{domain.policy}\n</policy>" in domain.agent_system


async def test_all_calls_of_one_answer_run_in_order_and_come_back_in_order(retail: Domain) -> None:
    task = retail.tasks["0"]
    calls = [
        ("find_user_id_by_name_zip", '{"first_name": "Yusuf", "last_name": "Rossi", "zip": "19122"}'),
        ("get_order_details", '{"order_id":"#W2378156"}'),
        ("no_such_tool", "{}"),
    ]
    client = ScriptedClient([calls, "Found you."])
    done = await run_scripted(retail, task, client)
    call, *results = client.of(Role.AGENT)[1].messages[2:]
    assert [each["function"]["name"] for each in call["tool_calls"]] == [name for name, _ in calls]
    assert [each["tool_call_id"] for each in results] == [each["id"] for each in call["tool_calls"]]
    assert results[0] == {"role": "tool", "tool_call_id": "call_0", "content": "yusuf_rossi_9620"}
    assert json.loads(results[1]["content"])["order_id"] == "#W2378156"
    assert results[2]["content"] == "Error: Tool no_such_tool not found"
    assert "Found you." in [message["content"] for message in done.user_messages]


async def test_words_beside_a_call_do_not_reach_the_user_and_calls_go_back_as_json(retail: Domain) -> None:
    client = ScriptedClient([[("get_order_details", '{"order_id": ')], "Sorry."])
    await run_scripted(retail, retail.tasks["0"], client)
    sent = client.of(Role.AGENT)[1].messages
    assert sent[2]["tool_calls"][0]["function"]["arguments"] == "{}"
    assert sent[3]["content"].startswith('Error: Error parsing the following tool call arguments:\n\n{"order_id":')
    assert all("Error" not in message["content"] for message in client.of(Role.USER)[1].messages)


async def test_act_and_react_send_no_tools_and_list_them_in_the_system_prompt(domain: Domain) -> None:
    for strategy in (Strategy.ACT, Strategy.REACT):
        client = ScriptedClient(
            ['Thought:\nfirst look\nAction:\n{"name": "calculate", "arguments": {"expression": "1+1"}}', "Bye."]
        )
        done = await run_scripted(domain, next(iter(domain.tasks.values())), client, strategy)
        assert all(request.tools is None for request in client.requests)
        system = done.messages[0]["content"]
        assert domain.policy in system
        assert all(f'"name": "{tool["function"]["name"]}"' in system for tool in domain.tools)
        assert ("Thought:" in system) == (strategy is Strategy.REACT)
        assert done.messages[3] == {"role": "user", "content": "API output: 2.0"}
        assert not any("Thought" in message["content"] for message in done.user_messages[1:])


async def test_each_request_says_where_in_which_conversation_it_belongs(retail: Domain) -> None:
    client = ScriptedClient(
        [[("list_all_product_types", "{}")], "One moment.", "Done."], ["Hi.", "Go on.", "###TRANSFER###"]
    )
    await run_scripted(retail, retail.tasks["5"], client)
    places = [(request.tag.role, request.tag.turn, request.tag.step) for request in client.requests]
    assert places == [
        (Role.USER, 0, 0),
        (Role.AGENT, 0, 0),
        (Role.AGENT, 0, 1),
        (Role.USER, 1, 1),
        (Role.AGENT, 1, 2),
        (Role.USER, 2, 2),
    ]
    tag = client.requests[0].tag
    assert (*tag.ref[:3], tag.task_id, tag.trial) == ("tau2", "retail", "base", "5", 2)
    assert (tag.strategy, tag.setting_id, tag.seed) == ("fc", "abc", 77)
    assert len({request.tag.conversation for request in client.requests}) == 1


async def test_every_message_is_told_once_and_in_order(retail: Domain) -> None:
    told: list[Message] = []
    client = ScriptedClient([[("list_all_product_types", "{}")], "Done."])
    done = await run_conversation(
        retail,
        retail.tasks["5"],
        approach=Approach(Strategy.FC),
        client=client,
        limits=Limits(),
        trial=0,
        seed=1,
        on_message=told.append,
    )
    assert told == done.messages
    assert [message["role"] for message in told] == ["system", "user", "assistant", "tool", "assistant", "user"]


async def test_a_simulated_answer_marks_the_conversation(retail: Domain) -> None:
    task = retail.tasks["5"]
    assert (await run_scripted(retail, task, ScriptedClient(["Hi."], simulated=True))).simulated
    assert not (await run_scripted(retail, task, ScriptedClient(["Hi."]))).simulated


def test_a_conversations_seed_depends_on_seed_task_and_trial_and_fits_31_bits() -> None:
    seeds = [conversation_seed(seed, task, trial) for seed in (0, 1) for task in ("1", "11") for trial in range(5)]
    assert len(set(seeds)) == 20
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert conversation_seed(0, "1", 1) == 204255608  # never changes: recorded runs carry it
