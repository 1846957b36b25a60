"""A tau2-bench checkout as a source: the real program beside a stand-in package, in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stand_in import STAND_IN, changed_copy, stand_in

from tautools.bench import null_baseline, open_domain, open_source, reference_reward
from tautools.bench.sources.tau2_bench import Tau2Bench
from tautools.bench.types import Approach, Domain, EnvState, Observation, run_without_loop
from tautools.errors import BenchError
from tautools.records import BenchRef, Strategy


@pytest.fixture(scope="module")
def source() -> Iterator[Tau2Bench]:
    """One source for what does not harm it."""
    found = stand_in()
    yield found
    found.process.close()


@pytest.fixture
def library(source: Tau2Bench) -> Domain:
    """The env in which only the agent has tools."""
    return source.domain("library")


def call(env_state: EnvState, name: str, /, *, by: str = "assistant", **arguments: Any) -> Observation:
    return run_without_loop(env_state.call(name, json.dumps(arguments), by))


def test_its_envs_splits_and_tasks_are_told(source: Tau2Bench) -> None:
    assert (source.name, source.version) == ("tau2-bench", "1.0.99")
    assert source.envs() == ("library", "visit"), "an env without splits is none to run"
    assert source.splits("library") == ["base", "begun", "test"]
    assert list(source.domain("library").tasks) == ["lend", "say", "judged", "nothing"]
    assert list(source.domain("library", "test").tasks) == ["lend"]
    assert source.domain("library") is source.domain("library", "base")


def test_prompts_and_rules_are_the_packages_own(source: Tau2Bench, library: Domain) -> None:
    assert library.agent_system == "You work here.\nLend what is there.\n"
    assert library.tasks["lend"].user_system == "You visit.\nYou want to borrow Moby Dick."
    rules = library.protocol
    assert (rules.agent_opening, rules.user_opening) == ("Welcome to the library.", None)
    assert (rules.max_steps, rules.max_errors, rules.counts_messages) == (20, 3, True)
    assert "###TRANSFER###" in rules.stop_words
    user = library.user(library.tasks["lend"], Approach(Strategy.FC))
    assert user.messages[1] == {"role": "user", "content": "Welcome to the library."}


def test_a_customer_has_the_tools_of_its_task(source: Tau2Bench) -> None:
    visit = source.domain("visit")
    user: Any = visit.user(visit.tasks["enter"], Approach(Strategy.FC))
    assert [tool["function"]["name"] for tool in visit.user_tools] == ["enter", "ring"]
    assert [tool["function"]["name"] for tool in user.tools] == ["enter"]
    assert "You have hands." in user.messages[0]["content"]


def test_what_is_asked_of_a_task_is_kept(library: Domain) -> None:
    judged = library.tasks["judged"]
    assert (judged.assertions, judged.reward_basis) == (("The agent is friendly.",), ("DB", "NL_ASSERTION"))
    assert library.tasks["say"].communicate == ("14 days",)
    assert library.reward_basis == "DB+COMMUNICATE", "what a judge decides is added by who has one"
    assert [action.name for action in library.tasks["lend"].reference] == ["find_book", "lend_book"]


def test_the_floor_and_the_references_are_scored_by_the_package(source: Tau2Bench, library: Domain) -> None:
    assert null_baseline(library) == {"lend": 0.0, "say": 0.0, "judged": 0.0, "nothing": 1.0}
    for domain in (library, source.domain("visit")):
        assert {reference_reward(domain, task).value for task in domain.tasks.values()} == {1.0}


def test_a_call_is_answered_in_the_packages_words(library: Domain) -> None:
    env_state = library.env_state(library.tasks["lend"])
    assert json.loads(call(env_state, "find_book", title="Emma").text)["book_id"] == "b2"
    assert call(env_state, "find_book", title="Ulysses") == Observation(
        "Error: No book is called Ulysses", error=True, arguments='{"title": "Ulysses"}'
    )
    assert call(env_state, "no_such_tool").text == "Error: Tool 'no_such_tool' not found."
    assert call(env_state, "get_book", isbn="3").error


@pytest.mark.parametrize("arguments", ['{"title": ', "[1]", '"Emma"', "{'title': 'Emma'}"])
def test_arguments_that_are_no_object_are_told_to_the_model(library: Domain, arguments: str) -> None:
    seen = run_without_loop(library.env_state(library.tasks["lend"]).call("find_book", arguments))
    assert (seen.error, seen.unreadable, seen.arguments) == (True, True, "{}")
    assert arguments in seen.text


def test_a_score_tells_its_parts(library: Domain) -> None:
    env_state = library.env_state(library.tasks["lend"])
    call(env_state, "lend_book", book_id="b1", visitor="Bob")
    found = env_state.reward(["Here you are."])
    assert (found.value, found.info["db"], found.info["different"]) == (0.0, False, ["books/b1"])
    assert found.info["tau2"]["reward_breakdown"] == {"DB": 0.0, "COMMUNICATE": 1.0}
    said = library.env_state(library.tasks["say"]).reward(["Keep it for a week."])
    assert (said.value, said.info["missing_info"]) == (0.0, ["14 days"])


def test_assertions_on_the_environment_are_scored(source: Tau2Bench) -> None:
    visit = source.domain("visit")
    env_state = visit.env_state(visit.tasks["enter"])
    assert env_state.reward([]).info["assertions"] == [{"assertion": "user: visitor_is(visitor='Ann')", "met": False}]
    assert call(env_state, "enter", by="user", name="Ann").text == "You stand at the desk."
    assert (env_state.reward([]).value, "db" in env_state.reward([]).info) == (1.0, False)


def test_worlds_share_what_none_of_them_touched(library: Domain) -> None:
    one, other = library.env_state(library.tasks["lend"]), library.env_state(library.tasks["lend"])
    call(one, "lend_book", book_id="b1", visitor="Ann")
    call(one, "remove_book", book_id="b2")
    changed = one.changes()
    assert (set(changed), changed["books", "b2"]) == ({("books", "b1"), ("books", "b2")}, None)
    assert json.loads(changed["books", "b1"] or "")["lent_to"] == ["Ann"]
    assert other.changes() == {}
    assert json.loads(library.as_loaded("books", "b1") or "")["copies"] == 3
    assert library.as_loaded("books", "b9") is None


def test_numbers_of_another_kind_are_another_database(library: Domain) -> None:
    env_state = library.env_state(library.tasks["lend"])
    run_without_loop(env_state.call("lend_book", '{"book_id": "b1", "visitor": "Ann", "copies": 1.0}'))
    assert env_state.reward([]).value == 0.0, "2.0 copies are left, not 2"


def test_what_the_reference_changes_is_told(library: Domain, source: Tau2Bench) -> None:
    wanted = library.expected(library.tasks["lend"]) or {}
    assert json.loads(wanted["books", "b1"] or "")["copies"] == 2
    assert library.expected(library.tasks["nothing"]) is None
    visit = source.domain("visit")
    assert set(visit.expected(visit.tasks["enter"]) or {}) == {("user", "desk")}


def test_a_world_that_nobody_holds_is_dropped_there(source: Tau2Bench, library: Domain) -> None:
    env_state: Any = library.env_state(library.tasks["lend"])
    number = env_state._number
    assert source.process.ask("changes", env_state=number) == []
    del env_state
    with pytest.raises(BenchError, match="could not list the changes: KeyError"):
        source.process.ask("changes", env_state=number)


def test_the_same_checkout_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_source("tau2", "tau2-bench", str(STAND_IN), sys.executable)
    monkeypatch.setenv("TAUTOOLS_TAU2_BENCH_PATH", str(STAND_IN))
    monkeypatch.setenv("TAUTOOLS_TAU2_BENCH_PYTHON", sys.executable)
    assert open_source("tau2", "tau2-bench") is found
    ref = found.domain("library").ref
    assert (ref.path, ref.python) == (str(STAND_IN), sys.executable)
    assert ref == BenchRef("tau2", "library", "base", "tau2-bench", str(STAND_IN), sys.executable)
    assert open_domain(ref) is found.domain("library"), "a reference opens what it was made of"


def test_another_database_is_another_setting(library: Domain, tmp_path: Path) -> None:
    copy = changed_copy(tmp_path, {"data/tau2/domains/library/db.json": ('"copies": 3', '"copies": 4')})
    changed = stand_in(copy).domain("library").prompts
    assert {name for name in changed if changed[name] != library.prompts[name]} == {"database"}
