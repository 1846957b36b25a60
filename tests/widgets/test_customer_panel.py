"""CustomerPanel without a browser: a person plays v1's customer by its line and buttons."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served_cells import simulated_model
from v1_original import STAND_IN

from tautools.errors import ParamsError
from tautools.params import resolve_run
from tautools.run import read_ledger, results_of
from tauwidgets import CustomerPanel


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.01)


def _run(workspace: Path, base_url: str, **more: Any) -> Any:
    flags = {
        "bench": "tau-bench",
        "path": str(STAND_IN),
        "env": "retail",
        "strategy": "fc",
        "user_strategy": "human",
        "agent.model": "sim-4B",
        "agent.base_url": base_url,
        "tasks.ids": ["0"],
    }
    return resolve_run(flags | more, workspace=workspace).params


def _say(panel: CustomerPanel, text: str) -> None:
    panel._line.value = text
    panel._send.click()


def _shown(panel: CustomerPanel) -> str:
    return panel.render(panel.snapshot()).text


def test_a_person_plays_a_conversation_leaves_it_and_resumes_it(tmp_path: Path) -> None:
    with simulated_model(skill=1.0) as server:
        panel = CustomerPanel(_run(tmp_path, server.base_url), tmp_path)
        assert _shown(panel) == "No conversation yet: press Start."
        panel._start.click()
        _until(lambda: "You want to cancel order #T100." in _shown(panel))
        _say(panel, "Cancel <it>.")
        _until(lambda: "Agent: I am happy to help" in _shown(panel))
        assert "Cancel &lt;it&gt;." in panel.render(panel.snapshot()).html
        panel._leave.click()
        _until(lambda: "has left" in _shown(panel) and not panel._start.disabled)
        assert results_of(tmp_path)[0].setting.user.provider == "human"
        assert read_ledger(results_of(tmp_path)[0].path) == {}
        before = panel._question
        panel._start.click()
        _until(lambda: panel._question is not before)
        for told, line in enumerate(("Hello again.", "Ada, ada@tea.example", "yes"), start=1):
            _say(panel, line)
            _until(lambda talked=2 * told: len(panel._messages) == talked)
        _say(panel, "###STOP###")
        _until(lambda: "1 done, 0 pending" in _shown(panel))
        (row,) = read_ledger(results_of(tmp_path)[0].path).values()
    assert (row.outcome, row.user_calls) == ("passed", 0)


def test_a_run_whose_customer_is_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="played by llm, not by a person"):
        CustomerPanel(_run(tmp_path, "http://127.0.0.1:9/v1", user_strategy="llm"), tmp_path)
