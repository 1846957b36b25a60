from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter

import pytest
from killable_runs import Killable
from scripted_server import Say
from served_cells import STOP, scripted_cell

from tautools.bench import conversation_seed
from tautools.run import prepare_cell, read_conversation, read_ledger, run_cell
from tautools.run.ledger import Ledger

KILLS = 20
LONG = "Let me look into that for you. " * 100


@pytest.fixture(scope="module")
def killable():
    with Killable() as started:
        yield started


def slow_customer(seconds):
    """A customer that takes its time and hangs up at its second turn."""
    chance = random.Random(5)

    def user(request):
        turns = sum(message["role"] == "assistant" for message in request.body["messages"])
        return Say(f"Bye. {STOP}" if turns else LONG, first_s=chance.uniform(0, seconds), chunk_chars=800)

    return user


def newest(folder):
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def tear(folder, kind, chance):
    """Cut the newest file of a kind within its last line, as a crash in mid-write leaves it; or fill it with NULs."""
    path = newest(folder / kind)
    whole = path.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    cut = chance.randrange(start, len(whole))
    path.write_bytes(whole[:cut] + (b"\0" * chance.choice([0, 64]) if kind == "ledger" else b""))


def test_killed_at_twenty_moments_the_final_set_is_the_plan_each_counted_once_none_repeated(tmp_path, killable):
    chance = random.Random(20)
    how = {"limit": 20, "num_trials": 4, "concurrency": 3, "seed_rule": "conversation"}
    with scripted_cell(slow_customer(0.04), **how) as (server, run):
        cell = prepare_cell(run, workspace=tmp_path)
        pair_of = {conversation_seed(run.seed, *pair): pair for pair in cell.planned}
        torn = 0
        for number in range(KILLS):
            finished = {key[1:] for key in read_ledger(cell.folder)}
            asked_before = len(server.requests)
            child = killable.start(run, tmp_path, slow_sync_s=chance.choice([0, 0, 0.05]))
            child.until("start")
            for _ in range(chance.randrange(4)):
                child.until("done")
            time.sleep(chance.uniform(0.0, 0.1))
            child.send(signal.SIGKILL)
            assert child.end()["status"] == -signal.SIGKILL, "it was killed at work"
            asked = {pair_of[request.body["seed"]] for request in server.requests[asked_before:]}
            assert asked.isdisjoint(finished), "what is finished is never held again"
            assert finished <= {key[1:] for key in read_ledger(cell.folder)}, "what is finished is never lost"
            if number % 3 == 2 and (cell.folder / "ledger").is_dir():
                tear(cell.folder, "ledger" if number % 2 else "conversations", chance)
                torn += 1
        assert torn >= 5
        before = read_ledger(cell.folder)
        assert 0 < len(before) < len(cell.planned), "killed with work done and work left"

        asked_before = len(server.requests)
        result = run_cell(run, workspace=tmp_path)
        asked = Counter(pair_of[request.body["seed"]] for request in server.requests[asked_before:])

    rows = read_ledger(cell.folder)
    assert (result.done, result.pending) == (80, 0)
    assert {key[1:] for key in rows} == set(cell.planned)
    assert set(asked) == set(cell.planned) - {key[1:] for key in before}
    assert set(asked.values()) == {3}, "each of the rest was held once"
    assert all(rows[key] == row for key, row in before.items())
    assert all(read_conversation(cell.folder, row).task_id == row.task_id for row in rows.values())
    view = json.loads((cell.folder / "num_trials-4.json").read_text())
    assert Counter((str(each["task_id"]), each["trial"]) for each in view) == Counter(cell.planned)
    assert list((cell.folder / "running").iterdir()) == []


def test_a_write_that_comes_out_short_ends_the_run_and_costs_one_conversation(tmp_path, killable):
    with scripted_cell(slow_customer(0), limit=6, concurrency=1) as (server, run):
        cell = prepare_cell(run, workspace=tmp_path)
        child = killable.start(run, tmp_path, largest_file=60_000)
        told = child.end()
        assert "took" in told["error"] or "could not be written" in told["error"]
        assert "Next: Free" in told["error"]
        kept = read_ledger(cell.folder)
        assert 0 < len(kept) < 6
        asked = len(server.requests)
        assert run_cell(run, workspace=tmp_path).finished
        assert len(server.requests) - asked == 3 * (6 - len(kept))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_conversations_finish_and_leaves_the_rest_owed(tmp_path, killable, number):
    with scripted_cell(slow_customer(0.3), limit=20, concurrency=2, grace_s=20) as (server, run):
        child = killable.start(run, tmp_path)
        child.until("done")
        child.send(number)
        told = child.end()
        assert (told["status"], told["interrupted"], told["restored"]) == (0, True, True)
        assert told["done"] + told["pending"] == 20
        assert 0 < told["done"] < 20
        assert len(server.requests) == 3 * told["done"], "nothing that was begun was thrown away"
        assert "Interrupted; run it again to go on." in told["text"]
        (view,) = prepare_cell(run, workspace=tmp_path).folder.glob("num_trials-1.json")
        assert len(json.loads(view.read_text())) == told["done"]


@pytest.mark.parametrize("grace_s", [0, 60])
def test_a_second_signal_or_the_end_of_the_grace_ends_at_once(tmp_path, killable, grace_s):
    def user(_request):
        return Say("never said", first_s=600)

    with scripted_cell(user, limit=3, concurrency=3, grace_s=grace_s) as (server, run):
        child = killable.start(run, tmp_path)
        child.until("start")
        while len(server.requests) < 3:
            time.sleep(0.01)
        child.send(signal.SIGTERM)
        if grace_s:
            child.until("interrupted")
            child.send(signal.SIGTERM)
        told = child.end()
        assert (told["done"], told["pending"], told["interrupted"]) == (0, 3, True)
    assert read_ledger(prepare_cell(run, workspace=tmp_path).folder) == {}


def test_two_processes_on_one_setting_share_the_work_and_repeat_nothing(tmp_path, killable):
    with (
        scripted_cell(slow_customer(0.05), limit=10, num_trials=2, concurrency=3) as (server, run),
    ):
        children = [killable.start(run, tmp_path), killable.start(run, tmp_path)]
        told = [child.end() for child in children]
        assert [(each["done"], each["pending"]) for each in told] == [(20, 0), (20, 0)]
        assert len(server.requests) == 3 * 20
        ledger = Ledger(prepare_cell(run, workspace=tmp_path).folder).refresh()
        assert (len(ledger.rows()), ledger.repeats()) == (20, 0)
        assert len({row.writer for row in ledger.rows().values()}) == 2


def test_when_one_of_two_processes_dies_the_other_takes_its_conversations_over(tmp_path, killable):
    with scripted_cell(slow_customer(0.2), limit=8, concurrency=2) as (_, run):
        children = [killable.start(run, tmp_path), killable.start(run, tmp_path)]
        children[0].until("done")
        children[0].send(signal.SIGKILL)
        assert children[0].end()["status"] == -signal.SIGKILL
        told = children[1].end()
        assert (told["done"], told["pending"]) == (8, 0)
