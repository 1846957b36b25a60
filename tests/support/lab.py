"""A throw-away JupyterLab and a headless Chromium that drives it.

Everything Jupyter keeps is put into a folder of its own; no request leaves the machine (others are counted).
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-prefers-reduced-motion",
]


class Lab:
    """One JupyterLab server on `root`, with its own configuration, settings and workspaces."""

    def __init__(self, root: Path, *, dark: bool = False) -> None:
        self.root = root
        self.token = secrets.token_hex(16)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self._dark = dark

    def __enter__(self) -> Self:
        home = self.root / ".lab"
        self._write_settings(home / "settings" / "@jupyterlab")
        env = {
            **os.environ,
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "run"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "IPYTHONDIR": str(home / "ipython"),
            "JUPYTER_TOKEN": self.token,  # not in argv, which every user of a node can read
        }
        self._log = (self.root / "lab.log").open("w")
        argv = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
        argv += [f"--port={self.port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.root}"]
        argv += ["--LabApp.news_url=", "--LabApp.collaborative=False"]
        self.process = subprocess.Popen(
            argv, cwd=self.root, env=env, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        deadline = time.monotonic() + 90
        while True:
            try:
                self.api("/api/status")
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.root / "lab.log").read_text()[-3000:]) from error
                time.sleep(0.1)
            else:
                return self

    def _write_settings(self, folder: Path) -> None:
        settings: dict[str, dict[str, Any]] = {
            "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
            "docmanager-extension/plugin": {"autosave": False},
            "apputils-extension/themes": {"theme": "JupyterLab Dark" if self._dark else "JupyterLab Light"},
        }
        for name, body in settings.items():
            file = folder / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(body))

    def api(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the server's REST API."""
        request = urllib.request.Request(
            self.base + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def __exit__(self, *_: object) -> None:
        os.kill(self.process.pid, signal.SIGTERM)  # one: the server ends its kernels itself
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        self._log.close()


def write_notebook(path: Path, *sources: str) -> None:
    """Write a notebook of code cells."""
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def open_notebook(page: Page, lab: Lab, name: str) -> str:
    """Open a notebook and return its kernel's id once cells can really be run.

    The status dot says idle before a kernel is attached, and Run then raises a dialog; so the kernel is made over
    REST first, and the page counts as ready when the server sees its websocket.
    """
    made = lab.api("/api/sessions", {"path": name, "name": name, "type": "notebook", "kernel": {"name": "python3"}})
    kernel = str(made["kernel"]["id"])
    page.goto(f"{lab.base}/doc/tree/{name}?token={lab.token}&reset", wait_until="domcontentloaded")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=90_000)
    deadline = time.monotonic() + 90
    while True:
        seen = lab.api(f"/api/kernels/{kernel}")
        if seen["connections"] >= 1 and seen["execution_state"] == "idle":
            break
        if time.monotonic() > deadline:
            raise TimeoutError(f"the kernel was never ready: {seen}")
        page.wait_for_timeout(50)
    page.wait_for_function(
        "() => document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'"
        " && !document.querySelector('.jp-Dialog')",
        timeout=90_000,
    )
    return kernel


def run_all(page: Page) -> None:
    """Run every cell through the menu."""
    page.locator(".jp-Notebook").click(position={"x": 5, "y": 5})
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


@contextmanager
def browser_page(lab: Lab, chromium: str, *, height: int = 900) -> Iterator[Page]:
    """Yield a page that can reach the lab and nothing else; fail if it tried to reach anything else."""
    from playwright.sync_api import sync_playwright

    outside: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": height})

        def refuse(route: Any) -> None:
            outside.append(route.request.url)
            route.abort()

        context.route(lambda url: not url.startswith((lab.base, "data:", "blob:")), refuse)
        page = context.new_page()
        try:
            yield page
        finally:
            context.close()
            browser.close()
    assert outside == []
