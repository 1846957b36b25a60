"""The tree of errors, at the bottom of the house.

Each error says what is wrong, shows the evidence and ends with what to do next. A fault of the infrastructure is an
error here and never a reward of 0. Errors survive pickling, so they can cross a process boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from tautools.redaction import redacted

if TYPE_CHECKING:
    E = TypeVar("E", bound="TautoolsError")


class TautoolsError(Exception):
    """Anything tautools refuses or fails to do, in a form that a person can act on.

    Parameters
    ----------
    problem : str
        One sentence: what is wrong.
    next_step : str
        What to do next, in the imperative.
    evidence : str, optional
        What was seen: a log's tail, an answer's body, a file and line. Keys are taken out of it, and of the problem.
    """

    def __init__(self, problem: str, *, next_step: str, evidence: str = "") -> None:
        problem = redacted(problem)
        super().__init__(problem)
        self.problem = problem
        self.next_step = next_step
        self.evidence = redacted(evidence)

    def __str__(self) -> str:
        parts = [self.problem, self.evidence, f"Next: {self.next_step}"]
        return "\n".join(part for part in parts if part)

    @property
    def seen(self) -> str:
        """The problem and its evidence, without what to do next."""
        return f"{self.problem} {self.evidence}".strip()

    def __reduce__(self) -> tuple[Any, ...]:
        return Exception.__new__, (type(self), *self.args), self.__dict__


class ParamsError(TautoolsError):
    """What a person wrote (a flag, a YAML file) is wrong."""


class FilesError(TautoolsError):
    """A file or folder cannot be read or written."""


class ShellError(TautoolsError):
    """A process could not be started or stopped."""


class RecordError(TautoolsError):
    """A record on disk is not what it should be."""


class OldWorkspaceError(TautoolsError):
    """The records of a workspace were written by an older tautools, in a form that is not read any more."""


class BenchError(TautoolsError):
    """The benchmark's source is missing, or does not have what was asked of it."""


class NotInstalledError(BenchError):
    """The benchmark was not named by a path and is not installed."""


class PersonaError(TautoolsError):
    """A persona did not reach the customer's model as its setting says: an error of the run and never a result."""


class CallFault(StrEnum):
    """How a model request went wrong. As call records name it."""

    UNREACHABLE = "unreachable"
    TIME_OUT = "time_out"
    OVERLOADED = "overloaded"
    AUTH = "auth"
    NOT_FOUND = "not_found"
    CONTEXT_OVERFLOW = "context_overflow"
    MALFORMED = "malformed"
    BROKEN_STREAM = "broken_stream"
    SERVER_FAULT = "server_fault"
    REFUSED = "refused"  # any other 4xx: the request itself is wrong
    SERVER_GONE = "server_gone"  # it has ended, or another server has its place: waiting does not help

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed a moment later."""
        return self not in {
            CallFault.AUTH,
            CallFault.NOT_FOUND,
            CallFault.CONTEXT_OVERFLOW,
            CallFault.REFUSED,
            CallFault.SERVER_GONE,
        }


class ModelCallError(TautoolsError):
    """One model request went wrong.

    Parameters
    ----------
    problem, next_step, evidence
        As in `TautoolsError`.
    fault : CallFault
        The class of the fault.
    status : int, optional
        HTTP status, when there was one.
    retry_after_s : float, optional
        What the server asked to wait, in seconds.
    """

    def __init__(
        self,
        problem: str,
        *,
        fault: CallFault,
        next_step: str = "See how the servers are with `tautools server ls`; the call is pending again.",
        evidence: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(problem, next_step=next_step, evidence=evidence)
        self.fault = fault
        self.status = status
        self.retry_after_s = retry_after_s
        self.silent_s = 0.0
        """How long the server had said nothing when the call was cancelled [s]; 0 for all other faults."""
        self.in_answer = False
        """Whether the request had been accepted, and the answer broke off with an error."""
        self.part = ""
        """Whose model was asked, where the model client knows: `agent`, `user`, `expert:<name>`."""


class SlurmError(TautoolsError):
    """Slurm refused what was asked of it, or did not answer."""


class ServerError(TautoolsError):
    """A server could not be started, found, verified or stopped."""


class UnknownServerError(ServerError):
    """No server of that name is registered."""


class NotReadyError(ServerError):
    """A server did not become ready."""


class NoServerError(ServerError):
    """No server is there any more: it has ended, was never started, or another one has its place."""


class VerifyError(ServerError):
    """A server answered, and is not the one that was asked for or is not in working order."""


class RunError(TautoolsError):
    """A cell cannot run."""


class HumanUnavailableError(RunError):
    """The person who plays the customer does not answer; the conversation is pending."""


class SweepError(TautoolsError):
    """A sweep cannot run, or some of its cells failed."""


class StatsError(TautoolsError):
    """There is nothing to compute from, or the numbers contradict each other."""


def nearest(word: str, known: Iterable[str], *, most: int = 1) -> list[str]:
    """Return up to `most` of the known words that `word` may have been meant for, best first."""
    import difflib  # only a mistake needs it

    by_plain = {_plain(each): each for each in known}
    return [by_plain[each] for each in difflib.get_close_matches(_plain(word), by_plain, n=most, cutoff=0.6)]


def did_you_mean(word: str, known: Iterable[str], *, most: int = 1) -> str:
    """Return ` Did you mean `x`?`, or nothing when no known word is near."""
    near = nearest(word, known, most=most)
    return f" Did you mean {' or '.join(f'`{each}`' for each in near)}?" if near else ""


def unknown_name(
    error: Callable[..., E], kind: str, name: str, known: Collection[str], *, of: str = "", next_step: str = ""
) -> E:
    """Return the error for a name that does not exist: the nearest that does, and which there are.

    Parameters
    ----------
    error : type
        The error to make.
    kind : str
        What is named, as a person says it: `env`, `server`, `finished task`.
    name : str
        The name, as it was given.
    known : collection of str
        All names that exist.
    of : str
        Whose name or where it would be, with its preposition: `of airline`, `in /data/servers`.
    next_step : str
        What to do; by default to choose one of the known names.
    """
    listed = ", ".join(known) if len(known) <= 50 else f"{len(known)}, the first {next(iter(known))!r}"
    return error(
        f"There is no {kind} {name!r}{of and f' {of}'}.{did_you_mean(name, known)}",
        evidence=f"Known: {listed or 'none'}.",
        next_step=next_step or "Choose one of those.",
    )


def _plain(word: str) -> str:
    return word[:200].lower().replace("-", "_")
