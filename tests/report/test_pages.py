"""`tautools report` as a person runs it, and what it writes."""

from __future__ import annotations

import json
import re
import struct
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fixed_results import write_fixed_results

from tautools.cli.results import report_command
from tautools.report import how_to_open


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Both reports, built once by the command in a workspace with a space in its name."""
    workspace = write_fixed_results(tmp_path_factory.mktemp("my work"))
    done = CliRunner().invoke(report_command, ["--workspace", str(workspace), "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "workspace": str(workspace)}


def _pages(built: dict[str, Any]) -> list[Path]:
    return [Path(path) for path in (built["front"], *built["pages"])]


def test_everything_lies_in_one_folder_of_the_workspace_and_is_there(built: dict[str, Any]) -> None:
    folder = Path(built["folder"])
    assert folder.parent == Path(built["workspace"]).resolve() / "reports" / "all"
    names = {path.name for path in folder.iterdir()}
    assert {"report.html", "pass_k.html", "latency.html", "pass_k.json", "profile_analysis.json"} <= names
    assert Path(built["markdown"]).name == f"experiment_report_{folder.name}.md"
    listed = [*_pages(built), *map(Path, [built["markdown"], *built["data"], *built["notebooks"], *built["figures"]])]
    assert names == {path.name for path in listed}


def test_pages_need_nothing_but_themselves(built: dict[str, Any]) -> None:
    for page in _pages(built):
        text = page.read_text(encoding="utf-8")
        assert "<script" not in text
        assert "http://" not in text.replace("http://127.0.0.1", "")
        assert "https://" not in text
        assert not re.search(r"@import|url\(|<link", text)


def test_every_picture_of_a_page_is_inside_it_and_described(built: dict[str, Any]) -> None:
    shown = 0
    for page in _pages(built):
        for image in re.findall(r"<img\b[^>]*>", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            shown += 1
            assert 'src="data:image/png;base64,' in image
            assert re.search(r'alt="[^"]*n = |alt="[^"]*95 % intervals', image)
    assert shown == len(built["figures"]) == 9


def test_pages_show_results_without_code(built: dict[str, Any]) -> None:
    text = Path(built["pages"][0]).read_text(encoding="utf-8")
    assert "pass_report(" not in text
    assert "input_area" not in text
    assert text.count("<table") == 7
    assert "prefers-color-scheme: dark" in text


def test_each_report_opens_with_the_two_sentences_that_its_json_holds(built: dict[str, Any]) -> None:
    markdown = Path(built["markdown"]).read_text(encoding="utf-8")
    front = unescape(Path(built["front"]).read_text(encoding="utf-8"))
    for data, page in zip(built["data"], built["pages"], strict=True):
        for sentence in json.loads(Path(data).read_text())["summary"]:
            assert f"<p>{sentence}</p>" in unescape(Path(page).read_text(encoding="utf-8"))
            assert f"<p>{sentence}</p>" in front
            assert sentence in markdown


def test_the_markdown_shows_figures_that_lie_beside_it(built: dict[str, Any]) -> None:
    markdown = Path(built["markdown"])
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", markdown.read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(Path(figure).name for figure in built["figures"])
    assert "### pass^k: all of k trials pass" in markdown.read_text(encoding="utf-8")
    assert "### Latency by role and model" in markdown.read_text(encoding="utf-8")


def test_figures_are_png_and_wide_enough_to_read(built: dict[str, Any]) -> None:
    for figure in map(Path, built["figures"]):
        raw = figure.read_bytes()
        assert raw.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", raw[16:24])
        assert width >= 900
        assert height >= 400


def test_executed_notebooks_hold_no_widget_state(built: dict[str, Any]) -> None:
    for notebook in map(Path, built["notebooks"]):
        assert "widgets" not in json.loads(notebook.read_text())["metadata"]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_can_be_read_in_a_browser_in_light_and_dark(built: dict[str, Any], scheme: Any, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for path in _pages(built):
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 1280
            for place in ("body", ".tau-summary p", "h1"):
                assert _contrast(page, place) >= 7, (path.name, place)
            for place in [".tau-notes p", "td small", "th", "td"] if "report" not in path.name else []:
                assert _contrast(page, place) >= 4.5, (path.name, place)
            broken = "[...document.images].filter(image => !image.complete || image.naturalWidth < 300).length"
            assert page.evaluate(broken) == 0
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def _contrast(page: Any, place: str) -> float:
    """WCAG's contrast of an element's text against what lies behind it."""
    found = page.evaluate(
        """place => {
            const element = document.querySelector(place);
            const backs = [];
            for (let each = element; each; each = each.parentElement) {
                backs.push(getComputedStyle(each).backgroundColor);
            }
            const back = backs.find(colour => colour !== 'rgba(0, 0, 0, 0)') || 'rgb(255, 255, 255)';
            return [getComputedStyle(element).color, back].map(text => text.match(/\\d+/g).slice(0, 3).map(Number));
        }""",
        place,
    )
    light, dark = sorted((_luminance(colour) for colour in found), reverse=True)
    return float((light + 0.05) / (dark + 0.05))


def _luminance(colour: list[int]) -> float:
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_workspace_without_results_ends_before_anything_is_made(tmp_path: Path) -> None:
    done = CliRunner().invoke(report_command, ["--workspace", str(tmp_path)])
    assert done.exit_code == 1
    assert f"There are no results under {tmp_path / 'results'}." in done.stderr
    assert "Next: Run a cell (`tautools run --help` shows how) or a sweep" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_sweep_is_bad_input(tmp_path: Path) -> None:
    done = CliRunner().invoke(report_command, ["--workspace", str(tmp_path), "--sweep", "dmeo"])
    assert done.exit_code == 2
    assert "Did you mean `demo`?" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_was_not_run_yet_says_how_to_run_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(report_command, ["--workspace", str(tmp_path), "--sweep", "demo"])
    assert done.exit_code == 1
    assert "No conversation of sweep demo is finished yet." in done.stderr
    assert "Next: Run it with `tautools sweep run demo`." in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_ways_to_open_a_page_are_commands_that_survive_spaces(tmp_path: Path) -> None:
    page = tmp_path / "my work" / "report.html"
    said = how_to_open(page)
    assert page.as_uri() in said
    assert f"--bind 127.0.0.1 --directory '{page.parent}'" in said
    assert re.search(rf"scp -r '\S+@\S+:{re.escape(str(page.parent))}' \.", said)
    assert "ssh -L 8000:127.0.0.1:8000 " in said
    assert "http://127.0.0.1:8000/report.html" in said
