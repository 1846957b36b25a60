"""`tautools sweep` and `tautools demo` as a person or a program types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_sweep import small_sweep

from tautools.cli import cli
from tautools.cli.sweep import DEMO_SWEEP, run_demo
from tautools.report import build_reports


def _tautools(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_plan_as_json_is_for_programs(tmp_path: Path) -> None:
    small_sweep(tmp_path)
    done = _tautools("sweep", "plan", "small", "--workspace", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    plan = json.loads(done.output)
    assert (plan["conversations"], plan["shared"], plan["pending"]) == (4, 2, 4)
    assert [cell["name"] for cell in plan["cells"]] == ["0_airline_fc_quick_1", "1_airline_fc_quick_2"]
    assert [server["name"] for server in plan["servers"]] == ["quick", "customer"]


def test_plan_in_words_lists_the_cells(tmp_path: Path) -> None:
    small_sweep(tmp_path)
    done = _tautools("sweep", "plan", "small", "--workspace", tmp_path, "--set", "tasks.limit=5", "--cells", "1")
    assert done.exit_code == 0, done.output
    assert "1 cells, 0 done, 1 with work" in done.output
    assert "Conversations: 10, 0 done, 10 pending" in done.output


def test_a_dry_run_shows_the_plan_and_starts_nothing(tmp_path: Path) -> None:
    small_sweep(tmp_path)
    before = _files(tmp_path)
    done = _tautools("sweep", "run", "small", "--workspace", tmp_path, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "Servers: 2: quick (agent, to start), customer (user, to start)" in done.output
    assert _files(tmp_path) == before


def test_status_tells_each_cell(tmp_path: Path) -> None:
    small_sweep(tmp_path)
    told = json.loads(_tautools("sweep", "status", "small", "--workspace", tmp_path, "--json").output)
    assert [(cell["index"], cell["state"], cell["planned"]) for cell in told] == [(0, "pending", 2), (1, "pending", 4)]
    words = _tautools("sweep", "status", "small", "--workspace", tmp_path).output
    assert "0 of 2 cells done, 2 pending" in words
    assert "○ pending" in words


def test_ls_counts_the_cells_of_each_sweep_file(tmp_path: Path) -> None:
    small_sweep(tmp_path)
    rows = json.loads(_tautools("sweep", "ls", "--workspace", tmp_path, "--json").output)
    cells = {row["name"]: row["cells"] for row in rows}
    assert cells["sol-gaudi-120"] == 120
    assert cells["small"] == 2
    assert (cells["demo"], cells["demo-full"]) == (2 * 2 * 2, 2 * 3 * 2 * 2)


def test_show_config_tells_where_values_come_from(tmp_path: Path) -> None:
    small_sweep(tmp_path)
    done = _tautools("sweep", "run", "small", "--workspace", tmp_path, "--set", "seed=4", "--show-config")
    assert done.exit_code == 0, done.output
    assert "small.yaml" in done.output
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "smal"], "small"),
        (["run", "small", "--cells", "9"], "has no cell 9"),
        (["plan", "small", "--cells", "x"], "is not of the form 0,1,2 or 0-3"),
        (["run", "small", "--set", "concurency=2"], "concurrency"),
        (["run", "small", "--set", "grid.num_trials=[-1]"], "num_trials"),
        (["run", "small", "--set", "grid.env=[airlin]"], "airline"),
        (["run", "small", "--set", "tasks.ids=[zzz]"], "zzz"),
    ],
)
def test_bad_input_ends_with_code_2_and_changes_nothing(tmp_path: Path, words: list[str], said: str) -> None:
    small_sweep(tmp_path)
    before = _files(tmp_path)
    done = _tautools("sweep", *words, "--workspace", tmp_path)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert "Next: " in done.output or "Try '" in done.output
    assert _files(tmp_path) == before


@pytest.mark.slow
def test_run_ends_with_3_while_something_is_pending_and_names_the_cause(tmp_path: Path) -> None:
    ghost = {"model": "ghost", "base_url": "http://127.0.0.1:9/v1"}
    small_sweep(tmp_path, grid={"agent": ["quick", ghost], "num_trials": [1]})
    done = _tautools("sweep", "run", "small", "--workspace", tmp_path)
    assert done.exit_code == 3, done.output
    assert "Nothing answers" in done.output
    as_json = _tautools("sweep", "status", "small", "--workspace", tmp_path, "--json")
    good, bad = json.loads(as_json.output)
    assert (good["state"], bad["state"]) == ("done", "failed")
    assert "Nothing answers" in bad["cause"]


@pytest.mark.parametrize(("words", "cells"), [((), 8), (("--full",), 24)])
def test_a_dry_run_of_the_demo_says_what_it_would_start_and_makes_nothing(
    tmp_path: Path, words: tuple[str, ...], cells: int
) -> None:
    done = _tautools("demo", "--dry-run", *words, "--workspace", tmp_path / "new")
    assert done.exit_code == 0, done.output
    assert f"{cells} cells, 0 done" in done.output
    assert "Conversations: " in done.output
    assert "sim-small (agent, to start)" in done.output
    assert "SIMULATED" in done.output
    assert _files(tmp_path) == []


@pytest.mark.slow
def test_the_demo_shows_its_reports_and_builds_them_once(tmp_path: Path) -> None:
    """The workspace's own `demo` sweep stands in for the shipped one, which takes minutes."""
    small_sweep(tmp_path)
    own = tmp_path / "params" / "sweeps" / "small.yaml"
    (own.parent / "demo.yaml").write_text(own.read_text().replace("name: small", f"name: {DEMO_SWEEP}"))
    done = _tautools("demo", "--workspace", tmp_path)
    assert done.exit_code == 0, done.output
    assert "SIMULATED" in done.output
    assert "2 of 2 cells done" in done.output
    (folder,) = (tmp_path / "reports" / "demo").iterdir()
    assert "Start in JupyterLab: open `notebooks/00_session.ipynb`" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "notebooks" / "00_session.ipynb").is_file()
    for page in ("pass_k.html", "latency.html"):
        assert str(folder / page) in done.output
        assert "SIMULATED" in (folder / page).read_text()
    assert run_demo(tmp_path) == (folder / "pass_k.html", folder / "latency.html")
    assert list(folder.parent.iterdir()) == [folder], "nothing is built again"
    build_reports(workspace=tmp_path, sweep=DEMO_SWEEP, out=tmp_path / "reports" / "demo" / "99990101-000000")
    assert run_demo(tmp_path)[0].parent.name == "99990101-000000", "the newest reports are shown"
