"""`tautools server` as it is typed, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from serving import FAKE_VLLM

from tautools.cli.server import server_command
from tautools.params import load_server
from tautools.servers import Registry, launch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def call(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call a command in this process."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("TAUTOOLS_WORKSPACE", str(workspace))

    def tautools(*words: str, status: int = 0) -> Any:
        done = CliRunner().invoke(server_command, words)
        assert done.exit_code == status, done.output
        return done

    return tautools


@pytest.fixture
def run(workspace: Path) -> Any:
    """Type a command, in a process of its own."""

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


def test_servers_are_started_listed_exported_verified_and_stopped(
    run: Any, call: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = run("up", "sim-small", "sim-user", "--speed", "0", "--skill", "0.9")
    assert "sim-small: http://127.0.0.1:" in up.stdout
    assert "verifying: tool calls ok" in up.stderr
    small, user = (Registry(workspace).get(name) for name in ("sim-small", "sim-user"))
    assert small.spec["simulate"]["skill"] == 0.9

    listed = json.loads(run("ls", "--json").stdout)
    assert [(row["name"], row["state"], row["simulated"]) for row in listed] == [
        ("sim-small", "ready", True),
        ("sim-user", "ready", True),
    ]
    assert "ready" in call("ls").stdout

    key = Registry(workspace).key(user)
    lines = call("export", "--user", "sim-user").stdout
    assert f"export USER_MODEL_API_BASE={user.base_url}" in lines
    assert key not in lines
    script = f'{lines}\nprintf %s "$USER_MODEL_API_KEY"'
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout == key
    assert key in call("export", "--user", "sim-user", "--show-keys").stdout

    monkeypatch.setenv("KEY_OF_SMALL", Registry(workspace).key(small))
    tested = call("test", small.base_url, "--key-env", "KEY_OF_SMALL", "--json")
    assert json.loads(tested.stdout)["passed"] is True
    assert "passed" in call("verify", "sim-user").stdout

    stopped = run("stop", "--all")
    assert stopped.stdout.splitlines().count("sim-small: stopped") == 1
    assert json.loads(call("ls", "--json").stdout) == []


def test_a_failed_start_is_reported_with_its_cause_and_status_1(run: Any, workspace: Path) -> None:
    write_server(workspace, "bad", "dies")

    done = run("up", "bad", status=1)

    assert "The KV cache cannot hold one request" in done.stderr
    assert "Next: Lower `max_model_len`" in done.stderr
    assert "Engine core initialization failed" in run("logs", "bad").stdout
    run("stop", "bad")


def test_of_several_servers_none_is_started_when_one_cannot_be(call: Any, workspace: Path) -> None:
    done = call("up", "sim-small", "sim-smal", status=2)

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
    call: Any, workspace: Path, words: list[str], said: str
) -> None:
    assert said in call(*words, status=2).stderr
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["stop", "nobody"], ["logs", "nobody"], ["verify", "nobody"], ["export", "--user", "nobody"]]
)
def test_an_unknown_server_ends_with_status_2_and_a_next_step(call: Any, workspace: Path, words: list[str]) -> None:
    done = call(*words, status=2)

    assert "There is no server 'nobody'" in done.stderr
    assert "Next:" in done.stderr


def test_a_vllm_that_is_not_installed_is_reported_before_anything_is_made(
    call: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    done = call("up", "qwen3-8b", status=1)

    assert "`vllm`, which starts server 'qwen3-8b', is not installed" in done.stderr
    assert list(workspace.iterdir()) == []


def test_a_wrong_server_is_reported_by_test_with_status_1(call: Any, workspace: Path) -> None:
    done = call("test", "http://127.0.0.1:9", status=1)

    assert "FAILED  2 health" in done.stdout


def test_a_log_is_followed_until_the_server_ends(call: Any, workspace: Path) -> None:
    write_server(workspace, "late", "dies")
    launch(load_server("late", workspace=workspace), workspace=workspace)

    assert "Engine core initialization failed" in call("logs", "late", "-f").stdout


def test_an_interrupted_wait_ends_at_once_and_leaves_the_start_findable(workspace: Path) -> None:
    write_server(workspace, "slow", "hangs")
    words = [sys.executable, "-m", "tautools", "server", "up", "slow", "--workspace", str(workspace)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        assert "slow: starting" in up.stderr.readline()
        up.send_signal(signal.SIGINT)
        said = up.stderr.read()

    assert up.returncode == 130
    assert "slow" in said
    assert [record.name for record in Registry(workspace).list()] == ["slow"]
