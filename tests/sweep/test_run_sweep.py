"""A small sweep from beginning to end: real servers, real kernels, real tasks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_sweep import processes_of, small_sweep

from tautools.errors import TautoolsError
from tautools.params import load_server
from tautools.params.models import SweepParams
from tautools.run import read_calls, read_events, read_ledger, results_of
from tautools.servers import Registry, State, launch
from tautools.sweep import SweepEvent, SweepResult, plan_sweep, run_sweep, sweep_status

pytestmark = pytest.mark.slow


@dataclass
class Ran:
    workspace: Path
    sweep: SweepParams
    result: SweepResult
    events: list[SweepEvent]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The small sweep, run to its end in a folder whose name has a space and a brace."""
    workspace = tmp_path_factory.mktemp("sweep") / "my {work}"
    workspace.mkdir()
    sweep = small_sweep(workspace)
    events: list[SweepEvent] = []
    return Ran(workspace, sweep, run_sweep(sweep, workspace=workspace, on_event=events.append), events)


def _settled(workspace: Path) -> dict[str, int]:
    """What a run that does nothing leaves as it was."""
    files = [path for path in workspace.rglob("*") if path.is_file()]
    return {str(path): path.stat().st_mtime_ns for path in files}


def test_every_cell_is_done_and_the_result_says_so(ran: Ran) -> None:
    assert [(cell.state, cell.done, cell.planned) for cell in ran.result.cells] == [("done", 2, 2), ("done", 4, 4)]
    assert (ran.result.finished, ran.result.interrupted, ran.result.executed) == (True, False, 2)
    assert "2 of 2 cells done; 2 notebooks executed" in str(ran.result)


def test_nested_cells_share_their_trials(ran: Ran) -> None:
    """One trial and two trials of two tasks are four conversations, and each runs once."""
    (folder,) = results_of(ran.workspace)
    rows = read_ledger(folder.path)
    assert sorted((task, trial) for _, task, trial in rows) == [("0", 0), ("0", 1), ("1", 0), ("1", 1)]
    stored = [line for path in (folder.path / "conversations").iterdir() for line in path.read_bytes().splitlines()]
    assert len(stored) == 4


def test_cells_of_one_setting_run_one_after_the_other(ran: Ran) -> None:
    told = [(event.kind, event.cell) for event in ran.events if event.kind.startswith("cell")]
    assert told == [("cell_started", 0), ("cell_ended", 0), ("cell_started", 1), ("cell_ended", 1)]


def test_events_count_conversations_and_cells(ran: Ran) -> None:
    assert (ran.events[0].kind, ran.events[0].done, ran.events[0].planned) == ("plan", 0, 4)
    last = [event for event in ran.events if event.kind == "cell_ended"][-1]
    assert (last.done, last.planned, last.cells_done, last.cells) == (4, 4, 2, 2)
    servers = [
        (event.done, event.planned, event.cells_done, event.cells) for event in ran.events if event.kind == "server"
    ]
    assert servers == [(0, 4, 0, 2)] * 4 + [(4, 4, 2, 2)] * 2


def test_servers_are_proven_before_the_first_cell_and_stopped_after_the_last(ran: Ran) -> None:
    kinds = [event.kind for event in ran.events if event.kind != "progress"]
    assert kinds == ["plan", *["server"] * 4, *["cell_started", "cell_ended"] * 2, *["server"] * 2]
    assert Registry(ran.workspace).list() == []
    assert processes_of(ran.workspace) == []


def test_each_cell_leaves_an_executed_notebook_with_its_parameters_and_result(ran: Ran) -> None:
    runs = ran.workspace / "runs" / "small"
    names = sorted(path.name for path in runs.glob("*.ipynb"))
    assert names == ["0_airline_fc_quick_1.ipynb", "1_airline_fc_quick_2.ipynb"]
    notebook = json.loads((runs / names[1]).read_text())
    source = ["".join(cell["source"]) for cell in notebook["cells"]]
    assert any("cell = 1" in text and "start_servers = False" in text for text in source)
    assert "4 done, 0 pending" in json.dumps(notebook["cells"])
    assert "widgets" not in notebook["metadata"]


def test_logs_hold_what_the_notebook_printed(ran: Ran) -> None:
    logs = sorted((ran.workspace / "logs").glob("small_*_*.out"))
    assert [log.name.rsplit("_", 1)[1] for log in logs] == ["0.out", "1.out"]
    assert logs[0].read_text().count("[TAU2_TASK_COMPLETE]") == 2


def test_running_it_again_starts_nothing_and_calls_no_model(ran: Ran) -> None:
    (folder,) = results_of(ran.workspace)
    calls = len(list(read_calls(folder.path)))
    before = _settled(ran.workspace)
    again = run_sweep(ran.sweep, workspace=ran.workspace)
    assert (again.finished, again.executed) == (True, 0)
    assert "no model call was made" in str(again)
    assert _settled(ran.workspace) == before
    assert len(list(read_calls(folder.path))) == calls > 0


def test_plan_and_status_of_a_finished_sweep_owe_nothing(ran: Ran) -> None:
    plan = plan_sweep(ran.sweep, workspace=ran.workspace)
    assert (plan.pending, plan.done, plan.servers, plan.estimate_s) == (0, 4, (), 0.0)
    assert "Nothing to do" in str(plan)
    assert [cell.state for cell in sweep_status(ran.sweep, workspace=ran.workspace)] == ["done", "done"]


def test_a_longer_sweep_over_the_same_setting_owes_only_what_is_new(ran: Ran) -> None:
    longer = small_sweep(ran.workspace, grid={"num_trials": [1, 2, 3]})
    plan = plan_sweep(longer, workspace=ran.workspace)
    assert (plan.conversations, plan.done, plan.pending) == (6, 4, 2)
    assert plan.basis == "median of 4 finished conversations"


def test_a_failed_cell_does_not_stop_the_others_and_shows_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One agent's server is not there, another's refuses the key; the third is a server that runs already."""
    small_sweep(tmp_path)
    server = launch(load_server("quick", workspace=tmp_path), workspace=tmp_path).wait_ready()
    monkeypatch.setenv("WRONG_KEY", "not-the-key")
    address = server.record.base_url
    agents = [
        {"model": "ghost", "base_url": "http://127.0.0.1:9/v1"},
        {"model": "quick", "base_url": address, "api_key_env": "WRONG_KEY", "temperature": 0.1},
        "quick",
    ]
    sweep = small_sweep(tmp_path, grid={"agent": agents, "num_trials": [1]}, parallel_settings=3, tasks={"limit": 1})
    try:
        result = run_sweep(sweep, workspace=tmp_path)
        assert server.state().state is State.READY, "a server that ran before the sweep is left alone"
    finally:
        server.stop()
    ghost, refused, good = result.cells
    assert (ghost.state, refused.state, good.state) == ("failed", "failed", "done")
    assert "Nothing answers" in ghost.cause
    assert "127.0.0.1:9" in ghost.cause
    assert "refuses the key" in refused.cause
    assert not result.finished
    assert "Nothing answers" in str(result)
    assert "Nothing answers" in sweep_status(sweep, workspace=tmp_path)[0].cause
    assert Registry(tmp_path).list() == []


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_a_sweep_of_which_nothing_can_be_done_ends_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    address = "http://127.0.0.1:9/v1" if provider == "openai" else None
    ghost = {"model": "ghost", "provider": provider, "base_url": address}
    sweep = small_sweep(tmp_path, grid={"agent": [ghost]})
    before = sorted(tmp_path.rglob("*"))
    events: list[SweepEvent] = []
    with pytest.raises(TautoolsError, match=r"Nothing answers|key for gemini") as caught:
        run_sweep(sweep, workspace=tmp_path, on_event=events.append)
    assert caught.value.next_step
    assert [event.kind for event in events] == ["plan"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_server_that_dies_is_a_fault_and_never_a_score(tmp_path: Path) -> None:
    """The customer's server ends when the first conversation begins: what was lost is pending, with its cause."""
    sweep = small_sweep(tmp_path, grid={"num_trials": [1]})
    customer = launch(load_server("customer", workspace=tmp_path), workspace=tmp_path).wait_ready()

    def end_it(event: SweepEvent) -> None:
        if event.kind == "cell_started":
            customer.stop()

    result = run_sweep(sweep, workspace=tmp_path, on_event=end_it)
    (cell,) = result.cells
    assert (cell.state, cell.done) == ("failed", 0)
    assert "customer" in cell.cause
    for folder in results_of(tmp_path):
        assert read_ledger(folder.path) == {}
        assert all(event.kind != "done" for event in read_events(folder.path))
