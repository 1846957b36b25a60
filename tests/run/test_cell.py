from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from scripted_server import Say
from served_cells import STOP, cell_at, requests_of, scripted_cell, simulated_model

from tautools.errors import TautoolsError
from tautools.records import Outcome, Role
from tautools.run import Stop, prepare_cell, read_calls, read_conversation, read_events, read_ledger, run_cell


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def server():
    with simulated_model() as running:
        yield running


def test_a_cell_is_planned_run_and_read_back(tmp_path, server):
    run = cell_at(server.base_url, limit=3, num_trials=2)
    cell = prepare_cell(run, workspace=tmp_path)
    assert (len(cell.planned), len(cell.pending), cell.done) == (6, 6, {})
    assert list(tmp_path.iterdir()) == [], "planning makes nothing"

    before = requests_of(server)
    result = run_cell(cell)
    asked = requests_of(server) - before

    assert (result.planned, result.done, result.pending, result.faults) == (6, 6, 0, 0)
    assert str(result).startswith("6 done, 0 pending")
    assert "SIMULATED" in str(result)
    assert "6 done, 0 pending" in result._repr_html_()
    assert result.folder == tmp_path / "results" / "retail" / "fc" / "4B"
    rows = read_ledger(result.folder)
    assert {key[1:] for key in rows} == set(cell.planned)
    assert all(row.simulated and row.outcome in {Outcome.PASSED, Outcome.FAILED} for row in rows.values())
    assert result.model_calls == asked == len(list(read_calls(result.folder)))
    assert sum(row.agent_calls + row.user_calls for row in rows.values()) == asked
    assert all(row.prompt_tokens > 0 and row.output_tokens > 0 for row in rows.values())
    for row in rows.values():
        conversation = read_conversation(result.folder, row)
        assert conversation.messages[0]["role"] == "system"
        assert row.tool_calls == sum(len(message.get("tool_calls", ())) for message in conversation.messages)


def test_a_second_run_makes_no_model_call_and_changes_nothing(tmp_path, server):
    run = cell_at(server.base_url)
    first = run_cell(run, workspace=tmp_path)
    asked, files = requests_of(server), tree(tmp_path)
    second = run_cell(run, workspace=tmp_path)
    assert str(second).startswith("2 done, 0 pending")
    assert (requests_of(server), tree(tmp_path)) == (asked, files)
    assert (second.model_calls, second.outcomes) == (0, first.outcomes)


def test_a_finished_cell_needs_no_server(tmp_path):
    with simulated_model() as gone:
        run = cell_at(gone.base_url, limit=1)
        run_cell(run, workspace=tmp_path)
    assert str(run_cell(run, workspace=tmp_path)).startswith("1 done, 0 pending")


def test_trials_are_a_pool_that_cells_share(tmp_path, server):
    for num_trials, held in ((1, 2), (3, 4), (2, 0)):
        told = []
        run = cell_at(server.base_url, num_trials=num_trials)
        result = run_cell(run, workspace=tmp_path, on_event=told.append)
        assert sum(event.kind == "done" for event in told) == held
        assert result.done == 2 * num_trials
        view = json.loads((result.folder / f"num_trials-{num_trials}.json").read_text())
        assert [(each["task_id"], each["trial"]) for each in view] == [
            (task, trial) for trial in range(num_trials) for task in (0, 1)
        ]
        assert all(set(each) == {"task_id", "reward", "info", "traj", "trial"} for each in view)
    assert len(read_ledger(result.folder)) == 6


def test_the_same_conversation_gives_the_same_result_in_another_workspace(tmp_path, server):
    run = cell_at(server.base_url, limit=4, num_trials=2)
    first, second = (run_cell(run, workspace=tmp_path / name) for name in ("one", "two"))
    rewards = [{key: row.reward for key, row in read_ledger(each.folder).items()} for each in (first, second)]
    assert rewards[0] == rewards[1]
    assert first.outcomes == second.outcomes


def test_longest_expected_first_over_all_trials(tmp_path, server):
    run = cell_at(server.base_url, limit=6, num_trials=2, concurrency=1)
    told = []
    cell = prepare_cell(run, workspace=tmp_path)
    run_cell(cell, on_event=told.append)
    steps = {task.id: len(task.reference) for task in cell.tasks}
    order = [steps[event.task_id] for event in told if event.kind == "done"]
    assert order == sorted(order, reverse=True)
    assert len(order) == 12


def test_events_say_how_far_the_cell_is(tmp_path, server):
    told = []
    result = run_cell(cell_at(server.base_url, limit=3), workspace=tmp_path, on_event=told.append)
    happened = [event for event in told if event.kind != "metrics"]
    assert [event.kind for event in happened] == ["start", "done", "done", "done", "stop"]
    assert [event.data["done"] for event in happened[1:4]] == [1, 2, 3]
    assert happened[3].data["eta_s"] == 0.0
    assert happened[0].data["provenance"]["endpoints"]["agent"][0]["base_url"] == server.base_url
    kept = [event.kind for event in read_events(result.folder) if event.kind != "metrics"]
    assert kept == ["start", "stop"], "the ledger has what is done"


def test_the_servers_own_counters_are_kept_with_the_run(tmp_path, server):
    folder = run_cell(cell_at(server.base_url, limit=3), workspace=tmp_path).folder
    told = [event.data["metrics"] for event in read_events(folder) if event.kind == "metrics"]
    calls = list(read_calls(folder))
    asked = told[-1]["request_success_total"] - told[0]["request_success_total"]
    assert len(told) >= 2
    assert 0 < asked <= len(calls)
    assert told[-1]["generation_tokens_total"] >= told[0]["generation_tokens_total"]
    start = next(event for event in read_events(folder) if event.kind == "start")
    assert start.data["provenance"]["server_version"]["agent"].startswith("SIMULATED")


def test_the_log_has_the_lines_that_people_search_for(tmp_path, server, caplog):
    with caplog.at_level("INFO", logger="tautools.run"):
        run_cell(cell_at(server.base_url), workspace=tmp_path)
    lines = [record.getMessage() for record in caplog.records]
    done = [line for line in lines if line.startswith("[TAU2_TASK_COMPLETE] retail fc sim-4B task=")]
    assert len(done) == 2
    assert done[1].endswith("(2/2)")
    assert sum(line.startswith("OVERALL_ETA 0:00:0") for line in lines) == 2


def test_a_listener_that_fails_does_not_stop_the_run(tmp_path, server, caplog):
    def listener(_event):
        raise ValueError("drawn outside the lines")

    assert run_cell(cell_at(server.base_url), workspace=tmp_path, on_event=listener).finished
    assert "drawn outside the lines" in caplog.text


async def test_it_runs_inside_a_running_event_loop_as_in_jupyter(tmp_path, server):
    assert asyncio.get_running_loop().is_running()
    assert run_cell(cell_at(server.base_url), workspace=tmp_path).finished


def test_a_damaged_conversation_is_found_voided_and_held_again(tmp_path, server):
    run = cell_at(server.base_url)
    folder = run_cell(run, workspace=tmp_path).folder
    (path,) = (folder / "conversations").iterdir()
    whole = bytearray(path.read_bytes())
    whole[40:60] = b"\0" * 20
    path.write_bytes(whole)
    told = []
    result = run_cell(run, workspace=tmp_path, on_event=told.append)
    assert [event.kind for event in told if event.kind != "metrics"] == ["damaged", "start", "done", "stop"]
    assert (result.done, result.pending) == (2, 0)
    for row in read_ledger(folder).values():
        assert read_conversation(folder, row).task_id == row.task_id
    assert run_cell(run, workspace=tmp_path).model_calls == 0


def test_what_is_only_observed_is_kept_and_a_mix_of_it_is_flagged_not_refused(tmp_path, server):
    run = cell_at(server.base_url, limit=1)
    folder = run_cell(run, workspace=tmp_path).folder
    path = folder / "setting.json"
    stored = json.loads(path.read_text())
    assert stored["provenance"]["served_length"] == {"agent": 131072, "user": 131072}
    assert stored["provenance"]["simulated"] == ["agent", "user"]
    assert stored["provenance"]["packages"]["inspect-evals"]
    stored["provenance"]["tautools"] = "0.0.1"
    path.write_text(json.dumps(stored))
    result = run_cell(cell_at(server.base_url, limit=2), workspace=tmp_path)
    assert result.finished
    assert any(each.startswith("tautools: 0.0.1 before") for each in result.mixed)
    assert "Mixed under one setting" in str(result)


def test_a_key_is_never_written(tmp_path, monkeypatch):
    with scripted_cell() as (server, run):
        server.key = "sk-very-secret"
        monkeypatch.setenv("MY_KEY", "sk-very-secret")
        roles = {name: {**getattr(run, name).model_dump(), "api_key_env": "MY_KEY"} for name in ("agent", "user")}
        assert run_cell(type(run).model_validate(run.model_dump() | roles), workspace=tmp_path).finished
    assert all(b"very-secret" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"env": "retial"}, "retail"),
        ({"tasks": {"ids": ["0", "9999"]}}, "9999"),
        ({"tasks": {"split": "nope"}}, "nope"),
        ({"agent": {"model": "sim-40B", "base_url": "{url}"}}, "serves: sim-4B"),
        ({"agent": {"model": "sim-4B", "base_url": "http://127.0.0.1:9/v1"}}, "Nothing answers for the agent"),
        ({"user": {"model": "nobody-serves-this"}}, "nobody-serves-this"),
        ({"agent": {"server": "no-such-server"}}, "no-such-server"),
    ],
)
def test_bad_input_ends_before_any_work_with_a_next_step_and_changes_nothing(tmp_path, server, change, told):
    run = cell_at(server.base_url).model_dump() | json.loads(json.dumps(change).replace("{url}", server.base_url))
    run = type(cell_at(server.base_url)).model_validate(run)
    before = requests_of(server)
    with pytest.raises(TautoolsError) as caught:
        run_cell(run, workspace=tmp_path)
    assert told in str(caught.value)
    assert "Next: " in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert requests_of(server) == before


def test_a_wrong_key_ends_before_any_work(tmp_path):
    with scripted_cell() as (server, run):
        server.key = "right"
        with pytest.raises(TautoolsError, match="refuses the key"):
            run_cell(run, workspace=tmp_path)
        assert server.requests == []
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_that_cannot_be_written_is_an_error_before_any_work(tmp_path, server):
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(TautoolsError, match=r"cannot be written(.|\n)*Next: Choose a workspace"):
        run_cell(cell_at(server.base_url), workspace=place)
    assert place.read_text() == ""


def test_results_that_are_only_looked_at_need_not_be_writable(tmp_path, server):
    run = cell_at(server.base_url, limit=1)
    place = tmp_path / "file"
    place.write_text("")
    assert len(prepare_cell(run, workspace=place, to_read=True).pending) == 1
    with pytest.raises(TautoolsError, match="cannot be written"):
        prepare_cell(run, workspace=place)


def test_both_roles_are_recorded(tmp_path, server):
    folder = run_cell(cell_at(server.base_url, limit=1), workspace=tmp_path).folder
    assert {call.role for call in read_calls(folder)} == {Role.AGENT, Role.USER}
    assert all(call.simulated and call.setting_id for call in read_calls(folder))


def test_a_run_in_a_thread_is_stopped_from_another_one(tmp_path):
    stop = Stop()

    def user(_request):
        stop.request()
        return Say(f"Bye. {STOP}", first_s=0.3)

    with scripted_cell(user, limit=5, concurrency=1) as (server, run), ThreadPoolExecutor(1) as pool:
        result = pool.submit(run_cell, run, workspace=tmp_path, stop=stop).result(60)
        assert (result.done, result.pending, result.interrupted) == (1, 4, True)
        assert len(server.requests) == 1
