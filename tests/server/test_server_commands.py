"""`tautools server` as it is typed, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from serving import FAKE_VLLM

from tautools.server import Registry, launch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(workspace: Path) -> Any:
    def tautools(*words: str, status: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "tautools", "server", *words],
            cwd=workspace,
            env=os.environ | {"TAUTOOLS_WORKSPACE": str(workspace)} | env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return tautools


def write_server(workspace: Path, name: str, modes: str = "") -> None:
    folder = workspace / "params" / "servers"
    folder.mkdir(parents=True, exist_ok=True)
    params = {
        "name": name,
        "model": f"org/{name}",
        "serve_command": [sys.executable, str(FAKE_VLLM)],
        "env": {"FAKE_VLLM": modes},
        "vllm": {"max_model_len": 4096, "tool_call_parser": "hermes"},
    }
    (folder / f"{name}.yaml").write_text(json.dumps(params))


def test_servers_are_started_listed_exported_verified_and_stopped(run: Any, workspace: Path) -> None:
    up = run("up", "sim-small", "sim-user", "--speed", "0", "--skill", "0.9")
    assert "sim-small: http://127.0.0.1:" in up.stdout
    assert "verifying: tool calls ok" in up.stderr
    assert Registry(workspace).get("sim-small").spec["simulate"]["skill"] == 0.9

    listed = json.loads(run("ls", "--json").stdout)
    assert [(row["name"], row["state"], row["simulated"]) for row in listed] == [
        ("sim-small", "ready", True),
        ("sim-user", "ready", True),
    ]
    assert "ready" in run("ls").stdout

    key = Registry(workspace).key(Registry(workspace).get("sim-user"))
    lines = run("export", "--user", "sim-user").stdout
    assert f"export USER_MODEL_API_BASE={listed[1]['base_url']}" in lines
    assert key not in lines
    script = f'{lines}\nprintf %s "$USER_MODEL_API_KEY"'
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout == key
    assert key in run("export", "--user", "sim-user", "--show-keys").stdout

    tested = run(
        "test",
        listed[0]["base_url"],
        "--key-env",
        "K",
        "--json",
        K=Registry(workspace).key(Registry(workspace).get("sim-small")),
    )
    assert json.loads(tested.stdout)["passed"] is True
    assert "passed" in run("verify", "sim-user").stdout

    stopped = run("stop", "--all")
    assert stopped.stdout.splitlines().count("sim-small: stopped") == 1
    assert json.loads(run("ls", "--json").stdout) == []


def test_a_failed_start_is_told_with_its_cause_and_status_1(run: Any, workspace: Path) -> None:
    write_server(workspace, "bad", "dies")

    done = run("up", "bad", status=1)

    assert "The KV cache cannot hold one request" in done.stderr
    assert "Next: Lower `max_model_len`" in done.stderr
    assert "Engine core initialization failed" in run("logs", "bad").stdout
    run("stop", "bad")


def test_of_several_servers_none_is_started_when_one_cannot_be(run: Any, workspace: Path) -> None:
    done = run("up", "sim-small", "sim-smal", status=2)

    assert "sim-small" in done.stderr
    assert not (workspace / "servers").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["up", "sim-small", "sim-user", "--port", "8007"], "--port is for one server"),
        (["up", "sim-small", "sim-small"], "a name is given twice"),
        (["up", "qwen3-8b", "--skill", "0.5"], "for simulated servers"),
        (["up", "sim-small", "--skill", "2"], "2"),
        (["stop"], "give the names of servers, or --all"),
        (["test", "http://127.0.0.1:9", "--key-env", "NO_SUCH"], "no such environment variable"),
        (["test", "ftp://x"], "is not the address of a server"),
    ],
)
def test_bad_input_ends_with_status_2_and_changes_nothing(
    run: Any, workspace: Path, words: list[str], said: str
) -> None:
    assert said in run(*words, status=2).stderr
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["stop", "nobody"], ["logs", "nobody"], ["verify", "nobody"], ["export", "--user", "nobody"]]
)
def test_an_unknown_server_ends_with_status_1_and_a_next_step(run: Any, workspace: Path, words: list[str]) -> None:
    done = run(*words, status=1)

    assert "No server named 'nobody'" in done.stderr
    assert "Next:" in done.stderr


def test_a_vllm_that_is_not_installed_is_said_before_anything_is_made(run: Any, workspace: Path) -> None:
    done = run("up", "qwen3-8b", status=1, PATH="/nowhere")

    assert "`vllm`, which starts server 'qwen3-8b', is not installed" in done.stderr
    assert list(workspace.iterdir()) == []


def test_a_wrong_server_is_told_by_test_with_status_1(run: Any, workspace: Path) -> None:
    done = run("test", "http://127.0.0.1:9", status=1)

    assert "FAILED  2 health" in done.stdout


def test_a_log_is_followed_until_the_server_ends(run: Any, workspace: Path) -> None:
    write_server(workspace, "late", "dies")
    from tautools.params import load_server

    server = launch(load_server("late", workspace=workspace), workspace=workspace)
    del server

    assert "Engine core initialization failed" in run("logs", "late", "-f").stdout
