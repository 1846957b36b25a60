"""What a run executes and reads: values are passed on, not read again at each step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import traced
from serving import simulated

from tautools.run import read_ledger, results_of
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
    words = [traced.__file__, out, "run", *FLAGS, "--workspace", workspace, *words]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def opened(trace, name):
    return sum(count for path, count in trace["opened"].items() if Path(path).name == name)


def listed(trace, folder):
    return sum(count for path, count in trace["listed"].items() if Path(path) == folder)


def test_a_run_reads_setting_ledger_and_registry_once_and_goes_through_few_files(workspace):
    first = traced_run(workspace)
    assert cold_roles(workspace) == {"agent", "user"}
    check_reads(first, workspace, done=2)
    assert len(first["files"]) <= 58, first["files"]

    second = traced_run(workspace, "--num-trials", "2")
    assert cold_roles(workspace) == set(), "the registry knows that the launch has answered"
    check_reads(second, workspace, done=4)


def cold_roles(workspace):
    """Return the roles that the last run asked at a server that had not answered before."""
    (folder,) = results_of(workspace)
    newest = max((folder.path / "calls").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return {call["role"] for call in map(json.loads, newest.read_text().splitlines()) if call["cold"]}


def check_reads(trace, workspace, *, done):
    (folder,) = results_of(workspace)
    assert len(read_ledger(folder.path)) == done
    assert opened(trace, "setting.json") <= 2
    assert listed(trace, workspace / "servers") <= 3
    before = len(list((folder.path / "ledger").iterdir())) - 1
    others = [count for path, count in trace["opened"].items() if Path(path).parent.name == "ledger"]
    assert sorted(others) == [1] * before + [2], "each file of other writers once, the own one written and read"
