"""`tautools run --strategy experts` as a person types it, on simulated models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import called
from scripted_server import Request, Say, serve_in_thread
from served_cells import cell_at, simulated_model

from tautools.bench import open_source
from tautools.errors import BenchError, ParamsError
from tautools.params import load_sweep, resolve_run
from tautools.report import latency_report
from tautools.run import prepare_cell, read_calls, read_conversation, read_ledger, run_cell
from tautools.sweep import plan_sweep

TOOLS = open_source().domain("retail").tools
OURS = ("run", "--env", "retail", "--strategy", "experts", "--model", "sim-4B", "--limit", "3")


def test_a_run_names_its_experts_and_records_whose_call_is_whose(tmp_path: Path) -> None:
    with simulated_model(skill=1) as server:
        at = f"{{model: sim-4B, base_url: '{server.base_url}'}}"
        words = (*OURS, "--base-url", server.base_url, "--set", f"experts={{quick: {at}, strong: {at}}}")
        done = called(*words, "--workspace", str(tmp_path), "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["outcomes"], told["simulated"]) == ({"passed": 3}, True)
    calls = list(read_calls(Path(told["folder"])))
    assert {call.expert for call in calls if call.role.value == "expert"} == {"quick", "strong"}
    setting = json.loads((Path(told["folder"]) / "setting.json").read_text())["setting"]
    assert list(setting["experts"]) == ["quick", "strong"]
    assert any(name.startswith("experts_tool-v") for name in setting["prompts"])
    shown = called("show", "--env", "retail", "--task", "0", "--workspace", str(tmp_path))
    assert "    quick  " in shown.out
    found = [(group.role, group.expert) for group in latency_report(workspace=tmp_path).groups]
    assert found == [("agent", ""), ("user", ""), ("expert", "quick"), ("expert", "strong")]


def test_an_experts_thinking_reaches_nobody_and_its_switch_is_in_its_requests_alone(tmp_path: Path) -> None:
    def answer(request: Request) -> Say | str:
        offered = [tool["function"]["name"] for tool in request.body.get("tools") or ()]
        if "call_expert" in offered:
            return Say(calls=[("call_expert", {"expert": "quick"})])
        if offered:
            return "<think>a secret thought</think><message>I can help.</message>"
        return "Hello." if len(request.body["messages"]) < 4 else "###STOP###"

    with serve_in_thread(answer, model="Qwen3-8B") as server:
        role = {"model": "Qwen3-8B", "base_url": server.base_url}
        quick = role | {"thinking": "off", "thinking_switch": "no_think"}
        result = run_cell(
            cell_at(server.base_url, "Qwen3-8B", strategy="experts", experts={"quick": quick}, limit=1),
            workspace=tmp_path,
        )
    (row,) = read_ledger(result.folder).values()
    held = read_conversation(result.folder, row)
    assert held.messages[2] == {"role": "assistant", "content": "I can help.", "expert": "quick"}
    assert "secret" not in held.model_dump_json() + "".join(json.dumps(each.body) for each in server.requests)
    marked = ["/no_think" in json.dumps(each.body["messages"]) for each in server.requests]
    experts = [len(each.body.get("tools") or ()) == len(TOOLS) for each in server.requests]
    assert marked == experts
    assert result.setting.experts["quick"].thinking_switch == "no_think"


def test_the_flag_names_servers(tmp_path: Path) -> None:
    flags = {"env": "retail", "strategy": "experts", "agent.model": "m", "experts": {"a": "sim-small", "b": "x/y"}}
    run = resolve_run(flags, workspace=tmp_path, overrides=["experts.a.thinking=off"]).params
    assert [(name, role.server) for name, role in run.experts.items()] == [("a", "sim-small"), ("b", "x/y")]
    assert list(run.roles) == ["agent", "user", "expert:a", "expert:b"]


@pytest.mark.parametrize("text", ["strong", "=sim", "strong="])
def test_a_flag_that_names_nothing_says_how_it_is_written(text: str) -> None:
    done = called(*OURS, "--expert", text)
    assert done.code == 2
    assert "NAME=SERVER" in done.err


def test_experts_under_another_strategy_are_a_mistake(tmp_path: Path) -> None:
    words = ("--env", "retail", "--model", "m", "--expert", "a=sim-small", "--dry-run", "--workspace", str(tmp_path))
    done = called("run", *words)
    assert done.code == 2
    assert "Add --strategy experts" in done.err


def test_the_strategy_without_experts_is_refused_and_other_strategies_need_none(tmp_path: Path) -> None:
    run = resolve_run({"env": "retail", "strategy": "experts", "agent.model": "m"}, workspace=tmp_path).params
    with pytest.raises(BenchError, match="no experts"):
        prepare_cell(run, workspace=tmp_path)
    other = run.model_copy(update={"strategy": "fc", "experts": {"a": run.agent}})
    assert list(other.roles) == ["agent", "user"]


def test_the_shipped_sweep_plans_all_tasks_of_three_domains(tmp_path: Path) -> None:
    plan = plan_sweep(load_sweep("oss-tau2", workspace=tmp_path), workspace=tmp_path)
    assert (plan.conversations, [cell.planned for cell in plan.cells]) == (278, [114, 114, 50])
    assert {need.name: need.roles for need in plan.servers} == {
        "nemotron-orchestrator-8b": ("agent",),
        "qwen3-32b-fp8": ("user", "expert:expert-2"),
        "gpt-oss-20b": ("expert:expert-1",),
        "qwen3-next-80b-a3b-fp8": ("expert:expert-3",),
    }


def test_a_misspelt_expert_server_is_found_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="gpt-oss-20x"):
        plan_sweep(
            load_sweep("oss-tau2", workspace=tmp_path, overrides=["experts.expert-1.server=gpt-oss-20x"]),
            workspace=tmp_path,
        )
