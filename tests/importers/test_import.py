from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from foreign_files import CAST, simulation, tau2_results, v1_error, v1_row, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tautools.errors import ParamsError
from tautools.importers import RowStatus, import_results, plan_import, read_files, write_import
from tautools.importers.plan import ImportRequest
from tautools.records import Outcome
from tautools.run import read_conversation, read_events, read_ledger, results_of

RETAIL = {"env": "retail", "strategy": "fc"} | CAST


def planned(workspace, *paths, **flags):
    files, refused = read_files(paths)
    return plan_import(files, ImportRequest(workspace, RETAIL | flags), refused)


def imported(workspace, *paths, **flags):
    plan = planned(workspace, *paths, **flags)
    write_import(plan, workspace)
    return plan


def ledger(workspace):
    return {
        (row.task_id, row.trial): (row, read_conversation(folder.path, row))
        for folder in results_of(workspace)
        for row in read_ledger(folder.path).values()
    }


def statuses(plan):
    return {status: count for each in plan.statuses.values() for status, count in each.items()}


def test_rows_become_conversations_with_where_they_come_from(tmp_path):
    path = write(tmp_path / "old.json", [v1_row(0), v1_row(1, reward=0.0), v1_row(0, trial=1)])
    plan = imported(tmp_path / "w", path)
    (folder,) = results_of(tmp_path / "w")
    assert folder.path == tmp_path / "w" / "results" / "retail" / "fc" / "4B"
    assert (folder.setting.source, folder.setting.bench) == ("imported:tau-bench", "tau-bench")
    found = ledger(tmp_path / "w")
    assert {key: row.outcome for key, (row, _) in found.items()} == {
        ("0", 0): Outcome.PASSED,
        ("1", 0): Outcome.FAILED,
        ("0", 1): Outcome.PASSED,
    }
    row, conversation = found["1", 0]
    assert (row.imported.file, row.imported.row, row.imported.format) == ("old.json", 1, "tau-bench")
    assert row.imported == conversation.imported
    assert row.imported.sha256 == plan.groups[0].files[0].sha256
    assert row.duration_s is None  # v1 does not say, and nobody measured it
    assert (row.agent_calls, row.user_calls, row.tool_calls) == (2, 2, 1)
    view = json.loads((folder.path / "num_trials-2.json").read_text())
    assert [(each["task_id"], each["trial"], each["reward"]) for each in view] == [
        (0, 0, 1.0),
        (1, 0, 0.0),
        (0, 1, 1.0),
    ]


def test_errors_stay_pending_and_count_as_faults_so_that_v1s_convention_can_be_computed(tmp_path):
    path = write(tmp_path / "r.json", [v1_row(0), v1_error(1), v1_error(0), v1_row(2, trial=1)])
    plan = imported(tmp_path / "w", path)
    (group,) = plan.groups
    assert statuses(plan) == {RowStatus.KEPT: 2, RowStatus.ERROR: 2}
    assert (group.planned, group.pending) == (6, 4)
    events = [event for event in read_events(group.folder) if event.kind == "fault"]
    assert [(event.task_id, event.trial, event.message) for event in events] == [
        ("1", 0, "error row: Connection refused"),
        ("0", 0, "error row: Connection refused"),
    ]


@pytest.mark.parametrize(
    ("made", "rule"),
    [
        ([v1_row(0)], "none"),
        (tau2_results([simulation("0")]), "conversation"),
        (tau2_results([simulation("0", seed=None)]), "none"),
        (tau2_results([simulation("0", seed=None, info={"seed_rule": "request"})]), "request"),
    ],
)
def test_what_requests_carried_for_a_seed_is_part_of_an_imported_setting(tmp_path, made, rule):
    plan = imported(tmp_path / "w", write(tmp_path / "r.json", made))
    assert [group.setting.seed_rule for group in plan.groups] == [rule]


def test_importing_again_changes_nothing(tmp_path):
    path = write(tmp_path / "r.json", [v1_row(0), v1_error(1)])
    imported(tmp_path / "w", path)

    def files():
        return {each: each.read_bytes() for each in (tmp_path / "w").rglob("*") if each.is_file()}

    before = files()
    assert statuses(imported(tmp_path / "w", path)) == {RowStatus.ALREADY: 1, RowStatus.ERROR: 1}
    assert files() == before


def test_a_file_that_has_grown_gives_what_is_new(tmp_path):
    path = write(tmp_path / "r.json", [v1_row(0)])
    imported(tmp_path / "w", path)
    write(path, [v1_row(0, words="another"), v1_row(1)])
    assert statuses(imported(tmp_path / "w", path)) == {RowStatus.ALREADY: 1, RowStatus.KEPT: 1}
    assert ledger(tmp_path / "w")["0", 0][1].messages[1]["content"] == "Hi."


def test_from_python_an_import_prints_itself(tmp_path):
    path = write(tmp_path / "r.json", [v1_row(0), v1_row(1)])
    request = ImportRequest(tmp_path / "w", CAST)
    planned_only, done = repr(import_results([path], request, dry_run=True)), repr(import_results([path], request))
    assert "2 would be imported" in planned_only
    assert planned_only.replace("would be imported", "imported") == done
    assert "2 imported, 0 there before, 0 pending of 2" in done
    assert len(ledger(tmp_path / "w")) == 2


def test_a_dry_run_and_a_mistake_write_nothing(tmp_path):
    good, foreign = write(tmp_path / "r.json", [v1_row(0)]), write(tmp_path / "silent.json", [v1_row(1)])
    planned(tmp_path / "w", good)
    files, _ = read_files([good, foreign])
    with pytest.raises(ParamsError, match=r"silent.json does not say the customer's model"):
        plan_import(files[1:], ImportRequest(tmp_path / "w", {"env": "retail", "agent.model": "m"}))
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("left_out", "asked_for"),
    [("agent.model", "--model"), ("user.model", "--user-model")],
)
def test_what_nobody_tells_is_asked_for_by_its_flag(tmp_path, left_out, asked_for):
    path = write(tmp_path / "r.json", [v1_row(0)])
    with pytest.raises(ParamsError) as wrong:
        planned(tmp_path, path, **{left_out: None})
    assert asked_for in wrong.value.next_step.split()[1]


@pytest.mark.parametrize(("name", "value"), [("strategy", "react"), ("bench", "tau2")])
def test_a_flag_that_contradicts_the_file_is_refused(tmp_path, name, value):
    path = write(tmp_path / "r.json", [v1_row(0)])
    with pytest.raises(ParamsError, match=f"says {name}"):
        planned(tmp_path, path, **{name: value})


def test_models_that_a_file_tells_cannot_be_called_something_else(tmp_path):
    path = write(tmp_path / "r.json", tau2_results([simulation()]))
    with pytest.raises(ParamsError, match=r"says agent.model m-4B"):
        planned(tmp_path, path, **{"agent.model": "gpt-4o"})
    assert planned(tmp_path, path, **{"agent.model": "owner/m-4B"}).kept == 1


def test_rows_of_two_envs_become_two_settings_or_one_is_chosen(tmp_path):
    path = write(tmp_path / "r.json", [v1_row(0), v1_row(0, env="Airline"), v1_error(1)])
    plan = planned(tmp_path, path, env=None)
    assert [group.setting.env for group in plan.groups] == ["retail", "airline"]
    assert statuses(plan) == {RowStatus.KEPT: 2, RowStatus.ERROR: 1}  # whose the error was nobody can say
    chosen = planned(tmp_path, path, env="airline")
    assert [(group.setting.env, len(group.kept)) for group in chosen.groups] == [("airline", 1)]
    assert statuses(chosen)[RowStatus.OTHER_ENV] == 1


def test_files_of_different_ways_of_playing_never_share_a_setting(tmp_path):
    paths = [
        write(tmp_path / "a.json", [v1_row(0)]),
        write(tmp_path / "b.json", tau2_results([simulation("0")])),
        write(tmp_path / "c.json", tau2_results([simulation("0")]) | {}),
    ]
    cooler = json.loads(paths[2].read_text())
    cooler["info"]["agent_info"]["llm_args"] = {"temperature": 0.9}
    write(paths[2], cooler)
    plan = imported(tmp_path / "w", *paths)
    assert len({group.setting.id for group in plan.groups}) == 3
    assert len(results_of(tmp_path / "w")) == 3


def test_of_two_rows_of_one_task_and_trial_the_one_that_finished_first_counts(tmp_path):
    late, early = simulation(minute=9, reward=1.0, words="late"), simulation(minute=2, reward=0.0, words="early")
    plan = imported(tmp_path / "w", write(tmp_path / "r.json", tau2_results([late, early])))
    assert statuses(plan) == {RowStatus.KEPT: 1, RowStatus.DUPLICATE: 1}
    row, conversation = ledger(tmp_path / "w")["0", 0]
    assert (row.outcome, conversation.messages[1]["content"], row.duration_s) == (Outcome.FAILED, "early", 30.0)


def test_task_ids_are_checked_against_the_benchmark_where_it_is_at_hand(tmp_path):
    plan = planned(tmp_path, write(tmp_path / "r.json", tau2_results([simulation("0"), simulation("900")])))
    (group,) = plan.groups
    if group.domain is None:
        pytest.fail(group.unchecked_reason)
    assert statuses(plan) == {RowStatus.KEPT: 1, RowStatus.UNKNOWN_TASK: 1}
    assert (group.planned, group.pending) == (114, 113)


rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([0.0, 1.0, "error", "bad"])), max_size=14
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=rows, cuts=st.lists(st.integers(0, 14), max_size=2), torn=st.integers(0, 60), seed=st.integers(0, 99))
def test_however_files_are_shuffled_joined_and_torn_each_task_and_trial_is_imported_once(
    tmp_path_factory, made, cuts, torn, seed
):
    """What counts is the first good row in the order of the file, whatever stands before, between and behind."""
    where = tmp_path_factory.mktemp("shuffled")
    random.Random(seed).shuffle(made)
    values = [_made(number, *each) for number, each in enumerate(made)]
    bounds = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    text = "".join(json.dumps(values[a:b]) for a, b in itertools.pairwise(bounds))
    lost = json.dumps(values[-1]) if torn > 1 and made and bounds[-2] < len(values) else ""
    path = write(where / "r.json", text[: len(text) - torn] if lost else text)
    whole = made[:-1] if lost else made
    expected: dict[tuple[str, int], int] = {}
    for number, (task, trial, reward) in enumerate(whole):
        if reward in (0.0, 1.0):
            expected.setdefault((str(task), trial), number)
    if not whole:
        return
    plan = imported(where / "w", path)
    found = ledger(where / "w") if plan.groups else {}
    assert {key: int(talk.messages[1]["content"]) for key, (_, talk) in found.items()} == expected
    assert imported(where / "w", path).kept == 0


def _made(number, task, trial, reward):
    if reward == "error":
        return v1_error(task, trial)
    return v1_row(task, trial, reward=2.0 if reward == "bad" else reward, words=str(number))


@pytest.mark.parametrize("after", [0, 1, 5, 17])
def test_a_kill_in_mid_import_leaves_what_a_repeat_completes(tmp_path, after):
    path = write(tmp_path / "r.json", [v1_row(task) for task in range(20)] + [v1_error(30)])
    program = (
        "import sys, os, signal\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "import test_import as t\n"
        "left = [int(sys.argv[4])]\n"
        "def row():\n"
        "    left[0] -= 1\n"
        "    if left[0] <= 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "plan = t.planned(Path(sys.argv[2]), Path(sys.argv[3]))\n"
        "if left[0] == 0: row()\n"
        "from tautools.run.ledger import ResultsWriter as Writer\n"
        "commit = Writer.commit\n"
        "Writer.commit = lambda *given: (commit(*given), row())\n"
        "t.write_import(plan, Path(sys.argv[2]))\n"
    )
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here.parent / "support"), *sys.path])}
    words = [str(here), str(tmp_path / "w"), str(path), str(after)]
    done = subprocess.run([sys.executable, "-c", program, *words], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(ledger(tmp_path / "w")) == after
    assert imported(tmp_path / "w", path).kept == 20 - after
    assert len(ledger(tmp_path / "w")) == 20
    (folder,) = results_of(tmp_path / "w")
    assert sum(event.kind == "fault" for event in read_events(folder.path)) == 1
    assert len(json.loads((folder.path / "num_trials-1.json").read_text())) == 20
