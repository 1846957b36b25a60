"""Errors told at a terminal, and the exit codes that programs read."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

import click

from tautools.errors import BenchError, ParamsError, TautoolsError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_FAILED",
    "EXIT_FINE",
    "EXIT_INTERRUPTED",
    "EXIT_UNFINISHED",
    "exit_code",
    "guard",
    "tell_and_exit",
]

EXIT_FINE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_UNFINISHED = 3
"""Work is still owed: run the same command again."""
EXIT_INTERRUPTED = 130

P = ParamSpec("P")
R = TypeVar("R")


def exit_code(error: TautoolsError) -> int:
    """Return 2 for bad input, 1 for everything else that went wrong."""
    return EXIT_BAD_INPUT if isinstance(error, ParamsError | BenchError) else EXIT_FAILED


def guard(function: Callable[P, R]) -> Callable[P, R]:
    """Tell a `TautoolsError` of a command in words on standard error, and exit with its code.

    An interrupt that the command did not handle exits with 130. Other exceptions are faults of tautools and keep their
    traceback.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TautoolsError as error:
            tell_and_exit(error)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            sys.exit(EXIT_INTERRUPTED)

    return guarded


def tell_and_exit(error: TautoolsError) -> NoReturn:
    """Print an error the way all commands do, then exit."""
    click.echo(click.style("Error: ", fg="red", bold=True, reset=True) + str(error), err=True)
    sys.exit(exit_code(error))
