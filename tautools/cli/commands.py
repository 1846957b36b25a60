"""What all commands share: exit codes, errors in words, option groups, lists of ids, and names that are nearly right.

Nothing heavy is imported here, so that `tautools --help` stays quick.
"""

import functools
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name
from typing import Any, cast

import click

from tautools.errors import BenchError, ParamsError, TautoolsError, UnknownServerError, did_you_mean

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_UNFINISHED = 3  # some work is still pending: run the same command again
EXIT_INTERRUPTED = 130

_BAD_INPUT = (ParamsError, BenchError, UnknownServerError)


def guard(function: Callable[..., Any]) -> Callable[..., Any]:
    """Print a `TautoolsError` of a command on standard error, and exit with 2 for bad input, 1 for all else.

    An interrupt that the command did not handle exits with 130. Other exceptions are faults of tautools and keep their
    traceback.
    """

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TautoolsError as error:
            click.echo(click.style("Error: ", fg="red", bold=True, reset=True) + str(error), err=True)
            sys.exit(EXIT_BAD_INPUT if isinstance(error, _BAD_INPUT) else EXIT_FAILED)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            sys.exit(EXIT_INTERRUPTED)

    return guarded


def refuse_if(found: object, problem: str) -> None:
    """Raise the problem, as wrong usage, when it is the case."""
    if found:
        raise click.UsageError(problem)


def exit_if(found: object, code: int = EXIT_FAILED) -> None:
    """End the command with an exit code, when it is the case."""
    if found:
        raise SystemExit(code)


def wants_json() -> bool:
    """Whether the command that runs was given `--json`: its option `json_option` leaves it in click's context."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get("json"))


class GroupedOption(click.Option):
    """An option that `--help` lists under the title of its group."""

    def __init__(self, *args: Any, group: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class ListOption(GroupedOption):
    """An option with a list for a value: `0-3,7`, `0 1 2`, or given several times; the command gets the list or None.

    A range of whole numbers stands for all of them. With `numbers` nothing but whole numbers is accepted.
    """

    def __init__(self, *args: Any, numbers: bool = False, **kwargs: Any) -> None:
        kwargs.setdefault("metavar", "0-3,7" if numbers else "LIST")
        super().__init__(*args, multiple=True, callback=self._read, **kwargs)
        self.numbers = numbers

    def _read(self, ctx: click.Context, _param: click.Parameter, texts: Sequence[str]) -> list[Any] | None:
        if not texts:
            return None
        from tautools.params.models import split_ids  # pydantic comes with it; `--help` does without

        try:
            values = split_ids(texts)
            return [int(value) for value in values] if self.numbers else values
        except ValueError as error:
            reason = f"{', '.join(texts)!r} is not of the form 0,1,2 or 0-3" if self.numbers else str(error)
            raise click.BadParameter(reason, ctx, self) from None

    def takes(self, word: str) -> bool:
        """Whether a word after the option's value belongs to the list."""
        return not word.startswith("-") if not self.numbers else bool(re.fullmatch(r"[0-9,-]*[0-9,]", word))


class GuardedCommand(click.Command):
    """A command whose errors are words with an exit code, while it is parsed and while it runs."""

    @guard
    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Parse and run, as click does."""
        return super().main(*args, **kwargs)

    @guard
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command's function, as click does."""
        return super().invoke(ctx)


class VerbCommand(GuardedCommand):
    """A command whose help has groups, and that takes no option twice unless it is a list."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join the words of lists, refuse an option that is given twice, then parse as click does."""
        args = self._with_lists_joined(args)
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
            for parameter, times in Counter(order).items():
                if isinstance(parameter, click.Option) and times > 1 and not (parameter.multiple or parameter.is_flag):
                    raise click.UsageError(f"{parameter.opts[0]} is given {times} times; it takes one value", ctx)
        return super().parse_args(ctx, args)

    def _with_lists_joined(self, args: Sequence[str]) -> list[str]:
        """Return the words with `--gpu-ids 0 1 2` written as `--gpu-ids 0,1,2`."""
        lists = {name: option for option in self.params if isinstance(option, ListOption) for name in option.opts}
        joined: list[str] = []
        current: ListOption | None = None
        for word in args:
            if current is not None and joined[-1] in lists:
                joined.append(word)
            elif current is not None and current.takes(word):
                joined.append(f"{joined.pop()},{word}")
            else:
                current = lists.get(word)
                joined.append(word)
        return joined

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options that belong to no group last, as click does, and the others under their titles."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, "group", "") or "Options", []).append(record)
        for title in sorted(groups, key=lambda title: title == "Options"):
            with formatter.section(title):
                formatter.write_dl(groups[title])


def examples_text(*examples: str, notes: str = "") -> str:
    """Return what a command's help ends with: examples, and notes such as the exit codes below them."""
    return "\n  ".join(["\b\nExamples:", *examples]) + (f"\n\n\b\n{notes}" if notes else "")


def command(*examples: str, name: str | None = None, notes: str = "") -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a command, named as the function if not otherwise, whose help ends with examples and notes."""
    return click.command(name, cls=VerbCommand, epilog=examples_text(*examples, notes=notes))


class VerbGroup(GuardedCommand, click.Group):
    """A group of commands; a name that it does not know is answered with the nearest ones."""

    command_class = VerbCommand

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; name the nearest ones when there is none."""
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"There is no command {args[0]!r}.{did_you_mean(args[0], known, most=2)}")
        return super().resolve_command(ctx, args)


class LazyGroup(VerbGroup):
    """A group that knows its commands by name, and imports one only when it is called.

    `verbs` has the sections of the help by title: name of a command to what help says of it, and to its
    `module:attribute`. Of a second name for a command help says nothing.
    """

    def __init__(self, *args: Any, verbs: Mapping[str, Mapping[str, tuple[str, str]]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = verbs
        self.verbs = {name: target for section in verbs.values() for name, (_, target) in section.items()}

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the commands in the order of a day's work."""
        return list(self.verbs)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        return cast("click.Command", resolve_name(self.verbs[cmd_name])) if cmd_name in self.verbs else None

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands under their titles, without loading them."""
        width = max(map(len, self.verbs))
        for title, section in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{width}}", text) for name, (text, _) in section.items() if text])
