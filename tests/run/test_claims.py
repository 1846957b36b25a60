from __future__ import annotations

import json
import os
import sys
import time

from tautools.run.worker import STALE_S, running
from tautools.shell import run_command


def dead_owner():
    told = run_command(
        [sys.executable, "-c", "import os, psutil; print(os.getpid(), psutil.Process().create_time())"], timeout_s=30
    )
    pid, started_at = told.stdout.split()
    return {"pid": int(pid), "process_started_at": float(started_at)}


def leave_claim(open_claims, folder, **owner):
    """Leave a claim as a process that was killed leaves it."""
    claim = open_claims(folder, "other").take("1", 0)
    header = json.loads(claim.path.read_bytes().splitlines()[0])
    claim.path.write_text(json.dumps(header | owner) + "\n")
    return claim.path


def test_what_one_holds_another_does_not_get_until_it_is_given_up(tmp_path, open_claims):
    one, two = open_claims(tmp_path, "one"), open_claims(tmp_path, "two")
    claim = one.take("1", 0)
    assert claim is not None
    assert two.take("1", 0) is None
    assert two.take("1", 1) is not None
    one.release(claim)
    assert two.take("1", 0) is not None


def test_the_claim_of_a_process_that_is_gone_is_taken_over_at_once(tmp_path, open_claims):
    leave_claim(open_claims, tmp_path, **dead_owner())
    assert running(tmp_path) == []
    assert open_claims(tmp_path, "mine").take("1", 0) is not None


def test_the_claim_of_another_host_is_believed_until_nobody_touches_it(tmp_path, open_claims):
    path = leave_claim(open_claims, tmp_path, host="far-away", pid=1)
    assert open_claims(tmp_path, "mine").take("1", 0) is None
    long_ago = time.time() - STALE_S - 1
    os.utime(path, (long_ago, long_ago))
    assert open_claims(tmp_path, "mine").take("1", 0) is not None


def test_touching_keeps_a_claim_alive(tmp_path, open_claims):
    claims = open_claims(tmp_path, "mine")
    claim = claims.take("1", 0)
    long_ago = time.time() - STALE_S - 1
    os.utime(claim.path, (long_ago, long_ago))
    claims.touch()
    assert open_claims(tmp_path, "other").take("1", 0) is None


def test_closing_gives_everything_up_and_removes_what_the_dead_left(tmp_path, open_claims):
    leave_claim(open_claims, tmp_path, **dead_owner())
    claims = open_claims(tmp_path, "mine")
    claims.take("2", 0)
    claims.close()
    assert list((tmp_path / "running").iterdir()) == []


def test_task_ids_of_any_kind_get_files_of_their_own(tmp_path, open_claims):
    claims = open_claims(tmp_path, "mine")
    ids = ["1", "../1", "a/b", "a b", "", "[mms_issue]" + "x|" * 200, "[mms_issue]" + "x|" * 201, "客户", ".."]
    assert all(claims.take(task_id, 0) is not None for task_id in ids)
    assert sorted(each.task_id for each in running(tmp_path)) == sorted(ids)
    assert {path.parent for path in tmp_path.rglob("*.jsonl")} == {tmp_path / "running"}


def test_a_running_conversation_can_be_read_as_far_as_it_has_come(tmp_path, open_claims):
    claim = open_claims(tmp_path, "mine").take("7", 2)
    claim.write({"role": "user", "content": "客户"})
    with claim.path.open("ab") as file:
        file.write(b'{"role": "assis')
    (found,) = running(tmp_path)
    assert (found.task_id, found.trial, found.messages) == ("7", 2, [{"role": "user", "content": "客户"}])
