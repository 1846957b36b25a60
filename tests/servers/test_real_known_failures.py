"""Rows of the table of failures as a real vLLM on the CPU writes them; TAUTOOLS_TEST_VLLM names its `vllm` command."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tautools.servers import diagnose_log

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.xdist_group("vllm")]

KV = ["--kv-cache-memory-bytes", "67108864"]
SMALL = ["--host", "127.0.0.1", "--max-model-len", "4096", "--enforce-eager", "--dtype", "float32"]
ROWS = {
    "4": ("length_above_model", {"vllm.max_model_len": 131072}),
    "5": ("heads_not_divisible", {"vllm.tensor_parallel_size": 2}),
    "20": ("unknown_flag", {"vllm.args.swap_space": None}),
    "22": ("bad_value", {}),
    "23": ("no_tool_parser", {"vllm.tool_call_parser": "hermes"}),
    "24": ("unknown_tool_parser", {"vllm.tool_call_parser": "hermes"}),
    "25": ("unknown_reasoning_parser", {"vllm.reasoning_parser": "qwen3"}),
    "28": ("chat_template_missing", {}),
    "29": ("model_not_supported", {}),
    "31": ("transformers_too_old", {}),
    "35": ("no_such_model", {}),
    "37": ("not_cached", {}),
    "39": ("no_weights", {}),
    "40": ("port_in_use", {"port": None}),
    "42": ("vllm_port_set", {"env.VLLM_PORT": None}),
    "54": ("batch_below_length", {"vllm.args.max_num_batched_tokens": 4096}),
    "55": ("batch_below_requests", {"vllm.max_num_seqs": 64}),
    "56": ("unknown_quantization", {}),
    "57": ("weights_damaged", {}),
    "58": ("config_damaged", {}),
    "59": ("weights_of_another_model", {}),
    "60": ("address_not_here", {}),
    "62": ("host_memory_for_kv", {}),
    "64": ("block_size", {}),
    "67": ("unknown_rope", {}),
}
SPEC = {"model": "Qwen/Qwen3-8B", "port": 8007, "env": {"VLLM_PORT": "x"}, "vllm": {"args": {"swap_space": 4}}}


def changed_model(model: Path, name: str, **config: Any) -> str:
    """Copy a model with other words in its configuration; without any, without its weights."""
    folder = model.with_name(name)
    shutil.copytree(model, folder, ignore=None if config else shutil.ignore_patterns("*.safetensors"))
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return str(folder)


def damaged(model: Path, name: str) -> str:
    """Copy a model with one of its files cut off."""
    folder = model.with_name(f"damaged-{name}")
    shutil.copytree(model, folder)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    return str(folder)


def cases(model: Path, port: int) -> dict[str, list[str]]:
    tiny, template = str(model), str(model / "no" / "such.jinja")
    return {
        "4": [tiny, *SMALL, "--max-model-len", "1000000"],
        "5": [tiny, *SMALL, "--tensor-parallel-size", "3"],
        "20": [tiny, *SMALL, "--swap-space", "4"],
        "22": [tiny, *SMALL, "--max-num-seqs", "many"],
        "23": [tiny, *SMALL, "--enable-auto-tool-choice"],
        "24": [tiny, *SMALL, "--enable-auto-tool-choice", "--tool-call-parser", "hermess"],
        "25": [tiny, *SMALL, "--reasoning-parser", "qwen-3"],
        "28": [tiny, *SMALL, "--chat-template", template],
        "29": [changed_model(model, "architecture", architectures=["BrandNewForCausalLM"]), *SMALL],
        "31": [changed_model(model, "type", model_type="brandnew"), *SMALL],
        "35": ["/no/such/folder", *SMALL],
        "37": ["some-org/some-model", *SMALL],
        "39": [changed_model(model, "weightless"), *SMALL, *KV],
        "40": [tiny, *SMALL, "--port", str(port)],
        "42": [tiny, *SMALL, *KV],
        "54": [tiny, *SMALL, "--max-num-batched-tokens", "512", "--no-enable-chunked-prefill"],
        "55": [tiny, *SMALL, "--max-num-batched-tokens", "64", "--max-num-seqs", "128"],
        "56": [tiny, *SMALL, "--quantization", "nosuch"],
        "57": [damaged(model, "model.safetensors"), *SMALL, *KV],
        "58": [damaged(model, "config.json"), *SMALL],
        "59": [changed_model(model, "deeper", num_hidden_layers=3, layer_types=None), *SMALL, *KV],
        "60": [tiny, *SMALL, *KV, "--host", "10.255.255.1"],
        "62": [tiny, *SMALL],
        "64": [tiny, *SMALL, *KV, "--block-size", "7"],
        "67": [tiny, *SMALL, *KV, "--hf-overrides", '{"rope_scaling": {"rope_type": "nosuch", "factor": 4.0}}'],
    }


@pytest.fixture(scope="session")
def provoked(
    vllm_command: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, repo: Path
) -> dict[str, tuple[list[str], int]]:
    """Return the log and exit status of a vLLM for each row."""
    logs = tmp_path_factory.mktemp("provoked")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        rows = cases(tiny_model, taken.getsockname()[1])
        asked = [{"row": row, "argv": argv, "log": str(logs / row)} for row, argv in rows.items()]
        env_of = {"42": {"VLLM_PORT": "tcp://10.0.0.1:80"}, "62": {"VLLM_CPU_KVCACHE_SPACE": "900"}}
        for case in asked:
            case["env"] = env_of.get(case["row"], {})
        env = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        words = [Path(vllm_command).with_name("python"), repo / "tests" / "support" / "provoke_vllm.py"]
        done = subprocess.run(
            words, input=json.dumps(asked), env=env, cwd=logs, capture_output=True, text=True, check=True
        )
    exits = json.loads(done.stdout.splitlines()[-1])
    return {row: ((logs / row).read_text().splitlines(), exits[row]) for row in rows}


@pytest.mark.parametrize("row", ROWS)
def test_a_real_vllm_fails_as_the_table_says(provoked: dict[str, tuple[list[str], int]], row: str) -> None:
    lines, exit_code = provoked[row]
    kind, fix = ROWS[row]

    found = diagnose_log(lines, exit_code=exit_code, spec=SPEC)

    assert exit_code not in {0, -14}
    assert (found.id, found.kind, dict(found.changes)) == (row, kind, fix), "\n".join(lines[-30:])
    assert "{" not in found.cause + found.fix
