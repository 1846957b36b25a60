"""`import tautools as tt`: the verbs, loaded when used, each documented whole, in Python and in docs/api.md."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import api_page
import pytest
from scripted_server import serve_in_thread
from served_cells import simulated_model

import tautools as tt
import tautools.run
from tautools.errors import ParamsError, ServerError

VERBS = ("doctor", "import_results", "launch", "plan", "report", "run", "servers", "show", "status", "verify")


def test_the_verbs_are_offered_and_stay_verbs_when_the_packages_of_that_name_are_loaded() -> None:
    code = (
        "import sys, tautools as tt\n"
        "assert {*%r} <= {*dir(tt)}\n"
        "assert not [name for name in sys.modules if name.startswith('tautools.')], sys.modules\n"
        "import tautools.run, tautools.servers, tautools.report\n"
        "from tautools.run import run_cell\n"
        "from tautools.report.build import build_reports\n"
        "assert all(callable(getattr(tt, name)) for name in %r)\n"
        "from tautools import run\n"
        "assert run is tt.run and sys.modules['tautools.run'].run_cell is run_cell\n"
    )
    subprocess.run([sys.executable, "-c", code % (VERBS, VERBS)], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'lunch'"):
        _ = tt.lunch  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_documented_whole(name: str, repo: Path) -> None:
    verb = getattr(tt, name)
    doc = inspect.getdoc(verb) or ""
    assert name in api_page.COMMANDS
    parameters = doc.partition("Parameters\n")[2].partition("\n\n\n")[0]
    for parameter in inspect.signature(verb).parameters.values():
        stars = {parameter.VAR_POSITIONAL: r"\*", parameter.VAR_KEYWORD: r"\*\*"}.get(parameter.kind, "")
        assert re.search(rf"^(\w+, )*{stars}{parameter.name}\b", parameters, re.MULTILINE), parameter.name
    assert f"import {name} as {name}" in (repo / "tautools" / "__init__.pyi").read_text(encoding="utf-8")


def test_the_page_is_made_of_the_docstrings(repo: Path) -> None:
    assert (repo / "docs" / "api.md").read_text(encoding="utf-8") == api_page.page(), "make it with api_page.py"


def test_the_example_is_the_whole_use_in_forty_lines(repo: Path, tmp_path: Path) -> None:
    example = repo / "examples" / "hello.py"
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 40
    outs = [
        subprocess.run([sys.executable, example], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert all("2 done, 0 pending" in out for out in outs)
    assert all("2 of 2 passed" in out for out in outs)
    assert "0 model calls" in outs[1]
    assert not list((tmp_path / "hello" / "servers").glob("sim-large.json"))


def test_a_cell_runs_from_options_and_is_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with simulated_model(skill=1) as server:
        options = {"env": "retail", "model": "sim-4B", "base_url": server.base_url, "task_ids": ["0", "1"]}
        both = options | {"user_model": "sim-4B", "user_base_url": server.base_url}
        result = tt.run(workspace=tmp_path, strategy="fc", **both)
    assert (result.done, result.pending) == (2, 0)
    tt.show(workspace=tmp_path)
    assert "2/2" in capsys.readouterr().out
    tt.show(workspace=tmp_path, env="retail", task="1")
    assert "passed" in capsys.readouterr().out
    (tmp_path / "mine").mkdir()
    mine = tt.import_results(
        result.folder / "num_trials-1.json", workspace=tmp_path / "mine", dry_run=True, user_strategy=None
    )
    assert "2 would be imported" in str(mine)


def test_a_sweep_is_planned_and_its_cells_have_a_status(tmp_path: Path) -> None:
    assert len(tt.plan("demo", workspace=tmp_path, cells="0-1", overrides=["tasks.limit=1"]).cells) == 2
    assert [cell.state for cell in tt.status("demo", workspace=tmp_path, cells="0")] == ["pending"]
    assert tt.doctor(tmp_path).site == "local"
    assert repr(tt.servers(tmp_path)) == "No server is registered in this workspace."


def test_an_address_is_verified(tmp_path: Path) -> None:
    with serve_in_thread(lambda _request: "ready", model="m-4B") as server:
        certificate = tt.verify(server.base_url, model="another")
    assert not certificate.passed
    with pytest.raises(ServerError):
        tt.verify("nobody", workspace=tmp_path)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda here: tt.run(workspace=here, envv="retail"), "There is no option 'envv'. Did you mean `env`?"),
        (lambda here: tt.run("demo", workspace=here, env="retail"), "A sweep does not take env."),
        (lambda here: tt.run("dmo", workspace=here), "There is no sweep 'dmo'. Did you mean `demo`?"),
        (lambda here: tt.launch("sim-smal", workspace=here), "There is no server 'sim-smal'. Did you mean"),
        (lambda here: tt.plan("demo", workspace=here / "typo"), "does not exist"),
        (lambda here: tt.run("demo", workspace=here / "typo"), "does not exist"),
        (lambda here: tt.launch("sim-large", workspace=here / "typo"), "does not exist"),
        (lambda here: tt.servers(here / "typo"), "does not exist"),
        (lambda here: tt.show(workspace=here, task="0"), "Nothing has been run here."),
    ],
)
def test_bad_input_ends_before_any_work(tmp_path: Path, call, problem: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(problem)):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []
