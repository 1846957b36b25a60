"""Every option that a verb accepts is used: none is taken and then ignored."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import tautools
from tautools.cli import cli

CODE = "\n".join(path.read_text(encoding="utf-8") for path in (Path(tautools.__file__).parent / "cli").glob("*.py"))


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


def ignored(callback: Callable[..., Any]) -> set[str]:
    """Return the parameters of a verb's function that its body never reads."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(callback))).body
    assert isinstance(function, ast.FunctionDef)
    arguments = function.args
    named = {each.arg for each in (*arguments.args, *arguments.kwonlyargs)}
    named |= {arguments.kwarg.arg} if arguments.kwarg else set()
    read = {node.id for part in function.body for node in ast.walk(part) if isinstance(node, ast.Name)}
    return named - read


@pytest.mark.parametrize("words", COMMANDS)
def test_no_option_is_accepted_and_ignored(words: str) -> None:
    command = COMMANDS[words]
    callback = inspect.unwrap(command.callback) if command.callback else None
    assert callback is not None
    assert ignored(callback) == set()
    signature = inspect.signature(callback).parameters
    if any(each.kind is each.VAR_KEYWORD for each in signature.values()):
        return  # its options go to `resolve_run`, which makes each a value of the params
    taken = {each.name for each in command.params if each.name and each.expose_value} - set(signature)
    # What is not a parameter of the function itself is made into one by an option's decorator, which names it.
    assert {name for name in taken if f'"{name}"' not in CODE and f"{name}:" not in CODE} == set()


def test_the_rule_finds_an_ignored_option() -> None:
    def verb(used: str, unused: str, **options: Any) -> None:
        print(used, options)

    assert ignored(verb) == {"unused"}
