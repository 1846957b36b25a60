"""What looks wrong in a run's answers, counted by role and endpoint; and when a run is hopeless because of it.

The flags are `tautools.llm.answers`'; they come from the records of calls, or in short from the ledger's rows.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from tautools.files import read_lines
from tautools.llm.answers import flag_words
from tautools.llm.types import REFUSAL_CHECK
from tautools.records import CallRecord, CommitRow, Role
from tautools.run.ledger import Key

HOPELESS_ANSWERS = 10
"""Answers with the same flag, and none that refutes it, after which a run is hopeless."""
HOPELESS_CONVERSATIONS = 3
"""Conversations that they must come from."""
_SHOWN = 3
"""Kinds of flags that a line of text names; the others are counted."""


@dataclass(frozen=True, slots=True)
class FlaggedAnswers:
    """Answers of one role, at one endpoint where that is known, that look wrong in the same way."""

    role: str
    """`agent`, `user`, `judge`, or an expert's `expert NAME`."""
    endpoint: str
    """Base URL; empty where the count is over all of them."""
    flag: str
    """A flag of `tautools.llm.answers`, such as `unparsed_call:hermes`."""
    count: int
    answers: int
    """All answers of that role there."""
    first: CallRecord | None
    """The first of them, with the beginning of what it says."""
    calls_parsed: bool = False
    """Whether the server parsed any call of these answers."""

    @property
    def cause(self) -> str:
        """What is likely behind it, and what to do."""
        return flag_words(self.flag, self.count, calls_parsed=self.calls_parsed)[1]

    @property
    def what(self) -> str:
        """What is wrong with them, as it follows their number: `carry an unparsed call`."""
        return flag_words(self.flag, self.count)[0]

    @property
    def claim(self) -> str:
        """How many answers look wrong, and how: `12 of 40 answers of the agent carry an unparsed call`."""
        noun = "answer" if self.answers == 1 else "answers"
        return f"{self.count} of {self.answers} {noun} of the {self.role} {self.what}"

    @property
    def place(self) -> str:
        """Where the first of them stands: task, trial, and which request of its role it was."""
        return f"task {self.first.task_id}, trial {self.first.trial}, step {self.first.step}" if self.first else ""

    def __str__(self) -> str:
        text = f"{self.claim}: {self.cause}." if self.cause else f"{self.claim}."
        if self.first is None:
            return text
        where = f" at {self.first.endpoint}" if self.first.endpoint else ""
        said = f": {self.first.flagged_text!r}" if self.first.flagged_text else ""
        return f"{text} First{where}, {self.place}{said}"

    def as_dict(self) -> dict[str, Any]:
        """Return it for a program."""
        shared = ("role", "endpoint", "flag", "count", "answers", "claim", "cause")
        of_first = ("endpoint", "task_id", "trial", "step", "flagged_text")
        first = self.first and {name: getattr(self.first, name) for name in of_first}
        return {**{name: getattr(self, name) for name in shared}, "first": first}


@dataclass(slots=True)
class _Tally:
    """The answers of one role at one endpoint."""

    answers: int = 0
    calls: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    first: dict[str, CallRecord] = field(default_factory=dict)


def _counts(record: CallRecord) -> bool:
    """Whether a call is an answer within a conversation."""
    return not record.fault and record.purpose != REFUSAL_CHECK


def _part(record: CallRecord) -> str:
    return f"{record.role.value} {record.expert}".strip()


STOPS_EARLY = (
    f"It stops early when the first {HOPELESS_ANSWERS} answers can come to nothing: no call is ever parsed, all are "
    "empty or repeat the agent (--set stop_hopeless=false runs on)"
)


def flagged_answers(records: Iterable[CallRecord]) -> list[FlaggedAnswers]:
    """Return what looks wrong in answered calls, by role and endpoint, the most frequent flags of each first."""
    tallies: defaultdict[tuple[str, str], _Tally] = defaultdict(_Tally)
    for record in records:
        if _counts(record):
            tally = tallies[_part(record), record.endpoint]
            tally.answers += 1
            tally.calls += record.tool_calls
            for flag in record.flags:
                tally.flags[flag] += 1
                known = tally.first.setdefault(flag, record)
                if record.started_at < known.started_at:
                    tally.first[flag] = record
    return [
        FlaggedAnswers(part, endpoint, flag, count, tally.answers, tally.first[flag], tally.calls > 0)
        for (part, endpoint), tally in sorted(tallies.items())
        for flag, count in tally.flags.most_common()
    ]


def flagged_in_rows(folder: Path, rows: Sequence[CommitRow]) -> list[FlaggedAnswers]:
    """Return what looks wrong in the answers of finished conversations, by role, from their rows in the ledger.

    Of the calls' records only as much is read as it takes to find the first of each.
    """
    flagged = sorted((row for row in rows if row.flags), key=lambda row: row.started_at)
    found = []
    for (role, flag), count in sum((_by_role(row) for row in flagged), Counter()).most_common():
        answers = sum(getattr(row, f"{role}_calls", 0) for row in rows)
        first = next(row for row in flagged if (role, flag) in _by_role(row))
        parsed = any(row.tool_calls for row in rows)
        call = _first_call(folder, first.writer, first.key, role, flag)
        found.append(FlaggedAnswers(role, "", flag, count, answers, call, parsed))
    return found


def _by_role(row: CommitRow) -> Counter[tuple[str, str]]:
    return Counter({(name.split(" ")[0], name.split(" ", 1)[1]): count for name, count in row.flags.items()})


@lru_cache(maxsize=4096)
def _first_call(folder: Path, writer: str, key: Key, role: str, flag: str) -> CallRecord | None:
    """Return the first call of a conversation that has a flag; None when its record is gone."""
    for line in read_lines(folder / "calls" / f"{writer}.jsonl"):
        if b'"flags":["' in line:
            record = CallRecord.model_validate_json(line)
            same = (record.setting_id, record.task_id, record.trial) == key and record.role.value == role
            if same and flag in record.flags:
                return record
    return None


def flag_lines(found: Sequence[FlaggedAnswers]) -> Iterator[str]:
    """Yield what looks wrong as lines for a person, the most frequent first; the rest is counted."""
    ranked = sorted(found, key=lambda each: -each.count)
    yield from map(str, ranked[:_SHOWN])
    if rest := ranked[_SHOWN:]:
        yield f"Further answers look wrong: {'; '.join(each.claim for each in rest)}."


_Refutes = Callable[[CallRecord], bool]
_HOPELESS: Mapping[str, tuple[frozenset[Role], _Refutes]] = {
    "unparsed_call": (frozenset({Role.AGENT}), lambda record: record.tool_calls > 0),
    "empty": (frozenset({Role.AGENT, Role.USER}), lambda record: "empty" not in record.flags),
    "echo": (frozenset({Role.USER}), lambda record: record.turn > 0 and "echo" not in record.flags),
}
"""Flags that make a run hopeless when nothing refutes them: whose they are, and what an answer shows that refutes."""


class HopelessWatch:
    """Notices a model or server that a run can come to nothing with, from the first answers of a role at an endpoint.

    It takes `HOPELESS_ANSWERS` with one flag, from `HOPELESS_CONVERSATIONS`, and none that refutes it: a call that was
    parsed, words, an answer of one's own. Once refuted a flag is not looked at again.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], dict[str, list[CallRecord]]] = {}
        self._answers: Counter[tuple[str, str]] = Counter()

    def call(self, record: CallRecord) -> FlaggedAnswers | None:
        """Note one call; return the flag to stop for, if it is hopeless now."""
        key = (_part(record), record.endpoint)
        if key not in self._open:
            self._open[key] = {flag: [] for flag, (roles, _) in _HOPELESS.items() if record.role in roles}
        still_open = self._open[key]
        if not still_open or not _counts(record):
            return None
        self._answers[key] += 1
        for name in list(still_open):
            if _HOPELESS[name][1](record):
                del still_open[name]
            elif found := next((flag for flag in record.flags if flag.partition(":")[0] == name), None):
                seen = still_open[name]
                seen.append(record)
                conversations = {(each.task_id, each.trial) for each in seen}
                if len(seen) >= HOPELESS_ANSWERS and len(conversations) >= HOPELESS_CONVERSATIONS:
                    return FlaggedAnswers(*key, found, len(seen), self._answers[key], seen[0])
        return None


def hopeless_cause(found: FlaggedAnswers) -> str:
    """Return why a hopeless run was stopped, and how to go on."""
    return (
        f"Stopped: {found.claim}: {found.cause}.\nNo answer of the {found.role} there shows otherwise. What is "
        "finished is kept and counts; what was running is pending. Correct it and run it again, in a new --workspace "
        "if what is finished is not to count; --set stop_hopeless=false runs on."
    )
