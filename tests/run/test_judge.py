"""Judged runs over real HTTP: what is kept when the judge fails, and that nothing is asked twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from command_line import called
from scripted_server import Request, Say, ScriptedServer, serve_in_thread
from served_cells import cell_at, requests_of, simulated_model

from tautools.llm import Retry
from tautools.params.models import RunParams
from tautools.records import Outcome, Role
from tautools.report import pass_report
from tautools.run import prepare_cell, read_calls, read_conversation, read_ledger, run_cell
from tautools.run.ledger import count_awaiting_judge

ONCE = Retry(attempts=1)
ASSERTING = ["0", "1"]
"""Tasks of airline; each asserts something."""


def verdict(request: Request, *, met: bool = True) -> str:
    count = request.body["messages"][1]["content"].rpartition("Statements:")[2].strip().count("\n") + 1
    return json.dumps({"verdicts": [{"number": at + 1, "met": met, "reason": "seen"} for at in range(count)]})


@contextmanager
def judged_cell(answer: Any, **fields: Any) -> Iterator[tuple[Any, ScriptedServer, RunParams]]:
    """A simulated agent and customer, and a judge that is scripted."""
    with simulated_model(skill=1) as sim, serve_in_thread(answer, model="judge") as judge:
        run = cell_at(
            sim.base_url,
            env="airline",
            tasks={"ids": ASSERTING},
            limit=None,
            judge={"model": "judge", "base_url": judge.base_url},
            **fields,
        )
        yield sim, judge, run


def test_verdicts_are_part_of_the_reward_and_of_the_setting(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        return verdict(request, met="refuse" in request.body["messages"][1]["content"].rpartition("Statements:")[2])

    with judged_cell(answer) as (_, judge, run):
        result = run_cell(run, workspace=tmp_path)
    assert result.setting.reward_basis == "DB+COMMUNICATE+NL_ASSERTION"
    assert any(name.startswith("judge-v") for name in result.setting.prompts)
    assert result.outcomes.total() == len(judge.requests) == 2
    for row in read_ledger(result.folder).values():
        told = read_conversation(result.folder, row).reward_info["nl_assertions"]
        assert (row.outcome is Outcome.PASSED) == all(each["met"] for each in told)
        assert row.judge_calls == 1
    assert Counter(call.role for call in read_calls(result.folder))[Role.JUDGE] == 2
    assert "nobody judged" not in str(result)
    shown = called("show", str(result.folder), "--task", "0", "--workspace", str(tmp_path))
    assert "met:" in shown.out


def test_a_judge_that_fails_owes_a_verdict_and_the_conversation_is_not_held_again(tmp_path: Path) -> None:
    down = [True]

    def answer(request: Request) -> Say | str:
        return Say(status=500, body="{}") if down[0] else verdict(request)

    with judged_cell(answer, concurrency=1) as (sim, _, run):
        first = run_cell(run, workspace=tmp_path, retry=ONCE)
        assert (first.done, first.pending, first.outcomes.total()) == (0, 2, 0), "no score without its verdict"
        assert "2 finished conversations still need their judge's verdict" in str(first)
        held = requests_of(sim)
        down[0] = False
        again = run_cell(run, workspace=tmp_path, retry=ONCE)
        assert (again.done, again.outcomes[Outcome.PASSED]) == (2, 2)
        assert requests_of(sim) == held, "agent and customer were paid once"
        assert again.awaiting_judge == ""
    rows = read_ledger(again.folder).values()
    assert all(row.agent_calls > 1 and row.user_calls > 1 and row.judge_calls == 1 for row in rows)


def test_garbage_for_a_verdict_is_a_fault_of_the_infrastructure_and_is_owed(tmp_path: Path) -> None:
    garbage = [True]

    def answer(request: Request) -> str:
        return "It depends." if garbage[0] else verdict(request)

    with judged_cell(answer) as (sim, judge, plain):
        run = plain.model_copy(update={"judge": plain.judge.model_copy(update={"temperature": 0.0})})
        result = run_cell(run, workspace=tmp_path, retry=ONCE)
        assert (result.done, result.pending) == (0, 2)
        assert result.fault_kinds.keys() == {"malformed"}
        assert count_awaiting_judge(result.folder, result.setting.id) == 2
        garbage[0], held = False, requests_of(sim)
        words = ("judge", str(result.folder), "--judge-model", "judge", "--judge-base-url", judge.base_url)
        done = called(*words, "--workspace", str(tmp_path))
        assert (done.code, done.out.split(",")[0]) == (0, "2 judged")
        assert requests_of(sim) == held
        assert judge.requests[-1].body["temperature"] == 0.0
        words = ("judge", "--judge-model", "sim-4B", "--judge-base-url", sim.base_url)
        other = called(*words, "--workspace", str(tmp_path))
        assert (other.code, other.out.strip()) == (0, "Nothing is to be judged.")
    assert {row.outcome for row in read_ledger(result.folder).values()} == {Outcome.PASSED}


def test_without_a_judge_the_run_its_plan_its_listing_and_the_report_say_what_nobody_judged(tmp_path: Path) -> None:
    said = "2 of 2 tasks have natural-language assertions that nobody judged"
    with simulated_model(skill=1) as sim:
        run = cell_at(sim.base_url, env="airline", tasks={"ids": ASSERTING}, limit=None)
        result = run_cell(run, workspace=tmp_path)
    assert result.setting.reward_basis == "DB+COMMUNICATE"
    assert said in str(result)
    assert said in called("show", str(result.folder), "--workspace", str(tmp_path)).out
    assert "The task has natural-language assertions that nobody judged" in called(
        "show", str(result.folder), "--task", "0", "--workspace", str(tmp_path)
    ).out.replace("\n", " ")
    report = pass_report(workspace=tmp_path)
    assert report.awaiting_judge == [f"airline: {said}; they are no part of the reward."]
    assert report.awaiting_judge[0] in str(report.pass_hat_k)
    planned = called(
        "run", "--env", "airline", "--model", "m", "--limit", "3", "--dry-run", "--workspace", str(tmp_path)
    )
    assert "3 of 3 tasks have natural-language assertions that nobody judged" in planned.out


def test_finished_results_are_judged_later_and_only_the_judge_is_asked(tmp_path: Path) -> None:
    down = [True]

    def answer(request: Request) -> Say | str:
        return Say(status=400, body='{"error": "no"}') if down[0] else verdict(request, met=False)

    with simulated_model(skill=1) as sim, serve_in_thread(answer, model="judge") as judge:
        run = cell_at(sim.base_url, env="airline", tasks={"ids": ASSERTING}, limit=None)
        before = run_cell(run, workspace=tmp_path)
        held = requests_of(sim)
        words = ("judge", "--env", "airline", "--judge-model", "judge", "--judge-base-url", judge.base_url)
        place = ("--workspace", str(tmp_path))
        assert "nobody judged" in called(*words, *place, "--dry-run").out
        failed = called(*words, *place)
        assert failed.code == 3
        assert "2 verdicts are pending" in failed.out
        down[0] = False
        done = json.loads(called(*words, *place, "--json").out)
        assert [(each["judged"], each["pending"], each["already"]) for each in done] == [(2, 0, 0)]
        asked = len(judge.requests)
        assert [each["already"] for each in json.loads(called(*words, *place, "--json").out)] == [2]
        assert (len(judge.requests), requests_of(sim)) == (asked, held)
        later = prepare_cell(run.model_copy(update={"judge": _role(judge)}), workspace=tmp_path)
        assert not later.pending, "a run with that judge finds them"
    assert [row.outcome for row in later.done.values()] == [Outcome.FAILED] * 2
    view = json.loads((later.folder / "num_trials-1.json").read_text())
    assert [entry["reward"] for entry in view] == [0.0, 0.0]
    assert [row.outcome for row in read_ledger(before.folder).values()] == [Outcome.PASSED] * 2, "nothing was changed"


def _role(judge: ScriptedServer) -> Any:
    return cell_at("http://x/v1", judge={"model": "judge", "base_url": judge.base_url}).judge


def test_a_simulated_judge_answers_by_its_skill(tmp_path: Path) -> None:
    outcomes = []
    for skill in (1, 0):
        with simulated_model(skill=1) as sim, simulated_model(skill=skill) as judge:
            role = {"model": "sim-4B", "base_url": judge.base_url}
            run = cell_at(sim.base_url, env="airline", tasks={"ids": ASSERTING}, limit=None, judge=role, seed=skill)
            outcomes.append(run_cell(run, workspace=tmp_path).outcomes)
    assert outcomes == [{Outcome.PASSED: 2}, {Outcome.FAILED: 2}]


def test_a_judge_must_be_named(tmp_path: Path) -> None:
    done = called("judge", "--workspace", str(tmp_path))
    assert done.code == 2
    assert "No judge was named" in done.err
