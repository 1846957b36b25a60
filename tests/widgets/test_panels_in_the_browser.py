"""A person with a mouse, in a real JupyterLab in a real Chromium."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lab import Lab, browser_page, open_notebook, run_all, write_notebook
from playwright.sync_api import expect
from served_cells import simulated_model
from v1_original import STAND_IN

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("browser")]

SHOTS = os.environ.get("TAUTOOLS_SCREENSHOTS")
"""A folder to keep screenshots in, for people who want to look."""

STDERR = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']"

SMALL_SWEEP = """
name: small
grid:
  env: [airline]
  strategy: [fc, act]
  agent: [sim-small]
  num_trials: [1]
user: sim-user
tasks: {limit: 2}
"""


def _shot(page: object, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))  # type: ignore[attr-defined]


def test_a_person_launches_a_simulated_server_sees_it_verified_and_stops_it(tmp_path: Path, chromium: str) -> None:
    (tmp_path / "work").mkdir()
    write_notebook(tmp_path / "servers.ipynb", "from tauwidgets import ServerPanel\nServerPanel('work')")
    with Lab(tmp_path) as lab, browser_page(lab, chromium) as page:
        open_notebook(page, lab, "servers.ipynb")
        run_all(page)
        page.locator(".tau-launch").wait_for(timeout=60_000)
        expect(page.locator(".tau-live")).to_contain_text("No server in this workspace")
        page.locator(".tau-server-choice select").select_option("sim-small")
        page.locator(".tau-launch").click()
        state = page.locator("[data-server='sim-small']")
        expect(state).to_contain_text("READY", timeout=60_000)
        expect(page.locator(".tau-message")).to_contain_text("sim-small is verified", timeout=60_000)
        expect(page.locator(".tau-checks")).to_contain_text("passed")
        expect(page.locator(".tau-checks")).not_to_contain_text("failed")
        expect(page.locator(".tau-servers")).to_contain_text("SIMULATED")
        expect(page.locator(".tau-log")).not_to_be_empty()
        expect(page.locator(".tau-code")).to_contain_text("open_server('sim-small', workspace=Path('work'))")
        _shot(page, "server-panel")
        page.locator(".tau-stop").click()
        expect(page.locator(".tau-stop")).to_contain_text("Really stop?")
        page.locator(".tau-stop").click()
        expect(page.locator(".tau-live")).to_contain_text("No server in this workspace", timeout=60_000)
        assert page.locator(STDERR).count() == 0


def test_a_person_runs_a_cell_from_the_board_and_a_second_button_answers_meanwhile(
    tmp_path: Path, chromium: str
) -> None:
    sweeps = tmp_path / "work" / "params" / "sweeps"
    sweeps.mkdir(parents=True)
    (sweeps / "small.yaml").write_text(SMALL_SWEEP)
    write_notebook(tmp_path / "board.ipynb", "from tauwidgets import SweepBoard\nSweepBoard('small', 'work')")
    with Lab(tmp_path) as lab, browser_page(lab, chromium) as page:
        open_notebook(page, lab, "board.ipynb")
        run_all(page)
        first, second = page.locator("[data-pick='0']"), page.locator("[data-pick='1']")
        first.wait_for(timeout=60_000)
        expect(first).to_have_attribute("data-state", "pending")
        page.locator(".tau-run-picked").click()
        expect(page.locator(".tau-message")).to_contain_text("Pick cells first")
        first.click()
        expect(first).to_have_attribute("aria-pressed", "true")
        page.locator(".tau-run-picked").click()
        expect(page.locator(".tau-live")).to_contain_text("has worked for", timeout=30_000)
        page.locator(".tau-pick-none").click()
        expect(first).to_have_attribute("aria-pressed", "false")
        expect(first).not_to_have_attribute("data-state", "done", timeout=1_000)
        expect(first).to_have_attribute("data-state", "done", timeout=120_000)
        expect(second).to_have_attribute("data-state", "pending")
        expect(page.locator(".tau-live")).to_contain_text("1 of 2 cells done")
        expect(page.locator(".tau-live")).to_contain_text("nothing is running", timeout=60_000)
        assert "\x1b" not in page.locator(".tau-log").inner_text()
        _shot(page, "sweep-board")
        assert page.locator(STDERR).count() == 0


def test_a_panel_of_a_dead_kernel_says_so(tmp_path: Path, chromium: str) -> None:
    write_notebook(tmp_path / "servers.ipynb", "from tauwidgets import ServerPanel\nServerPanel('work')")
    with Lab(tmp_path) as lab, browser_page(lab, chromium) as page:
        kernel = open_notebook(page, lab, "servers.ipynb")
        run_all(page)
        page.locator(".tau-launch").wait_for(timeout=60_000)
        expect(page.locator(".tau-notice")).to_be_hidden()
        lab.api(f"/api/kernels/{kernel}/restart", {})
        expect(page.locator(".tau-notice")).to_be_visible(timeout=20_000)
        expect(page.locator(".tau-stale")).to_have_count(1)


def test_a_person_plays_the_customer_of_a_conversation(tmp_path: Path, chromium: str) -> None:
    with simulated_model(skill=1.0) as server:
        flags = {
            "bench": "tau-bench",
            "path": str(STAND_IN),
            "env": "retail",
            "user_strategy": "human",
            "agent.model": "sim-4B",
            "agent.base_url": server.base_url,
            "tasks.ids": ["0"],
        }
        code = (
            "from pathlib import Path\nfrom tautools.params import resolve_run\nfrom tauwidgets import CustomerPanel\n"
            f"CustomerPanel(resolve_run({flags}, workspace=Path('work')).params, 'work')"
        )
        write_notebook(tmp_path / "customer.ipynb", code)
        with Lab(tmp_path) as lab, browser_page(lab, chromium) as page:
            open_notebook(page, lab, "customer.ipynb")
            run_all(page)
            page.locator(".tau-start").click(timeout=60_000)
            talk, line = page.locator(".tau-live"), page.locator(".tau-line input")
            expect(talk).to_contain_text("You want to cancel order #T100.", timeout=30_000)
            line.fill("Hello, please cancel #T100.")
            line.press("Enter")
            expect(talk).to_contain_text("May I have your user id", timeout=30_000)
            line.fill("ada@tea.example")
            page.locator(".tau-say").click()
            expect(talk).to_contain_text("Shall I go ahead?", timeout=30_000)
            _shot(page, "customer-panel")
            line.fill("###STOP###")
            line.press("Enter")
            expect(talk).to_contain_text("1 done, 0 pending", timeout=30_000)
            assert page.locator(STDERR).count() == 0
