"""The command line: quick, helpful, with exit codes that programs can read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import called, listing, typed

from tautools import __version__
from tautools.cli import VERBS, cli
from tautools.cli.commands import guard
from tautools.errors import BenchError, ParamsError, ServerError

HEAVY = {
    "litellm", "inspect_ai", "inspect_evals", "pandas", "matplotlib", "papermill", "nbformat", "nbclient",
    "nbconvert", "IPython", "numpy", "aiohttp", "httpx",
}  # fmt: skip


def _loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\nloaded', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.rpartition("\nloaded ")[2].split())


@pytest.mark.parametrize(
    "module",
    ["tautools", "tautools.params", "tautools.records", "tautools.cli", "tautools.cli.options", "tautools.session"],
)
def test_a_light_module_loads_no_heavy_package(module: str) -> None:
    assert not _loaded(f"import {module}") & HEAVY


def test_help_loads_no_verb_and_no_heavy_package() -> None:
    loaded = _loaded(
        "from tautools.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0"
    )
    assert not loaded & (HEAVY | {"pydantic", "rich"})
    assert not {f"tautools.cli.{verb}" for verb in VERBS} & loaded
    assert not {"tautools.run", "tautools.sweep", "tautools.servers"} & loaded


def test_importing_does_nothing_to_the_folder_or_the_log(tmp_path: Path) -> None:
    code = "import logging, tautools, tautools.cli, tautools.session; print(logging.getLogger().handlers)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert listing(tmp_path) == {}


def test_help_names_every_verb_with_examples_and_exit_codes() -> None:
    result = called("--help")
    assert result.code == 0
    for verb, says in VERBS.items():
        assert f"  {verb}" in result.out
        assert says in result.out
    assert "Examples:" in result.out
    assert "130 interrupted" in result.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_there_and_its_help_has_examples(verb: str) -> None:
    result = called(verb, "--help")
    assert result.code == 0
    assert "Example" in result.out
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    assert command.name == verb


def test_the_version_is_told() -> None:
    assert called("--version").out == f"tautools {__version__}\n"


@pytest.mark.parametrize(
    ("word", "meant"), [("swep", "sweep"), ("Server", "server"), ("reprot", "report"), ("int", "init")]
)
def test_an_unknown_command_names_the_nearest(word: str, meant: str) -> None:
    result = called(word)
    assert result.code == 2
    assert f"There is no command '{word}'. Did you mean" in result.err
    assert f"`{meant}`" in result.err


def test_a_command_like_no_other_is_only_refused() -> None:
    result = called("qqqq")
    assert (result.code, result.out) == (2, "")
    assert "Did you mean" not in result.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ParamsError("bad", next_step="mend"), 2),
        (BenchError("bad", next_step="mend"), 2),
        (ServerError("bad", evidence="seen", next_step="mend"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_words_and_exit_codes(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @guard
    def verb() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        verb()
    assert end.value.code == code
    told = capsys.readouterr()
    assert told.out == ""
    expected = "Interrupted.\n" if code == 130 else f"Error: {error}\n"
    assert told.err == expected
    assert "Traceback" not in told.err


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    @guard
    def verb() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        verb()


def test_python_m_and_the_script_are_the_same(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("tautools")
    by_script = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert by_script.stdout == typed("--help", cwd=tmp_path).out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_tautools(shell: str) -> None:
    result = called("completion", shell)
    assert result.code == 0
    assert f"_TAUTOOLS_COMPLETE={shell}_complete" in result.out


def _completed(line: str, cwd: Path) -> list[str]:
    words = line.split(" ")
    env = {"_TAUTOOLS_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    return [row.partition(",")[2] for row in typed(cwd=cwd, env=env).out.splitlines()]


def test_the_shell_completes_verbs_and_names_of_params(tmp_path: Path) -> None:
    own = tmp_path / "params" / "sweeps" / "my-sweep.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("")
    assert _completed("tautools sw", tmp_path) == ["sweep"]
    assert _completed("tautools config sweep my", tmp_path) == ["my-sweep"]
    assert _completed("tautools init --site sol", tmp_path) == ["sol-gaudi"]


def test_a_bash_accepts_the_script() -> None:
    script = called("completion", "bash").out
    checked = subprocess.run(
        ["bash", "-n"], input=script, text=True, capture_output=True, check=False, env=dict(os.environ)
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    "words",
    [
        ("config", "list", "--workspace", "no/such/folder"),
        ("config", "sweep", "demo", "--workspace", "$NO_SUCH_VARIABLE_HERE"),
        ("config", "sweep", "nope"),
        ("config", "sweep", "demo", "--set", "agent.temprature=1"),
        ("config", "run", "--env", "retail", "--model", "M", "--num-trials", "-1"),
        ("config", "run", "--env", "retail", "--model", "M", "--strategy", "recat"),
        ("config", "run", "--env", "../retail", "--model", "M"),
        ("config", "run", "--env", "retail"),
        ("config", "run", "--env", "retail", "--model", "M", "--num-trials", "many"),
        ("config", "run", "--env", "retail", "--model", "M", "--file", "none.yaml"),
        ("config", "list", "swep"),
        ("init", "w", "--site", "nope"),
        ("doctor", "--site", "nope"),
    ],
)
def test_bad_input_ends_before_any_work_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = called(*words)
    assert result.code == 2
    assert result.out == ""
    assert "Error: " in result.err
    assert "Next: " in result.err or "Usage: " in result.err
    assert listing(tmp_path) == {}
