"""The wheel, installed in an environment of its own and run in an empty folder with a space in its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.wheel, pytest.mark.slow, pytest.mark.xdist_group("wheel")]

SMALL = """
name: demo
grid:
  env: [airline, retail]
  strategy: [act, react, fc]
  agent: [sim-small, sim-large]
  num_trials: [1]
user: sim-user
tasks: {limit: 1}
parallel_settings: 2
"""


def _run(*argv: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(word) for word in argv], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Path:
    """Python of an environment that holds the wheel; its dependencies are those of the running environment."""
    folder = tmp_path_factory.mktemp("wheel of tautools")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=repo)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    _run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    # A .pth line adds the packages there, but not what their own .pth files add: the checkout stays out of sight.
    site = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_installed_wheel_is_what_is_imported_and_it_brings_params_and_notebooks(
    installed: Path, tmp_path: Path, repo: Path
) -> None:
    code = "import json, tautools, tauwidgets; from tautools.params import shipped; "
    code += (
        "print(json.dumps([tautools.__file__, tauwidgets.__file__, str(shipped('params')), str(shipped('notebooks'))]))"
    )
    for path in json.loads(_run(installed, "-c", code, cwd=tmp_path)):
        assert Path(path).exists()
        assert not Path(path).is_relative_to(repo)


def test_the_demo_runs_from_the_wheel_and_a_second_run_calls_no_model(installed: Path, tmp_path: Path) -> None:
    empty = tmp_path / "an empty folder"
    sweeps = empty / "demo" / "params" / "sweeps"
    sweeps.mkdir(parents=True)
    (sweeps / "demo.yaml").write_text(SMALL)
    command = installed.parent / "tautools"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    # nbconvert's page templates are data files of the environment that the dependencies were borrowed from.
    env["JUPYTER_PATH"] = str(Path(sys.prefix) / "share" / "jupyter")
    first = _run(command, "demo", cwd=empty, env=env)
    assert "12 of 12 cells done" in first
    assert "SIMULATED" in first
    (report,) = (empty / "demo" / "reports" / "demo").iterdir()
    assert {"pass_k.html", "latency.html", "report.html", "profile_analysis.json"} <= {p.name for p in report.iterdir()}
    calls = sorted((empty / "demo" / "results").glob("*/*/*/calls/*.jsonl"))
    before = [path.read_bytes() for path in calls]
    again = _run(command, "demo", cwd=empty, env=env)
    assert "no model call was made" in again
    assert [path.read_bytes() for path in sorted((empty / "demo" / "results").glob("*/*/*/calls/*.jsonl"))] == before
