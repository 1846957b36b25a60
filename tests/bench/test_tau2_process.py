"""What becomes of the checkout's process when something goes wrong, on either side."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from scripted_client import ScriptedClient
from stand_in import STAND_IN, changed_copy, stand_in

from tautools.bench import run_conversation
from tautools.bench.sources import tau2_checkout
from tautools.bench.sources.tau2_bench import Tau2Bench
from tautools.bench.sources.tau2_checkout import find_tau2_checkout
from tautools.bench.types import Approach, EnvState, Observation, run_without_loop
from tautools.errors import BenchError, ShellError
from tautools.records import Limits, Outcome, Strategy


@pytest.fixture
def source() -> Iterator[Tau2Bench]:
    """A source that may be harmed."""
    found = stand_in()
    yield found
    found.process.close()


def a_world(source: Tau2Bench) -> EnvState:
    domain = source.domain("library")
    return domain.env_state(domain.tasks["lend"])


def call(env_state: EnvState, name: str, **arguments: Any) -> Observation:
    return run_without_loop(env_state.call(name, json.dumps(arguments)))


def test_what_a_tool_prints_is_no_answer_and_what_it_asks_is_not_answered(source: Tau2Bench) -> None:
    env_state = a_world(source)
    assert call(env_state, "shout", text='{"ok": 1}').text == "Nobody."
    assert call(env_state, "shout", text="x" * 200_000).text == "Nobody.", "the pipe of its standard error is read"
    assert json.loads(call(env_state, "get_book", book_id="b2").text)["title"] == "Emma"


def test_a_tool_that_exits_is_a_tools_error_and_the_others_go_on(source: Tau2Bench) -> None:
    one, other = a_world(source), a_world(source)
    assert call(one, "leave").text == "Error: 3"
    assert one.reward([]).info["unscorable"] == "SystemExit: 3", "its evaluator makes the call again"
    assert json.loads(call(other, "get_book", book_id="b1").text)["copies"] == 3


def test_a_process_that_dies_is_told_with_its_last_lines_and_the_next_question_starts_another(
    source: Tau2Bench,
) -> None:
    one, other = a_world(source), a_world(source)
    with pytest.raises(BenchError) as dead:
        call(one, "crash")
    assert "ended with status 7 when it was asked to call a tool" in dead.value.problem
    assert dead.value.evidence.endswith("The library is on fire.")
    assert "Run again" in dead.value.next_step
    assert source.process.pid is None
    for env_state in (one, other):
        with pytest.raises(BenchError, match="database of this conversation is lost"):
            env_state.reward([])
    assert json.loads(call(a_world(source), "get_book", book_id="b1").text)["copies"] == 3
    with pytest.raises(BenchError, match="is lost"):
        other.changes()


def test_a_tool_that_never_answers_is_ended(source: Tau2Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    env_state = a_world(source)
    pid = source.process.pid
    monkeypatch.setattr(tau2_checkout, "ANSWER_S", 0.3)
    with pytest.raises(BenchError, match=r"gave no answer within 0.3 s and was ended when it was asked to call a tool"):
        call(env_state, "sleep")
    assert pid is not None
    assert not psutil.pid_exists(pid)


def test_an_interrupt_between_question_and_answer_does_not_shift_the_answers(
    source: Tau2Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_world(source)
    with monkeypatch.context() as patch:

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("tautools.bench.sources.tau2_checkout.select.select", interrupted)
        with pytest.raises(KeyboardInterrupt):
            source.process.ask("splits", env="library")
    assert source.process.ask("envs") == ["library", "visit"]


def test_questions_of_several_threads_get_their_own_answers(source: Tau2Bench) -> None:
    source.domain("library")
    wrong: list[str] = []

    def ask(title: str, book_id: str) -> None:
        env_state = a_world(source)
        for _ in range(100):
            if json.loads(call(env_state, "find_book", title=title).text)["book_id"] != book_id:
                wrong.append(title)

    threads = [threading.Thread(target=ask, args=each) for each in (("Emma", "b2"), ("Moby Dick", "b1"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class KillingClient(ScriptedClient):
    """A client that kills the checkout's process at the agent's second request."""

    pid: int = 0

    async def complete(self, tag: Any, messages: Any, tools: Any = None) -> Any:
        if self.pid and len(self.requests) == 2:
            os.kill(self.pid, signal.SIGKILL)
        return await super().complete(tag, messages, tools)


async def test_a_process_killed_in_the_middle_of_a_conversation_is_no_failed_task(source: Tau2Bench) -> None:
    domain = source.domain("library")
    client = KillingClient([[("find_book", '{"title": "Moby Dick"}')], [("get_book", '{"book_id": "b1"}')], "Bye."])
    client.pid = source.process.pid or 0
    how: Any = {"approach": Approach(Strategy.FC), "limits": Limits(), "trial": 0, "seed": 1}
    with pytest.raises(BenchError, match=r"was ended by signal 9"):
        await run_conversation(domain, domain.tasks["lend"], client=client, **how)
    again = await run_conversation(domain, domain.tasks["lend"], client=ScriptedClient(["Bye."]), **how)
    assert again.outcome is Outcome.FAILED, "another process scores what is run again"


def test_no_process_stays_behind_a_parent_that_is_killed() -> None:
    code = (
        "import sys, time\n"
        "from tautools.bench import open_source\n"
        f"source = open_source('tau2', 'tau2-bench', {str(STAND_IN)!r}, sys.executable)\n"
        "domain = source.domain('library')\n"
        "print(source.process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    child.wait(timeout=60)


def test_a_program_that_ends_by_itself_leaves_none_behind() -> None:
    code = (
        "import sys\n"
        "from tautools.bench import open_source\n"
        f"source = open_source('tau2', 'tau2-bench', {str(STAND_IN)!r}, sys.executable)\n"
        "source.domain('library')\n"
        "print(source.process.pid)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert not psutil.pid_exists(int(done.stdout))


def test_our_own_process_keeps_nothing_of_the_package(source: Tau2Bench) -> None:
    source.domain("library")
    assert not [name for name in sys.modules if name == "tau2" or name.startswith("tau2.")]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (None, ["needs a checkout", "TAUTOOLS_TAU2_BENCH_PATH", "--path"]),
        ("/nowhere/at/all", ["/nowhere/at/all is not a checkout", "pyproject.toml", "FileNotFoundError"]),
        (str(Path(__file__).parents[2]), ["is not a checkout", "is of 'tautools'"]),
    ],
)
def test_what_is_no_checkout_is_refused(path: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAUTOOLS_TAU2_BENCH_PATH", raising=False)
    with pytest.raises(BenchError) as refused:
        find_tau2_checkout(path, sys.executable)
    assert all(each in str(refused.value) for each in expected), refused.value


def refusal(path: Path, python: str = sys.executable) -> str:
    with pytest.raises((BenchError, ShellError)) as refused:
        stand_in(path, python).domain("library")
    return str(refused.value)


def test_another_version_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    copy = changed_copy(tmp_path, {"pyproject.toml": ('version = "1.0.99"', 'version = "2.0.0"')})
    assert "tau2-bench 2.0.0 is not a version that tautools knows" in refusal(copy, "/no/python")


def test_a_checkout_without_an_environment_gets_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAUTOOLS_TAU2_BENCH_PYTHON", raising=False)
    with pytest.raises(BenchError) as refused:
        find_tau2_checkout(str(changed_copy(tmp_path)))
    message = str(refused.value)
    assert f"{tmp_path}/copy/.venv/bin/python" in message
    assert f"-m venv {tmp_path}/copy/.venv" in message
    assert "TAUTOOLS_TAU2_BENCH_PYTHON" in message


def test_the_environment_inside_the_checkout_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAUTOOLS_TAU2_BENCH_PYTHON", raising=False)
    copy = changed_copy(tmp_path)
    program = copy / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    assert find_tau2_checkout(str(copy)).python == program


def test_a_python_of_the_wrong_version_is_named(tmp_path: Path) -> None:
    copy = changed_copy(tmp_path, {"pyproject.toml": ('">=3.11"', '">=9.9"')})
    message = refusal(copy)
    assert f"does not run on Python {sys.version_info.major}.{sys.version_info.minor}" in message
    assert "asks for >=9.9" in message


def test_a_python_that_is_none_says_so(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'I am a shell' >&2\nexit 4\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    message = refusal(STAND_IN, str(program))
    assert "ended with status 4 when it was asked to say hello" in message
    assert "I am a shell" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data/tau2/domains/library/db.json": None}, ["could not load an env: FileNotFoundError", "db.json"]),
        ({"data/tau2/domains/library/tasks.json": None}, ["FileNotFoundError", "tasks.json", "is whole"]),
        ({"src/tau2/config.py": None}, ["cannot be imported: ModuleNotFoundError", "pip install -e"]),
        (
            {"src/tau2/user/user_simulator_base.py": ("TRANSFER =", "PASSED_ON =")},
            ["could not load an env: AttributeError", "TRANSFER", "docs/fidelity.md"],
        ),
        (
            {"src/tau2/__init__.py": ("print(", "import a_package_that_is_not_there\nprint(")},
            ["cannot be imported: ModuleNotFoundError", "a_package_that_is_not_there"],
        ),
    ],
)
def test_a_checkout_that_is_not_whole_says_what_is_missing(
    tmp_path: Path, changes: dict[str, Any], expected: list[str]
) -> None:
    refused = refusal(changed_copy(tmp_path, changes))
    assert all(each in refused for each in expected), refused


def test_a_task_that_begins_in_the_middle_is_refused(source: Tau2Bench) -> None:
    with pytest.raises(BenchError, match="begins in the middle of a conversation"):
        source.domain("library", "begun")
    with pytest.raises(BenchError, match=r"no split 'bass'.*") as refused:
        source.domain("library", "bass")
    assert "`base`" in str(refused.value)
