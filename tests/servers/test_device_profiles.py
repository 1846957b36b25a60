"""The environment that a kind of card needs, and advice on server files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tautools.errors import ParamsError
from tautools.params import list_params, load_server
from tautools.params.models import ServerParams, SiteParams
from tautools.servers.vllm.command import DeviceProfile, choose_profile, installed_versions, server_env
from tautools.servers.vllm.flags import tool_parser_of, warnings_for

PLUGIN = {"vllm": "0.24.0", "vllm_gaudi": "0.24.0", "habana_torch_plugin": "1.24.1"}
FORK = {"vllm": "0.9.0.1+Gaudi-1.22.0", "habana_torch_plugin": "1.22.0"}


def profile(device: Any = "gaudi", versions: dict[str, str] | None = None, **vllm: Any) -> DeviceProfile:
    params = ServerParams.model_validate({"name": "s", "model": "Qwen/Qwen3-32B", "vllm": vllm})
    return choose_profile(params, SiteParams(name="here", device=device, node_disk="/scratch"), versions or {})


def environment(site: dict[str, Any], inherited: dict[str, str], env: dict[str, str] | None = None) -> dict[str, str]:
    params = ServerParams(name="s", model="m", env=env or {})
    where = SiteParams.model_validate({"name": "here", "device": "gaudi"} | site)
    return server_env(params, where, key="k", cache=Path("/c"), inherited=inherited)


def test_gaudis_plugin_and_the_fork_are_distinguished_by_what_is_installed() -> None:
    plugin, fork = profile(versions=PLUGIN), profile(versions=FORK)

    assert (plugin.name, plugin.env["PT_HPU_LAZY_MODE"]) == ("gaudi", "0")
    assert (fork.name, fork.env["PT_HPU_LAZY_MODE"]) == ("gaudi-fork", "1")
    assert "VLLM_BUCKETING_STRATEGY" in plugin.env
    assert "VLLM_BUCKETING_STRATEGY" not in fork.env
    assert any("not maintained" in note for note in fork.notes)


def test_the_fork_gets_lazy_collectives_for_several_cards_only() -> None:
    assert profile(versions=FORK, tensor_parallel_size=2).env["PT_HPU_ENABLE_LAZY_COLLECTIVES"] == "true"
    assert "PT_HPU_ENABLE_LAZY_COLLECTIVES" not in profile(versions=FORK).env
    assert "PT_HPU_ENABLE_LAZY_COLLECTIVES" not in profile(versions=PLUGIN, tensor_parallel_size=2).env


def test_compiled_graphs_of_other_software_cards_or_numbers_are_never_taken() -> None:
    kept = {
        profile(versions=versions, tensor_parallel_size=cards, dtype=dtype).env["PT_HPU_RECIPE_CACHE_CONFIG"]
        for versions in (PLUGIN, FORK, PLUGIN | {"vllm": "0.26.0"}, PLUGIN | {"habana_torch_plugin": "1.24.2"})
        for cards in (1, 2)
        for dtype in ("bfloat16", None)
    }

    assert len(kept) == 16
    assert all(each.startswith("/scratch/tautools-") and each.endswith(",false,16384") for each in kept)


def test_without_known_versions_no_graphs_are_kept_and_a_note_says_so() -> None:
    found = profile(versions={})

    assert "PT_HPU_RECIPE_CACHE_CONFIG" not in found.env
    assert any("not kept" in note for note in found.notes)


def test_the_decoding_buckets_end_at_the_most_sequences() -> None:
    assert profile(versions=PLUGIN, max_num_seqs=16).env["VLLM_DECODE_BS_BUCKET_MAX"] == "16"


def test_each_device_has_its_profile() -> None:
    assert profile("cuda") == DeviceProfile("cuda")
    assert profile("cpu", enforce_eager=True).env["TORCH_COMPILE_DISABLE"] == "1"
    assert "TORCH_COMPILE_DISABLE" not in profile("cpu").env
    assert profile("none").env == {}


def test_session_site_and_file_win_over_the_profile_in_this_order() -> None:
    assert environment({}, {})["PT_HPU_LAZY_MODE"] == "0"
    assert environment({}, {"PT_HPU_LAZY_MODE": "session"})["PT_HPU_LAZY_MODE"] == "session"
    site = {"env": {"PT_HPU_LAZY_MODE": "site"}}
    assert environment(site, {"PT_HPU_LAZY_MODE": "session"})["PT_HPU_LAZY_MODE"] == "site"
    assert environment(site, {}, {"PT_HPU_LAZY_MODE": "file"})["PT_HPU_LAZY_MODE"] == "file"


@pytest.mark.parametrize("given", ["all", "0,all", "", "0 1", "-1", "0;1"])
def test_card_modules_are_numbers(given: str) -> None:
    with pytest.raises(ParamsError, match="HABANA_VISIBLE_MODULES"):
        environment({}, {}, {"HABANA_VISIBLE_MODULES": given})

    assert environment({}, {}, {"HABANA_VISIBLE_MODULES": "0,3"})["HABANA_VISIBLE_MODULES"] == "0,3"


def test_versions_are_read_from_the_folder_names_beside_the_command(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("vllm-0.24.0+hpu.dist-info", "vllm_gaudi-0.24.0.dist-info", "numpy-2.0.dist-info", "vllm"):
        (packages / name).mkdir(parents=True)
    command = tmp_path / "bin" / "vllm"
    command.parent.mkdir()
    command.touch(mode=0o755)

    assert installed_versions([str(command), "serve"]) == {"vllm": "0.24.0+hpu", "vllm_gaudi": "0.24.0"}
    assert installed_versions([str(tmp_path / "no" / "vllm")]) == {}
    assert installed_versions([]) == {}


@pytest.mark.parametrize(
    ("model", "parser"),
    [
        ("Qwen/Qwen3-8B", "hermes"),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct-FP8", "hermes"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_xml"),
        ("Qwen/Qwen3.5-4B", "qwen3_xml"),
        ("nvidia/Nemotron-Orchestrator-8B", "hermes"),
        ("openai/gpt-oss-20b", "openai"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3_json"),
        ("some/thing", None),
    ],
)
def test_a_family_has_its_parser(model: str, parser: str | None) -> None:
    assert tool_parser_of(model) == parser


def said(model: str, **vllm: Any) -> str:
    return " ".join(warnings_for(ServerParams.model_validate({"name": "s", "model": model, "vllm": vllm})))


def test_a_missing_or_unusual_parser_and_a_name_without_repository_are_warnings() -> None:
    assert "`hermes` for this family" in said("Qwen/Qwen3-8B")
    assert "mostly need `openai`" in said("openai/gpt-oss-20b", tool_call_parser="hermes")
    assert "no repository Qwen/Qwen3-14B-Instruct-2507" in said(
        "Qwen/Qwen3-14B-Instruct-2507", tool_call_parser="hermes"
    )
    drafting = {"speculative_config": {"method": "x"}}
    assert "Speculative decoding" in said(
        "Qwen/x", tool_call_parser="hermes", gpu_memory_utilization=0.95, args=drafting
    )
    assert said("Qwen/x", tool_call_parser="hermes", gpu_memory_utilization=0.88, args=drafting) == ""


def test_nothing_is_to_be_said_of_the_shipped_server_files(tmp_path: Path) -> None:
    without_repository = {name for name in list_params("servers") if name.endswith("b-instruct-2507")}
    assert without_repository == {f"qwen3-{size}-instruct-2507" for size in ("8b", "14b", "32b")}
    for name in list_params("servers"):
        warnings = warnings_for(load_server(name, workspace=tmp_path))
        if name in without_repository:
            assert f"server file `{name.removesuffix('-instruct-2507')}`" in " ".join(warnings)
        else:
            assert warnings == [], name
