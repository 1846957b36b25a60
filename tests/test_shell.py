"""The door to processes, with real processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tautools.errors import ShellError
from tautools.shell import Process, group_members, process_alive, run_command, start_detached, stop_group, this_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
DEAF_ONCE = (
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))\n"
    "print('up', flush=True)\n"
    "while True: time.sleep(0.1)\n"
)
WITH_CHILD = (
    "import subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print('up', flush=True)\n"
    "time.sleep(60)\n"
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start Python code detached, and end whatever is left of it."""
    started: list[Process] = []

    def start_code(code: str, **how: Callable[[int], None]) -> Process:
        out = tmp_path / f"{len(started)}.out"
        process = start_detached(
            [sys.executable, "-c", code], env=dict(os.environ), cwd=tmp_path, stdout=out, stderr=tmp_path / "err", **how
        )
        started.append(process)
        if "'up'" in code:
            wait_for(lambda: out.read_text().startswith("up"))
        return process

    yield start_code
    for process in started:
        stop_group(process.pid, process.started_at, term_s=0.0)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_command_gives_its_status_and_both_streams() -> None:
    code = "import sys; print(sys.stdin.read()); print('bad', file=sys.stderr); sys.exit(3)"

    done = run_command([sys.executable, "-c", code], timeout_s=20, input="good")

    assert (done.exit_code, done.stdout.strip(), done.stderr.strip()) == (3, "good", "bad")


def test_words_reach_the_command_as_they_are() -> None:
    hostile = ["a b", "$(touch x)", "'\"", "line\nbreak", ";", "*"]

    done = run_command(
        [sys.executable, "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *hostile], timeout_s=20
    )

    assert done.stdout.strip() == '["a b", "$(touch x)", "\'\\"", "line\\nbreak", ";", "*"]'


def test_a_command_that_does_not_end_is_killed_with_what_it_started() -> None:
    with pytest.raises(ShellError, match="did not end within") as caught:
        run_command(
            [sys.executable, "-c", f"import sys; print('why', file=sys.stderr, flush=True)\n{WITH_CHILD}"],
            timeout_s=1.5,
        )

    assert "why" in caught.value.evidence


def test_a_command_that_is_not_there_says_so() -> None:
    with pytest.raises(ShellError, match="`no-such-command` could not be started") as caught:
        run_command(["no-such-command"], timeout_s=1)

    assert "PATH" in caught.value.next_step


def test_a_detached_process_leads_a_session_of_its_own(start: Callable[..., Process]) -> None:
    process = start(DEAF)

    assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid
    assert process_alive(process.pid, process.started_at)


def test_the_exit_status_is_told(start: Callable[..., Process]) -> None:
    told: list[int] = []
    seen = threading.Event()

    process = start("raise SystemExit(7)", on_exit=lambda code: (told.append(code), seen.set()))

    assert seen.wait(20)
    assert told == [7]
    assert not process_alive(process.pid, process.started_at)


def test_a_process_with_another_start_time_is_another_process() -> None:
    me = this_process()

    assert process_alive(me.pid, me.started_at)
    assert not process_alive(me.pid, me.started_at - 100)


def test_nothing_is_sent_to_another_process_that_has_the_pid_now(start: Callable[..., Process]) -> None:
    process = start(DEAF_ONCE)
    signals: list[str] = []

    stop_group(process.pid, process.started_at - 100, on_signal=signals.append)

    assert signals == []
    assert process_alive(process.pid, process.started_at)


def test_sigterm_is_repeated_for_a_process_that_swallows_the_first(start: Callable[..., Process]) -> None:
    process = start(DEAF_ONCE)
    signals: list[str] = []

    stop_group(process.pid, process.started_at, again_s=0.2, on_signal=signals.append)

    assert signals == ["SIGTERM", "SIGTERM"]


def test_a_deaf_process_is_killed(start: Callable[..., Process]) -> None:
    process = start(DEAF)
    signals: list[str] = []

    stop_group(process.pid, process.started_at, term_s=0.3, on_signal=signals.append)

    assert signals == ["SIGTERM", "SIGKILL"]
    assert not process_alive(process.pid, process.started_at)


def test_children_end_with_their_group_though_the_leader_was_killed(start: Callable[..., Process]) -> None:
    process = start(WITH_CHILD)
    wait_for(lambda: len(group_members(process.pid, process.started_at)) == 2)
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not process_alive(process.pid, process.started_at))
    (orphan,) = group_members(process.pid, process.started_at)

    stop_group(process.pid, process.started_at)

    assert group_members(process.pid, process.started_at) == []
    assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE
