"""`tautools local`: servers, domains in turn, stop; on simulated servers, as it is typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from command_line import called
from fake_cards import FakeCards
from served_cells import simulated_model
from serving import fake_vllm

from tautools.cli.local import agent_server, user_role
from tautools.errors import ParamsError
from tautools.params import load_server
from tautools.params.models import RoleParams
from tautools.servers import Registry, attach, launch
from tautools.shell import process_alive

if TYPE_CHECKING:
    from pathlib import Path

FAST = ("--set", "simulate.speed=0")


@pytest.fixture(autouse=True)
def _here(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAUTOOLS_WORKSPACE", str(workspace))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_servers_start_domains_run_in_turn_and_servers_stop(workspace: Path, tmp_path: Path) -> None:
    out, logs = tmp_path / "outputs" / "run1", tmp_path / "logs"
    words = ("--agent-model", "sim-small", "--num-servers", "2", "--stagger-delay", "0", *FAST)
    words += ("--domains", "retail", "airline", "--limit", "2", "--max-steps", "150", "--json")

    done = called("local", *words, "--output-dir", str(out), "--log-dir", str(logs))

    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert [(each["env"], each["done"], each["pending"], each["simulated"]) for each in told] == [
        ("retail", 2, 0, True),
        ("airline", 2, 0, True),
    ]
    assert len(json.loads((out / "retail.json").read_text())) == 2
    assert sorted(path.name.partition("_")[0] for path in logs.iterdir()) == ["sim-small-0"] * 2 + ["sim-small-1"] * 2
    assert any("sim-small" in path.read_text() for path in logs.glob("*.out"))
    setting = json.loads((workspace / "results/retail/fc/sim-small/setting.json").read_text())
    assert "150" in json.dumps(setting)
    assert Registry(workspace).list() == []


def test_running_servers_are_used_and_left_running(workspace: Path) -> None:
    server = launch(load_server("sim-small", workspace=workspace, overrides=FAST[1:]), workspace=workspace).wait_ready()

    done = called("local", "--agent-model", "sim-small", "--skip-server-start", "--domains", "retail", "--limit", "1")

    assert done.code == 0, done.err
    assert "1 done, 0 pending" in done.out
    assert server.state().state.value == "ready"


def test_a_term_signal_stops_the_servers(workspace: Path) -> None:
    words = ["--agent-model", "sim-small", "--num-servers", "2", "--domains", "retail", "--set", "simulate.speed=0.1"]
    with subprocess.Popen(
        [sys.executable, "-m", "tautools", "local", *words, "--stagger-delay", "0"],
        env=os.environ | {"TAUTOOLS_WORKSPACE": str(workspace)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 30
        while len(Registry(workspace).list()) < 2:
            assert time.monotonic() < deadline, "no servers were started"
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130

    assert Registry(workspace).list() == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--domains", "retial"), 2, "retial"),
        (("--domains", ","), 2, "the list is empty"),
        (("--user-llm", "gpt-4o"), 1, "OPENAI_API_KEY"),
        (("--user-llm", "nobody-serves-this"), 1, "No running server serves 'nobody-serves-this'"),
        (("--skip-server-start",), 1, "No running server serves 'sim-small'"),
        (("--agent-model", "/no/such/folder"), 2, "there is no folder /no/such/folder"),
        (("--stagger-delay", "soon"), 2, "neither seconds nor `loaded`"),
        (("--start-port", "65535", "--num-servers", "2"), 1, "port 65536 does not exist"),
        (("--strategy", "magic"), 2, "strategy"),
    ],
)
def test_what_is_wrong_is_told_before_a_server_starts(
    workspace: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    usual = {"--agent-model": "sim-small", "--domains": "retail"}
    given = [word for name, value in usual.items() if name not in words for word in (name, value)]
    done = called("local", *given, *words)

    assert (done.code, said in done.err) == (code, True), done.err
    assert Registry(workspace).list() == []
    assert not (workspace / "logs").exists()


def test_chosen_cards_must_be_enough(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", FakeCards(tmp_path / "bin", "cuda", [0, 0, 0]).path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    folder = workspace / "ckpt"
    folder.mkdir()

    done = called(
        "local", "--agent-model", str(folder), "--num-servers", "3", "--gpu-ids", "1", "2", "--domains", "retail"
    )

    assert done.code == 1, done.err
    assert "ckpt: needs 3 x 1 = 3 cards, and 2 are left" in done.err


def test_an_agent_is_a_file_the_file_of_its_model_or_made_up(workspace: Path) -> None:
    def chosen(model: str, *overrides: str) -> Any:
        return agent_server(model, workspace=workspace, overrides=overrides, tool_call_parser="hermes")

    assert chosen("qwen3-8b").name == "qwen3-8b"
    assert chosen("Qwen/Qwen3-8B", "vllm.max_model_len=9000").vllm.max_model_len == 9000
    assert chosen("Qwen/Qwen3-8B").name == "qwen3-8b"
    made = chosen("org/New Model_7B!", "vllm.tensor_parallel_size=2")
    assert (made.name, made.model) == ("new-model_7b", "org/New Model_7B!")
    assert (made.vllm.tool_call_parser, made.vllm.tensor_parallel_size) == ("hermes", 2)
    (workspace / "Orchestrator-8B").mkdir()
    assert chosen(str(workspace / "Orchestrator-8B")).name == "orchestrator-8b"
    with pytest.raises(ParamsError):
        chosen("org/x", "vllm.max_modellen=3")


def test_a_customer_is_a_server_a_hosted_model_or_the_agent(workspace: Path) -> None:
    agent = RoleParams(server="a")

    assert user_role(None, agent, workspace=workspace) == (agent, None)
    role, server = user_role("sim-user", agent, workspace=workspace)
    assert (role, server) == (RoleParams(server="sim-user"), load_server("sim-user", workspace=workspace))
    assert user_role("claude-3-5-sonnet-20241022", agent, workspace=workspace)[0].provider == "anthropic"
    hosted = user_role("gpt-4o", agent, workspace=workspace)[0]
    assert (hosted.base_url, hosted.api_key_env) == ("https://api.openai.com/v1", "OPENAI_API_KEY")
    launch(fake_vllm("own", "hangs"), workspace=workspace)
    assert user_role("own", agent, workspace=workspace) == (RoleParams(server="own"), None)
    assert user_role("org/Some-4B", agent, workspace=workspace) == (RoleParams(model="org/Some-4B"), None)


def test_a_command_that_is_killed_leaves_no_server_behind(workspace: Path) -> None:
    words = [sys.executable, "-m", "tautools", "local", "--agent-model", "sim-small", "--domains", "retail"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as command:
        deadline = time.monotonic() + 60
        while not list((workspace / "results").rglob("*.jsonl")):
            assert time.monotonic() < deadline, "the run never began"
            time.sleep(0.1)
        server, *_ = Registry(workspace).list()
        command.kill()
    assert server.pid is not None

    while Registry(workspace).list():
        assert time.monotonic() < deadline + 60, "the server was not stopped"
        time.sleep(0.2)
    assert not process_alive(server.pid, server.pid_started_at or 0.0)


def test_without_a_customer_the_agent_plays_it_and_a_line_says_so(workspace: Path) -> None:
    words = ("--agent-model", "sim-small", "--domains", "retail", "--limit", "2", "--num-trials", "3", "--dry-run")

    done = called("local", *words)
    plan = json.loads(called("local", *words, "--json").out)

    assert "the agent's model plays the customer, too" in done.err
    assert "sim-small: 1 x sim-small would be started" in done.out
    assert "2 tasks x 3 trials = 6 conversations" in done.out
    assert [(each["env"], each["pending"]) for each in plan["domains"]] == [("retail", 6)]
    assert "plays the customer" not in called("local", *words, "--user-llm", "sim-user").err
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize("words", [("--num-servers", "2"), ("--gpu-ids", "0", "1"), ("--set", "port=1"), ("--force",)])
def test_options_of_a_start_are_refused_when_nothing_is_started(words: tuple[str, ...]) -> None:
    done = called("local", "--agent-model", "sim-small", "--skip-server-start", "--domains", "retail", *words)

    assert done.code == 2
    assert f"{words[0]}: for servers that are started; leave out --skip-server-start" in done.err


def test_a_running_server_is_found_by_its_model_though_that_looks_like_a_folder(workspace: Path) -> None:
    with simulated_model(model="/no/such/ckpt", skill=1) as server:
        attach("mine", server.base_url, workspace=workspace)
        words = ("--agent-model", "/no/such/ckpt", "--skip-server-start", "--domains", "retail", "--limit", "1")
        done = called("local", *words)

    assert done.code == 0, done.err
    assert "1 done, 0 pending" in done.out


def test_the_servers_of_model_config_local_json_are_attached_and_used(workspace: Path) -> None:
    with simulated_model(model="org/Some-4B", skill=1) as server:
        port = server.base_url.removesuffix("/v1").rpartition(":")[2]
        config = {"org/Some-4B": [{"ip_addr": "127.0.0.1", "port": port}]}
        (workspace / "model_config_local.json").write_text(json.dumps(config))
        words = ("--agent-model", "org/Some-4B", "--skip-server-start", "--domains", "retail", "--limit", "1")
        done = called("local", *words)

    assert done.code == 0, done.err
    assert "Attached from model_config_local.json: Some-4B" in done.err
    assert json.loads((workspace / "model_config_local.json").read_text()) == config


def test_the_addresses_are_in_model_config_local_json_while_the_servers_run(workspace: Path) -> None:
    words = ["--agent-model", "sim-small", "--num-servers", "2", "--stagger-delay", "0", "--domains", "retail"]
    file = workspace / "model_config_local.json"
    with subprocess.Popen(
        [sys.executable, "-m", "tautools", "local", *words, "--set", "simulate.speed=0.1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline, "the file was not written"
            time.sleep(0.05)
        addresses = json.loads(file.read_text())["sim-small"]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=90)

    assert len(addresses) == 2
    assert process.returncode == 130
    assert "2 servers stopped" in errors
    assert "Error" not in errors
    assert not file.exists()


def test_an_interrupt_while_servers_start_does_not_blame_them(workspace: Path) -> None:
    folder = workspace / "params" / "servers"
    folder.mkdir(parents=True)
    (folder / "slow.yaml").write_text(json.dumps(fake_vllm("slow", "hangs").model_dump(mode="json")))
    words = [sys.executable, "-m", "tautools", "local", "--agent-model", "slow", "--domains", "retail"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "starting" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()

    assert process.wait(60) == 130
    assert "Error" not in errors
    assert errors.splitlines()[-1] == "Interrupted."
    assert Registry(workspace).list() == []
