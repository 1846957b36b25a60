"""What ends an answer or a conversation that would go on for ever, and what the plan says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from command_line import called
from scripted_server import Request, Say, serve_in_thread
from served_cells import STOP, cell_at, scripted_cell, simulated_model

from tautools.llm import Retry
from tautools.records import Outcome
from tautools.run import read_calls, read_ledger, run_cell

ONCE = Retry(attempts=1)


def test_the_plan_says_what_ends_answers_and_conversations(tmp_path: Any) -> None:
    place = ("--workspace", str(tmp_path), "--env", "retail", "--model", "qwen2.5-7b", "--limit", "1")
    plain = called("run", *place, "--user-model", "Qwen/Qwen3-8B", "--dry-run").out.replace("\n", " ")
    assert "answers of agent at most 4096 tokens (default); user at most 32768 tokens (default)" in plain
    assert "a conversation at most 7200 s (default)" in plain
    chosen = called("run", *place, "--dry-run", "--set", "agent.max_tokens=99", "--time-limit", "60", "--json")
    assert "agent at most 99 tokens; user" in json.loads(chosen.out)["limits"]
    assert "at most 60 s, without" in json.loads(chosen.out)["limits"]
    none = called("run", *place, "--dry-run", "--set", "limits.time_s=null", "--set", "user.max_tokens=null").out
    assert "user no limit of ours" in none
    assert "a conversation no time limit" in none
    shown = called("run", *place, "--show-config").out
    assert "max_tokens auto: 4096 tokens" in shown
    assert any(line.split() == ["limits.time_s", "7200.0", "default"] for line in shown.splitlines())


def test_the_defaults_are_part_of_the_setting(tmp_path: Any) -> None:
    with scripted_cell(limit=1) as (server, run):
        setting = run_cell(run, workspace=tmp_path).setting
        assert setting.limits.time_s == 7200
        assert setting.agent.default_max_tokens == 32768
        assert all(20_000 < request.body["max_tokens"] < 32768 for request in server.requests), "its context has 32768"
        bare = run.model_copy(update={"agent": run.agent.model_copy(update={"max_tokens": None})})
        assert run_cell(bare, workspace=tmp_path).setting.id != setting.id


def test_a_simulated_model_with_a_small_context_is_asked_for_what_is_left(tmp_path: Any) -> None:
    with simulated_model(skill=1, max_model_len=9000) as sim:
        result = run_cell(cell_at(sim.base_url, limit=3), workspace=tmp_path)
    assert result.finished
    assert result.outcomes[Outcome.PASSED] >= 1
    assert not [call for call in read_calls(result.folder) if call.fault == "refused"]


@pytest.mark.parametrize(
    ("hangs", "why"),
    [
        (Say("Hello.", first_s=60), "before its first word"),
        (Say("Hello there, what is it?", hang_after=2), "in mid-answer"),
    ],
)
def test_a_server_that_falls_silent_is_the_infrastructures_whatever_the_limit(
    tmp_path: Any, hangs: Say, why: str
) -> None:
    with scripted_cell(hangs, limit=1, limits={"time_s": 0.6}) as (_, run):
        result = run_cell(run, workspace=tmp_path, retry=ONCE)
    assert (result.done, result.pending) == (0, 1), why
    assert result.fault_kinds.keys() == {"time_out"}
    assert "had said nothing" in str(result)


def test_a_conversation_that_takes_too_long_is_the_agents_failure_while_its_server_speaks(tmp_path: Any) -> None:
    def agent(request: Request) -> Say | str:
        endless = Say("word " * 4000, gap_s=0.02, chunk_chars=5)
        return endless if request.body.get("tools") else "And then?"

    with serve_in_thread(agent, model="scripted-4B") as server:
        run = cell_at(server.base_url, "scripted-4B", limit=1, limits={"time_s": 1.0})
        result = run_cell(run, workspace=tmp_path, retry=ONCE)
    (row,) = read_ledger(result.folder).values()
    assert (row.outcome, row.reward) == (Outcome.TIME_LIMIT, 0.0)


def test_many_quick_turns_end_at_the_limit_too(tmp_path: Any) -> None:
    slow = Say("And then?", first_s=0.15)
    with scripted_cell(slow, limit=1, limits={"time_s": 1.0}) as (_, run):
        result = run_cell(run, workspace=tmp_path, retry=ONCE)
    (row,) = read_ledger(result.folder).values()
    assert row.outcome is Outcome.TIME_LIMIT
    assert STOP not in row.error
