"""`server ls` and `server top` tell the load of real processes; fifty are asked side by side."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from command_line import called
from rich.console import Console
from serving import fake_vllm, simulated

from tautools.cli.server_status import server_table
from tautools.http import http_post
from tautools.servers import Registry, State, launch
from tautools.servers.metrics import poll_servers, sample_servers

_FIFTY = Path(__file__).parents[1] / "support" / "many_servers.py"


def _ask(base_url: str, key: str, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Tell me."}]}
    http_post(f"{base_url}/chat/completions", body, key=key, timeout_s=30)


def test_a_server_at_work_shows_its_requests_and_then_its_tokens_per_second(workspace: Path) -> None:
    slow = {"speed": 1, "ttft_ms": 100, "itl_ms": 40, "jitter": 0}
    server = launch(simulated(simulate=slow), workspace=workspace).wait_ready()
    end = server.endpoint()
    before = poll_servers(workspace)
    asking = threading.Thread(target=_ask, args=(end.base_url, end.key, end.model))
    asking.start()
    busy = None
    while asking.is_alive() and busy is None:
        (seen,) = sample_servers(workspace)
        busy = seen if seen.load.running else None
    asking.join()
    (done,) = poll_servers(workspace, before)

    assert busy is not None
    assert busy.snapshot.state is State.READY
    assert busy.load.running == 1
    assert busy.health_age_s == 0.0
    assert 0 < (busy.load.kv_usage or 0) < 1
    assert (done.load.running, done.load.waiting) == (0, 0)
    assert (done.load.output_tokens_s or 0) > 0
    assert (done.load.prompt_tokens_s or 0) > 0


def test_a_server_that_stops_answering_keeps_its_last_figures_with_their_age(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()
    first = poll_servers(workspace)
    assert server.record.pid is not None
    os.kill(server.record.pid, signal.SIGSTOP)
    try:
        (later,) = poll_servers(workspace, first)
    finally:
        os.kill(server.record.pid, signal.SIGCONT)

    assert later.snapshot.state is State.DEGRADED
    assert later.load == first[0].load
    assert (later.health_age_s or 0) > 0


def test_a_server_without_vllms_metrics_is_listed_without_figures(workspace: Path) -> None:
    launch(fake_vllm(), workspace=workspace).wait_ready()

    (seen,) = sample_servers(workspace)

    assert seen.snapshot.state is State.READY
    assert seen.load.running is None
    listed = called("server", "ls", "--workspace", str(workspace))
    assert "ready" in listed.out


def test_top_once_prints_one_table_or_json_and_ends(workspace: Path) -> None:
    launch(simulated(), workspace=workspace).wait_ready()

    words = ("server", "top", "--once", "--every", "0.2", "--workspace", str(workspace))
    (row,) = json.loads(called(*words, "--json").out)
    assert row["state"] == "ready"
    assert row["load"]["running"] == 0
    assert row["load"]["output_tokens_s"] == 0.0
    assert row["health_age_s"] == 0.0
    table = called(*words).out
    assert "tok/s" in table
    assert "SIMULATED" in table


@pytest.mark.parametrize("width", [80, 200])
def test_names_and_addresses_stay_whole_in_narrow_and_wide_terminals(workspace: Path, width: int) -> None:
    server = launch(simulated("agent-of-a-long-name-1"), workspace=workspace)
    server.wait_ready()
    printed = io.StringIO()
    Console(width=width, file=printed).print(server_table(sample_servers(workspace), workspace, width=width))
    shown = printed.getvalue()

    assert shown.splitlines()[0].split()[:3] == ["name", "state", "age"]
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= width
    assert len(shown.splitlines()) <= 5
    for word in ("ready", "agent-of-a-long-name-1-model SIMULATED", server.record.base_url):
        assert word in shown


def test_top_goes_on_until_it_is_interrupted(workspace: Path) -> None:
    launch(simulated(), workspace=workspace).wait_ready()
    words = [sys.executable, "-m", "tautools", "server", "top", "--json", "--every", "0.2"]
    with subprocess.Popen([*words, "--workspace", str(workspace)], stdout=subprocess.PIPE, text=True) as shown:
        assert shown.stdout is not None
        looks = [json.loads(shown.stdout.readline()) for _ in range(3)]
        shown.send_signal(signal.SIGINT)
        shown.stdout.read()

    assert [rows[0]["state"] for rows in looks] == ["ready"] * 3
    assert shown.returncode == 130


def test_fifty_servers_are_listed_with_live_state_and_load(workspace: Path) -> None:
    """One process answers as fifty simulated servers on fifty ports; each has its own record, key and alias."""
    with subprocess.Popen(
        [sys.executable, str(_FIFTY), str(workspace), "50"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as many:
        assert many.stdout is not None
        assert many.stdin is not None
        assert many.stdout.readline().strip() == "ready"
        began = time.perf_counter()
        seen = sample_servers(workspace)
        print(f"50 servers listed in {time.perf_counter() - began:.2f} s")
        many.stdin.close()

    assert len(Registry(workspace).list()) == 50
    assert {each.snapshot.state for each in seen} == {State.READY}
    assert {each.load.running for each in seen} == {0}
    assert len({each.record.base_url for each in seen}) == 50
