from __future__ import annotations

from served_cells import cell_at

from tautools.cli.output import cell_progress
from tautools.records import Event
from tautools.run import prepare_cell


def test_the_bar_says_that_a_run_is_stopping_until_it_has_stopped(tmp_path, monkeypatch, capsys):
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "200", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    cell = prepare_cell(cell_at("http://127.0.0.1:9/v1", limit=2), workspace=tmp_path)
    with cell_progress(cell) as show:
        show(Event(kind="interrupted", at=0.0))
        show(Event(kind="done", at=1.0, data={"done": 1, "passed": 1, "scored": 1, "eta_s": 4.0}))
    last = capsys.readouterr().err.rpartition("\r")[2]
    assert "1/2" in last
    assert "stopping: running conversations may finish; interrupt again to end at once" in last
