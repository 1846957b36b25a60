"""What a person writes reaches neither a shell nor a path; a secret reaches no command line."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import called
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from serving import FAKE_VLLM, simulated

from tautools.errors import ParamsError, TautoolsError
from tautools.files import expand_home
from tautools.params import find_params, load_server
from tautools.params.models import ServerParams, SiteParams, SweepParams
from tautools.run import model_slug
from tautools.servers import Registry, State, launch
from tautools.servers.model_cache import ModelFacts, model_facts
from tautools.servers.vllm.command import server_argv
from tautools.shell import run_command

PIECES = ["$(touch X)", "`touch X`", "; touch X;", "|", "&", "'", '"', "\\", "\n", "\r", " ", "..", "/", "~", "*", "-",
          "é", "${HOME}", "a", "0", "\t", "#", "%j", "=", ">X", "--flag"]  # fmt: skip
hostile = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)
NASTY = "x\"; touch X; '$(touch X)' `touch X` ../..\n#SBATCH --account=other"

_ECHO = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]


@settings(max_examples=25, deadline=None)
@given(model=hostile, served=hostile, dtype=hostile, parser=hostile, value=hostile, template=hostile)
def test_every_value_of_a_server_file_is_one_word_of_the_command_and_reaches_the_process_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, **given_: str
) -> None:
    folder = tmp_path_factory.mktemp("nothing-is-made-here")
    params = ServerParams.model_validate(
        {
            "name": "s",
            "model": given_["model"],
            "served_model_name": given_["served"],
            "serve_command": _ECHO,
            "vllm": {
                "dtype": given_["dtype"],
                "tool_call_parser": given_["parser"],
                "chat_template": given_["template"],
                "chat_template_kwargs": {"said": given_["value"]},
                "args": {"some_flag": given_["value"]},
            },
        }
    )
    try:
        argv = server_argv(params, SiteParams(name="local"), port=8007, alias="launch-1")
    except ParamsError:
        assert given_["model"].startswith("-")
        return
    done = run_command(argv, timeout_s=30, cwd=folder)

    words = json.loads(done.stdout)
    assert words == argv[len(_ECHO) :]
    assert words[0] == given_["model"]
    for flag, value in (("--dtype", "dtype"), ("--tool-call-parser", "parser"), ("--chat-template", "template")):
        assert words[words.index(flag, 1) + 1] == given_[value]
    assert json.loads(words[words.index("--default-chat-template-kwargs") + 1]) == {"said": given_["value"]}
    assert list(folder.iterdir()) == []


def test_a_server_with_a_hostile_model_name_serves_it_and_export_hands_it_on_whole(workspace: Path) -> None:
    server = launch(simulated(model=NASTY, env={"SAID": NASTY}), workspace=workspace).wait_ready()

    assert server.state().state is State.READY
    assert server.record.pid is not None
    assert NASTY in psutil.Process(server.record.pid).cmdline()
    assert psutil.Process(server.record.pid).environ()["SAID"] == NASTY
    assert called("server", "ls", "--workspace", str(workspace)).code == 0
    for options in (("--user", "sim"), ("--agent", "sim", "--show-keys")):
        lines = called("server", "export", *options, "--workspace", str(workspace)).out
        name = "USER_MODEL" if "--user" in options else "AGENT_MODEL"
        script = f'{lines}\nprintf %s "${name}"'
        done = subprocess.run(["sh", "-c", script], cwd=workspace, capture_output=True, text=True, check=True)
        assert done.stdout == NASTY
    assert not list(workspace.rglob("X"))


@given(hostile)
def test_a_hostile_server_name_is_refused_and_leads_to_no_file(name: str) -> None:
    try:
        ServerParams(name=name, engine="simulate", model="m")
    except ValidationError:
        pass
    else:
        assert Registry(Path("/w")).launch_file(name, "lease").parent == Path("/w/servers/launches")
        assert Path(name).name == name
    registry = Registry(Path("/nowhere"))
    with pytest.raises(TautoolsError) as refused:
        registry.get(name)
    assert refused.value.next_step


@pytest.mark.parametrize("model", ["~;", "./~;x", "~nobody-here/x", "./~root"])
def test_a_model_named_like_nobodys_home_is_taken_as_it_is_written(tmp_path: Path, model: str) -> None:
    assert model_facts(model, workspace=tmp_path) == ModelFacts()
    assert str(expand_home(model)) == model.removeprefix("./")
    assert str(expand_home("~/x")) == str(Path.home() / "x")


def test_a_launch_under_a_hostile_name_makes_nothing(tmp_path: Path) -> None:
    for name in ("../out", "a/b", "..", ".x", "$(touch X)", "a\nb", "", "-x"):
        with pytest.raises(ParamsError):
            launch(simulated(), workspace=tmp_path / "ws", name=name or " ")
    assert list(tmp_path.iterdir()) == []


@given(hostile)
def test_a_hostile_name_of_a_params_file_opens_nothing_that_is_not_one(name: str) -> None:
    try:
        path = find_params("servers", name, Path("/nowhere"))
    except TautoolsError:
        return
    assert path.suffix in {".yaml", ".yml"}
    assert path.is_file()


@given(st.one_of(hostile, st.text(min_size=1, max_size=40)))
def test_results_of_any_model_lie_in_one_folder_of_their_own(model: str) -> None:
    slug = model_slug(model)

    assert Path("/results/airline/fc", slug).parent == Path("/results/airline/fc")
    assert slug not in {"", ".", ".."}
    assert "\n" not in slug


@given(hostile)
def test_a_sweep_with_a_hostile_name_is_refused(name: str) -> None:
    grid = {"env": ["airline"], "strategy": ["fc"], "agent": ["a"], "num_trials": [1]}
    try:
        sweep = SweepParams.model_validate({"name": name, "grid": grid, "user": "u"})
    except ValidationError:
        return
    assert Path("/runs", sweep.name).parent == Path("/runs")
    assert not set(sweep.name) & set(" \n'\"$`;|&/\\")


@pytest.mark.parametrize(
    "fields",
    [
        {"vllm": {"args": {"hf_token": "hf_secret"}}},
        {"vllm": {"args": {"ssl-keyfile-password": "secret"}}},
        {"vllm": {"args": {"--api-key": "secret"}}},
        {"serve_command": ["vllm", "serve", "--api-key", "secret"]},
        {"serve_command": ["vllm", "serve", "--api-key=secret"]},
        {"serve_command": ["vllm", "serve", "--hf-token=secret"]},
    ],
)
def test_a_secret_in_a_server_file_is_refused_before_anything_starts(workspace: Path, fields: dict[str, Any]) -> None:
    command = {"serve_command": [sys.executable, str(FAKE_VLLM)]}
    params = ServerParams.model_validate({"name": "s", "model": "m"} | command | fields)

    with pytest.raises(ParamsError) as refused:
        launch(params, workspace=workspace)

    assert "secret" not in str(refused.value).replace("a secret", "")
    assert list(workspace.iterdir()) == []


def test_a_key_is_in_no_listing_traceback_or_report(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()
    key, place = server.endpoint().key, ("--workspace", str(workspace))
    told = [called("server", *words, *place).out for words in (("ls", "--json"), ("ls",), ("export",), ("logs", "sim"))]
    server.stop()
    told += [called("doctor", *words, *place).out for words in (("--json",), ("--paste",), ())]
    try:
        server.verify()
    except TautoolsError:
        told.append(traceback.format_exc())

    assert len(key) >= 32
    assert len(told) == 8
    assert all(text and key not in text for text in told)


def test_a_hostile_value_of_a_file_is_reported_and_starts_nothing(workspace: Path) -> None:
    folder = workspace / "params" / "servers"
    folder.mkdir(parents=True)
    (folder / "bad.yaml").write_text(json.dumps({"name": "../../bad", "engine": "simulate", "model": "m"}))

    with pytest.raises(ParamsError):
        load_server("bad", workspace=workspace)
    assert called("server", "up", "bad", "--workspace", str(workspace)).code == 2
    assert [path.name for path in workspace.iterdir()] == ["params"]
