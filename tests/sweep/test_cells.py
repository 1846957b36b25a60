"""A sweep file becomes cells with indices that people can count on."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_sweep import small_sweep

from tautools.errors import ParamsError
from tautools.params import load_sweep
from tautools.records import Strategy
from tautools.sweep import expand, open_cell, parse_indices
from tautools.sweep.cells import agent_name, select_cells

MODELS = {
    "4B": "Qwen/Qwen3-4B-Instruct-2507",
    "8B": "Qwen/Qwen3-8B",
    "14B": "Qwen/Qwen3-14B",
    "32B": "Qwen/Qwen3-32B",
}
STRATEGIES = ("act", "react", "fc")


def test_the_120_cells_stand_where_their_users_count_them(tmp_path: Path) -> None:
    """Environment slowest (airline, retail), then act, react, fc, then 4B to 32B, then 1 to 5 trials."""
    cells = expand(load_sweep("sol-gaudi-120", workspace=tmp_path))
    assert len(cells) == 120
    for index, cell in enumerate(cells):
        env = ("airline", "retail")[index // 60]
        strategy = STRATEGIES[index // 20 % 3]
        size = list(MODELS)[index // 5 % 4]
        trials = index % 5 + 1
        assert cell.index == index
        assert (cell.run.env, cell.run.strategy.value, cell.run.num_trials) == (env, strategy, trials)
        assert agent_name(cell.run.agent) == MODELS[size]
        assert cell.name == f"{index}_{env}_{strategy}_{size}_{trials}"


def test_the_first_and_the_last_of_the_120(tmp_path: Path) -> None:
    cells = expand(load_sweep("sol-gaudi-120", workspace=tmp_path))
    assert cells[0].name == "0_airline_act_4B_1"
    assert cells[119].name == "119_retail_fc_32B_5"
    assert {cell.run.user.model for cell in cells} == {"Qwen/Qwen3-32B"}
    assert {cell.run.agent.temperature for cell in cells} == {0.6}


def test_cells_carry_what_the_sweep_says_for_all(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, concurrency=3, seed=11, limits={"max_rounds": 9})
    runs = [cell.run for cell in expand(sweep)]
    assert [run.num_trials for run in runs] == [1, 2]
    assert {(run.concurrency, run.seed, run.grace_s, run.limits.max_rounds) for run in runs} == {(3, 11, 2.0, 9)}


def test_without_shared_trials_cells_have_seeds_of_their_own(tmp_path: Path) -> None:
    shared = expand(small_sweep(tmp_path, seed=5))
    apart = expand(small_sweep(tmp_path, seed=5, share_trials=False))
    assert len({cell.run.seed for cell in shared}) == 1
    assert len({cell.run.seed for cell in apart}) == 2
    assert apart == expand(small_sweep(tmp_path, seed=5, share_trials=False))


def test_a_cell_is_opened_by_index_and_may_be_limited(tmp_path: Path) -> None:
    small_sweep(tmp_path)
    assert open_cell("small", 1, workspace=tmp_path).run.num_trials == 2
    assert open_cell("small", 1, workspace=tmp_path).run.tasks.limit == 2
    assert open_cell("small", 0, workspace=tmp_path, limit=1).run.tasks.limit == 1
    assert open_cell("demo-full", 0, workspace=tmp_path).run.strategy is Strategy.ACT


@pytest.mark.parametrize(("text", "indices"), [("7", [7]), ("0-3,7", [0, 1, 2, 3, 7]), ("5, 5,1-1", [1, 5])])
def test_indices_are_read_as_slurm_writes_them(text: str, indices: list[int]) -> None:
    assert parse_indices(text) == indices


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1,,2", "1-2-3"])
def test_what_names_no_cells_is_refused(text: str) -> None:
    with pytest.raises(ParamsError, match="does not name cells"):
        parse_indices(text)


def test_a_cell_that_is_not_there_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"no cell 2, 9(.|\n)*0 to 1"):
        select_cells(expand(small_sweep(tmp_path)), [0, 9, 2])


def test_a_persona_is_an_axis_only_when_given_and_varies_before_the_trials() -> None:
    plain = load_sweep("demo")
    grid = plain.grid.model_copy(update={"persona": ["control", "anger:strong"]})
    cells = expand(plain.model_copy(update={"grid": grid}))
    assert [cell.run.persona for cell in expand(plain)] == [None] * len(expand(plain))
    assert len(cells) == 2 * len(expand(plain))
    assert [(cell.run.persona, cell.run.num_trials) for cell in cells[:4]] == [
        ("control", 1),
        ("control", 2),
        ("anger:strong", 1),
        ("anger:strong", 2),
    ]
    assert cells[3].name == "3_airline_fc_sim-small+anger-strong_2"
