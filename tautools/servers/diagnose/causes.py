"""Find why a start failed: the first cause in the log, what to do about it, and what can be fixed automatically.

The last traceback is nearly always a wrapper ("Engine core initialization failed. See root cause above"); the cause is
above it, in the lines of another process. So harmless lines are dropped first, then a known cause is searched from the
top, then the engine's own first error, then the last error of a traceback, and only then is a wrapper reported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tautools.servers.diagnose import CLIENT, FAILURES
from tautools.servers.vllm.log import LogMessage, read_messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tautools.servers.diagnose import KnownFailure


_ERROR_LINE = re.compile(r"^(?:[\w.]+\.)?(?P<kind>\w*(?:Error|Exception|Exit|Interrupt))\b:?\s*(?P<text>.*)$")
_ENGINE_PROCESSES = ("EngineCore", "Worker")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_EVIDENCE_LINES = 4


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a server failed."""

    kind: str
    """A word for programs, such as `port_in_use`; `unknown` when no rule knows the cause."""
    cause: str
    """One sentence, with the log's own words."""
    remedy: str
    """What to do, in the imperative."""
    evidence: str = ""
    """The line of the log it was read from."""
    row: str = ""
    """Number in the table of failures; empty when no row fits."""
    also: tuple[str, ...] = ()
    """Further lines of the log that say the same cause."""
    fix: Mapping[str, Any] = field(default_factory=dict)
    """Params of the server to change, by dotted name, with the numbers that the log gave; None removes one."""


def diagnose(
    lines: Sequence[str],
    *,
    exit_code: int | None = None,
    job_state: str = "",
    spec: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Return the first cause that a failed server's log shows.

    Parameters
    ----------
    lines : sequence of str
        The log, output and errors, each in its own order.
    exit_code : int, optional
        Exit status of the process; negative is the signal that ended it.
    job_state : str
        State of its Slurm job, such as `OUT_OF_MEMORY`; empty when it was none or is not known.
    spec : mapping, optional
        The server's params as a tree, for the fix.
    """
    told = read_messages(lines)
    rows = [row for row in FAILURES if row.evidence is None or row.evidence.holds(exit_code, job_state)]
    told = [line for line in told if not _first_match(line, rows, "harmless")]
    plain = [line for line in told if not _first_match(line, rows, "wrapper")]
    spec = spec or {}
    return (
        _known_cause(plain, rows, "cause", spec)
        or _known_cause(plain, rows, "late", spec)
        or _first_error(line for line in plain if line.level == "ERROR" and line.process.startswith(_ENGINE_PROCESSES))
        or _first_error(reversed(plain))
        or _known_cause(told, rows, "wrapper", spec)
        or _by_exit(told, exit_code, job_state)
    )


def diagnose_refusal(text: str, *, server_alive: bool | None = None) -> Diagnosis | None:
    """Return what a refused or broken request means; None when no row of the table knows it.

    Parameters
    ----------
    text : str
        The error's message, as the client got it.
    server_alive : bool, optional
        Whether the server still runs; a connection that ended means a dead server only when it does not.
    """
    rows = [row for row in CLIENT if row.row in {"C1", "C2", "C6", "C7"} or (row.row == "C3" and server_alive is False)]
    rows += [row for row in FAILURES if row.kind == "no_tool_parser"]
    for row in rows:
        if found := row.pattern.search(text):
            return _diagnosis_of(row, found, text.strip(), {})
    return None


def diagnose_answer(
    content: str, *, reasoning: str = "", tool_calls: int = 0, asked_tools: bool = True
) -> Diagnosis | None:
    """Return what is wrong with an answer that carries no error; None when nothing is.

    Parameters
    ----------
    content, reasoning : str
        The answer's text and its thinking.
    tool_calls : int
        Parsed tool calls of the answer.
    asked_tools : bool
        Whether the request offered tools.
    """
    markup, silent = (next(row for row in CLIENT if row.row == number) for number in ("C4", "C5"))
    if asked_tools and not tool_calls and (found := markup.pattern.search(content)):
        return _diagnosis_of(markup, found, content[found.start() : found.start() + 200], {})
    if not tool_calls and reasoning.strip() and (found := silent.pattern.search(content.strip())):
        return _diagnosis_of(silent, found, "", {})
    return None


def _first_match(
    line: LogMessage, rows: Iterable[KnownFailure], part: str
) -> tuple[KnownFailure, re.Match[str]] | None:
    """Return the first row of that part that fits the line."""
    for row in rows:
        if row.part == part and (found := row.pattern.search(line.text)):
            return row, found
    return None


def _known_cause(
    lines: list[LogMessage], rows: list[KnownFailure], part: str, spec: Mapping[str, Any]
) -> Diagnosis | None:
    for number, line in enumerate(lines):
        if hit := _first_match(line, rows, part):
            row, found = hit
            also = [
                each.text for each in lines[number + 1 :] if (same := _first_match(each, rows, part)) and same[0] is row
            ]
            return _diagnosis_of(row, found, line.text, spec, also[:_EVIDENCE_LINES])
    return None


def _diagnosis_of(
    row: KnownFailure, found: re.Match[str], evidence: str, spec: Mapping[str, Any], also: Sequence[str] = ()
) -> Diagnosis:
    # A row with two wordings numbers the second one's words: `what2` is `what`.
    captured = {name.rstrip("2"): value.strip() for name, value in found.groupdict().items() if value}
    fix = dict(row.fix(captured, spec)) if row.fix is not None else {}
    cause, remedy = _fill_in(row.cause, captured), _fill_in(row.remedy, captured)
    return Diagnosis(row.kind, cause, remedy, evidence, row.row, tuple(also), fix)


def _fill_in(text: str, captured: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda word: captured.get(word[1], "its own length" if word[1] == "most" else "it"), text)


def _first_error(lines: Iterable[LogMessage]) -> Diagnosis | None:
    for line in lines:
        if _ERROR_LINE.match(line.text):
            return Diagnosis(
                "unknown", line.text, "Read the log around this line with `tautools server logs`.", line.text
            )
    return None


def _by_exit(lines: list[LogMessage], exit_code: int | None, job_state: str) -> Diagnosis:
    last = lines[-1].text if lines else ""
    if job_state not in {"", "FAILED", "COMPLETED"}:
        cause = f"Slurm ended its job: {job_state}."
    elif exit_code is not None and exit_code < 0:
        cause = f"It was ended by signal {-exit_code}."
    elif exit_code is not None:
        cause = f"It ended with status {exit_code}."
    else:
        cause = "Its process is gone."
    return Diagnosis("unknown", cause, "Read its log with `tautools server logs`.", last)
