"""What all verbs share: names that are nearly right, lists, options given twice, groups of help, the default site."""

from __future__ import annotations

import ast
import dis
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from command_line import called, listing

from tautools.cli import cli
from tautools.cli.commands import ListOption, VerbCommand, wants_json
from tautools.cli.options import LayoutRequest
from tautools.params import RUN_OPTIONS
from tautools.params.models import SIMULATE_OPTIONS


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAUTOOLS_WORKSPACE", raising=False)


def _commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(words), command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None, name
        yield from _commands(found, (*words, name))


COMMANDS = dict(_commands(cli))


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_refuses_what_is_given_twice_and_speaks_in_groups(words: str) -> None:
    assert isinstance(COMMANDS[words], VerbCommand)
    assert called(*words.split(), "--help").code == 0


@pytest.mark.parametrize("words", COMMANDS)
def test_a_workspace_that_does_not_exist_is_an_error_in_every_verb(words: str, tmp_path: Path) -> None:
    option = next((each for each in COMMANDS[words].params if "--workspace" in each.opts), None)
    if option is None or option.callback is None:
        assert words.split(maxsplit=1)[0] in {"init", "demo", "doctor", "simulate", "fidelity", "completion", "server"}
        return
    told = called(*words.split(), "--workspace", "wrokspace")
    assert told.code == 2
    assert "wrokspace does not exist" in told.err
    assert listing(tmp_path) == {}


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("run --env retail --env airline --model M", "--env"),
        ("config run --model M --model N --env retail", "--model"),
        ("server ls --workspace . --workspace .", "--workspace"),
        ("sweep run demo --parallel 1 --parallel 2", "--parallel"),
        ("show --task 1 --task 2", "--task"),
    ],
)
def test_an_option_that_takes_one_value_is_given_once(words: str, option: str) -> None:
    told = called(*words.split())
    assert told.code == 2
    assert f"{option} is given 2 times; it takes one value" in told.err


def _flags(*words: str) -> dict[str, object]:
    out = called("config", "run", "--env", "retail", "--model", "M", *words, "--json").out
    return {row["key"]: row["value"] for row in json.loads(out)["values"]}


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["--task-ids", "0-3,7"], ["0", "1", "2", "3", "7"]),
        (["--task-ids", "0", "2", "1"], ["0", "2", "1"]),
        (["--task-ids", "3", "--task-ids", "5,3"], ["3", "5"]),
        (["--task-ids", "[mobile]a|b-c"], ["[mobile]a|b-c"]),
        (["--set", "tasks.ids=0-2"], ["0", "1", "2"]),
    ],
)
def test_a_list_of_ids_is_written_in_one_way(words: list[str], ids: list[str]) -> None:
    assert _flags(*words)["tasks.ids"] == ids


def test_the_words_of_a_list_end_at_the_next_option_and_numbers_leave_names_alone() -> None:
    numbers = ListOption(["--gpu-ids"], numbers=True)
    command = VerbCommand("up", params=[click.Argument(["names"], nargs=-1), numbers, click.Option(["--port"])])
    with command.make_context("up", ["--gpu-ids", "0", "1-2", "sim-small", "--port", "7"]) as context:
        assert context.params == {"names": ("sim-small",), "gpu_ids": [0, 1, 2], "port": "7"}


@pytest.mark.parametrize("cells", ["3-1", ",", "a", "1-"])
def test_a_wrong_list_of_cells_is_bad_input(cells: str) -> None:
    told = called("sweep", "plan", "demo", "--cells", cells)
    assert told.code == 2
    assert "is not of the form 0,1,2 or 0-3" in told.err


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("server star", "`restart`"),
        ("server verfy", "`verify`"),
        ("sweep statsu demo", "`status`"),
        ("config sweeep demo", "`sweep`"),
        ("persona chek", "`check`"),
        ("server up sim-smal", "`sim-small`"),
        ("sweep plan dmo", "`demo`"),
        ("local --agent-model sim-smal", "`sim-small`"),
        ("server plan sim-small --site sol-gadi", "`sol-gaudi`"),
    ],
)
def test_a_name_that_is_nearly_right_is_suggested_in_every_verb(words: str, near: str) -> None:
    told = called(*words.split())
    assert told.code == 2
    assert f"Did you mean {near}?" in told.err


def test_help_of_a_run_has_a_group_for_each_part_and_every_option() -> None:
    text = called("run", "--help").out
    titles = ["Agent:", "Customer", "Judge:", "Tasks:", "Benchmark:", "Pace and limits:", "Options:"]
    assert [title for title in titles if title in text] == titles
    assert [option for option in RUN_OPTIONS.values() if f"  {option} " not in text] == []
    assert "One of fc, act, react" in text
    assert "[default: 8]" in text


@pytest.mark.parametrize("words", ["run", "simulate"])
def test_a_number_without_bounds_shows_none(words: str) -> None:
    assert "None" not in called(words, "--help").out


def test_the_help_of_tautools_and_of_server_has_groups() -> None:
    assert all(f"\n{title}:" in called("--help").out for title in ("Start here", "Servers", "Results", "Expert"))
    assert all(f"\n{title}:" in called("server", "--help").out for title in ("Start and stop", "Look"))


def test_tool_calling_is_another_word_for_fc() -> None:
    assert _flags("--strategy", "tool-calling")["strategy"] == "fc"


def test_the_site_of_a_workspace_is_the_default(tmp_path: Path) -> None:
    folder = tmp_path / "params" / "sites"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "device": "gaudi"}))
    assert "profile gaudi" in called("config", "server", "qwen3-8b").err
    assert "profile none" in called("config", "server", "qwen3-8b", "--site", "local").err


def test_a_start_in_a_workspace_with_a_slurm_site_is_a_job(tmp_path: Path) -> None:
    assert called("init", ".", "--site", "sol-gaudi").code == 0
    told = called("server", "script", "qwen3-8b")
    assert told.code == 0, told.err
    assert "#SBATCH" in told.out
    assert "#SBATCH" in called("server", "up", "qwen3-8b", "--dry-run").out


@pytest.mark.parametrize("words", ["run", "local", "sweep run", "judge", "persona label", "import", "server up",
                                   "server restart", "model fetch", "init"])  # fmt: skip
def test_every_verb_that_spends_or_writes_has_a_dry_run(words: str) -> None:
    assert any("--dry-run" in option.opts for option in COMMANDS[words].params)


@pytest.mark.parametrize("words", COMMANDS)
def test_no_option_is_accepted_and_then_not_used(words: str) -> None:
    """Each value is an argument of the command, or of what its options wrap around it, or is read by its name."""
    command = COMMANDS[words]
    assert command.callback is not None
    known = {*RUN_NAMES, *SIMULATE_OPTIONS, *LayoutRequest.__dataclass_fields__, *_names_in(command.callback)}
    unused = {parameter.name for parameter in command.params if parameter.expose_value} - known
    assert unused == set()
    has_json = any("--json" in parameter.opts for parameter in command.params)
    assert not has_json or _asks_for_json(inspect.unwrap(command.callback))


def _asks_for_json(function: Callable[..., Any]) -> bool:
    """Whether a function, or one of the command line's that it calls, asks whether JSON is wanted."""
    calls = [function.__globals__.get(name) for name in function.__code__.co_names]
    ours = [each for each in calls if inspect.isfunction(each) and each.__module__.startswith("tautools.cli")]
    return wants_json in ours or any(_asks_for_json(each) for each in ours if each is not function)


RUN_NAMES = {name.replace(".", "__") for name in RUN_OPTIONS}
"""All of them are read by `run_flags`, by their names in the table."""


def _names_in(function: Callable[..., Any] | None) -> Iterator[str]:
    """Yield the names that a command's function and its wrappers read or gather, and the words in their modules."""
    while function is not None:
        yield from inspect.getclosurevars(function).nonlocals.get("parts", ())
        yield from (str(each.argval) for each in dis.get_instructions(function) if each.opname.startswith("LOAD_"))
        file = ast.parse(Path(function.__code__.co_filename).read_text())
        constants = (node.value for node in ast.walk(file) if isinstance(node, ast.Constant))
        yield from (value for value in constants if isinstance(value, str) and value.isidentifier())
        function = getattr(function, "__wrapped__", None)
