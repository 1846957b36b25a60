"""v1 from the command line, on a checkout of the stand-in: flags, addresses, what is kept and what is read again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from served_cells import requests_of, simulated_model
from v1_original import STAND_IN

from tautools.cli import cli
from tautools.report import pass_report
from tautools.run import read_conversation, read_ledger, results_of


@pytest.fixture(scope="module")
def agent() -> Iterator[Any]:
    with simulated_model(skill=1.0) as running:
        yield running


@pytest.fixture(scope="module")
def customer() -> Iterator[Any]:
    with simulated_model(skill=1.0) as running:
        yield running


def run(workspace: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["run", "--workspace", str(workspace), "--bench", "tau-bench", *words])


def at(server: Any, prefix: str = "--") -> tuple[str, ...]:
    return (f"{prefix}model", "sim-4B", f"{prefix}base-url", server.base_url)


def test_agent_and_customer_play_v1_on_two_servers(tmp_path: Path, agent: Any, customer: Any) -> None:
    before = requests_of(agent), requests_of(customer)
    words = ("--path", str(STAND_IN), "--env", "retail", "--strategy", "act", "--user-strategy", "verify")
    told = run(tmp_path, *words, *at(agent), *at(customer, "--user-"))
    assert told.exit_code == 0, told.output
    assert "6 of 6 passed" in told.stdout
    (folder,) = results_of(tmp_path)
    assert (folder.setting.bench, folder.setting.protocol, folder.setting.split) == ("tau-bench", "tau-bench", "test")
    assert folder.setting.user_strategy == "verify"
    rows = read_ledger(folder.path).values()
    assert requests_of(agent) - before[0] == sum(row.agent_calls for row in rows)
    assert requests_of(customer) - before[1] == sum(row.user_calls for row in rows) > 12
    view = json.loads((folder.path / "num_trials-1.json").read_text())
    assert [entry["task_id"] for entry in view] == list(range(6))
    assert view[0]["info"]["reward_info"]["r_actions"] == 1.0


def test_what_was_run_is_read_again_from_where_the_checkout_was(tmp_path: Path, agent: Any) -> None:
    checkout = tmp_path / "tau-bench"
    shutil.copytree(STAND_IN, checkout)
    words = ("--path", str(checkout), "--env", "airline", "--strategy", "few-shot", "--task-ids", "1")
    assert run(tmp_path, *words, *at(agent)).exit_code == 0
    shown = CliRunner().invoke(cli, ["show", "--workspace", str(tmp_path), "--env", "airline", "--task", "1"])
    assert "cancel_reservation" in shown.output
    assert shown.output.count("same") >= 2
    assert pass_report(workspace=tmp_path).scores[0].null_baseline.value == 0.0
    shutil.rmtree(checkout)
    assert pass_report(workspace=tmp_path).scores[0].null_baseline.value is None


def test_a_name_without_slash_is_found_at_the_address_of_the_environment(
    tmp_path: Path, agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_BASE", agent.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    monkeypatch.setenv("TAUTOOLS_TAU_BENCH_PATH", str(STAND_IN / "tau_bench"))
    told = run(tmp_path, "--env", "retail", "--split", "train", "--strategy", "fc", "--model", "sim-4B")
    assert told.exit_code == 0, told.output
    assert "retail fc sim-4B [SIMULATED]: 2 of 2 passed" in told.stdout
    (folder,) = results_of(tmp_path)
    assert folder.provenance["endpoints"]["user"][0]["base_url"] == agent.base_url
    assert folder.provenance["benchmark"] == {"path": str(STAND_IN)}
    assert "EMPTY" not in json.dumps(folder.provenance)
    row = next(iter(read_ledger(folder.path).values()))
    assert read_conversation(folder.path, row).messages[0]["role"] == "system"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--path", "."), "is not a checkout of tau-bench"),
        ((), "tau-bench is not here"),
        (("--path", str(STAND_IN), "--split", "tests"), "There is no split 'tests' of retail"),
        (("--path", str(STAND_IN), "--task-ids", "6"), "There is no task '6' of retail"),
        (("--path", str(STAND_IN), "--strategy", "experts"), "The strategy experts has no experts"),
        (("--path", str(STAND_IN), "--strategy", "few-shot", "--few-shot-displays", str(STAND_IN / "README.md")),
         "The examples for few-shot cannot be read"),
        (("--path", str(STAND_IN), "--few-shot-displays", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--path", str(STAND_IN), "--python", "/usr/bin/python3"), "takes no python"),
        (("--path", str(STAND_IN), "--env", "telecom"), "There is no env 'telecom'"),
    ],
)  # fmt: skip
def test_bad_input_ends_before_anything_is_made(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    chosen = words if "--env" in words else ("--env", "retail", *words)
    ended = run(workspace, *chosen, "--model", "sim-4B", "--base-url", "http://127.0.0.1:9/v1")
    assert ended.exit_code == 2, ended.output
    assert told in ended.output
    assert list(workspace.iterdir()) == []


def test_a_checkout_without_its_data_says_so(tmp_path: Path) -> None:
    checkout = tmp_path / "tau-bench"
    shutil.copytree(STAND_IN, checkout)
    (checkout / "tau_bench/envs/retail/data/orders.json").unlink()
    ended = run(
        tmp_path, "--path", str(checkout), "--env", "retail", "--model", "m", "--base-url", "http://127.0.0.1:9/v1"
    )
    assert ended.exit_code == 2
    assert f"The tau-bench in {checkout} is not the one that tautools knows" in ended.output
    assert "orders.json" in ended.output


def test_a_person_at_the_terminal_plays_the_customer_and_may_leave(tmp_path: Path, agent: Any) -> None:
    words = ["--path", str(STAND_IN), "--env", "retail", "--user-strategy", "human", "--task-ids", "0,4", *at(agent)]
    typed = subprocess.run(
        [sys.executable, "-m", "tautools", "run", "--bench", "tau-bench", "--workspace", str(tmp_path), *words],
        input="Please cancel #T100.\n\nada@tea.example\nyes\nno ###STOP###\nHello\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert typed.returncode == 3, typed.stderr
    assert "Task 0: you are the customer" in typed.stdout
    assert "Agent  I am happy to help with that." in typed.stdout
    assert "task 0 trial 0: passed, reward 1" in typed.stdout
    assert "1 done, 1 pending" in typed.stdout
    assert "The person who plays the customer has left." in typed.stdout
    (folder,) = results_of(tmp_path)
    assert folder.setting.user.model == "human"


def test_no_sweep_has_a_person_beside_it(tmp_path: Path) -> None:
    told = CliRunner().invoke(
        cli, ["sweep", "plan", "demo", "--workspace", str(tmp_path), "--set", "user_strategy=human"]
    )
    assert told.exit_code == 2
    assert "nobody can play the customer in the cells of a sweep" in told.output


def test_status_and_report_find_the_checkout_where_results_were_made(tmp_path: Path, agent: Any) -> None:
    sweep = {
        "name": "small",
        "bench": "tau-bench",
        "grid": {
            "env": ["retail"],
            "strategy": ["act"],
            "agent": [{"model": "sim-4B", "base_url": agent.base_url}],
            "num_trials": [1],
        },
        "user": {"model": "sim-4B", "base_url": agent.base_url},
    }
    (tmp_path / "params/sweeps").mkdir(parents=True)
    (tmp_path / "params/sweeps/small.yaml").write_text(json.dumps(sweep))
    status = ["sweep", "status", "small", "--workspace", str(tmp_path), "--json"]
    assert "tau-bench is not here" in CliRunner().invoke(cli, status).output
    run(tmp_path, "--path", str(STAND_IN), "--env", "retail", "--strategy", "act", *at(agent))
    (cell,) = json.loads(CliRunner().invoke(cli, status).output)
    assert (cell["done"], cell["planned"]) == (6, 6)
    assert pass_report(workspace=tmp_path, sweep="small").scores[0].null_baseline.value == pytest.approx(1 / 6)
