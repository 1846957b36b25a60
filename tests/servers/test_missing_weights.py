"""A model that is nowhere is an error before a process starts, and nothing that may work is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from serving import simulated
from small_hub import model_files, small_hub

from tautools.errors import ParamsError, ServerError
from tautools.params.models import ServerParams, SiteParams
from tautools.servers import Registry, check_launch, launch
from tautools.servers.backends import warn_missing_model
from tautools.servers.placement import LaunchRequest
from tautools.servers.weights import require_weights

MODEL = "Qwen/Qwen3-8B"
NO_HUB = {"HF_ENDPOINT": "http://127.0.0.1:9"}
OFFLINE = {"HF_HUB_OFFLINE": "1"}


@pytest.fixture
def vllm(tmp_path: Path) -> list[str]:
    """Return the command of a vLLM that leaves a mark when it is asked or started."""
    script = tmp_path / "bin" / "vllm"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\ntouch '{tmp_path}/started'\n")
    script.chmod(0o755)
    return [str(script), "serve"]


def params(model: str = MODEL, command: list[str] | None = None, **fields: Any) -> ServerParams:
    return ServerParams.model_validate({"name": "s", "model": model, "serve_command": command} | fields)


def require(
    home: Path, model: str, env: dict[str, str], command: tuple[str, ...] = ("vllm", "serve"), **fields: Any
) -> None:
    require_weights(params(model, **fields), command=command, env={"HF_HOME": str(home)} | env, workspace=home)


def test_nothing_is_started_for_a_model_that_is_not_cached_while_offline(
    tmp_path: Path, workspace: Path, vllm: list[str]
) -> None:
    env = {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}

    asked = params(command=vllm, env=env)
    with pytest.raises(ServerError, match="cannot load its model"):
        launch(asked, workspace=workspace)
    with pytest.raises(ServerError, match="cannot load its model") as caught:
        check_launch([LaunchRequest(asked, SiteParams(name="local"), "s")], workspace=workspace)

    assert "unset HF_HUB_OFFLINE" in caught.value.evidence
    assert not (tmp_path / "started").exists()
    assert Registry(workspace).list() == []


def test_a_name_that_the_hub_does_not_know_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    with small_hub({MODEL: model_files()}) as hub, pytest.raises(ServerError) as caught:
        require(tmp_path, "Qwen/Qwen3-8B-Instruct-2507", {"HF_ENDPOINT": hub.address})

    assert "use Qwen/Qwen3-8B, which is what exists" in caught.value.evidence


def test_a_model_that_the_hub_has_is_not_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_hub({MODEL: model_files()}) as hub:
        require(tmp_path, MODEL, {"HF_ENDPOINT": hub.address})

    assert caplog.text == ""


def test_a_hub_that_does_not_answer_is_a_warning_and_nothing_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    require(tmp_path, MODEL, NO_HUB)

    assert "may not be able to load" in caplog.text


@pytest.mark.parametrize("model", ["/no/such/folder", "./folder", "../folder"])
def test_a_folder_that_does_not_exist_is_refused_without_asking_the_hub(tmp_path: Path, model: str) -> None:
    with small_hub({}) as hub, pytest.raises(ServerError, match="does not exist"):
        require(tmp_path, model, {"HF_ENDPOINT": hub.address})

    assert hub.asked == []


def test_what_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="neither a folder here nor a name"):
        require(tmp_path, "models/of/mine", OFFLINE)


def test_a_whole_copy_in_the_cache_and_a_folder_cost_no_question(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / f"models--{MODEL.replace('/', '--')}" / "snapshots" / "0"
    for folder in (snapshot, tmp_path / "models" / "mine"):
        folder.mkdir(parents=True)
        for name, data in model_files().items():
            if "/" not in name:
                (folder / name).write_bytes(data)

    with small_hub({}) as hub:
        for model in (MODEL, "models/mine", str(tmp_path / "models" / "mine")):
            require(tmp_path, model, {"HF_ENDPOINT": hub.address})
    assert hub.asked == []


@pytest.mark.parametrize(
    "case",
    [
        {"command": ("apptainer", "exec", "vllm.sif", "vllm", "serve")},
        {"command": ("sh", "serve.sh")},
        {"model": "s3://bucket/model"},
        {"model": "org/Some-GGUF:Q4_K_M"},
        {"vllm": {"args": {"download_dir": "/elsewhere"}}},
        {"vllm": {"args": {"--load-format": "runai_streamer"}}},
        {"env": {"VLLM_USE_MODELSCOPE": "True"}},
        {"engine": "simulate"},
    ],
)
def test_weights_that_may_come_from_elsewhere_are_not_judged(tmp_path: Path, case: dict[str, Any]) -> None:
    env = OFFLINE | case.pop("env", {})
    require(tmp_path, case.pop("model", MODEL), env, case.pop("command", ("vllm", "serve")), **case)


def test_a_python_that_runs_vllm_is_judged_too(tmp_path: Path) -> None:
    with pytest.raises(ServerError):
        require(tmp_path, MODEL, OFFLINE, ("python", "-m", "vllm.entrypoints.openai.api_server"))


def test_a_job_is_not_refused_for_what_this_machine_lacks(
    tmp_path: Path, workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    registry = Registry(workspace)

    warn_missing_model(params("/scratch/on/the/node"), SiteParams(name="cluster"), registry)
    warn_missing_model(simulated(), SiteParams(name="cluster"), registry)

    assert caplog.text.count("the node may have it") == 1
