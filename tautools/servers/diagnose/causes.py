"""Find why a start failed: the first cause in the log, what to do about it, and what can be fixed automatically.

The known causes are the rows of `failures.yaml`. The last traceback is nearly always a wrapper ("Engine core
initialization failed. See root cause above"); the cause is above it, in the lines of another process. So harmless lines
are dropped first, then a known cause is searched from the top, then the engine's own first error, then the last error
of a traceback, and only then is a wrapper reported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from tautools.files import packaged_yaml
from tautools.servers.diagnose.fixes import FIXES
from tautools.servers.vllm.log import LogMessage, read_messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

When = Literal["log", "late", "wrapper", "harmless", "refusal", "lost_connection", "tool_call_text", "empty_text"]
"""Where a row applies. In a log: `log`; `late` only when no row of `log` fits; `wrapper` repeats another process's
failure; `harmless` is none. At the client: `refusal`, the error of a refused request; `lost_connection`, the same when
the server is dead; `tool_call_text` and `empty_text`, an answer without an error."""

_IN_LOGS: tuple[When, ...] = ("harmless", "wrapper", "log", "late")

_ERROR_LINE = re.compile(r"(?:[\w.]+\.)?\w*(?:Error|Exception|Exit|Interrupt)\b")
_ENGINE_PROCESSES = ("EngineCore", "Worker")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """A row of `failures.yaml`, which says what each field is."""

    id: str
    kind: str
    when: list[When]
    pattern: re.Pattern[str]
    """All of its patterns in one: a log has thousands of lines, and one search is faster."""
    cause: str
    fix: str
    auto: Mapping[str, Any] = field(default_factory=dict)
    only_if: Sequence[int | str] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a server failed."""

    kind: str
    """A word for programs, such as `port_in_use`; `unknown` when no row knows the cause."""
    cause: str
    """One sentence, with the log's own words."""
    fix: str
    """What to do, in the imperative."""
    evidence: str = ""
    """The line of the log it was read from."""
    id: str = ""
    """Number in the table of failures; empty when no row fits."""
    also: tuple[str, ...] = ()
    """Further lines of the log that say the same cause."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Params of the server to change, by dotted name, with the numbers that the log gave; None removes one."""


@cache
def known_failures() -> tuple[KnownFailure, ...]:
    """Return the rows of `failures.yaml`, in its order: within one line the first row that fits counts."""
    rows = packaged_yaml(__package__, "failures.yaml")
    return tuple(KnownFailure(pattern=re.compile("|".join(row.pop("patterns"))), **row) for row in rows)


def diagnose_log(
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
        The server's params as a tree, for the automatic fix.
    """
    end, spec = {exit_code, job_state} - {None, ""} or {"unknown"}, spec or {}
    rows = {when: [row for row in _rows(when) if not row.only_if or end & {*row.only_if}] for when in _IN_LOGS}
    messages = [line for line in read_messages(lines) if not _first_match(line.text, rows["harmless"])]
    plain = [line for line in messages if not _first_match(line.text, rows["wrapper"])]
    return (
        _known_cause(plain, rows["log"], spec)
        or _known_cause(plain, rows["late"], spec)
        or _first_error(line for line in plain if line.level == "ERROR" and line.process.startswith(_ENGINE_PROCESSES))
        or _first_error(reversed(plain))
        or _known_cause(messages, rows["wrapper"], spec)
        or _by_exit(messages, exit_code, job_state)
    )


def diagnose_refusal(text: str, *, server_alive: bool | None = None) -> Diagnosis | None:
    """Return what a refused or broken request means; None when no row of the table knows its message.

    A connection that ended means a dead server only when the server does not run any more.
    """
    hit = _first_match(text, [*_rows("refusal"), *(_rows("lost_connection") if server_alive is False else ())])
    return _diagnosis_of(*hit, text.strip(), {}) if hit else None


def diagnose_answer(content: str, *, reasoning: str = "", asked_tools: bool = True) -> Diagnosis | None:
    """Return what is wrong with an answer that carries neither an error nor a tool call; None when nothing is."""
    if asked_tools and (hit := _first_match(content, _rows("tool_call_text"))):
        start = hit[1].start()
        return _diagnosis_of(*hit, content[start : start + 200], {})
    if reasoning.strip() and (hit := _first_match(content.strip(), _rows("empty_text"))):
        return _diagnosis_of(*hit, "", {})
    return None


def _rows(when: When) -> list[KnownFailure]:
    return [row for row in known_failures() if when in row.when]


def _first_match(text: str, rows: Iterable[KnownFailure]) -> tuple[KnownFailure, re.Match[str]] | None:
    return next(((row, match) for row in rows if (match := row.pattern.search(text))), None)


def _known_cause(lines: list[LogMessage], rows: list[KnownFailure], spec: Mapping[str, Any]) -> Diagnosis | None:
    for number, line in enumerate(lines):
        if hit := _first_match(line.text, rows):
            later = (each.text for each in lines[number + 1 :])
            also = [text for text in later if (same := _first_match(text, rows)) and same[0] is hit[0]]
            return _diagnosis_of(*hit, line.text, spec, also[:4])
    return None


def _diagnosis_of(
    row: KnownFailure, match: re.Match[str], evidence: str, spec: Mapping[str, Any], also: Sequence[str] = ()
) -> Diagnosis:
    words = {name.rstrip("2"): value.strip() for name, value in match.groupdict().items() if value}
    cause, fix = (
        _PLACEHOLDER.sub(lambda name: words.get(name[1], "its own length" if name[1] == "most" else "it"), text)
        for text in (row.cause, row.fix)
    )
    changes = {param: new for name, asked in row.auto.items() for param, new in FIXES[name](asked, words, spec).items()}
    return Diagnosis(row.kind, cause, fix, evidence, row.id, tuple(also), changes)


def _first_error(lines: Iterable[LogMessage]) -> Diagnosis | None:
    text = next((line.text for line in lines if _ERROR_LINE.match(line.text)), "")
    fix = "Read the log around this line with `tautools server logs`."
    return Diagnosis("unknown", text, fix, text) if text else None


def _by_exit(lines: list[LogMessage], exit_code: int | None, job_state: str) -> Diagnosis:
    if job_state not in {"", "FAILED", "COMPLETED"}:
        cause = f"Slurm ended its job: {job_state}."
    elif exit_code is not None and exit_code < 0:
        cause = f"It was ended by signal {-exit_code}."
    elif exit_code is not None:
        cause = f"It ended with status {exit_code}."
    else:
        cause = "Its process is gone."
    return Diagnosis("unknown", cause, "Read its log with `tautools server logs`.", lines[-1].text if lines else "")
