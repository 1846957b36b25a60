"""Telecom: texts, rewards and both whole databases equal the package's own, over references and random calls.

`TAUTOOLS_RANDOM_WALKS` is how many random walks are compared.
"""

from __future__ import annotations

import asyncio
import json
import os
import uuid
import warnings
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inspect_ai.model._openai import openai_chat_tools
from inspect_oracle import infos_of
from random_calls import UNREADABLE, mutated
from telecom_oracle import PackageTelecom, telecom_tools

from tautools.bench import null_baseline, open_source, reference_reward
from tautools.bench.sources.inspect_tau2 import TelecomState
from tautools.bench.types import Domain, Task

pytestmark = pytest.mark.usefixtures("bearable_package", "_one_bill_id")

WALKS = int(os.environ.get("TAUTOOLS_RANDOM_WALKS", "100"))
Call = tuple[str, str, str]
"""Who calls what with which arguments."""


@pytest.fixture
def _one_bill_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """New bills get a random id; here ours and the package's get the same."""
    module = import_module("inspect_evals.tau2.telecom.TelecomAgentTools")
    monkeypatch.setattr(module, "uuid", SimpleNamespace(uuid4=lambda: uuid.UUID(int=7)))


@pytest.fixture(scope="module")
def telecom() -> Domain:
    """The telecom env."""
    return open_source().domain("telecom")


async def _compare(domain: Domain, task: Task, calls: list[Call], *, whole: bool = True) -> float:
    """Make the calls on both sides of the comparison; return the reward."""
    ours, theirs = domain.env_state(task), await PackageTelecom(task.id).start()
    assert isinstance(ours, TelecomState)
    for requestor, name, arguments in calls:
        seen, answer = await ours.call(name, arguments, requestor), await theirs.call(name, arguments, requestor)
        assert (seen.text, seen.error) == (answer.content, answer.failed), f"{task.id}: {requestor} {name}"
        assert seen.arguments == json.dumps(answer.arguments)
    if whole:
        assert _hashes(ours) == theirs.hashes()
    reward = ours.reward([])
    assert reward.value == await theirs.reward(), f"{task.id}: {reward.info}"
    return reward.value


def _hashes(env_state: TelecomState) -> tuple[str, str]:
    environment = env_state._environment
    environment.sync_tools()
    return environment.tools.db.get_hash(), environment.user_tools.db.get_hash()


def _reference(task: Task) -> list[Call]:
    return [(action.requestor, action.name, json.dumps(dict(action.arguments))) for action in task.reference]


@pytest.mark.slow
async def test_the_reference_of_both_sides_gets_the_packages_own_observations_and_reward(telecom: Domain) -> None:
    for task in telecom.tasks.values():
        assert await _compare(telecom, task, _reference(task)) == reference_reward(telecom, task).value


@pytest.mark.slow
async def test_a_reference_with_a_step_left_out_gets_the_packages_own_reward(telecom: Domain) -> None:
    """One step is missing, another one in each task; required actions that change nothing are noticed too."""
    rewards = []
    for index, task in enumerate(telecom.tasks.values()):
        calls = _reference(task)
        del calls[index % len(calls)]
        rewards.append(await _compare(telecom, task, calls, whole=False))
    assert 0.0 in rewards


def test_the_package_accepts_the_reference_of_every_task_and_nothing_passes_undone(telecom: Domain) -> None:
    assert [name for name, task in telecom.tasks.items() if reference_reward(telecom, task).value < 1] == []
    baseline = null_baseline(telecom)
    assert (sum(baseline.values()), len(baseline)) == (0, 114)


@pytest.mark.slow
async def test_the_null_baseline_is_the_packages_verdict_on_silence(telecom: Domain) -> None:
    for task in telecom.tasks.values():
        assert await _compare(telecom, task, []) == 0


@pytest.mark.parametrize("requestor", ["assistant", "user"])
def test_the_tools_offered_are_those_that_inspects_openai_provider_sends(telecom: Domain, requestor: str) -> None:
    offered = telecom.user_tools if requestor == "user" else telecom.tools
    assert offered == openai_chat_tools(infos_of(telecom_tools(requestor)))


IDS = ["C1001", "C1003", "L1002", "L1003", "L1009", "B1001", "B1005", "P1002", "D1002", "B1234321", "X1", ""]
APNS = [{"apn_name": "internet"}, {"apn_name": "broken"}, {"apn_name": "x"}, {"mmsc_url": None, "reset_at_reboot": 1}]
ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "customer_id": st.sampled_from(["C1001", "C1002", "C1003", "C9"]),
    "line_id": st.sampled_from(["L1001", "L1002", "L1003", "L1004", "L9"]),
    "bill_id": st.sampled_from(["B1001", "B1002", "B1003", "B1005", "B1234321"]),
    "id": st.sampled_from(IDS),
    "phone_number": st.sampled_from(["555-123-2002", "555-123-1002", "555-000-0000"]),
    "full_name": st.sampled_from(["John Smith", "john smith", "Nobody"]),
    "dob": st.sampled_from(["1985-06-15", "1985-06-16"]),
    "reason": st.just("travel"),
    "summary": st.just("I cannot fix the issue."),
    "limit": st.sampled_from([1, 2.0, 0, -1, 12]),
    "gb_amount": st.sampled_from([2.0, 2, 0, -1, 1e3]),
    "mode": st.sampled_from(["4g_5g_preferred", "4g_only", "3g_only", "2g_only", "5g"]),
    "app_name": st.sampled_from(["messaging", "browser", "chess"]),
    "permission": st.sampled_from(["sms", "storage", "SMS", "camera"]),
    "apn_settings": st.sampled_from(APNS),
}


@st.composite
def _walks(draw: st.DrawFn) -> tuple[str, list[Call]]:
    domain = open_source().domain("telecom")
    task = draw(st.sampled_from(list(domain.tasks.values())))
    known = _reference(task)
    walk: list[Call] = []
    for _ in range(draw(st.integers(1, 10))):
        requestor, name, arguments = (
            draw(st.sampled_from(known)) if draw(st.integers(0, 2)) == 0 else _any(draw, domain)
        )
        kind = draw(st.sampled_from(["as it is"] * 7 + ["mutated"] * 2 + ["unreadable", "unknown", "other side"]))
        if kind == "mutated":
            arguments = json.dumps(mutated(draw, json.loads(arguments)))
        if kind == "unknown":
            name = draw(st.sampled_from(["get_order", "toggle", "", "respond"]))
        if kind == "other side":
            requestor = "user" if requestor == "assistant" else "assistant"
        walk.append((requestor, name, draw(UNREADABLE) if kind == "unreadable" else arguments))
    return task.id, walk


def _any(draw: st.DrawFn, domain: Domain) -> Call:
    """Return a call of any tool of either side, with arguments that mean something."""
    requestor = draw(st.sampled_from(["assistant", "user"]))
    tools = domain.user_tools if requestor == "user" else domain.tools
    function = draw(st.sampled_from(list(tools)))["function"]
    arguments = {name: draw(ARGUMENTS[name]) for name in function["parameters"]["properties"]}
    return requestor, function["name"], json.dumps(arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_random_walks_of_both_sides_read_and_leave_what_the_packages_own_machinery_does(telecom: Domain) -> None:
    @settings(max_examples=WALKS, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(_walks())
    def walk(example: tuple[str, list[Call]]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydantic warns of odd values while it serializes them, here and there
            asyncio.run(_compare(telecom, telecom.tasks[example[0]], example[1]))

    walk()
