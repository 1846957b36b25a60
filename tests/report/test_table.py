from __future__ import annotations

from tautools.report.figures import FigureList, ReportFigure
from tautools.report.formatting import Table

TABLE = Table(
    "Scores",
    [{"model": "<b>M</b>", "pass^1": ("0.5", "0.2 to 0.8")}, {"model": "a|b", "pass^1": "–"}],
    ("A note & more.",),
)


def test_text_from_outside_is_escaped_in_html() -> None:
    html = TABLE._repr_html_()
    assert "&lt;b&gt;M&lt;/b&gt;" in html
    assert "<b>M</b>" not in html
    assert "A note &amp; more." in html


def test_html_has_headings_with_scope_a_caption_and_small_lines() -> None:
    html = TABLE._repr_html_()
    assert '<th scope="col" class="word">model</th><th scope="col">pass^1</th>' in html
    assert "<caption>Scores</caption>" in html
    assert "<td>0.5<br><small>0.2 to 0.8</small></td>" in html


def test_text_is_aligned() -> None:
    assert repr(TABLE).splitlines() == [
        "Scores",
        "model               pass^1",
        "--------  ----------------",
        "<b>M</b>  0.5 (0.2 to 0.8)",
        "a|b                      –",
        "A note & more.",
    ]


def test_a_pipe_does_not_break_a_markdown_table() -> None:
    assert TABLE.to_markdown().splitlines() == [
        "### Scores",
        "",
        "| model | pass^1 |",
        "|---|---:|",
        "| <b>M</b> | 0.5 (0.2 to 0.8) |",
        "| a\\|b | – |",
        "",
        "A note & more.",
    ]


def test_a_table_without_rows_says_n_0() -> None:
    empty = Table("Scores", [], TABLE.notes)
    for shown in (repr(empty), empty._repr_html_(), empty.to_markdown()):
        assert "n = 0" in shown


def test_a_picture_of_nothing_has_words_and_no_png() -> None:
    nothing = ReportFigure("scores", "n = 0")
    data, _ = nothing._repr_mimebundle_()
    assert set(data) == {"text/plain"}
    assert "img" not in FigureList([nothing])._repr_html_()
    assert repr(FigureList([])) == "No figure: n = 0."
