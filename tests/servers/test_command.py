"""The command line and the environment of a server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tautools.errors import ParamsError
from tautools.params.models import ServerParams, SiteParams
from tautools.servers.vllm.command import server_argv, server_env

SITE = SiteParams(name="here", serve_command=["apptainer", "run", "vllm.sif", "vllm", "serve"])


def argv(**fields: Any) -> list[str]:
    return server_argv(ServerParams(name="s", model="Qwen/Qwen3-8B", **fields), SITE, port=8007, alias="launch-1")


def test_vllm_is_started_as_the_site_says_with_the_model_first() -> None:
    assert argv() == [
        *SITE.serve_command,
        "Qwen/Qwen3-8B",
        "--host",
        "127.0.0.1",
        "--port",
        "8007",
        "--served-model-name",
        "Qwen/Qwen3-8B",
        "launch-1",
    ]


def test_the_server_files_own_command_wins() -> None:
    assert argv(serve_command=["/opt/vllm/bin/vllm", "serve"])[:2] == ["/opt/vllm/bin/vllm", "serve"]


def test_a_served_name_takes_the_place_of_the_model() -> None:
    words = argv(served_model_name="qwen")

    assert words[words.index("--served-model-name") + 1 :] == ["qwen", "launch-1"]


def test_options_become_flags_of_vllms_own_names() -> None:
    words = argv(
        vllm={
            "max_model_len": 40960,
            "tensor_parallel_size": 2,
            "gpu_memory_utilization": 0.85,
            "max_num_seqs": 16,
            "dtype": "bfloat16",
            "tool_call_parser": "hermes",
            "reasoning_parser": "qwen3",
            "chat_template": "a b.jinja",
            "chat_template_kwargs": {"enable_thinking": False},
            "enforce_eager": True,
        }
    )

    assert words[words.index("launch-1") + 1 :] == [
        *("--max-model-len", "40960", "--tensor-parallel-size", "2", "--gpu-memory-utilization", "0.85"),
        *("--max-num-seqs", "16", "--dtype", "bfloat16", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--reasoning-parser", "qwen3", "--chat-template", "a b.jinja"),
        *("--default-chat-template-kwargs", '{"enable_thinking": false}', "--enforce-eager"),
    ]


def test_further_flags_are_written_as_vllm_wants_them() -> None:
    words = argv(
        vllm={
            "args": {
                "block_size": 32,
                "enable-prefix-caching": False,
                "trust_remote_code": True,
                "speculative_config": {"method": "mtp"},
                "allowed_origins": ["a", "b"],
                "seed": None,
            }
        }
    )

    assert words[words.index("launch-1") + 1 :] == [
        *("--block-size", "32", "--no-enable-prefix-caching", "--trust-remote-code"),
        *("--speculative-config", '{"method": "mtp"}', "--allowed-origins", "a", "b"),
    ]


@pytest.mark.parametrize("name", ["api_key", "api-key", "--api-key", "port", "served_model_name", "host"])
def test_flags_of_the_launcher_are_refused(name: str) -> None:
    with pytest.raises(ParamsError, match="set by the launcher itself"):
        argv(vllm={"args": {name: "x"}})


@given(
    st.text().filter(lambda text: not text.startswith("-")), st.text(min_size=1), st.dictionaries(st.text(), st.text())
)
def test_hostile_text_stays_one_word(model: str, value: str, mapping: dict[str, str]) -> None:
    params = ServerParams.model_validate(
        {"name": "s", "model": model, "vllm": {"dtype": value, "args": {"some_flag": mapping, "other": value}}}
    )

    words = server_argv(params, SITE, port=8007, alias="launch-1")

    assert words[len(SITE.serve_command)] == model
    assert words[words.index("--dtype") + 1] == value
    assert json.loads(words[words.index("--some-flag") + 1]) == mapping or value == "--some-flag"
    assert words[-1] == value


def test_a_simulated_server_is_started_with_this_python() -> None:
    words = argv(engine="simulate", simulate={"skill": 0.45, "seed": 7})

    assert words[:5] == [sys.executable, "-P", "-m", "tautools", "simulate"]
    flags = dict(zip(words[5::2], words[6::2], strict=True))
    assert flags["--skill"] == "0.45"
    assert flags["--seed"] == "7"
    assert (flags["--model"], flags["--alias"], flags["--port"]) == ("Qwen/Qwen3-8B", "launch-1", "8007")


def env(site: SiteParams = SITE, inherited: dict[str, str] | None = None, **fields: Any) -> dict[str, str]:
    params = ServerParams(name="s", model="m", **fields)
    return server_env(params, site, key="secret", cache=Path("/ws/cache/s"), inherited=inherited or {})


def test_the_key_is_in_the_environment_and_not_in_the_command() -> None:
    assert env()["VLLM_API_KEY"] == "secret"
    assert env(env={"VLLM_API_KEY": "mine"})["VLLM_API_KEY"] == "secret"


def test_each_server_has_a_cache_of_its_own_unless_one_is_named() -> None:
    assert env()["VLLM_CACHE_ROOT"] == "/ws/cache/s"
    assert env(inherited={"VLLM_CACHE_ROOT": "/shared"})["VLLM_CACHE_ROOT"] == "/shared/s"
    assert env(env={"VLLM_CACHE_ROOT": "/fast"})["VLLM_CACHE_ROOT"] == "/fast"


def test_vllms_internal_port_is_not_inherited_and_offline_mode_is() -> None:
    found = env(inherited={"VLLM_PORT": "8000", "HF_HUB_OFFLINE": "1", "HOME": "/home/me"})

    assert "VLLM_PORT" not in found
    assert (found["HF_HUB_OFFLINE"], found["HOME"]) == ("1", "/home/me")


def test_the_servers_variables_win_over_the_sites() -> None:
    site = SITE.model_copy(update={"env": {"A": "site", "B": "site"}})

    found = env(site, {"A": "outside"}, env={"B": "server"})

    assert (found["A"], found["B"]) == ("site", "server")


@pytest.mark.parametrize(
    ("device", "variable"), [("cuda", "CUDA_VISIBLE_DEVICES"), ("gaudi", "HABANA_VISIBLE_MODULES")]
)
def test_cards_are_named_as_the_device_wants_them(device: str, variable: str) -> None:
    site = SITE.model_copy(update={"device": device})

    assert env(site, cards=[2, 3])[variable] == "2,3"
    assert variable not in env(site)


def test_cards_named_for_a_job_that_slurm_gives_its_cards_are_refused() -> None:
    params = ServerParams(name="s", model="m", cards=[5])
    job = SiteParams(name="here", scheduler="slurm", device="cuda", gres="gpu:1")

    with pytest.raises(ParamsError, match="Slurm chooses the cards of a job") as caught:
        server_env(params, job, key="k", cache=Path("c"), inherited={})

    assert "--gpu-ids" in caught.value.next_step
    by_hand = job.model_copy(update={"gres": None})
    assert server_env(params, by_hand, key="k", cache=Path("c"), inherited={})["CUDA_VISIBLE_DEVICES"] == "5"
