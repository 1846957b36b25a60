"""What each side of a comparison did in one conversation, in a form that can be compared; and how the original is run.

The original (tau-bench's own agents, users and envs) runs in a process of its own, by `driver`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.errors import BenchError
from tautools.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.bench.fidelity.scripts import Case
    from tautools.bench.types import Approach


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request."""

    role: str
    """`agent`, `user`, or `check`: what a user model is asked about its own draft."""
    messages: tuple[str, ...]
    """Each as canonical JSON."""
    tools: str
    """As canonical JSON; empty when none are offered."""
    rest: str
    """Model and sampling, as canonical JSON."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One conversation."""

    case: str
    requests: tuple[RecordedRequest, ...]
    messages: tuple[str, ...]
    """The agent's history at the end, each message as canonical JSON; empty when an exception lost it."""
    reward: float | None
    db: bool | None
    """Whether the database ended as the reference leaves it; None when it was not scored."""
    outputs: Mapping[str, bool]
    """Whether each thing that must be said was said."""
    end: str = ""
    """What ended it when that was not the benchmark: an exception of the original, or an outcome of ours."""
    constructor: int = 0
    """Requests that were made while the conversation was set up, about no task."""


def canonical(value: Any) -> str:
    """Return JSON that is equal for equal values; a field that is null is a field that is not there."""
    return json.dumps(_without_null(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_null(each) for each in value]
    return value


class FixedTextMask:
    """Replaces a benchmark's own fixed texts by their names, so that two benchmarks of one shape can be compared.

    Parameters
    ----------
    fixed : mapping of str to sequence of str
        Name and the text's pieces, around what differs between conversations, as the driver tells them.
    """

    def __init__(self, fixed: Mapping[str, Sequence[str]]) -> None:
        labels = zip(fixed["labels"], ("system", "user", "assistant"), strict=True)
        pairs = [(f"\\n{fixed['example'][0]} {number}:\\n", f"\\n<example {number}>\\n") for number in range(1, 6)]
        pairs += [
            (json.dumps(piece, ensure_ascii=False)[1:-1], f"<{name} {number}>")
            for name, pieces in fixed.items()
            if name not in {"labels", "example"}
            for number, piece in enumerate(pieces)
            if piece.strip()
        ]
        # The longest first: a piece may be part of another one. A label follows a line's end, or the piece before.
        self._pairs = sorted(pairs, key=lambda pair: -len(pair[0]))
        for label, role in labels:
            self._pairs += [(f"{before}{label}: ", f"{before}<{role}>: ") for before in ("\\n", "0>")]

    def __call__(self, trace: Trace) -> Trace:
        """Return the trace with names in the place of texts."""
        requests = tuple(replace(asked, messages=tuple(map(self._cut, asked.messages))) for asked in trace.requests)
        return replace(trace, requests=requests, messages=tuple(map(self._cut, trace.messages)))

    def _cut(self, text: str) -> str:
        for piece, name in self._pairs:
            text = text.replace(piece, name)
        return text


def fingerprint(trace: Trace, requests: int, *, end: bool) -> str:
    """Return one sha256 over the first requests of a conversation and, if `end`, its reward and end too."""
    asked = [[each.role, each.messages, each.tools, each.rest] for each in trace.requests[:requests]]
    ended = [trace.end, trace.reward, trace.db, dict(trace.outputs), trace.messages] if end else []
    return hashlib.sha256(json.dumps([trace.case, asked, ended], sort_keys=True).encode()).hexdigest()


_DRIVER = Path(__file__).with_name("driver.py")
_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Original:
    """The original and what it is run by."""

    path: Path
    """A checkout of tau-bench."""
    domain_path: Path | None = None
    """Another package of its shape, whose tasks, tools and data the checkout's agents, users and envs shall play."""
    python: str = sys.executable
    jobs: int = 1
    """Processes at one time."""

    def fixed_texts(self, place: tuple[str, str], approach: Approach) -> Mapping[str, Sequence[str]]:
        """Return the original's own fixed texts by name, in pieces around what differs between conversations."""
        texts: Mapping[str, Sequence[str]] = json.loads(self._told(place, approach, (), ())[0])["texts"]
        return texts

    def play(
        self, place: tuple[str, str], approach: Approach, cases: Sequence[Case], displays: Sequence[str] = ()
    ) -> list[Trace]:
        """Play the scripts, in a process that ends before this returns.

        Parameters
        ----------
        place : (str, str)
            Env and split.
        approach : Approach
            How both sides are played.
        cases : sequence of Case
            The scripts.
        displays : sequence of str
            The solved examples that few-shot draws from.

        Returns
        -------
        list of Trace
            In the order of the scripts.

        Raises
        ------
        BenchError
            When the original could not be run.
        """
        return _read_traces(self._told(place, approach, cases, displays)[1:])

    def _told(
        self, place: tuple[str, str], approach: Approach, cases: Sequence[Case], displays: Sequence[str]
    ) -> list[str]:
        job = {
            "path": str(self.path),
            "domain_path": str(self.domain_path) if self.domain_path else None,
            "env": place[0],
            "split": place[1],
            "strategy": approach.strategy.value,
            "user_strategy": approach.user_strategy.value,
            "displays": list(displays),
            "cases": [asdict(case) for case in cases],
        }
        told = Shell().run([self.python, "-X", "utf8", str(_DRIVER)], timeout_s=_TIMEOUT_S, input=json.dumps(job))
        lines = told.stdout.splitlines()
        if told.exit_code or len(lines) != len(cases) + 1:
            raise BenchError(
                f"The original in {self.path} could not be run.",
                evidence=told.stderr.strip()[-1500:] or f"It wrote {len(lines)} lines for {len(cases)} scripts.",
                next_step=f"It is run by {self.python} and needs pydantic there; name another with --python.",
            )
        return lines


def _read_traces(lines: Sequence[str]) -> list[Trace]:
    texts: dict[str, str] = {}
    traces = []
    for line in lines:
        told = json.loads(line)
        texts |= {key: canonical(json.loads(text)) for key, text in told["texts"].items()}
        traces.append(_read_trace(told, texts))
    return traces


def _read_trace(told: dict[str, Any], texts: Mapping[str, str]) -> Trace:
    asked = [each for each in told["requests"] if not each["constructor"]]
    scored = told["reward_info"] or {}
    return Trace(
        case=told["case"],
        requests=tuple(_read_request(each, texts) for each in asked),
        messages=tuple(texts[key] for key in told["messages"]),
        reward=told["reward"],
        db=told["db"] if scored else None,
        outputs=scored.get("info", {}).get("outputs", {}),
        end=told.get("error", "") or ("" if scored else "step_limit"),
        constructor=len(told["requests"]) - len(asked),
    )


def _read_request(told: dict[str, Any], texts: Mapping[str, str]) -> RecordedRequest:
    left_out = ("role", "constructor", "messages", "tools", "custom_llm_provider")
    rest = {name: value for name, value in told.items() if name not in left_out}
    return RecordedRequest(
        role=told["role"],
        messages=tuple(texts[key] for key in told["messages"]),
        tools=texts[told["tools"]] if told["tools"] else "",
        rest=canonical(rest),
    )
