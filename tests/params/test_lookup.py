"""Names are found in the workspace and then among the shipped files; hostile ones lead nowhere."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tautools.errors import ParamsError
from tautools.params import default_site, find_params, list_params, load_all, load_server, shipped, workspace_path
from tautools.params.models import ServerParams


def _own(workspace: Path, name: str, model: str) -> Path:
    path = workspace / "params" / "servers" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"model: {model}\n")
    return path


def test_the_workspaces_own_file_comes_before_the_shipped_one(tmp_path: Path) -> None:
    shipped_model = load_server("sim-small", workspace=tmp_path).model
    _own(tmp_path, "sim-small", "mine")
    assert load_server("sim-small", workspace=tmp_path).model == "mine" != shipped_model


def test_a_path_is_taken_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "elsewhere.yaml"
    path.write_text("model: there\n")
    monkeypatch.chdir(tmp_path)
    assert load_server(path, workspace=tmp_path).model == "there"
    assert load_server("./elsewhere.yaml", workspace=tmp_path).model == "there"
    assert load_server("elsewhere.yaml", workspace=tmp_path).model == "there"


def test_an_unknown_name_lists_what_there_is_and_the_nearest(tmp_path: Path) -> None:
    _own(tmp_path, "my-own", "m")
    with pytest.raises(ParamsError, match="Did you mean `sim-small`") as error:
        load_server("sim_smal", workspace=tmp_path)
    assert "my-own" in error.value.evidence
    assert "sim-user" in error.value.evidence


def test_names_are_listed_once_and_sorted(tmp_path: Path) -> None:
    _own(tmp_path, "sim-small", "m")
    _own(tmp_path, "a-first", "m")
    names = list_params("servers", tmp_path)
    assert names == sorted(set(names))
    assert names[0] == "a-first"


def test_a_file_that_is_no_yaml_is_not_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("model: m\n")
    with pytest.raises(ParamsError, match="not a YAML file"):
        find_params("servers", str(secret), tmp_path)


_PIECES = st.sampled_from([*"ab./\\~$-_ \n\0%é", "..", "/..", "../", ".yaml", "etc", "sim-small", "inside", "outside"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(name=st.lists(_PIECES, max_size=6).map("".join))
@example(name="..")
@example(name="../servers/sim-small")
@example(name="sim-small\n")
@example(name="a\0b")
@example(name="x" * 300)
def test_hostile_names_do_not_lead_out_of_the_params(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text("model: m\n")
    workspace = tmp_path / "w"
    (tmp_path / "w" / "params" / "outside.yaml").parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "w" / "params" / "outside.yaml").write_text("model: m\n")
    _own(workspace, "inside", "m")
    try:
        found = find_params("servers", name, workspace)
    except ParamsError:
        return
    by_path = "/" in name or name.endswith((".yaml", ".yml"))
    homes = {(workspace / "params" / "servers").resolve(), (shipped("params") / "servers").resolve()}
    assert found.is_file()
    assert found.suffix in {".yaml", ".yml"}
    assert by_path or found.resolve().parent in homes


def test_the_workspace_is_the_option_then_the_variable_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert workspace_path() == tmp_path
    monkeypatch.setenv("TAUTOOLS_WORKSPACE", str(tmp_path / "by variable"))
    assert workspace_path() == tmp_path / "by variable"
    assert workspace_path("here") == tmp_path / "here"
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_that_is_not_there_or_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(ParamsError, match="is a file, not a folder"):
        workspace_path(tmp_path / "f")
    with pytest.raises(ParamsError, match="does not exist") as error:
        workspace_path(tmp_path / "g", must_exist=True)
    assert "tautools init" in error.value.next_step


@pytest.mark.parametrize(
    ("stem", "reason", "better"),
    [
        ("Prüfung", "it has 'ü'", "Prufung.yaml"),
        ("my server", "it has ' '", "my-server.yaml"),
        ("größe 4B", "it has 'öß '", "groe-4B.yaml"),
        ("-x", "it begins with a dot or a dash", "x.yaml"),
        ("x" * 120, "it is too long", "x" * 100 + ".yaml"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_with_the_reason_and_a_better_one(
    tmp_path: Path, stem: str, reason: str, better: str
) -> None:
    _own(tmp_path, stem, "m")
    for name in (stem, unicodedata.normalize("NFD", stem)):
        with pytest.raises(ParamsError, match=re.escape(reason)) as error:
            load_server(name, workspace=tmp_path)
        assert error.value.next_step == f"Rename it, for example to {better}."
    assert stem not in list_params("servers", tmp_path)


def test_one_bad_file_does_not_stop_the_rest(tmp_path: Path) -> None:
    _own(tmp_path, "good", "m")
    _own(tmp_path, "bad", "m").write_text("modle: m\n")
    _own(tmp_path, "Über uns", "m")
    good, bad = load_all(ServerParams, tmp_path)
    assert good["good"].model == "m"
    assert "sim-small" in good
    assert list(bad) == ["Über uns", "bad"]
    assert "Did you mean `model`?" in bad["bad"].problem
    assert "it has 'Ü '" in bad["Über uns"].problem


def test_the_default_site_is_the_workspaces_only_one(tmp_path: Path) -> None:
    assert default_site(tmp_path) == "local"
    for name in ("mine", "second"):
        path = tmp_path / "params" / "sites" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("scheduler: none\n")
        assert default_site(tmp_path) == ("mine" if name == "mine" else "local")
