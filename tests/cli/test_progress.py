"""Progress without a terminal: words are printed again and again, and nothing once the work has ended."""

from __future__ import annotations

import time

import pytest

from tautools.cli import output


@pytest.mark.parametrize("quiet", [False, True])
def test_long_silent_work_says_where_it_is_unless_it_is_to_be_quiet(
    quiet: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "SPOKEN_EVERY_S", 0.02)
    bars = output.progress_bars(quiet=quiet)
    bars.add_task("building the reports")
    heard = ""
    deadline = time.monotonic() + (0.3 if quiet else 20)

    with output.spoken(bars):
        while "building the reports" not in heard and time.monotonic() < deadline:
            time.sleep(0.02)
            heard += capsys.readouterr().err

    assert ("building the reports" in heard) is not quiet
