"""What the agent plans for every task of the benchmark."""

from __future__ import annotations

import functools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tautools.bench import open_source
from tautools.bench.types import ReferenceAction, Task
from tautools.simulate.customer import customer_text
from tautools.simulate.reply import render, turns_so_far
from tautools.simulate.requests import read_request
from tautools.simulate.responder import give_up_steps, is_read_only, is_solved, next_step_index, solving_steps

STYLES = range(12)


@functools.cache
def all_tasks() -> list[tuple[str, str]]:
    return [(env, name) for env in ("retail", "airline", "telecom") for name in open_source().domain(env).tasks]


def task_of(env: str, name: str) -> tuple[Task, set[str]]:
    domain = open_source().domain(env)
    return domain.tasks[name], {tool["function"]["name"] for tool in domain.tools}


def ends_the_talk(words: str) -> bool:
    return "###" in customer_text([{"role": "assistant", "content": "Hi!"}, {"role": "user", "content": words}])


@pytest.mark.parametrize("env", ["retail", "airline", "telecom"])
def test_a_solved_conversation_makes_the_references_calls_in_order_and_only_reads_beside_them(env: str) -> None:
    for task in open_source().domain(env).tasks.values():
        steps = solving_steps(task, task_of(env, task.id)[1])
        calls = [(step.tool, dict(step.arguments)) for step in steps if step.tool]
        reference = [(each.name, dict(each.arguments)) for each in task.reference if each.requestor == "assistant"]
        left = iter(calls)
        assert all(call in left for call in reference)
        assert all(is_read_only(name) for name, arguments in calls if (name, arguments) not in reference)


@pytest.mark.parametrize("env", ["retail", "airline", "telecom"])
def test_a_solved_conversation_looks_before_it_changes_anything_and_ends_after_what_must_be_said(env: str) -> None:
    for task in open_source().domain(env).tasks.values():
        steps = solving_steps(task, task_of(env, task.id)[1])
        calls = [step.tool for step in steps if step.tool]
        assert not calls or is_read_only(calls[0]) or calls == ["transfer_to_human_agents"], task.id
        assert steps[-1].text
        heard = steps[-1].text.lower().replace(",", "")
        assert all(item.lower() in heard for item in task.communicate)
        assert ends_the_talk(steps[-1].text)
        assert not any(ends_the_talk(step.text) for step in steps[:-1] if step.text)


@pytest.mark.parametrize("env", ["retail", "airline", "telecom"])
def test_a_conversation_that_is_given_up_changes_nothing_and_says_nothing_that_scores(env: str) -> None:
    for task in open_source().domain(env).tasks.values():
        for style in STYLES:
            steps = give_up_steps(task, task_of(env, task.id)[1], style)
            said = [step.text for step in steps if step.text]
            assert all(is_read_only(step.tool) for step in steps if step.tool)
            heard = "\n".join(said).lower().replace(",", "")
            assert not any(item.lower() in heard for item in task.communicate), task.id
            assert ends_the_talk(said[-1])


def test_words_that_would_score_are_replaced_by_others() -> None:
    task = Task(id="t", user_system="", reference=(), communicate=("sorry", "zip code"))
    for style in STYLES:
        said = [step.text.lower() for step in give_up_steps(task, set(), style) if step.text]
        assert not any("sorry" in text or "zip code" in text for text in said)
        assert ends_the_talk(said[-1])


def test_a_transfer_to_a_human_is_announced_at_the_end() -> None:
    task = Task(id="t", user_system="", reference=(ReferenceAction("transfer_to_human_agents", {"summary": "x"}),))
    last = solving_steps(task, set())[-1]
    assert last.text
    assert "TRANSFERRED TO A HUMAN AGENT" in last.text


def test_calls_of_the_customer_are_not_made_by_the_agent() -> None:
    task = Task(id="t", user_system="", reference=(ReferenceAction("toggle_data", {}, requestor="user"),))
    assert all(step.text for step in solving_steps(task, set()))


@pytest.mark.parametrize("strategy", ["fc", "act", "react"])
@given(data=st.data())
def test_the_place_in_a_conversation_is_found_from_its_messages_alone(strategy: str, data: st.DataObject) -> None:
    """Also when tools refused, an answer was cut short, or somebody greeted first."""
    steps = solving_steps(*task_of(*data.draw(st.sampled_from(all_tasks()))))
    done = data.draw(st.integers(0, len(steps)))
    messages = [{"role": "system", "content": "s"}]
    if data.draw(st.booleans()):
        messages.append({"role": "assistant", "content": "Hi! How can I help you today?"})
    messages.append({"role": "user", "content": "Hi!"})
    for step in steps[:done]:
        speech = render(step, "I think.", strategy)
        if step.tool and data.draw(st.booleans()):
            cut = speech.text[: len(speech.text) // 2] or "<tool_call> {"
            messages += [{"role": "assistant", "content": cut}, {"role": "user", "content": "Pardon?"}]
        message = {"role": "assistant", "content": speech.text}
        if speech.tool:
            message["tool_calls"] = [
                {"function": {"name": speech.tool, "arguments": json.dumps(dict(speech.arguments))}}
            ]
        refused = data.draw(st.booleans())
        messages += [message, {"role": "user", "content": "API output: Error: no" if refused else "Fine."}]
    request = read_request(json.dumps({"model": "m", "messages": messages}).encode())
    assert next_step_index(steps, turns_so_far(request, strategy)) == done


def test_the_draws_of_trials_and_tasks_are_independent_and_follow_the_skill() -> None:
    for skill in (0.1, 0.6, 0.9):
        solved_share = sum(is_solved(skill, 0, f"tau2/retail/base/{n}/0/fc/1") for n in range(4000)) / 4000
        assert abs(solved_share - skill) < 4 * (skill * (1 - skill) / 4000) ** 0.5
    pairs = [(is_solved(0.5, 0, f"a/{n}/0"), is_solved(0.5, 0, f"a/{n}/1")) for n in range(4000)]
    both = sum(first and second for first, second in pairs) / 4000
    assert abs(both - 0.25) < 0.03


def test_skill_zero_solves_nothing_and_skill_one_everything() -> None:
    assert not any(is_solved(0, 0, str(n)) for n in range(1000))
    assert all(is_solved(1, 0, str(n)) for n in range(1000))


def test_another_servers_seed_solves_other_conversations() -> None:
    draws = [[is_solved(0.5, seed, str(n)) for n in range(64)] for seed in (0, 1)]
    assert draws[0] != draws[1]
