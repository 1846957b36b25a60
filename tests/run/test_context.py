"""What is forecast of a prompt's growth, held against what came; and that an overflow is an outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import called
from scripted_server import Request, Say, serve_in_thread
from served_cells import cell_at, simulated_model
from small_sweep import server_file, small_sweep

from tautools.bench import open_source
from tautools.bench.prompt_size import prompt_chars, reference_prompt_chars
from tautools.bench.types import Approach
from tautools.params import resolve_run
from tautools.records import Outcome, Role, Strategy
from tautools.run import prepare_cell, read_calls, read_ledger, run_cell
from tautools.run.context import CHARS_PER_TOKEN, context_forecasts
from tautools.sweep import plan_sweep

_MOST = "This model's maximum context length is 4096 tokens"
OVERFLOWS = [
    f"{_MOST}. However, you requested 5117 tokens (4093 in the messages, 1024 in the completion).",
    f"{_MOST}. However, your request has 4200 input tokens.",
    f"'max_tokens' is too large: 512. {_MOST} and your request has 4000 input tokens (512 > 4096 - 4000).",
    "The decoder prompt (length 4200) is longer than the maximum model length of 4096.",
]
"""What versions of vLLM say, to the point."""


def forecast_with(workspace: Path, **flags: Any) -> Any:
    run = resolve_run({"env": "retail", "agent.server": "short"} | flags, workspace=workspace).params
    (found,) = context_forecasts(prepare_cell(run, workspace=workspace))
    return found


def vllm_file(workspace: Path, length: int) -> None:
    folder = workspace / "params" / "servers"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "short.yaml").write_text(f"model: org/Some-4B\nvllm: {{max_model_len: {length}}}\n")


@pytest.mark.parametrize("strategy", ["fc", "act"])
def test_a_reference_is_counted_with_the_answers_that_the_tools_really_give(strategy: str) -> None:
    retail = open_source().domain("retail")
    counted = reference_prompt_chars(retail, Approach(Strategy(strategy)), retail.tasks.values())
    agent = retail.agent(Approach(Strategy(strategy)), 0)
    fixed = prompt_chars(agent.messages, retail.tools if strategy == "fc" else ())
    assert len(counted) == 114
    assert fixed < min(counted.values()) < max(counted.values())
    many, few = (
        retail.tasks[name] for name in (max(counted, key=counted.__getitem__), min(counted, key=counted.__getitem__))
    )
    assert len(many.reference) > len(few.reference)


def test_a_short_context_is_told_with_the_number_to_set_and_a_long_one_is_not(tmp_path: Path) -> None:
    vllm_file(tmp_path, 8192)
    found = forecast_with(tmp_path)
    assert 0 < len(found.exceeding) < 114
    assert found.needed % 1024 == 0
    assert f"{len(found.exceeding)} of 114 retail tasks are likely to need more under fc" in str(found)
    assert f"set max_model_len to {found.needed} or more" in str(found)
    assert f"{CHARS_PER_TOKEN} characters a token are assumed" in str(found)
    dry = ("run", "--env", "retail", "--server", "short", "--dry-run", "--workspace", str(tmp_path))
    assert str(found) in called(*dry).out
    assert json.loads(called(*dry, "--json").out)["context"] == [str(found)]
    vllm_file(tmp_path, found.needed)
    assert forecast_with(tmp_path).exceeding == []
    assert "Context:" not in called(*dry).out


def test_what_an_answer_may_have_counts_too(tmp_path: Path) -> None:
    vllm_file(tmp_path, 11264)
    assert forecast_with(tmp_path).exceeding == []
    run = resolve_run(
        {"env": "retail", "agent.server": "short"}, workspace=tmp_path, overrides=["agent.max_tokens=8000"]
    )
    (found,) = context_forecasts(prepare_cell(run.params, workspace=tmp_path))
    assert found.exceeding


def test_a_sweeps_plan_tells_it_for_each_setting(tmp_path: Path) -> None:
    server_file(tmp_path, "tight", max_model_len=2048)
    plan = plan_sweep(small_sweep(tmp_path, grid={"agent": ["tight"]}), workspace=tmp_path)
    assert [each.part for each in plan.context] == ["agent"]
    assert "Context: tight" in str(plan)


def test_recorded_conversations_calibrate_the_forecast_and_it_agrees_with_what_happens(tmp_path: Path) -> None:
    with simulated_model(skill=1) as server:
        result = run_cell(cell_at(server.base_url, limit=40), workspace=tmp_path)
    longest: dict[str, int] = {}
    for call in read_calls(result.folder):
        if call.role is Role.AGENT:
            longest[call.task_id] = max(longest.get(call.task_id, 0), call.prompt_tokens or 0)
    middle = sorted(longest.values())[20]
    server_file(tmp_path, "sim-4B", max_model_len=middle)
    run = resolve_run({"env": "retail", "agent.server": "sim-4B", "agent.model": "sim-4B"}, workspace=tmp_path).params
    (found,) = context_forecasts(prepare_cell(run, workspace=tmp_path))
    assert found.calibration.conversations == 40
    assert 3 < found.calibration.chars_per_token < 5, "a simulated token is four characters of JSON"
    assert "40 recorded conversations" in str(found)
    missed = [task for task, tokens in longest.items() if tokens > found.tokens[task]]
    assert len(missed) <= 4, "nine of ten stay below"
    with simulated_model(skill=1, max_model_len=middle) as server:
        short = run_cell(cell_at(server.base_url, limit=40, seed=1), workspace=tmp_path / "short")
    overflown = {row.task_id for row in read_ledger(short.folder).values() if row.outcome is Outcome.CONTEXT_OVERFLOW}
    assert 10 <= len(overflown) <= 30
    assert overflown <= set(found.exceeding) | set(missed)
    assert short.pending == 0, "an overflow is an outcome"


@pytest.mark.parametrize("text", OVERFLOWS)
def test_an_overflow_in_each_vllms_words_ends_a_conversation_with_reward_0(tmp_path: Path, text: str) -> None:
    def answer(request: Request) -> Say | str:
        if request.body.get("tools"):
            error = {"message": text, "type": "BadRequestError", "param": None, "code": 400}
            return Say(status=400, body=json.dumps({"error": error}))
        return "I need help."

    with serve_in_thread(answer, model="sim-4B") as server:
        result = run_cell(cell_at(server.base_url, limit=1), workspace=tmp_path)
    (row,) = read_ledger(result.folder).values()
    assert (row.outcome, row.reward, result.pending) == (Outcome.CONTEXT_OVERFLOW, 0.0, 0)
    assert "agent's prompt no longer fits" in row.error
