from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from command_line import called
from foreign_files import simulation, tau2_results, v1_error, v1_row, write
from scripted_server import serve_in_thread
from served_cells import STOP, simulated_model

from tautools.report import find_cells
from tautools.run import read_ledger, results_of

STAND_IN = Path(__file__).parents[1] / "support" / "stand_in_tau_bench"


@pytest.fixture(autouse=True)
def _workspaces(tmp_path: Path) -> None:
    for name in ("w", "mine", "theirs"):
        (tmp_path / name).mkdir()


CAST = ("--model", "m-4B", "--user-model", "u-32B")


def test_what_was_kept_and_why_is_said_and_pending_work_is_exit_3(tmp_path):
    rows = [v1_row(0), v1_row(0), v1_row(1, reward=0.0), v1_error(2), v1_row(3, reward=9)]
    write(tmp_path / "r.json", rows)
    result = called("import", str(tmp_path / "r.json"), *CAST, "--workspace", str(tmp_path / "w"))
    assert result.code == 3
    lines = result.out.splitlines()
    assert lines[0] == ("r.json (tau-bench): 5 rows: 2 kept, 1 duplicate of an earlier row, 1 error row, 1 unreadable")
    assert "  1 x error row: Connection refused" in lines
    assert "retail fc m-4B, user u-32B: 2 imported, 0 there before, 1 pending of 3" in lines
    assert lines[-1].endswith(
        "tautools run --bench tau-bench --source imported:tau-bench --env retail --strategy fc --model m-4B "
        "--user-model u-32B --num-trials 1"
    )


def test_the_command_for_the_rest_repeats_every_option_that_shaped_the_setting(tmp_path):
    path = write(tmp_path / "r.json", [v1_row(0), v1_error(1)])
    given = (
        *("--model", "gemini-flash", "--provider", "gemini", "--user-model", "u", "--user-temperature", "0.5"),
        *("--persona", "anger:strong", "--limit", "2", "--set", "agent.top_p=0.9"),
    )
    dry = called("import", str(path), *given, "--workspace", str(tmp_path / "w"), "--dry-run", "--json")
    words = shlex.split(json.loads(dry.out)["settings"][0]["run"])
    assert words == [
        *("tautools", "run", "--bench", "tau-bench", "--source", "imported:tau-bench", "--env", "retail"),
        *("--strategy", "fc", "--model", "gemini-flash", "--provider", "gemini", "--user-model", "u"),
        *("--user-temperature", "0.5", "--persona", "anger:strong", "--num-trials", "1", "--limit", "2"),
        *("--set", "agent.top_p=0.9"),
    ]


def test_json_tells_the_same_and_a_dry_run_writes_nothing(tmp_path):
    path = write(tmp_path / "r.json", [v1_row(0), v1_row(1)])
    words = ("import", str(path), *CAST, "--workspace", str(tmp_path / "w"), "--json")
    dry = json.loads(called(*words, "--dry-run").out)
    assert list((tmp_path / "w").iterdir()) == []
    result = called(*words)
    done = json.loads(result.out)
    assert (result.code, dry["dry_run"], done["dry_run"]) == (0, True, False)
    for each in (dry, done):
        assert (each["imported"], each["pending"], each["files"][0]["statuses"]) == (2, 0, {"kept": 2})
    assert [each["setting_id"] for each in dry["settings"]] == [folder.id for folder in results_of(tmp_path / "w")]


def test_nothing_to_import_is_no_mistake(tmp_path):
    path = write(tmp_path / "empty.json", tau2_results([]))
    result = called("import", str(path), "--workspace", str(tmp_path / "w"))
    assert (result.code, result.out) == (0, "empty.json (tau2-bench): 0 simulations, nothing to import\n")
    assert list((tmp_path / "w").iterdir()) == []


def test_bad_input_is_exit_2_and_nothing_is_imported(tmp_path):
    good = write(tmp_path / "good.json", tau2_results([simulation()]))
    foreign = write(tmp_path / "foreign.json", {"accuracy": 0.5})
    result = called("import", str(good), str(foreign), "--workspace", str(tmp_path / "w"))
    assert result.code == 2
    assert "foreign.json is not known." in result.err
    assert called("import", str(tmp_path / "none.json"), "--workspace", str(tmp_path / "w")).code == 2
    assert list((tmp_path / "w").iterdir()) == []


def test_show_marks_what_was_imported_and_prints_the_conversation(tmp_path):
    path = write(tmp_path / "r.json", tau2_results([simulation("0"), simulation("1", reward=0.0)]))
    called("import", str(path), "--workspace", str(tmp_path))
    assert json.loads(called("show", "--workspace", str(tmp_path), "--json").out)[0]["imported"] == 2
    assert (
        "2 (2 imported) finished, 1 of 2 passed" in called("show", "--workspace", str(tmp_path), "--env", "retail").out
    )
    one = called("show", "--workspace", str(tmp_path), "--env", "retail", "--task", "0").out
    assert "get_order_details" in one
    assert "imported from r.json, row 0 (tau2-bench" in one


def test_reports_see_imported_rows_marked_with_faults_in_v1s_convention(tmp_path):
    path = write(tmp_path / "r.json", [v1_row(0), v1_row(0, trial=1), v1_row(1), v1_error(1, 1)])
    called("import", str(path), *CAST, "--workspace", str(tmp_path))
    (cell,) = find_cells(tmp_path)
    assert (cell.marks, cell.planned, cell.pending, len(cell.faults)) == (("3 imported",), 4, 1, 1)


def _keys(folder):
    return sorted(key[1:] for key in read_ledger(folder))


def test_our_own_view_completes_the_setting_it_names_and_a_run_does_only_the_rest(tmp_path):
    """Two people share a sweep: what one has held is imported by the other, as if it had been held there."""
    with simulated_model(skill=1) as server:
        flags = ("--env", "retail", "--model", "sim-4B", "--base-url", server.base_url, "--limit", "3")
        both = (*flags, "--user-model", "sim-4B", "--user-base-url", server.base_url)
        assert called("run", *both, "--workspace", str(tmp_path / "theirs"), "--json").code == 0
        (theirs,) = results_of(tmp_path / "theirs")
        view = json.loads((theirs.path / "num_trials-1.json").read_text())
        part = write(tmp_path / "part.json", view[:2])
        result = called("import", str(part), *both, "--comparable", "--workspace", str(tmp_path / "mine"), "--json")
        imported = json.loads(result.out)
        assert (result.code, imported["imported"], imported["pending"]) == (3, 2, 1)
        assert imported["settings"][0]["setting_id"] == theirs.id
        done = json.loads(called("run", *both, "--workspace", str(tmp_path / "mine"), "--json").out)
    (mine,) = results_of(tmp_path / "mine")
    assert (done["done"], done["pending"], done["setting_id"]) == (3, 0, theirs.id)
    rows = read_ledger(mine.path).values()
    assert [row.imported is not None for row in sorted(rows, key=lambda row: row.task_id)] == [True, True, False]
    assert len(json.loads((mine.path / "num_trials-1.json").read_text())) == 3


def test_a_view_beside_its_setting_needs_no_flags(tmp_path):
    with simulated_model(skill=1) as server:
        flags = ("--env", "retail", "--model", "sim-4B", "--base-url", server.base_url, "--limit", "2")
        called("run", *flags, "--workspace", str(tmp_path / "theirs"), "--json")
    (theirs,) = results_of(tmp_path / "theirs")
    result = called("import", str(theirs.path), "--workspace", str(tmp_path / "mine"), "--json")
    assert json.loads(result.out)["imported"] == 2
    (mine,) = results_of(tmp_path / "mine")
    assert (mine.id, mine.setting.simulated, _keys(mine.path)) == (theirs.id, True, _keys(theirs.path))


def test_what_an_imported_setting_lacks_is_run_by_a_run_that_names_its_source(tmp_path):
    path = write(tmp_path / "r.json", [v1_row(0), v1_error(1)])
    models = ("--model", "scripted-4B", "--user-model", "scripted-4B")
    there = ("--bench", "tau-bench", "--path", str(STAND_IN), "--workspace", str(tmp_path / "w"), "--json")
    imported = json.loads(called("import", str(path), *models, *there, "--limit", "2").out)
    with serve_in_thread(
        lambda request: "Hello." if request.body.get("tools") else STOP, model="scripted-4B"
    ) as server:
        places = ("--base-url", server.base_url, "--user-base-url", server.base_url)
        run = ("run", "--env", "retail", *models, *places, *there, "--limit", "2")
        on = json.loads(called(*run, "--source", "imported:tau-bench").out)
        asked = len(server.requests)
        assert not any("seed" in request.body for request in server.requests), "v1 sent none, and so goes the rest"
        own = json.loads(called(*run).out)
        assert called(*run, "--source", "imported:tau-bench", "--temperature", "0.5").code == 2
        assert len(server.requests) == 3 * asked  # held alone, it is two conversations
    assert (imported["pending"], on["done"], on["pending"], own["done"]) == (1, 2, 0, 2)
    assert on["setting_id"] == imported["settings"][0]["setting_id"] != own["setting_id"]
    rows = {key[1:]: row.imported is not None for key, row in read_ledger(Path(on["folder"])).items()}
    assert rows == {("0", 0): True, ("1", 0): False}


def test_real_and_simulated_models_never_mix(tmp_path):
    path = write(tmp_path / "r.json", tau2_results([simulation("0")]))
    path.write_text(path.read_text().replace("m-4B", "sim-4B").replace("u-32B", "sim-4B"))
    with simulated_model(skill=1) as server:
        there = ("--base-url", server.base_url, "--user-base-url", server.base_url, "--workspace", str(tmp_path / "w"))
        result = called("import", str(path), *there, "--comparable")
    assert result.code == 2
    assert "real models are not comparable with those of SIMULATED ones" in result.err
