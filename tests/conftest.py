"""What all tests share: a clean environment, and loud words about system parts that are missing."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import real_slurm

collect_ignore = ["support"]
"""Among it is a benchmark whose tasks lie in files named like tests."""

PERSONAL = {
    "OPENAI_API_BASE",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "TAUTOOLS_TAU2_BENCH_PATH",  # tests that want a checkout have read it by then
    "TAUTOOLS_TAU2_BENCH_PYTHON",
    "TAUTOOLS_TAU_BENCH_PATH",
    "TAUTOOLS_WORKSPACE",
    "VLLM_API_KEY",
    "VLLM_PORT",
}
"""Variables of the person who runs the tests."""
SYSTEM_PARTS = {
    "chromium": "Chromium, for the panels in a real browser (Debian: apt install chromium fonts-dejavu-core)",
    "slurm": "a real Slurm, started by root (Debian: apt install slurm-wlm munge slurmdbd mariadb-server)",
    "realmodel": "a real small model (examples/real_model/smollm2.py makes it; name it with TAUTOOLS_TEST_MODEL)",
    "vllm": "a real vLLM on the CPU (docs/servers.md has the recipe; name it with TAUTOOLS_TEST_VLLM)",
}


def _find(part: str) -> str | None:
    if part in {"realmodel", "vllm"}:
        return os.environ.get("TAUTOOLS_TEST_MODEL" if part == "realmodel" else "TAUTOOLS_TEST_VLLM")
    if part == "slurm":
        return None if real_slurm.missing() else str(real_slurm.CONF)
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def _require(part: str) -> str:
    """Return the path of a system part; skip the test without it, or fail where everything must be there."""
    found = _find(part)
    if found:
        return found
    demanded = os.environ.get("TAUTOOLS_REQUIRE_SYSTEM", "")
    if demanded == "1" and part not in {"realmodel", "vllm"}:
        pytest.fail(f"{part} is missing and TAUTOOLS_REQUIRE_SYSTEM forbids to skip.")
    pytest.skip(f"needs {SYSTEM_PARTS[part]}")


def pytest_configure() -> None:
    """Take SIGINT back: whatever starts in the background inherits that it is ignored, and so would our processes."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium."""
    return _require("chromium")


@pytest.fixture(scope="session")
def real_model() -> Path:
    """Folder of a real small model."""
    return Path(_require("realmodel"))


@pytest.fixture(scope="session")
def vllm_command() -> str:
    """Path of a real `vllm` command."""
    return _require("vllm")


@pytest.fixture(scope="session")
def slurm() -> Iterator[Path]:
    """A real Slurm that answers, by its slurm.conf; one that runs already is used and left running."""
    _require("slurm")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("SLURM", "SBATCH", "SRUN"))]:
            patch.delenv(name)
        with real_slurm.used():
            patch.setenv("SLURM_CONF", str(real_slurm.start(for_tests=True)))
            yield real_slurm.CONF


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop a Slurm that was started for tests, when all workers are done and no other run of tests uses it."""
    if not _is_worker(session.config):
        real_slurm.stop_unused()


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep all tests of the one Slurm on one worker: they share its nodes."""
    for item in items:
        if "slurm" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("slurm"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run when the groups are not kept, by a pytest that pytest-xdist does not know: no failure by chance."""
    if not (_is_worker(session.config) and session.config.getvalue("loadgroup")):
        return
    lost = [item.nodeid for item in session.items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
    if lost:
        pytest.exit(f"pytest-xdist does not keep the groups of {len(lost)} tests, such as {lost[0]}.", returncode=4)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, no workspace and no key of the person who runs the tests reaches a test."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in PERSONAL:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")


@pytest.fixture(scope="session")
def repo() -> Path:
    """Root of the repository."""
    return Path(__file__).parents[1]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was not tested, and what to install for it."""
    reasons = {
        str(report.longrepr[2])
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    }
    parts = [text for text in SYSTEM_PARTS.values() if any(text in reason for reason in reasons)]
    if parts:
        terminalreporter.section("NOT TESTED: system parts are missing", sep="!", red=True, bold=True)
        for text in parts:
            terminalreporter.write_line(f"  * {text}")
