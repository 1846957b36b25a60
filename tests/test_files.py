"""The disk: a lock that needs no `flock` and outlives no process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tautools.errors import FilesError
from tautools.files import exclusive

COUNT = """
import sys
from pathlib import Path
from tautools.files import exclusive
lock, counter = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(20):
    with exclusive(lock):
        counter.write_text(str(int(counter.read_text()) + 1))
"""

HOLD = """
import sys, time
from pathlib import Path
from tautools.files import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_several_processes_never_hold_a_lock_at_once(tmp_path: Path) -> None:
    lock, counter = tmp_path / "lock", tmp_path / "counter"
    counter.write_text("0")
    argv = [sys.executable, "-c", COUNT, str(lock), str(counter)]
    running = [subprocess.Popen(argv) for _ in range(3)]
    assert [each.wait(60) for each in running] == [0, 0, 0]
    assert counter.read_text() == "60"
    assert list(tmp_path.iterdir()) == [counter]


def test_threads_of_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with exclusive(tmp_path / "lock"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most == 1


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
    with exclusive(tmp_path / "lock", wait_s=10):
        pass


@pytest.mark.parametrize("text", [json.dumps({"host": "another", "pid": 1, "started_at": 1.0}), "", "torn {"])
def test_a_lock_that_nobody_touches_is_free_after_a_while(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    with exclusive(tmp_path / "lock", wait_s=10, stale_s=0.3):
        assert socket.gethostname() in (tmp_path / "lock").read_text()
    assert not (tmp_path / "lock").exists()


def test_a_lock_that_is_held_names_its_holder_and_the_way_out(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with exclusive(lock, stale_s=1.0), pytest.raises(FilesError) as error, exclusive(lock, wait_s=1.5, stale_s=1.0):
        pytest.fail("two holders")
    assert socket.gethostname() in error.value.evidence
    assert f"rm {tmp_path / 'lock'}" in error.value.next_step


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match="cannot be written"), exclusive(tmp_path / "no" / "lock"):
        pass


def test_nothing_asks_for_flock(repo: Path) -> None:
    assert not [path for path in (repo / "tautools").rglob("*.py") if "fcntl" in path.read_text(encoding="utf-8")]
