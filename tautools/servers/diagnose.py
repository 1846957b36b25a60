"""Find why a start failed: the first cause in the log, what to do about it, and what can be fixed automatically.

The known causes are the rows of `failures.yaml`. The last traceback is nearly always a wrapper ("Engine core
initialization failed. See root cause above"); the cause is above it, in the lines of another process. So harmless lines
and those that call themselves a warning or less are dropped first, then a known cause is searched from the top, then
the first error of a log line, then of a traceback, with the exception that caused it; then what ended the server from
outside, and only then is a wrapper reported. What a server said before it came up did not stop it.

An automatic fix makes new values of server params from the log line and the params. One that cannot know a good value
makes none; the advice for a person is always there.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from tautools.errors import nearest
from tautools.files import packaged_yaml
from tautools.llm.answers import call_markup
from tautools.servers.vllm.flags import deprecated_flags, tool_parser_of
from tautools.servers.vllm.log import LogMessage, read_messages

When = Literal[
    "log",
    "late",
    "ended",
    "wrapper",
    "header",
    "harmless",
    "refusal",
    "lost_connection",
    "tool_call_text",
    "empty_text",
]
"""Where a row applies. In a log: `log`; `late` only when no row of `log` fits; `ended`, something outside ended the
server; `wrapper` repeats another process's failure, `header` announces one; `harmless` is none. At the client:
`refusal`, the error of a refused request; `lost_connection`, the same when the server is dead; `tool_call_text` and
`empty_text`, an answer without an error."""

_IN_LOGS: tuple[When, ...] = ("harmless", "header", "wrapper", "ended", "log", "late")

_ERROR_LINE = re.compile(r"[\w.]{0,200}(?:Error|Exception|Exit|Interrupt)(?=:|$|\()|what\(\):|terminate called after")
_PROGRAM_ERROR = re.compile(r"[\w./-]{1,200}: (?:fatal )?(?:error|fatal):|(?:FATAL|Fatal|ERROR)\b", re.ASCII)
_FAILED_LOOKUP = re.compile(r"(?:KeyError|IndexError|AttributeError|StopIteration)\b")
"""Exceptions that are handled all the time; the one raised in their place says more."""
_SERVING, _READY = re.compile(r"Starting vLLM (?:API )?server\b"), "Application startup complete"
NO_FAILURE = "no_failure"
"""Kind of a diagnosis of a log that shows none."""

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
    ready = _ready_at(messages)
    before, after = ([line for line in part if not line.quiet] for part in (messages[:ready], messages[ready:]))
    deaths = [*rows["header"], *(row for row in rows["wrapper"] if row.kind != "job_step_failed")]
    served = bool(ready) and not _known_cause(after, deaths, spec)
    return (
        (_known_cause(after, rows["ended"], spec) if served else None)
        or _cause_in(after, rows, spec)
        or (_cause_in([*before, *after], rows, spec) if _known_cause(before, deaths, spec) else None)
        or _by_exit(messages, exit_code, job_state, came_up=bool(ready))
    )


def _cause_in(
    lines: Sequence[LogMessage], rows: Mapping[When, Sequence[KnownFailure]], spec: Mapping[str, Any]
) -> Diagnosis | None:
    """Return the first cause of these lines: a known one, an error in its own words, its end, or a wrapper."""
    plain = [line for line in lines if not _first_match(line.text, [*rows["wrapper"], *rows["header"], *rows["ended"]])]
    raised = [line for line in plain if _was_raised(line)]
    return (
        _known_cause(lines, rows["log"], spec)
        or _known_cause([line for line in lines if _was_raised(line) or not line.level], rows["late"], spec)
        or _first_error([line for line in raised if line.level], raised)
        or _first_error(raised, raised)
        or _known_cause(lines, rows["late"], spec)
        or _first_error([line for line in plain if line.level or _PROGRAM_ERROR.match(line.text)], raised)
        or _known_cause(lines, rows["ended"], spec)
        or _known_cause(lines, rows["wrapper"], spec)
        or _known_cause(lines, rows["header"], spec)
    )


def _was_raised(line: LogMessage) -> bool:
    return bool(line.chain or _ERROR_LINE.match(line.text))


def _ready_at(lines: Sequence[LogMessage]) -> int:
    """Return where a server that came up began to answer; 0 when none did.

    Output and errors come one behind the other, so the line that opens the API counts before uvicorn's, which is among
    the errors.
    """
    if not any(line.text.startswith(_READY) for line in lines):
        return 0
    opened = [number for number, line in enumerate(lines) if _SERVING.match(line.text)]
    return opened[-1] if opened else max(number for number, line in enumerate(lines) if line.text.startswith(_READY))


def diagnose_refusal(text: str, *, server_alive: bool | None = None) -> Diagnosis | None:
    """Return what a refused or broken request means; None when no row of the table knows its message.

    A connection that ended means a dead server only when the server does not run any more.
    """
    hit = _first_match(text, [*_rows("refusal"), *(_rows("lost_connection") if server_alive is False else ())])
    return _diagnosis_of(*hit, text.strip(), {}) if hit else None


def diagnose_answer(content: str, *, reasoning: str = "", asked_tools: bool = True) -> Diagnosis | None:
    """Return what is wrong with an answer that carries neither an error nor a tool call; None when nothing is."""
    if asked_tools:
        (row,), parser = _rows("tool_call_text"), call_markup(content)  # tags of every family; the row knows bare JSON
        bare = row.pattern.search(content)
        if bare or parser is not None:
            fix = f"Set `tool_call_parser: {parser}` in the server file." if parser else row.fix
            start = bare.start() if bare else 0
            return Diagnosis(row.kind, row.cause, fix, content[start : start + 200], row.id)
    if reasoning.strip() and (hit := _first_match(content.strip(), _rows("empty_text"))):
        return _diagnosis_of(*hit, "", {})
    return None


def _rows(when: When) -> list[KnownFailure]:
    return [row for row in known_failures() if when in row.when]


def _first_match(text: str, rows: Iterable[KnownFailure]) -> tuple[KnownFailure, re.Match[str]] | None:
    return next(((row, match) for row in rows if (match := row.pattern.search(text))), None)


def _known_cause(
    lines: Sequence[LogMessage], rows: Sequence[KnownFailure], spec: Mapping[str, Any]
) -> Diagnosis | None:
    for number, line in enumerate(lines):
        if hit := _first_match(line.text, rows):
            later = (each.text for each in lines[number + 1 :])
            also = [text for text in later if (same := _first_match(text, rows)) and same[0] is hit[0]]
            return _diagnosis_of(*hit, line.text, spec, also[:4])
    return None


def _diagnosis_of(
    row: KnownFailure, match: re.Match[str], evidence: str, spec: Mapping[str, Any], also: Sequence[str] = ()
) -> Diagnosis:
    words = {name.rstrip("23456789"): value.strip() for name, value in match.groupdict().items() if value}
    cause, fix = (
        _PLACEHOLDER.sub(lambda name: words.get(name[1], "its own length" if name[1] == "most" else "it"), text)
        for text in (row.cause, row.fix)
    )
    changes = {param: new for name, asked in row.auto.items() for param, new in FIXES[name](asked, words, spec).items()}
    return Diagnosis(row.kind, cause, fix, evidence, row.id, tuple(also), changes)


def _first_error(lines: Sequence[LogMessage], raised: Sequence[LogMessage]) -> Diagnosis | None:
    """Return the first of the lines in its own words; of a chain of exceptions the one that began it."""
    if not lines:
        return None
    chain = [line for line in raised if line.chain == lines[0].chain != 0] or [lines[0]]
    root = chain[0]
    for line in chain[1:]:
        root = line if line.link == "handled" and _FAILED_LOOKUP.match(root.text) else root
    text = f"{root.text} {root.more}".strip()
    others = tuple(line.text for line in chain if line is not root)[:4]
    return Diagnosis(
        "unknown", text, "Read the log around this line; what it names is where to look.", text, also=others
    )


def _by_exit(lines: list[LogMessage], exit_code: int | None, job_state: str, *, came_up: bool) -> Diagnosis:
    fix, last = "Read its log with `tautools server logs`.", lines[-1].text if lines else ""
    if job_state not in {"", "FAILED", "COMPLETED"}:
        cause = f"Slurm ended its job: {job_state}."
    elif exit_code is not None and exit_code < 0:
        cause = f"It was ended by signal {-exit_code}."
    elif exit_code is not None:
        cause = f"It ended with status {exit_code}."
    else:
        where = "The server came up" if came_up else "The log ends without an error" if lines else "The log is empty"
        fix = (
            "If it failed all the same, look at its exit status, at its job (`sacct -j ID`) and at its other log files."
        )
        return Diagnosis(NO_FAILURE, f"{where}: no failure found.", fix, _READY if came_up else last)
    return Diagnosis("unknown", cause, fix, last)


Words = Mapping[str, str]  # what the row's pattern captured
Spec = Mapping[str, Any]  # params of the server as a tree
Changes = dict[str, Any]  # new values by dotted name; None removes one


def _set(values: Mapping[str, Any], _words: Words, spec: Spec) -> Changes:
    changes: Changes = {}
    for name, value in values.items():
        folder, _, last = name.rpartition(".")
        changes |= {name: value} if value is not None else dict.fromkeys(_as_written(folder, last, spec))
    return changes


def _set_from_log(values: Mapping[str, str], words: Words, _spec: Spec) -> Changes:
    found = {param: int(words[word]) for param, word in values.items() if words.get(word, "").isdigit()}
    least = {"vllm.max_model_len": 256}  # a server with a shorter context is of no use
    return {param: number for param, number in found.items() if number >= least.get(param, 0)}


def _drop_flags(word: str, words: Words, spec: Spec) -> Changes:
    """Leave out the refused flags, or put the newer name in their place where one is known."""
    changes: Changes = {}
    for name in (each.partition("=")[0] for each in words[word].split() if each.startswith("--")):
        renamed = deprecated_flags().get(name.lstrip("-").replace("_", "-"), {}).get("renamed")
        for written in _as_written("vllm.args", name, spec):
            changes[written] = None
            if renamed:
                changes[f"vllm.args.{renamed}"] = spec["vllm"]["args"][written.removeprefix("vllm.args.")]
    return changes


def _divisor_of_heads(param: str, words: Words, _spec: Spec) -> Changes:
    """Take the largest number of cards below the asked one that divides the heads evenly."""
    heads, cards = int(words["heads"]), int(words["cards"]) if words.get("cards", "").isdigit() else 0
    fitting = [number for number in range(1, cards) if heads % number == 0]
    return {param: fitting[-1]} if fitting else {}


def _free_share(param: str, words: Words, _spec: Spec) -> Changes:
    """Ask for a little less than what the log says is free of the card."""
    free, total = float(words["free"]), float(words["total"])
    share = math.floor(free / total * 0.97 * 100) / 100 if total > 0 else 0.0
    # With less than a fifth of the card there is nothing to serve from; the other process must go.
    return {param: share} if 0.2 <= share <= 1.0 else {}


def _nearest_parser(param: str, words: Words, spec: Spec) -> Changes:
    """Take the nearest name that this vLLM lists; for tool calls the family's, if it is listed or none was refused."""
    listed = [name.strip(" '\"") for name in words.get("list", "").split(",") if name.strip(" '\"")]
    family = tool_parser_of(str(spec.get("model", ""))) if param == "vllm.tool_call_parser" else None
    if family and (family in listed or "what" not in words):
        return {param: family}
    found = nearest(words.get("what", ""), listed)
    return {param: found[0]} if found else {}


FIXES: Mapping[str, Callable[[Any, Words, Spec], Changes]] = {
    "set": _set,
    "set_from_log": _set_from_log,
    "drop_flags": _drop_flags,
    "divisor_of_heads": _divisor_of_heads,
    "free_share": _free_share,
    "nearest_parser": _nearest_parser,
}
"""By the name that a row of `failures.yaml` uses."""


def _as_written(folder: str, name: str, spec: Spec) -> list[str]:
    """Return the dotted name of a param as the server file spells it; empty when it does not set it."""
    tree: Any = spec
    for each in folder.split(".") if folder else ():
        tree = tree.get(each) or {}
    there = [each for each, value in tree.items() if value is not None and _normalized(each) == _normalized(name)]
    return [f"{folder}.{each}" if folder else each for each in there[:1]]


def _normalized(flag: str) -> str:
    return flag.lstrip("-").replace("_", "-").removeprefix("no-")
