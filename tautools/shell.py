"""All processes start and end here: run a command, start one that outlives us, end a whole process group.

A process is named by its pid *and* its start time, so that a pid used again later is never taken for ours. Commands
are lists of words and never pass through a shell. A process started by `start_detached` leads a session and a process
group of its own; whatever it starts stays in that group, and `stop_group` returns only when the group is empty.

Accepted trade-off: an exit status is known only while the process that started it lives, because only a parent may ask
for it. Who needs it later has it written down with `on_exit`.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from tautools.errors import ShellError, TautoolsError

Piped: TypeAlias = "subprocess.Popen[bytes]"
"""A program whose streams are ours, as `start_piped` starts it."""

START_TOLERANCE_S = 2.0
"""Start times are compared loosely: the kernel's boot time, which they are counted from, flickers by a second."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished command left: its exit status (negative: the signal that ended it) and what it wrote."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Process:
    """One process for ever: a pid is used again, a pid with its start time [s since the epoch] is not."""

    pid: int
    started_at: float


def run_command(
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input: str | None = None,  # noqa: A002 - the word that subprocess uses for it
) -> Completed:
    """Run `argv` to its end and return what it left, whatever its exit status.

    Parameters
    ----------
    argv : sequence of str
        The command, word by word; no shell reads it.
    timeout_s : float
        Seconds after which the command and everything it started are killed.
    env, cwd, input
        Whole environment, folder and standard input; this process's own by default, and no input.

    Raises
    ------
    ShellError
        When the command is not there, or did not end in time.
    """
    pipe = subprocess.PIPE
    with _popen(argv, env=env, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            out, err = process.communicate((input or "").encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            _signal_group(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise ShellError(
                f"`{argv[0]}` did not end within {timeout_s:g} s and was killed.",
                evidence=err.decode(errors="replace")[-2000:],
                next_step="Run the command by hand to see what it waits for.",
            ) from error
    return Completed(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def ask_git(root: Path, *words: str) -> str | None:
    """Return what `git <words>` prints for the checkout at `root`; None when it fails, or prints nothing.

    Nothing is written there: a person may be committing in it at this moment.
    """
    try:
        done = run_command(["git", "--no-optional-locks", "-C", str(root), *words], timeout_s=5.0)
    except TautoolsError:
        return None
    return done.stdout.strip() or None if done.exit_code == 0 else None


def start_detached(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdout: Path,
    stderr: Path,
    on_exit: Callable[[int], None] | None = None,
) -> Process:
    """Start `argv` in a session of its own and return at once; it outlives this process.

    Parameters
    ----------
    argv : sequence of str
        The command, word by word.
    env : mapping
        The whole environment.
    cwd : Path
        The folder it works in.
    stdout, stderr : Path
        Files that its output is appended to.
    on_exit : callable, optional
        Told the exit status (negative: the signal), from a thread, if this process is still there then.

    Raises
    ------
    ShellError
        When the command is not there or may not be run.
    """
    with stdout.open("ab") as out, stderr.open("ab") as err:
        process = _popen(argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    started_at = _start_time(process.pid)
    # The thread also reaps the process, which would stay behind as a zombie for as long as we live.
    threading.Thread(target=_reap, args=(process, on_exit), name=f"reap-{process.pid}", daemon=True).start()
    return Process(process.pid, started_at if started_at is not None else time.time())


def start_piped(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> Piped:
    """Start `argv` with all three of its streams as unbuffered pipes, and return at once.

    It leads a session of its own, so that an interrupt at the terminal is ours alone. A program that ends when its
    input does ends with this process, however that comes about.

    Raises
    ------
    ShellError
        When the command is not there or may not be run.
    """
    pipe = subprocess.PIPE
    return _popen(argv, env=env, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe)


def process_alive(pid: int, started_at: float) -> bool:
    """Whether this very process still runs; a zombie does not, and another one with the same pid is another one."""
    now = _start_time(pid)
    return now is not None and abs(now - started_at) < START_TOLERANCE_S


def this_process() -> Process:
    """Return the running process, to leave its name where others can see who is at work."""
    return Process(os.getpid(), psutil.Process().create_time())


def group_members(pid: int, started_at: float) -> list[int]:
    """Return the pids that still run in the group that the process led, even when the leader itself is gone.

    Notes
    -----
    The kernel gives no new process the number of a group that still has members. So if a process with the number `pid`
    and another start time exists, the old group has ended.
    """
    leader = _start_time(pid)
    if leader is not None and abs(leader - started_at) >= START_TOLERANCE_S:
        return []
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if (
                os.getpgid(process.pid) == pid
                and os.getsid(process.pid) == pid
                and process.create_time() >= started_at - START_TOLERANCE_S
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                members.append(process.pid)
    return members


def stop_group(
    pid: int,
    started_at: float,
    *,
    term_s: float = 20.0,
    again_s: float = 3.0,
    on_signal: Callable[[str], None] | None = None,
) -> None:
    """End a process and everything in its group; return when the group is empty.

    Parameters
    ----------
    pid, started_at
        The group's leader. Nothing is sent to another process that has its pid now.
    term_s : float
        Seconds in which the group may end by itself after SIGTERM; SIGKILL follows.
    again_s : float
        SIGTERM is repeated this often: a vLLM that is starting swallows the first one.
    on_signal : callable, optional
        Told each signal's name as it is sent.

    Raises
    ------
    ShellError
        When something of the group is still there at the end.
    """
    report = on_signal or (lambda _name: None)
    deadline = time.monotonic() + term_s
    next_term = 0.0
    while (members := group_members(pid, started_at)) and (now := time.monotonic()) < deadline:
        if now >= next_term:
            report("SIGTERM")
            # The leader ends its own workers in good order; only orphans are signalled directly.
            (_signal_one if pid in members else _signal_group)(pid, signal.SIGTERM)
            next_term = now + again_s
        time.sleep(0.05)
    if members:
        report("SIGKILL")
        _signal_group(pid, signal.SIGKILL)
        _wait_until(lambda: not group_members(pid, started_at), 10.0)
        members = group_members(pid, started_at)
    if members:
        raise ShellError(
            f"The process group {pid} did not end: {', '.join(str(member) for member in members)} still run.",
            next_step="Look at them with `ps -fp PID`; one that waits for a device or a disk cannot be killed.",
        )


def stop_process(pid: int, started_at: float, *, term_s: float = 10.0) -> None:
    """End one process and nothing else: SIGTERM, and SIGKILL when `term_s` seconds are over.

    Raises
    ------
    ShellError
        When it is still there at the end, or is not ours to stop.
    """
    for what, wait_s in ((signal.SIGTERM, term_s), (signal.SIGKILL, 10.0)):
        if process_alive(pid, started_at):
            _signal_one(pid, what)
            _wait_until(lambda: not process_alive(pid, started_at), wait_s)
    if process_alive(pid, started_at):
        raise ShellError(
            f"Process {pid} did not end.",
            next_step=f"Look at it with `ps -fp {pid}`; one that waits for a device cannot be killed.",
        )


def _wait_until(done: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)


def _popen(argv: Sequence[str], *, env: Mapping[str, str] | None, cwd: Path | None, **streams: Any) -> Piped:
    """Start `argv` in a session of its own; `streams` are its stdin, stdout and stderr."""
    whole = None if env is None else dict(env)
    try:
        return subprocess.Popen(list(argv), env=whole, cwd=cwd, start_new_session=True, **streams)
    except (OSError, ValueError) as error:
        raise ShellError(
            f"`{argv[0]}` could not be started.",
            evidence=str(error),
            next_step="Check that the command is installed and on PATH in this session, and that its folder exists.",
        ) from error


def _reap(process: Piped, on_exit: Callable[[int], None] | None) -> None:
    code = process.wait()
    if on_exit is not None:
        on_exit(code)


def _start_time(pid: int) -> float | None:
    """Return the start time [s since the epoch] of a running process; None when there is none, or a zombie."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _signal_one(pid: int, what: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        psutil.Process(pid).send_signal(what)


def _signal_group(pid: int, what: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, what)
