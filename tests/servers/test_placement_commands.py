"""`tautools server cards`, `plan` and `up` with several replicas, as they are typed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from fake_cards import FakeCards
from serving import FAKE_VLLM

from tautools.cli.server import server_command
from tautools.servers import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def call(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TAUTOOLS_WORKSPACE", str(workspace))
    for variable in ("CUDA_VISIBLE_DEVICES", "HABANA_VISIBLE_MODULES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS"):
        monkeypatch.delenv(variable, raising=False)

    def tautools(*words: str, status: int = 0) -> Any:
        done = CliRunner().invoke(server_command, words)
        assert done.exit_code == status, done.output
        return done

    return tautools


@pytest.fixture
def gaudi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCards:
    cards = FakeCards(tmp_path / "bin", "gaudi", [768, 768, 768, 768])
    monkeypatch.setenv("PATH", cards.path)
    return cards


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def write_model(workspace: Path, name: str, across: int = 1, heads: int = 32) -> None:
    """Write a server file, and the folder of its model with what a plan reads from it."""
    (workspace / "params" / "servers").mkdir(parents=True, exist_ok=True)
    folder = workspace / "models" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": heads}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 16 * 1024**3}}))
    params = {
        "name": name,
        "model": f"models/{name}",
        "serve_command": [sys.executable, str(FAKE_VLLM)],
        "vllm": {"max_model_len": 4096, "tool_call_parser": "hermes", "tensor_parallel_size": across},
    }
    (workspace / "params" / "servers" / f"{name}.yaml").write_text(json.dumps(params))


def test_cards_are_shown_with_module_memory_and_holder(
    call: Any, gaudi: FakeCards, sleeper: subprocess.Popen[bytes]
) -> None:
    gaudi.hold(2, sleeper.pid)

    shown = call("cards").stdout
    rows = json.loads(call("cards", "--json").stdout)

    assert [row["module"] for row in rows] == [2, 6, 3, 7]
    assert [row["idle"] for row in rows] == [True, True, False, True]
    holder = rows[2]["holders"][0]
    assert (holder["pid"], holder["mine"], holder["stale"]) == (sleeper.pid, True, True)
    assert f"process {sleeper.pid} of" in shown
    assert "(stale)" in shown


def test_stale_processes_are_named_first_and_stopped_when_confirmed(
    call: Any, gaudi: FakeCards, sleeper: subprocess.Popen[bytes]
) -> None:
    gaudi.hold(1, sleeper.pid, used=[50000, 50000, 50000, 768])

    named = call("cards", "--stop-stale").stdout
    assert f"card 1: process {sleeper.pid} of" in named
    assert "Nothing was stopped." in named
    assert sleeper.poll() is None

    refused = call("cards", "--stop-stale", "--confirm", f"{sleeper.pid}@17", status=2)
    assert "nothing was stopped" in refused.stderr
    assert sleeper.poll() is None

    token = named.rpartition("--confirm ")[2].strip()
    stopped = call("cards", "--stop-stale", "--confirm", token).stdout
    assert stopped == f"process {sleeper.pid}: stopped\nidle again: card 1\n"
    assert sleeper.wait() != 0


def test_a_job_asks_for_idle_cards_by_the_line_that_shows_them(call: Any, gaudi: FakeCards) -> None:
    gaudi.cards[0]["used"] = 40000
    gaudi.save()

    assert call("cards", "--assign", "2").stdout == "export HABANA_VISIBLE_MODULES=6,3\n"
    refused = call("cards", "--assign", "4", status=1)
    assert "3 of 4 are idle" in refused.stderr
    assert "card 0: 40000 of 98304 MiB used" in refused.stderr


def test_a_node_without_cards_says_so(call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "neither hl-smi nor nvidia-smi is on PATH" in call("cards").stdout


def test_a_plan_shows_cards_ports_and_weights_and_what_is_left(call: Any, gaudi: FakeCards, workspace: Path) -> None:
    gaudi.cards[0]["used"] = 40000
    gaudi.save()
    write_model(workspace, "agent")

    shown = call("plan", "agent", "--replicas", "agent=2", "--start-port", "47100").stdout
    data = json.loads(call("plan", "agent", "--replicas", "2", "--start-port", "47100", "--json").stdout)

    assert "agent-1  2      47101" in shown
    assert "16.0 GiB" in shown
    assert "card 0 is left alone: 40000 of 98304 MiB used" in shown
    assert "cards left: 3" in shown
    assert data["fits"]
    assert [(row["name"], row["cards"], row["port"]) for row in data["servers"]] == [
        ("agent-0", [1], 47100),
        ("agent-1", [2], 47101),
    ]
    assert not (workspace / "servers").exists()


def test_a_plan_refuses_what_cannot_be(call: Any, gaudi: FakeCards, workspace: Path) -> None:
    write_model(workspace, "odd", across=3)
    write_model(workspace, "wide", across=8)

    data = json.loads(call("plan", "odd", "wide", "--json", status=1).stdout)

    assert not data["fits"]
    assert data["problems"] == [
        "odd: 32 attention heads cannot be shared by 3 cards; 1, 2, 4, 8, 16 can",
        "wide: needs 8 cards, and the node has 4",
    ]


def test_a_plan_for_a_cluster_site_is_made_from_its_file(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")

    data = json.loads(
        call("plan", "qwen3-8b", "qwen3-32b", "--site", "sol-gaudi", "--replicas", "qwen3-8b=4", "--json").stdout
    )

    assert [row["cards"] for row in data["servers"]] == [[0], [1], [2], [3], [4, 5]]


def test_a_plan_of_more_than_a_node_of_the_site_holds_is_spread(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    words = ("plan", "qwen3-8b", "qwen3-32b", "--site", "sol-gaudi", "--start-port", "1900")

    data = json.loads(call(*words, "--replicas", "qwen3-8b=7", "--replicas", "qwen3-32b=2", "--json").stdout)
    shown = call(*words, "--replicas", "qwen3-8b=7", "--replicas", "qwen3-32b=2").stdout

    assert (data["fits"], data["nodes"]) == (True, 2)
    assert [(row["name"], row["node"], row["cards"], row["port"]) for row in data["servers"]] == [
        *((f"qwen3-8b-{number}", 1, [number], 1900 + number) for number in range(7)),
        ("qwen3-32b-0", 2, [0, 1], 1907),
        ("qwen3-32b-1", 2, [2, 3], 1908),
    ]
    assert len(data["cards"]) == 16
    assert "Node 2 of 2" in shown
    assert "Slurm chooses the nodes" in shown


def test_a_plan_is_not_spread_where_more_nodes_would_not_help(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    words = ("plan", "qwen3-8b", "--site", "sol-gaudi", "--json")

    wide = json.loads(call(*words, "--set", "vllm.tensor_parallel_size=16", status=1).stdout)
    chosen = json.loads(call(*words, "--replicas", "3", "--gpu-ids", "0,1", status=1).stdout)

    assert (wide["nodes"], wide["problems"]) == (1, ["qwen3-8b: needs 16 cards, and the node has 8"])
    assert chosen["nodes"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--replicas", "sim-small=0"), "write NAME=N, or N for all"),
        (("--replicas", "other=2"), "which is not among the servers"),
        (("--stagger", "soon"), "neither seconds nor `loaded`"),
        (("--stagger", "nan"), "neither seconds nor `loaded`"),
        (("--gpu-ids", "a-b"), "is not of the form 0,1,2 or 0-3"),
        (("--gpu-ids", ","), "is not of the form 0,1,2 or 0-3"),
    ],
)
def test_bad_layout_options_are_errors(call: Any, words: tuple[str, ...], said: str) -> None:
    assert said in call("plan", "sim-small", *words, status=2).output


def test_replicas_go_up_on_chosen_cards_one_after_the_other(call: Any, gaudi: FakeCards, workspace: Path) -> None:
    write_model(workspace, "agent")

    up = call("up", "agent", "--replicas", "2", "--gpu-ids", "3,1", "--stagger", "loaded")

    assert "agent-1 starts when agent-0 has loaded" in up.stderr
    assert [record.spec["cards"] for record in Registry(workspace).list()] == [[3], [1]]
    gaudi.cards[1]["used"] = gaudi.cards[3]["used"] = [60000, 768]
    gaudi.save()
    stopped = call("stop", "--all").stdout
    assert "agent-0: waiting until released: card 3 (60000 MiB)" in stopped
    assert Registry(workspace).list() == []


def test_four_models_on_three_nodes_get_the_ports_and_cards_of_the_docs(workspace: Path, call: Any) -> None:
    site = {"name": "h100", "scheduler": "slurm", "device": "cuda", "gres": "gpu:1", "cards_per_node": 8}
    (workspace / "params" / "sites").mkdir(parents=True)
    (workspace / "params" / "sites" / "h100.yaml").write_text(json.dumps(site))

    def ports(first: int, *names: str) -> list[int]:
        words = ["--replicas", "4", "--start-port", str(first), "--site", "h100", "--json"]
        data = json.loads(call("plan", *names, *words).stdout)
        assert data["problems"] == []
        return [server["port"] for server in data["servers"]]

    assert ports(1900, "nemotron-orchestrator-8b", "qwen3-32b-fp8") == list(range(1900, 1908))
    assert ports(1910, "gpt-oss-20b") == list(range(1910, 1914))
    assert ports(1920, "qwen3-next-80b-a3b-fp8") == list(range(1920, 1924))
