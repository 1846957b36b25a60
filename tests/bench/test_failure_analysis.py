"""Why a conversation failed: fields, actions, words; and what other rules would have said."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tautools.bench import open_source
from tautools.bench.analysis.failures import ABSENT, ActionStatus, FieldError, analyze_failure
from tautools.bench.analysis.replay import ScoringRules, replay, score_by_rules
from tautools.bench.types import Domain, ReferenceAction, Task
from tautools.records import Outcome, TrajectoryAction

WRITES = ("cancel", "exchange", "modify", "return", "book", "update", "send")


@pytest.fixture(scope="module")
def airline() -> Domain:
    """The airline env."""
    return open_source().domain("airline")


def actions_of(task: Task, **instead: Any) -> list[TrajectoryAction]:
    """Return the reference's actions and words; `instead` gives a tool other arguments."""
    calls = [
        TrajectoryAction(call=each.name, arguments=json.dumps({**each.arguments, **instead.get(each.name, {})}))
        for each in task.reference
    ]
    return [*calls, TrajectoryAction(text="Done: " + ", ".join(task.communicate))]


def writes(task: Task) -> list[ReferenceAction]:
    """Return the reference actions that change the database."""
    return [each for each in task.reference if each.name.startswith(WRITES)]


def test_the_reference_has_nothing_wrong_in_any_task(domain: Domain) -> None:
    for task in list(domain.tasks.values())[:40]:
        result = analyze_failure(domain, task, actions_of(task))
        assert result.causes == (), f"{task.id}: {result}"
        assert result.fields == result.missing_information == result.unexpected_writes == ()
        assert result.missed == (), task.id


def test_doing_nothing_misses_every_action_and_leaves_every_field_as_it_was(domain: Domain) -> None:
    tasks = [task for task in domain.tasks.values() if domain.expected(task)]
    for task in tasks[:25]:
        result = analyze_failure(domain, task, [])
        assert [each.status for each in result.actions] == [ActionStatus.MISSING] * len(task.reference)
        assert result.fields, task.id
        assert {each.error for each in result.fields} == {FieldError.NOT_CHANGED}
        assert result.missing_information == task.communicate
        assert "database" in result.causes


def test_another_argument_is_named_with_both_values_and_the_field_it_changed(retail: Domain) -> None:
    task = next(t for t in retail.tasks.values() if any(a.name == "cancel_pending_order" for a in t.reference))
    wanted = next(a for a in task.reference if a.name == "cancel_pending_order")
    other = "ordered by mistake" if wanted.arguments["reason"] != "ordered by mistake" else "no longer needed"
    result = analyze_failure(retail, task, actions_of(task, cancel_pending_order={"reason": other}))
    match = next(each for each in result.missed if each.name == "cancel_pending_order")
    assert match.status is ActionStatus.OTHER_ARGUMENTS
    assert match.differs == {"reason": (wanted.arguments["reason"], other)}
    field = next(each for each in result.fields if each.field == "cancel_reason")
    assert (field.table, field.key) == ("orders", wanted.arguments["order_id"])
    assert (field.expected, field.actual, field.error) == (wanted.arguments["reason"], other, FieldError.OTHERWISE)


def test_a_second_try_with_the_right_arguments_is_the_action_and_the_first_is_an_unasked_write(retail: Domain) -> None:
    task = next(t for t in retail.tasks.values() if any(a.name == "modify_pending_order_address" for a in t.reference))
    wanted = next(a for a in task.reference if a.name == "modify_pending_order_address")
    wrong = TrajectoryAction(call=wanted.name, arguments=json.dumps({**wanted.arguments, "city": "Nowhere"}))
    result = analyze_failure(retail, task, [wrong, *actions_of(task)])
    assert result.causes == ()
    assert all(each.status is ActionStatus.MADE for each in result.actions)
    assert len(result.unexpected_writes) == 1
    assert "Nowhere" in result.unexpected_writes[0]


def test_a_change_that_nobody_asked_for_is_told_field_by_field(airline: Domain) -> None:
    task = next(t for t in airline.tasks.values() if not writes(t))
    booking = next(iter(airline.tables["reservations"].entities))  # type: ignore[attr-defined]
    cancel = TrajectoryAction(call="cancel_reservation", arguments=json.dumps({"reservation_id": booking}))
    result = analyze_failure(airline, task, [*actions_of(task), cancel])
    assert result.causes == ("database",)
    assert {(each.table, each.key) for each in result.fields} == {("reservations", booking)}
    status = next(each for each in result.fields if each.field == "status")
    assert (status.error, status.actual, status.expected) == (FieldError.CHANGED, "cancelled", status.before)
    assert result.unexpected_writes == (f"cancel_reservation({cancel.arguments})",)


def test_a_call_that_the_tool_refused_is_told_with_its_answer(retail: Domain) -> None:
    task = next(t for t in retail.tasks.values() if any(a.name == "cancel_pending_order" for a in t.reference))
    twice = [*actions_of(task), *actions_of(task)[:-1]]
    assert analyze_failure(retail, task, twice).causes == ()
    bogus = TrajectoryAction(call="cancel_pending_order", arguments='{"order_id": "#W0", "reason": "no longer needed"}')
    result = analyze_failure(retail, task, [bogus])
    match = next(each for each in result.missed if each.name == "cancel_pending_order")
    assert match.status is ActionStatus.OTHER_ARGUMENTS
    assert "not found" in match.answer


def test_unreadable_arguments_and_unknown_tools_break_nothing(domain: Domain) -> None:
    task = next(task for task in domain.tasks.values() if task.reference)
    junk = [
        TrajectoryAction(call="no_such_tool", arguments="{}"),
        TrajectoryAction(call=task.reference[0].name, arguments="{not json"),
    ]
    result = analyze_failure(domain, task, junk)
    assert json.loads(json.dumps(result.as_dict()))["scorer_reward"] == result.scorer_reward


def test_an_entity_that_is_not_there_is_told_as_a_whole(airline: Domain) -> None:
    task = next(t for t in airline.tasks.values() if any(a.name == "book_reservation" for a in t.reference))
    booked = [
        each for each in analyze_failure(airline, task, []).fields if each.table == "reservations" and not each.field
    ]
    assert booked, task.id
    assert booked[0].actual == booked[0].before == ABSENT
    assert booked[0].error is FieldError.NOT_CHANGED


def test_what_a_task_sets_up_is_where_the_conversation_starts() -> None:
    telecom = open_source().domain("telecom")
    task = next(t for t in telecom.tasks.values() if any(a.name == "toggle_airplane_mode" for a in t.reference))
    result = analyze_failure(telecom, task, [])
    plane = next(each for each in result.fields if each.field == "airplane_mode")
    assert (plane.before, plane.expected, plane.actual, plane.error) == (True, False, True, FieldError.NOT_CHANGED)
    assert {each.by for each in result.missed} >= {"user"}
    assert result.failed_assertions
    assert "environment" in result.causes


@pytest.mark.parametrize("rules", ScoringRules)
def test_every_rule_passes_the_reference_and_fails_what_was_not_said(retail: Domain, rules: ScoringRules) -> None:
    task = next(t for t in retail.tasks.values() if t.communicate)
    right = score_by_rules(rules, retail, task, replay(retail, task, actions_of(task)), Outcome.PASSED)
    assert (right.reward, right.lost_by) == (1.0, ())
    silent = score_by_rules(rules, retail, task, replay(retail, task, actions_of(task)[:-1]), Outcome.FAILED)
    assert silent.lost_by[0] == "information"


def said(retail: Domain, words: str, *wanted: str) -> dict[ScoringRules, float]:
    """Return what each rule says of an agent that said `words` where `wanted` was to be said."""
    plain = next(t for t in retail.tasks.values() if not writes(t))
    task = replace(plain, communicate=wanted)
    done = replay(
        retail, task, [*actions_of(plain)[:-1], TrajectoryAction(text=words), TrajectoryAction(text="in two parts")]
    )
    return {rules: score_by_rules(rules, retail, task, done, Outcome.FAILED).reward for rules in ScoringRules}


def test_ten_is_found_in_a_hundred_by_all_but_the_exact_rule(retail: Domain) -> None:
    assert said(retail, "It costs $100.", "10") == {
        ScoringRules.V1: 1,
        ScoringRules.V2: 1,
        ScoringRules.INSPECT: 1,
        ScoringRules.EXACT: 0,
    }
    assert set(said(retail, "There are 10.", "10").values()) == {1.0}
    assert set(said(retail, "It costs $1,010.50.", "1010.50").values()) == {1.0}
    assert said(retail, "It costs 10.50", "10")[ScoringRules.EXACT] == 0.0
    assert said(retail, "It costs 3.10", "10")[ScoringRules.EXACT] == 0.0
    assert said(retail, "Let me see...10 of them.", "10")[ScoringRules.EXACT] == 1.0


def test_a_limit_is_scored_by_inspect_alone(retail: Domain) -> None:
    task = next(t for t in retail.tasks.values() if not t.communicate)
    done = replay(retail, task, actions_of(task))
    result = {rules: score_by_rules(rules, retail, task, done, Outcome.STEP_LIMIT) for rules in ScoringRules}
    assert {rules for rules, verdict in result.items() if verdict.reward} == {ScoringRules.INSPECT}
    assert result[ScoringRules.V1].lost_by == ("end",)


def test_telecom_is_lost_by_assertions_and_required_actions_and_not_by_its_database() -> None:
    telecom = open_source().domain("telecom")
    causes = set()
    for task in telecom.tasks.values():
        result = analyze_failure(telecom, task, [])
        causes.add(result.causes)
        assert not result.scores_database
        assert {each.error for each in result.fields} <= {FieldError.NOT_CHANGED}
        wanted = score_by_rules(ScoringRules.INSPECT, telecom, task, replay(telecom, task, []), Outcome.FAILED)
        assert (set(wanted.lost_by), wanted.reward) == (set(result.causes), 0)
        assert result.scorer_reward == 0
    assert causes == {("environment",), ("actions",)}


def test_the_customers_part_of_a_reference_is_told_as_the_customers() -> None:
    telecom = open_source().domain("telecom")
    task = next(
        each for each in telecom.tasks.values() if {a.requestor for a in each.reference} == {"user", "assistant"}
    )
    done = [
        TrajectoryAction(by=each.requestor, call=each.name, arguments=json.dumps(dict(each.arguments)))  # type: ignore[arg-type]
        for each in task.reference
    ]
    assert analyze_failure(telecom, task, done).causes == ()
    mine = [action for action in done if action.by == "assistant"]
    result = analyze_failure(telecom, task, mine)
    assert {each.by for each in result.missed} == {"user"}
    assert {each.table for each in result.fields} == {"user"}


def test_an_argument_that_the_task_does_not_compare_may_be_any() -> None:
    telecom = open_source().domain("telecom")
    task = next(t for t in telecom.tasks.values() if any(each.compared == [] for each in t.reference))
    asked = next(each for each in task.reference if each.compared == [])
    actions = [
        TrajectoryAction(
            by="user" if each.requestor == "user" else "assistant",
            call=each.name,
            arguments=json.dumps(dict(each.arguments)),
        )
        for each in task.reference
        if each is not asked
    ]
    other = TrajectoryAction(call=asked.name, arguments=json.dumps(dict.fromkeys(asked.arguments, "in other words")))
    done = replay(telecom, task, [*actions, other])
    assert score_by_rules(ScoringRules.V2, telecom, task, done, Outcome.PASSED).reward == 1.0
    assert analyze_failure(telecom, task, [*actions, other]).missed == ()
    without = score_by_rules(ScoringRules.V2, telecom, task, replay(telecom, task, actions), Outcome.FAILED)
    assert "actions" in without.lost_by
