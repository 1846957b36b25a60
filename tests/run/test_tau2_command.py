"""`tautools run` on a tau2-bench checkout, from flags: the stand-in, with a simulated model that opens it too."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest
from click.testing import CliRunner
from served_cells import simulated_model
from stand_in import STAND_IN, changed_copy

from tautools.bench import open_source
from tautools.bench.sources.tau2_checkout import CheckoutProcess
from tautools.cli.run import run_command
from tautools.run.folder import read_setting


@pytest.fixture(scope="module")
def server():
    with simulated_model(skill=1) as running:
        yield running


def run(workspace, server, *args, path=STAND_IN):
    place = ("--bench", "tau2", "--source", "tau2-bench", "--path", path, "--python", sys.executable)
    model = ("--model", "sim-4B", "--base-url", server.base_url, "--strategy", "fc", "--env", "library")
    given = ("--workspace", workspace, *place, *model, "--json", *args)
    return CliRunner().invoke(run_command, [str(each) for each in given])


def test_a_checkout_is_run_from_flags_and_the_simulated_model_opens_it_too(tmp_path, server):
    told = run(tmp_path, server, "--num-trials", 2)
    assert told.exit_code == 0, told.output
    result = json.loads(told.stdout)
    assert (result["done"], result["outcomes"], result["faults"]) == (8, {"passed": 8}, 0)
    folder = read_setting(tmp_path / "results/library/fc/4B")
    assert (folder.setting.source, folder.setting.protocol) == ("tau2-bench", "tau2-bench")
    assert folder.provenance["benchmark"] == {"path": str(STAND_IN), "python": sys.executable}


def test_the_setting_is_another_one_than_that_of_another_source_or_database(tmp_path, server):
    plans = [
        json.loads(run(tmp_path, server, "--dry-run", path=path).stdout)
        for path in (
            STAND_IN,
            changed_copy(tmp_path, {"data/tau2/domains/library/db.json": ('"copies": 3', '"copies": 4')}),
        )
    ]
    assert plans[0]["setting_id"] != plans[1]["setting_id"]


def test_a_process_that_is_killed_costs_a_fault_and_no_task(tmp_path, server, monkeypatch):
    asked = []
    ask = CheckoutProcess.ask

    def killed_once(self, do, **what):
        asked.append(do)
        if asked.count("call") == 2 and do == "call":
            os.kill(self.pid, signal.SIGKILL)
        return ask(self, do, **what)

    monkeypatch.setattr(CheckoutProcess, "ask", killed_once)
    path = changed_copy(tmp_path)
    told = run(tmp_path, server, "--set", "concurrency=1", path=path)
    assert told.exit_code == 0, told.output
    result = json.loads(told.stdout)
    assert (result["done"], result["outcomes"]) == (4, {"passed": 4})
    assert result["fault_kinds"] == {"bench": 1}
    open_source("tau2", "tau2-bench", str(path), sys.executable).process.close()


def test_bad_input_ends_before_any_work(tmp_path, server):
    told = run(tmp_path, server, path=tmp_path)
    assert (told.exit_code, "is not a checkout of tau2-bench" in told.stderr) == (2, True)
    assert not (tmp_path / "results").exists()
