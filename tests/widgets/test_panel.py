"""Panels without a browser: actions answer at once, errors are shown, headless means no thread."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import ipywidgets
import pytest

from tautools.errors import ServerError
from tauwidgets import ServerPanel, SweepBoard
from tauwidgets.panel import Panel, Rendered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


class Counter(Panel):
    """A panel that counts how often it was looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.button = ipywidgets.Button(description="go")

    def controls(self) -> Sequence[Any]:
        return [self.button]

    def snapshot(self) -> int:
        self.looks += 1
        return self.looks

    def render(self, snapshot: int) -> Rendered:
        if snapshot == 3:
            raise RuntimeError("third look fails")
        return Rendered(f"<p>look {snapshot}: {self.notice.text}</p>", f"look {snapshot}")


@pytest.fixture
def panel() -> Iterator[Counter]:
    made = Counter()
    yield made
    made.close()


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.01)


def test_an_action_disables_its_button_runs_once_and_says_what_came_of_it(panel: Counter) -> None:
    go, runs = threading.Event(), []

    def work() -> str:
        runs.append(1)
        go.wait(10)
        return "it is done"

    panel.act("Work", work, panel.button)
    panel.act("Work", work, panel.button)
    assert panel.button.disabled
    assert panel.notice.text == "Work …"
    go.set()
    _until(lambda: not panel.button.disabled)
    assert (panel.notice.text, panel.notice.error, len(runs)) == ("it is done", False, 1)


@pytest.mark.parametrize(
    ("error", "shown"),
    [(ServerError("It broke.", next_step="Mend it."), "It broke.\nNext: Mend it."), (KeyError("x"), "KeyError")],
)
def test_an_error_of_an_action_is_shown_in_the_panel(panel: Counter, error: Exception, shown: str) -> None:
    def work() -> str:
        raise error

    panel.act("Work", work, panel.button)
    _until(lambda: panel.notice.error)
    assert shown in panel.notice.text
    _until(lambda: not panel.button.disabled)


def test_the_writer_lives_on_after_a_render_that_fails_and_ends_when_closed(panel: Counter) -> None:
    panel.widget()
    panel.widget()
    assert [thread.name for thread in threading.enumerate()].count("Counter") == 1
    _until(lambda: "third look fails" in panel.view.html)
    _until(lambda: "look 4" in panel.view.html)
    beats = panel.view.beat
    assert beats >= 3
    panel.close()
    _until(lambda: "Counter" not in [thread.name for thread in threading.enumerate()])


def test_a_frozen_panel_is_plain_html(panel: Counter) -> None:
    assert "look 1" in panel.freeze().data


def test_a_headless_panel_is_a_picture_and_starts_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAUTOOLS_HEADLESS", "1")
    before = threading.active_count()
    bundle = ServerPanel(tmp_path)._repr_mimebundle_()
    board = SweepBoard("demo", tmp_path)._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert "none" in bundle["text/plain"]
    assert "0 of 8 cells done" in board["text/plain"]
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


def test_on_a_page_the_bundle_has_the_live_view_and_the_fallbacks(tmp_path: Path) -> None:
    panel = ServerPanel(tmp_path)
    try:
        bundle = panel._repr_mimebundle_()
        assert {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"} <= set(bundle)
    finally:
        panel.close()


def test_a_sweep_that_cannot_be_shown_is_shown_as_an_error_with_the_next_step(tmp_path: Path) -> None:
    board = SweepBoard("sol-gaudi-120", tmp_path)
    try:
        bundle = board._repr_mimebundle_()
        assert "tau-bench is not here." in bundle["text/plain"]
        assert "Next: " in bundle["text/html"]
        assert "tau-bench is not here" in board.view.html
        assert "tau-bench is not here" in board.freeze().data
    finally:
        board.close()
