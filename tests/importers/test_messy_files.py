from __future__ import annotations

import gzip
import json

import pytest
from foreign_files import v1_error, v1_row, write

from tautools.errors import ParamsError
from tautools.importers import RowStatus, read_files
from tautools.records import Outcome, Strategy, UserStrategy

ROWS = [v1_row(0), v1_row(1, reward=0.0), v1_row(2)]
TEXT = json.dumps(ROWS)


def read(path):
    (file,), refused = read_files([path])
    assert not refused
    return file


def keys(file):
    return [(found.task_id, found.trial) for found in file.rows if found.status is RowStatus.KEPT]


@pytest.mark.parametrize(
    ("text", "tasks", "unreadable"),
    [
        (TEXT, "012", 0),
        (TEXT + json.dumps([v1_row(3)]), "0123", 0),  # two runs wrote one after the other: `][`
        (TEXT + "\n" + json.dumps([v1_row(3)]) + json.dumps([v1_row(4)]), "01234", 0),
        ("\n".join(map(json.dumps, ROWS)), "012", 0),  # one row a line
        (TEXT[:-40], "01", 1),  # torn in the last row
        (TEXT[: TEXT.index('{"task_id": 2') - 1], "01", 0),  # torn between rows
        (TEXT.replace('"task_id": 1, "reward"', '"task_id": 1, reward'), "02", 1),  # damaged within
        ("\ufeff" + TEXT, "012", 0),
        (TEXT + "\0\0\0", "012", 0),
    ],
)
def test_every_row_that_can_be_read_is_read(tmp_path, text, tasks, unreadable):
    file = read(write(tmp_path / "r.json", text))
    assert keys(file) == [(task, 0) for task in tasks]
    assert sum(found.status is RowStatus.UNREADABLE for found in file.rows) == unreadable


@pytest.mark.parametrize("kept", [1.0, 0.6])
def test_gzip_is_opened_also_when_it_is_torn(tmp_path, kept):
    packed = gzip.compress(json.dumps([v1_row(task, words=f"{task * 7919:x}" * 9) for task in range(200)]).encode())
    file = read(write(tmp_path / "r.json.gz", packed[: int(kept * len(packed))]))
    found = [int(task) for task, _ in keys(file)]
    assert found == list(range(len(found)))
    assert (len(found) == 200) == (kept == 1.0)
    assert kept == 1.0 or (len(found) > 50 and "the gzip data ends too early" in file.notes)


def test_not_a_number_is_no_reward_and_spoils_nothing_else(tmp_path):
    rows = [v1_row(0, reward=float("nan")), v1_row(1, info=v1_row()["info"] | {"user_cost": float("nan")})]
    file = read(write(tmp_path / "r.json", rows))
    assert [found.status for found in file.rows] == [RowStatus.UNREADABLE, RowStatus.KEPT]


@pytest.mark.parametrize(
    ("row", "status"),
    [
        (v1_error(), RowStatus.ERROR),
        (v1_row(traj=[]), RowStatus.ERROR),
        (v1_row(reward=7), RowStatus.UNREADABLE),
        (v1_row(reward=True), RowStatus.UNREADABLE),
        (v1_row(trial=None), RowStatus.UNREADABLE),
        (v1_row(task=None), RowStatus.UNREADABLE),
        (v1_row(task=1.5), RowStatus.UNREADABLE),
        (v1_row(traj=[{"content": "no role"}]), RowStatus.UNREADABLE),
        (v1_row(traj="text"), RowStatus.UNREADABLE),
        (v1_row(info=None), RowStatus.UNREADABLE),
        (v1_row(task=3.0), RowStatus.KEPT),
    ],
)
def test_a_row_is_kept_lost_or_unreadable(tmp_path, row, status):
    file = read(write(tmp_path / "r.json", [v1_row(9), row]))
    assert [found.status for found in file.rows] == [RowStatus.KEPT, status]


def test_thirty_steps_without_a_verdict_are_a_step_limit_and_an_error_is_never_reward_0(tmp_path):
    unscored = v1_row(1, reward=0.0, info=v1_row()["info"] | {"reward_info": None})
    file = read(write(tmp_path / "r.json", [v1_row(0), unscored, v1_row(2, reward=0.0), v1_error(3)]))
    outcomes = [found.outcome for found in file.rows]
    assert outcomes == [Outcome.PASSED, Outcome.STEP_LIMIT, Outcome.FAILED, None]
    assert file.rows[3].reward is None


def test_the_env_of_each_row_is_that_of_its_agents_policy(tmp_path):
    file = read(write(tmp_path / "retail.json", [v1_row(0), v1_row(0, env="Airline"), v1_row(1)]))
    assert [found.env for found in file.rows] == ["retail", "airline", "retail"]
    assert file.notes == ["rows of several envs: 2 retail, 1 airline"]


def test_what_v1_puts_into_a_files_name_is_read(tmp_path):
    name = "react-Qwen3-4B-0.6_range_0--1_user-Qwen3-32B-verify_0512093000.json"
    facts = read(write(tmp_path / name, ROWS)).facts
    assert (facts.params["agent.model"], facts.params["agent.temperature"]) == ("Qwen3-4B", 0.6)
    assert (facts.params["user.model"], facts.params["user_strategy"]) == ("Qwen3-32B", UserStrategy.VERIFY)
    assert facts.params["strategy"] == Strategy.FC  # the messages say how it was played, whatever the name does


@pytest.mark.parametrize(
    ("said", "strategy"),
    [
        ('Action:\n{"name": "get", "arguments": {}}', Strategy.ACT),
        ('Thought:\nWell.\nAction:\n{"name": "get", "arguments": {}}', Strategy.REACT),
        ("Hello.", None),
    ],
)
def test_the_strategy_is_read_off_the_messages(tmp_path, said, strategy):
    traj = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": said, "tool_calls": []}]
    assert read(write(tmp_path / "r.json", [v1_row(traj=traj)])).facts.params["strategy"] == strategy


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ({"domain": "airline", "simulations": [{"id": 1}]}, "but no `info.environment_info`"),
        ({"results": [], "config": {}}, "It is an object with the keys results, config."),
        ([{"doc_id": 1, "acc": 0.5}], "It holds objects with the keys doc_id, acc."),
        ([1, 2], "It holds int."),
        ("no json at all", "It is not JSON."),
        (b"\x89PNG\r\n", "It is not JSON."),
        (b"PK\x03\x04junk", "Error"),
    ],
)
def test_a_foreign_format_is_refused_with_what_was_seen(tmp_path, value, seen):
    with pytest.raises(ParamsError) as refused:
        read_files([write(tmp_path / "r.json", value)])
    assert seen in refused.value.evidence


@pytest.mark.parametrize("value", ["", "[]", "  \n"])
def test_an_empty_file_is_no_mistake(tmp_path, value):
    file = read(write(tmp_path / "r.json", value))
    assert (len(file.rows), file.format, "empty" in file.notes) == (0, "empty", True)


def test_a_folder_gives_its_result_files_and_reports_the_rest(tmp_path):
    write(tmp_path / "a" / "b" / "one.json", ROWS)
    write(tmp_path / "a" / "two.json.gz", gzip.compress(TEXT.encode()))
    write(tmp_path / "a" / "summary.json", {"mean": 0.5})
    write(tmp_path / "a" / "notes.txt", "hello")
    files, refused = read_files([tmp_path])
    assert [file.path.name for file in files] == ["one.json", "two.json.gz"]
    assert [path.name for path in refused] == ["summary.json"]


def test_a_pattern_that_no_shell_expanded_is_expanded(tmp_path):
    write(tmp_path / "a.json", ROWS)
    write(tmp_path / "b.json", ROWS)
    files, _ = read_files([tmp_path / "*.json"])
    assert [file.path.name for file in files] == ["a.json", "b.json"]


def test_a_path_that_is_not_there_and_a_folder_without_results_are_errors(tmp_path):
    with pytest.raises(ParamsError, match="There is no file"):
        read_files([tmp_path / "none.json"])
    with pytest.raises(ParamsError, match="holds no result files"):
        read_files([tmp_path])
