from __future__ import annotations

import json
import threading
import time

import click
import pytest
from click.testing import CliRunner
from scripted_server import Say, serve_in_thread
from served_cells import STOP, cell_at, scripted_cell, simulated_model

from tautools.bench.sources.tau2 import STRATEGIES
from tautools.cli.show import show_command, visible
from tautools.run import run_cell
from tautools.run.trajectory import MadeCall, align_actions


def show(*args):
    return CliRunner().invoke(show_command, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("shown")
    with simulated_model(skill=0.5) as server:
        for strategy in STRATEGIES:
            run_cell(cell_at(server.base_url, strategy=strategy, limit=6), workspace=workspace)
    return workspace


def marks(expected, actual):
    pairs = align_actions([MadeCall(*each) for each in expected], [MadeCall(*each) for each in actual])
    return [(pair.mark, (pair.expected or pair.actual).name) for pair in pairs]


def test_equal_actions_stand_beside_each_other_and_the_rest_is_named():
    expected = [("find", {"id": 1}), ("look", {"id": "a"}), ("change", {"to": "x", "n": 2}), ("pay", {})]
    actual = [("find", {"id": 1}), ("think", {}), ("change", {"n": 2, "to": "y"}), ("pay", {}), ("bye", {})]
    assert marks(expected, actual) == [
        ("same", "find"),
        ("missing", "look"),
        ("more", "think"),
        ("differs", "change"),
        ("same", "pay"),
        ("more", "bye"),
    ]


def test_nothing_expected_and_nothing_done_is_an_empty_table():
    assert align_actions([], []) == []


def test_an_empty_workspace_says_so(tmp_path):
    told = show("--workspace", tmp_path)
    assert (told.exit_code, told.output.strip()) == (0, "Nothing has been run here.")
    assert json.loads(show("--workspace", tmp_path, "--json").output) == []


def test_the_overview_has_a_line_for_each_setting(results):
    told = show("--workspace", results)
    assert told.exit_code == 0
    for strategy in STRATEGIES:
        assert f"retail  {strategy.value:<8}  sim-4B SIMULATED" in told.output
    entries = json.loads(show("--workspace", results, "--json").output)
    assert [entry["finished"] for entry in entries] == [6] * len(STRATEGIES)


def test_a_narrow_terminal_breaks_no_folders_name(results, monkeypatch):
    for name, value in (("COLUMNS", "60"), ("LINES", "40"), ("FORCE_COLOR", "1")):
        monkeypatch.setenv(name, value)
    lines = click.unstyle(show("--workspace", results).output).splitlines()
    for strategy in STRATEGIES:
        assert f"  {results / 'results/retail' / strategy.value / '4B'}" in lines
        assert f"retail {strategy.value} sim-4B SIMULATED: 6 finished," in "\n".join(lines)


def test_a_setting_lists_its_conversations(results):
    told = show("--workspace", results, "--strategy", "fc")
    assert "6 finished" in told.output
    assert "SIMULATED" in told.output
    assert len(json.loads(show(results / "results/retail/fc/4B", "--json").output)) == 6


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_conversation_is_printed_with_expected_beside_actual_actions(results, strategy):
    told = show("--workspace", results, "--env", "retail", "--strategy", strategy, "--model", "4B", "--task", "0")
    assert told.exit_code == 0
    for part in ("task 0, trial 0", "SIMULATED", "system", "user", "assistant", "reward", "expected action"):
        assert part in told.output
    assert "find_user_id_by" in told.output
    whole = json.loads(show(results / f"results/retail/{strategy}/4B", "--task", "0", "--json").output)
    assert whole["expected"][0]["name"].startswith("find_user_id_by")
    assert whole["conversation"]["task_id"] == "0"


def test_no_argument_of_an_action_is_cut_off_where_the_terminal_is_narrow(results):
    folder = results / "results/retail/fc/4B"
    table = show(folder, "--task", "0").output.partition("expected and actual actions")[2]
    assert "…" not in table
    columns = zip(*(line.split("│")[2:4] for line in table.splitlines() if line.startswith("│")), strict=True)
    for each in ("".join("".join(column).split()) for column in columns):
        assert 'find_user_id_by_name_zip(first_name="Yusuf",last_name="Rossi",zip="19122")' in each


def test_a_conversation_that_failed_says_what_is_missing_and_different(results):
    entries = json.loads(show(results / "results/retail/fc/4B", "--json").output)
    failed = next(entry["task_id"] for entry in entries if entry["outcome"] == "failed")
    told = show(results / "results/retail/fc/4B", "--task", failed)
    assert "failed, reward 0" in told.output
    assert "missing" in told.output or "differs" in told.output


def test_long_texts_are_shortened_unless_asked_for_in_full(results):
    folder = results / "results/retail/fc/4B"
    short, full = show(folder, "--task", "0").output, show(folder, "--task", "0", "--full").output
    assert " characters)" in short
    assert " characters)" not in full
    assert len(full) > len(short)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--env", "nope"), "No results of env nope"),
        (("--task", "0"), "Several settings have results"),
        (("--strategy", "fc", "--task", "99"), "There is no finished task '99'"),
        (("--strategy", "fc", "--task", "0", "--trial", "5"), "There is no finished trial '5' of task 0"),
        (("--follow",), "No such conversation is running"),
    ],
)
def test_what_is_not_there_is_bad_input_with_a_next_step(results, args, told):
    shown = show("--workspace", results, *args)
    assert shown.exit_code == 2
    assert told in shown.stderr
    assert "Next: " in shown.stderr


def test_a_folder_without_a_setting_is_bad_input(tmp_path):
    assert "holds no setting.json" in show(tmp_path).stderr


def test_a_running_conversation_is_followed_to_its_end(tmp_path):
    heard = threading.Event()

    def user(request):
        if any(message["role"] == "assistant" for message in request.body["messages"]):
            heard.wait(20)
            return Say(f"Thank you, bye. {STOP}", first_s=0.5)
        return "I want my money back."

    with scripted_cell(user, limit=1) as (server, run):
        running = threading.Thread(target=run_cell, args=(run,), kwargs={"workspace": tmp_path})
        running.start()
        while len(server.requests) < 3:
            time.sleep(0.02)
            assert running.is_alive()
        threading.Timer(0.5, heard.set).start()
        told = show("--workspace", tmp_path, "--follow")
        running.join()
    assert told.exit_code == 0
    wanted = ("task 0, trial 0", "I want my money back.", "Hello.", "Thank you, bye.", "reward", "expected action")
    places = [told.output.find(part) for part in wanted]
    assert places == sorted(places)
    assert places[0] >= 0


@pytest.fixture(scope="module")
def telecom_results(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("telecom")
    with simulated_model(skill=1) as server:
        run_cell(cell_at(server.base_url, env="telecom", limit=1), workspace=workspace)
        run_cell(cell_at(server.base_url, env="telecom", limit=1, strategy="act"), workspace=workspace)
    return workspace


@pytest.mark.parametrize("strategy", ["fc", "act"])
def test_a_customers_own_calls_stand_where_it_made_them_and_marked_as_its(telecom_results, strategy):
    (task,) = (each["task_id"] for each in json.loads(_told(telecom_results, strategy, "--json")))
    lines = [line.rstrip() for line in _told(telecom_results, strategy, "--task", task).splitlines()]
    assert f"task {task}, trial 0" in lines
    asked = next(index for index, line in enumerate(lines) if "toggle airplane mode" in line)
    assert lines.index("     user  → toggle_airplane_mode({})") > asked
    tool = next(index for index, line in enumerate(lines) if line.startswith("user tool  Airplane Mode is now OFF."))
    said = next(
        index for index, line in enumerate(lines) if line.startswith("     user  I did that. It says: Airplane")
    )
    assert lines.index("     user  → toggle_airplane_mode({})") == tool - 1
    assert tool < said
    assert any("user: toggle_airplane_mode()" in line and "same" in line for line in lines)


def test_a_long_task_id_is_never_cut_off_in_a_list(telecom_results):
    (task,) = (each["task_id"] for each in json.loads(_told(telecom_results, "fc", "--json")))
    column = [line[:21].strip() for line in _told(telecom_results, "fc").splitlines()[1:-1]]
    assert "".join(column) == task


def _told(workspace, strategy, *more):
    return show("--workspace", workspace, "--env", "telecom", "--strategy", strategy, *more).output


def test_a_running_customers_calls_are_followed_as_they_are_made(tmp_path):
    heard = threading.Event()

    def user(request):
        last = request.body["messages"][-1]
        if last["role"] == "tool":
            heard.wait(20)
            return Say(f"It shows bars. {STOP}", first_s=0.5)
        said = any(message["role"] == "assistant" for message in request.body["messages"])
        return Say(calls=[("check_status_bar", {})]) if said else "Hi."

    def both(request):
        return user(request) if "<scenario>" in request.body["messages"][0]["content"] else "Hello."

    with serve_in_thread(both, model="scripted-4B") as server:
        run = cell_at(server.base_url, "scripted-4B", env="telecom", limit=1)
        running = threading.Thread(target=run_cell, args=(run,), kwargs={"workspace": tmp_path})
        running.start()
        while len(server.requests) < 4:
            time.sleep(0.02)
            assert running.is_alive()
        threading.Timer(0.5, heard.set).start()
        shown = show("--workspace", tmp_path, "--follow").output
        running.join()
    wanted = ("Hi.", "Hello.", "→ check_status_bar", "user tool", "It shows bars.", "expected action")
    places = [shown.find(part) for part in wanted]
    assert places == sorted(places)
    assert places[0] >= 0
    assert shown.count("→ check_status_bar") == 1


def test_what_a_model_writes_does_not_steer_the_terminal():
    assert visible("a\x1b[2J\n\tb\u202ec\0é\x9b") == "a\\x1b[2J\n\tb\\u202ec\\x00é\\x9b"
