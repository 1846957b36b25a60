"""`~` and variables expand where paths and addresses are written, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tautools.errors import ParamsError
from tautools.params import load_server, load_site, load_sweep, resolve_run


def _server(folder: Path, text: str) -> Path:
    path = folder / "s.yaml"
    path.write_text(text)
    return path


def test_home_and_variables_expand_in_a_model_that_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CKPT_DIR", str(tmp_path / "ckpt"))
    (tmp_path / "ckpt" / "one").mkdir(parents=True)
    for written in ("~/ckpt/one", "$CKPT_DIR/one", "${CKPT_DIR}/one", "./ckpt/one"):
        path = _server(tmp_path, f"model: {written}\n")
        assert load_server(path, workspace=tmp_path).model == str(tmp_path / "ckpt" / "one")


def test_a_hub_id_stays_what_it_is(tmp_path: Path) -> None:
    assert load_server(_server(tmp_path, "model: Qwen/Qwen3-8B\n"), workspace=tmp_path).model == "Qwen/Qwen3-8B"


def test_a_path_that_is_not_there_says_so_in_its_full_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = _server(tmp_path, "name: x\nmodel: ~/ckpt/none\n")
    with pytest.raises(ParamsError, match=r"s\.yaml:2:8: the path '~/ckpt/none'") as error:
        load_server(path, workspace=tmp_path)
    assert f"{str(tmp_path / 'ckpt' / 'none')!r}" in error.value.problem
    assert f"{tmp_path} exists" in error.value.evidence


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    path = _server(tmp_path, "model: $NO_SUCH_VARIABLE_HERE/m\n")
    with pytest.raises(ParamsError, match=r"variable NO_SUCH_VARIABLE_HERE in .* is not set") as error:
        load_server(path, workspace=tmp_path)
    assert "export NO_SUCH_VARIABLE_HERE" in error.value.next_step


def test_values_of_env_expand_and_shell_lines_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    path = tmp_path / "site.yaml"
    path.write_text("env: {HF_HOME: $SCRATCH/hf}\nactivate: ['source $SCRATCH/env/bin/activate']\n")
    site = load_site(path, workspace=tmp_path)
    assert site.env == {"HF_HOME": "/scratch/me/hf"}
    assert site.activate == ["source $SCRATCH/env/bin/activate"]


def test_an_address_may_stand_in_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_MODEL_API_BASE", "http://gaudi001:8007/v1")
    flags = {"env": "retail", "agent.model": "m", "user.model": "/weights/u", "user.base_url": "$USER_MODEL_API_BASE"}
    run = resolve_run(flags, workspace=tmp_path).params
    assert run.user.base_url == "http://gaudi001:8007/v1"
    assert run.user.model == "/weights/u"


def test_what_is_sent_to_a_model_is_left_alone(tmp_path: Path) -> None:
    sweep = load_sweep("demo", workspace=tmp_path, overrides=["user.extra_body={path: ~/x, model: $Y}"])
    assert sweep.user.extra_body == {"path": "~/x", "model": "$Y"}


def test_a_relative_path_counts_from_the_workspace_in_a_file_and_from_here_in_a_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, here = tmp_path / "w", tmp_path / "here"
    (workspace / "bench").mkdir(parents=True)
    (here / "bench").mkdir(parents=True)
    monkeypatch.chdir(here)
    path = workspace / "r.yaml"
    path.write_text("env: retail\nagent: sim-small\npath: bench\n")
    assert resolve_run(workspace=workspace, file=path).params.path == str(workspace / "bench")
    given = resolve_run({"path": "bench"}, workspace=workspace, file=path)
    assert given.params.path == str(here / "bench")
