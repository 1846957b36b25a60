"""The project's own files agree with each other, and importing stays cheap."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tautools.errors import CallFault, ModelCallError, ParamsError, TautoolsError

HEAVY = {"litellm", "inspect_ai", "inspect_evals", "pandas", "matplotlib", "papermill", "nbformat", "IPython"}


def _project(repo: Path) -> dict[str, object]:
    with (repo / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def test_environment_yml_asks_for_what_pyproject_asks_for(repo: Path) -> None:
    environment = yaml.safe_load((repo / "environment.yml").read_text())
    pip_part = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    project = _project(repo)["project"]
    assert isinstance(project, dict)
    assert pip_part[:-1] == project["dependencies"]
    assert pip_part[-1] == "--editable ."
    assert f"python{project['requires-python']}" in environment["dependencies"]


def test_every_dependency_has_a_floor_and_is_locked(repo: Path) -> None:
    project = _project(repo)
    table = project["project"]
    groups = project["dependency-groups"]
    assert isinstance(table, dict)
    assert isinstance(groups, dict)
    locked = {
        line.split("==")[0].strip()
        for line in (repo / "requirements-dev.lock").read_text().splitlines()
        if "==" in line
    }
    for requirement in [*table["dependencies"], *groups["dev"]]:
        assert ">=" in requirement, requirement
        name = re.split(r"[><=!]", requirement)[0].lower().replace("_", "-")
        assert name in locked, name


@pytest.mark.parametrize(
    "module",
    [
        "tautools",
        "tautools.records",
        "tautools.params",
        "tautools.llm",
        "tautools.bench",
        "tautools.run",
        "tautools.servers",
        "tautools.sweep",
        "tautools.stats",
        "tautools.report",
        "tautools.simulate",
        "tautools.cli",
    ],
)
def test_importing_loads_no_heavy_package(module: str) -> None:
    code = f"import sys, {module}; print(sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_errors_survive_pickling_and_end_with_the_next_step() -> None:
    import pickle

    error = ModelCallError("It broke.", fault=CallFault.OVERLOADED, status=429, evidence="body", next_step="Wait.")
    again = pickle.loads(pickle.dumps(error))
    assert (again.fault, again.status, str(again)) == (CallFault.OVERLOADED, 429, "It broke.\nbody\nNext: Wait.")
    assert isinstance(pickle.loads(pickle.dumps(ParamsError("a", next_step="b"))), TautoolsError)


def test_no_file_names_a_path_of_one_machine(repo: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=repo, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    forbidden = re.compile("/" + r"(?:root|work|tmp/w)/")
    offenders = [
        name
        for name in listed.stdout.splitlines()
        if (repo / name).suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".ipynb", ".sh", ""}
        and (repo / name).is_file()
        and forbidden.search((repo / name).read_text(errors="ignore"))
    ]
    assert offenders == []


def test_documents_name_files_that_exist(repo: Path) -> None:
    pages = [*(repo / "docs").glob("*.md"), repo / "README.md", repo / "CONTRIBUTING.md"]
    named = {
        (page.name, path.rstrip("/.,"))
        for page in pages
        for path in re.findall(
            r"(?<![\w/~.-])(?:tests|tautools|benchmarks|docs|examples|params|notebooks)/[\w./-]+", page.read_text()
        )
    }
    assert len(named) >= 40
    missing = sorted((page, path) for page, path in named if not (repo / path).exists())
    assert [each for each in missing if each != ("servers.md", "params/servers/tiny.yaml")] == []  # its reader's own


def test_links_of_documents_lead_somewhere(repo: Path) -> None:
    pages = [*(repo / "docs").glob("*.md"), repo / "README.md", repo / "CONTRIBUTING.md"]
    for page in pages:
        text = page.read_text()
        anchors = {
            re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-")
            for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("#"):
                assert target[1:] in anchors, f"{page.name}: {target}"
            elif not target.startswith("http"):
                assert (page.parent / target.split("#")[0]).exists(), f"{page.name}: {target}"
