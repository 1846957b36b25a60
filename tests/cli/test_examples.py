"""What the help shows as examples can be typed: every verb and option in them exists."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from tautools.cli import cli


def _commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, name
            yield from _commands(found, (*words, name))


def _examples(text: str) -> list[str]:
    """Return the commands of an epilog: lines that begin with `tautools`, continued lines joined, remarks cut off."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [line.strip() for line in joined.splitlines()]
    return [re.split(r"\s{2,}|\s[|>&]", line)[0] for line in lines if line.startswith("tautools ")]


def _resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"there is no {words[0]}"
        command, words = found, words[1:]
    return command, words


_WORD = re.compile(r"[^\s'\"]+")


EXAMPLES = sorted({line for _, command in _commands(cli) for line in _examples(command.epilog or "")})


def test_the_help_has_examples_to_check() -> None:
    assert len(EXAMPLES) > 20


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_can_be_typed(example: str) -> None:
    command, rest = _resolve(_WORD.findall(example)[1:])
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h"}
    used = {word.split("=")[0] for word in rest if word.startswith("--")}
    assert used <= known, f"{used - known} is no option of {command.name}"
