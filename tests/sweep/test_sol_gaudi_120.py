"""The 120-cell sweep as it is shipped: its order, and some of its cells from end to end on simulated stand-ins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import called
from v1_original import STAND_IN

from tautools.params import load_sweep
from tautools.run import results_of
from tautools.sweep import expand

MODELS = {"qwen3-4b": "Qwen/Qwen3-4B-Instruct-2507", "qwen3-8b": "Qwen/Qwen3-8B", "qwen3-32b": "Qwen/Qwen3-32B"}
CHANGES = ("--set", f"path={STAND_IN}", "--set", "site=local", "--set", "tasks.limit=2")


def test_its_cells_count_as_its_users_count_them(tmp_path: Path) -> None:
    cells = expand(load_sweep("sol-gaudi-120", workspace=tmp_path))
    names = [cell.name for cell in cells]
    assert len(names) == 120
    assert (names[0], names[1], names[5], names[20]) == (
        "0_airline_act_4B_1",
        "1_airline_act_4B_2",
        "5_airline_act_8B_1",
        "20_airline_react_4B_1",
    )
    assert (names[40], names[60], names[119]) == ("40_airline_fc_4B_1", "60_retail_act_4B_1", "119_retail_fc_32B_5")
    assert {cell.run.bench for cell in cells} == {"tau-bench"}
    assert {cell.run.agent.temperature for cell in cells} == {cell.run.user.temperature for cell in cells} == {0.6}


@pytest.mark.slow
def test_some_of_its_cells_run_from_end_to_end(tmp_path: Path) -> None:
    servers = tmp_path / "params/servers"
    servers.mkdir(parents=True)
    for name, model in MODELS.items():
        simulated = {"engine": "simulate", "model": model, "simulate": {"skill": 1.0, "speed": 0}}
        (servers / f"{name}.yaml").write_text(json.dumps(simulated))
    words = ("sweep", "run", "sol-gaudi-120", "--workspace", str(tmp_path), "--cells", "0,25,119", *CHANGES)
    told = called(*words)
    assert told.code == 0, told.err + told.out
    settings = {(each.setting.env, each.setting.strategy.value, each.path.name) for each in results_of(tmp_path)}
    assert settings == {("airline", "act", "4B"), ("airline", "react", "8B"), ("retail", "fc", "32B")}
    view = json.loads((tmp_path / "results/retail/fc/32B/num_trials-5.json").read_text())
    assert [(entry["task_id"], entry["trial"], entry["reward"]) for entry in view] == [
        (task, trial, 1.0) for trial in range(5) for task in (0, 1)
    ]
    assert sorted(path.name for path in (tmp_path / "runs/sol-gaudi-120").glob("*.ipynb")) == [
        "0_airline_act_4B_1.ipynb",
        "119_retail_fc_32B_5.ipynb",
        "25_airline_react_8B_1.ipynb",
    ]
