"""What a run executes and reads: values are passed on, not read again at each step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import traced
from serving import simulated

from tautools.servers import launch_all

FLAGS = ("--env", "retail", "--strategy", "fc", "--server", "agent", "--user-server", "user", "--limit", "2")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reads")
    servers = launch_all([simulated("agent"), simulated("user")], workspace=folder)
    try:
        for server in servers:
            server.wait_ready(60)
        yield folder
    finally:
        for server in servers:
            server.stop()


def traced_run(workspace, *words):
    out = workspace / "trace.json"
    words = [traced.__file__, out, "run", *FLAGS, "--workspace", workspace, "--json", *words]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
    return json.loads(done.stdout), json.loads(out.read_text())


def opened(trace, name):
    return sum(count for path, count in trace["opened"].items() if Path(path).name == name)


def listed(trace, folder):
    return sum(count for path, count in trace["listed"].items() if Path(path) == folder)


@pytest.mark.parametrize("trials", [1, 2])  # a new setting, and one that has results
def test_a_run_reads_setting_ledger_and_registry_once(workspace, trials):
    result, trace = traced_run(workspace, "--num-trials", str(trials))
    assert (result["done"], result["pending"]) == (2 * trials, 0)
    assert opened(trace, "setting.json") <= 2
    assert listed(trace, workspace / "servers") <= 3
    before = len(list((Path(result["folder"]) / "ledger").iterdir())) - 1
    others = [count for path, count in trace["opened"].items() if Path(path).parent.name == "ledger"]
    assert sorted(others) == [1] * before + [2], "each file of other writers once, the own one written and read"


def test_a_run_goes_through_few_files(workspace):
    _, trace = traced_run(workspace, "--task-ids", "5,6")
    assert len(trace["files"]) <= 48, trace["files"]
