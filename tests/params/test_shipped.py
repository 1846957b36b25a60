"""What is shipped can be read, and says what it promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from tautools.params import KINDS, list_params, load_persona, load_server, load_site, load_sweep, shipped
from tautools.sweep import expand


def test_every_shipped_file_can_be_read(tmp_path: Path) -> None:
    readers = {"sites": load_site, "servers": load_server, "sweeps": load_sweep, "personas": load_persona}
    for kind in KINDS:
        for name in list_params(kind, tmp_path):
            assert readers[kind](name, workspace=tmp_path).name == name


def test_the_site_of_the_cluster_asks_for_what_its_users_ask_for() -> None:
    site = load_site("sol-gaudi")
    assert (site.account, site.partition, site.qos) == ("class_class59827694spring_2026", "gaudi", "class_gaudi")
    assert (site.cores, site.memory_gib, site.gres) == (20, 40, "gpu:hl225:1")
    assert site.time_limit
    assert site.modules == ["mamba/latest"]
    assert site.activate == ["source activate gaudi-pytorch-vllm"]
    assert site.pins == ["litellm==1.41.0", "typing_extensions>=4.10.0", "tokenizers>=0.21,<0.22"]


def test_the_120_cells_are_counted_as_their_users_count_them(tmp_path: Path) -> None:
    sweep = load_sweep("sol-gaudi-120", workspace=tmp_path)
    cells = expand(sweep)
    assert [cell.index for cell in cells] == list(range(120))
    assert cells[0].name == "0_airline_act_4B_1"
    assert cells[7].name == "7_airline_act_8B_3"
    assert cells[20].name == "20_airline_react_4B_1"
    assert cells[119].name == "119_retail_fc_32B_5"
    assert {cell.run.bench for cell in cells} == {"tau-bench"}
    assert {(cell.run.user.model, cell.run.user.temperature) for cell in cells} == {("Qwen/Qwen3-32B", 0.6)}
    assert {cell.run.agent.temperature for cell in cells} == {0.6}


def test_the_checkout_of_the_120_cells_is_given_with_one_flag(tmp_path: Path) -> None:
    (tmp_path / "tau-bench").mkdir()
    sweep = load_sweep("sol-gaudi-120", workspace=tmp_path, overrides=[f"path={tmp_path / 'tau-bench'}"])
    assert expand(sweep)[5].run.path == str(tmp_path / "tau-bench")


@pytest.mark.parametrize(("name", "strategies"), [("demo", ["fc"]), ("demo-full", ["act", "react", "fc"])])
def test_the_demo_has_two_envs_and_two_models_and_the_whole_one_all_strategies(
    name: str, strategies: list[str], tmp_path: Path
) -> None:
    grid = load_sweep(name, workspace=tmp_path).grid
    assert grid.env == ["airline", "retail"]
    assert [strategy.value for strategy in grid.strategy] == strategies
    assert [agent.server for agent in grid.agent] == ["sim-small", "sim-large"]


@pytest.mark.parametrize("kind", ["params", "notebooks"])
def test_shipped_folders_are_found(kind: str) -> None:
    assert shipped(kind).is_dir()  # type: ignore[arg-type]  # parametrize gives plain text
