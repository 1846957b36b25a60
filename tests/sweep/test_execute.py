"""One notebook in a process of its own: its exit status and its note tell the truth, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_sweep import processes_of, wait_until

from tautools.shell import Process
from tautools.sweep.notebook import NotebookJob
from tautools.sweep.status import STOPPED, CellAttempt, read_note

pytestmark = pytest.mark.slow

SLEEPER = """
import subprocess, time
child = subprocess.Popen(["sleep", "600"])
print("at work", flush=True)
try:
    time.sleep(600)
finally:
    print("tidied up", flush=True)
"""


def _notebook(path: Path, *sources: str) -> Path:
    cells: list[dict[str, Any]] = []
    for number, source in enumerate(("word: str = 'none'", *sources)):
        metadata = {"tags": ["parameters"]} if number == 0 else {}
        cell = {"cell_type": "code", "id": f"c{number}", "metadata": metadata, "source": source}
        cells.append(cell | {"execution_count": None, "outputs": []})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content))
    return path


def _start(folder: Path, notebook: Path, owner: Process | None = None, **parameters: Any) -> subprocess.Popen[bytes]:
    out, note = folder / "{out}.ipynb", folder / "note.json"
    job = NotebookJob(notebook=notebook, out=out, attempt=note, parameters=parameters, timeout_s=120, owner=owner)
    command = [sys.executable, "-m", "tautools.sweep.execute", job.model_dump_json()]
    environment = {**os.environ, "TAUTOOLS_TEST_MARK": str(folder), "JUPYTER_PREFER_ENV_PATH": "1"}
    with (folder / "out.txt").open("wb") as out:
        return subprocess.Popen(command, env=environment, stdout=out, stderr=out)


def _note(folder: Path) -> CellAttempt:
    note = read_note(folder / "note.json", CellAttempt)
    assert note is not None
    return note


def test_a_notebook_that_runs_to_its_end_exits_with_0(tmp_path: Path) -> None:
    notebook = _notebook(tmp_path / "n.ipynb", "print('the word is', word)\nprint('and that is all')")
    assert _start(tmp_path, notebook, word="mouse").wait(timeout=120) == 0
    note = _note(tmp_path)
    assert (note.exit_code, note.cause, note.running) == (0, "", False)
    assert "the word is mouse" in (tmp_path / "out.txt").read_text()
    executed = json.loads((tmp_path / "{out}.ipynb").read_text())
    (output,) = executed["cells"][-1]["outputs"]
    assert "".join(output["text"]) == "the word is mouse\nand that is all\n", "prints are folded into one output"
    assert processes_of(tmp_path) == []


def test_an_error_in_a_cell_is_the_cause_in_its_own_words(tmp_path: Path) -> None:
    notebook = _notebook(tmp_path / "n.ipynb", "raise ValueError('no milk')", "print('never')")
    assert _start(tmp_path, notebook).wait(timeout=120) == 1
    assert _note(tmp_path).cause == "ValueError: no milk"
    assert "never" not in (tmp_path / "out.txt").read_text()


def test_a_kernel_that_dies_is_reported(tmp_path: Path) -> None:
    notebook = _notebook(tmp_path / "n.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert _start(tmp_path, notebook).wait(timeout=120) == 1
    assert "kernel died" in _note(tmp_path).cause


def test_a_parameter_that_the_notebook_does_not_have_ends_it_before_a_kernel_starts(tmp_path: Path) -> None:
    notebook = _notebook(tmp_path / "n.ipynb", "print('ran')")
    assert _start(tmp_path, notebook, wrod="mouse").wait(timeout=120) == 2
    assert "no parameter `wrod`" in _note(tmp_path).cause
    assert not (tmp_path / "{out}.ipynb").exists()


def test_a_term_signal_interrupts_the_cell_and_leaves_no_process(tmp_path: Path) -> None:
    process = _start(tmp_path, _notebook(tmp_path / "n.ipynb", SLEEPER))
    wait_until(lambda: "at work" in (tmp_path / "out.txt").read_text())
    assert _note(tmp_path).running
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == STOPPED
    assert "tidied up" in (tmp_path / "out.txt").read_text()
    assert (_note(tmp_path).exit_code, _note(tmp_path).running) == (STOPPED, False)
    statuses = [cell["metadata"]["papermill"]["status"] for cell in _cells(tmp_path)]
    assert "failed" in statuses, "the saved notebook does not claim to be complete"
    wait_until(lambda: processes_of(tmp_path) == [], timeout_s=10)


def test_a_signal_before_any_cell_runs_ends_it_too(tmp_path: Path) -> None:
    process = _start(tmp_path, _notebook(tmp_path / "n.ipynb", SLEEPER))
    wait_until((tmp_path / "note.json").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) in {STOPPED, -signal.SIGTERM}
    wait_until(lambda: processes_of(tmp_path) == [], timeout_s=10)
    assert not _note(tmp_path).running


def test_it_ends_when_the_process_that_wanted_it_is_gone(tmp_path: Path) -> None:
    owner = subprocess.Popen(["sleep", "600"])
    born = psutil.Process(owner.pid).create_time()
    process = _start(tmp_path, _notebook(tmp_path / "n.ipynb", SLEEPER), Process(owner.pid, born))
    wait_until(lambda: "at work" in (tmp_path / "out.txt").read_text())
    owner.kill()
    owner.wait()
    assert process.wait(timeout=60) == STOPPED
    wait_until(lambda: processes_of(tmp_path) == [], timeout_s=10)


def _cells(folder: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads((folder / "{out}.ipynb").read_text())["cells"]
    return [cell for cell in cells if "papermill" in cell["metadata"]]
