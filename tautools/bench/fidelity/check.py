"""Compare our loop with the original, script by script: requests, ends and rewards.

A `Deviation` is an intended difference; everything else is reported. `docs/fidelity.md` lists the deviations for
people, and a test compares the two. What the original asked and returned is kept as hashes too, so that ours can be
compared without it.
"""

import asyncio
import datetime
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tautools.bench.fidelity.scripts import (
    BREAKING_CALLS,
    BREAKING_CUSTOMER,
    BREAKING_TEXTS,
    BROKEN_REFLECTION,
    SILENT,
    VARIANTS,
    Case,
    make_cases,
)
from tautools.bench.fidelity.traces import FixedTextMask, Original, RecordedRequest, Trace, play_ours
from tautools.bench.setting import check_approach, select_tasks
from tautools.bench.sources.tau_bench import TauBenchDomain
from tautools.bench.sources.tau_bench_checkout import TauBenchCheckout
from tautools.bench.sources.tau_bench_participants import few_shot_displays
from tautools.bench.types import Approach, Domain, Source, Task, as_bench_error
from tautools.files import write_atomic
from tautools.params.models import TaskParams
from tautools.records import Outcome, Strategy, UserStrategy

APPROACHES = (
    *(Approach(strategy) for strategy in (Strategy.FC, Strategy.ACT, Strategy.REACT, Strategy.FEW_SHOT)),
    *(Approach(Strategy.FC, each) for each in (UserStrategy.REACT, UserStrategy.VERIFY, UserStrategy.REFLECTION)),
)
"""Every agent against the plain user, every user with the plain agent: the two sides know nothing of each other."""


class Deviation(StrEnum):
    """A kind of intended difference between the two sides of one conversation."""

    CONSTRUCTOR = "constructor-requests"
    AGENT_UNREADABLE = "agent-answer-unreadable"
    CUSTOMER_UNREADABLE = "customer-answer-unreadable"
    CUSTOMER_SILENT = "customer-silent"
    ERROR_LIMIT = "error-limit"


REASONS = {
    Deviation.CONSTRUCTOR: "The original asks its user model while an env is made, about no task: one draft (two with "
    "the react user) and its checks. Nothing of the conversation depends on the answers. Ours makes no such request.",
    Deviation.AGENT_UNREADABLE: "The original raises at this answer of the agent and scores the task 0. Ours tells the "
    "model what was wrong, or says the words to the customer, and counts an unusable answer.",
    Deviation.CUSTOMER_UNREADABLE: "The original raises at this answer of the customer's model and scores the task 0. "
    "Ours is a `user_error` without a reward: it says nothing about the agent.",
    Deviation.CUSTOMER_SILENT: "The original hands empty words to the agent. Ours is a `user_error` without a reward.",
    Deviation.ERROR_LIMIT: "After ten unusable answers of the agent ours ends with `agent_error` and reward 0. The "
    "original has no such limit.",
}


@dataclass
class FidelityRow:
    """The result for one env, split and approach."""

    env: str
    split: str
    approach: Approach
    conversations: int = 0
    requests: int = 0
    """Compared, and equal where there is no difference."""
    rewards: int = 0
    """Conversations whose end, reward and final history were compared as well."""
    deviations: Counter[Deviation] = field(default_factory=Counter)
    oddities: Counter[str] = field(default_factory=Counter)
    """What was odd about answers that both sides got, by kind."""
    differences: list[str] = field(default_factory=list)
    """The first one of each conversation that has any, for people."""
    hashes: dict[str, str] = field(default_factory=dict)
    """Case to the hash of what the original did, as far as it was compared."""

    @property
    def name(self) -> str:
        """Env, split, strategy and user strategy."""
        return "/".join((self.env, self.split, self.approach.strategy, self.approach.user_strategy))

    def add(self, case: Case, original: Trace, ours: Trace) -> None:
        """Compare what the two sides made of a script, every request in its order and then the end, and count it.

        Where an intended difference ends one side before the other, what came before it is compared.
        """
        deviation = _deviation(case, original, ours)
        theirs, own = original.requests, ours.requests
        if deviation is not None:
            shorter = len(theirs) if _raised(original) else len(own)
            theirs, own = theirs[:shorter], own[:shorter]
        self.deviations.update(filter(None, (Deviation.CONSTRUCTOR if original.constructor else None, deviation)))
        difference = _first_difference(theirs, own) or ("" if deviation else _end_difference(original, ours))
        if difference:
            self.differences.append(f"{self.name} {case.name}: {difference}")
        self.conversations += 1
        self.requests += len(theirs)
        self.rewards += deviation is None
        asked = Counter(request.role for request in original.requests)
        self.oddities.update(kind for role, kinds in case.odd.items() for kind in kinds[: asked[role]] if kind)
        self.hashes[original.case] = hash_conversation(original, len(theirs), end=deviation is None)

    @property
    def sha256(self) -> str:
        """One hash over those of all conversations."""
        return json_sha256(self.hashes)

    def as_kept(self, *, single: bool) -> dict[str, Any]:
        """Return what a file of hashes has of it; with `single` the hash of each conversation too."""
        conversations = self.hashes if single else len(self.hashes)
        return {"conversations": conversations, "requests": self.requests, "sha256": self.sha256}

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "env": self.env,
            "split": self.split,
            "strategy": self.approach.strategy.value,
            "user_strategy": self.approach.user_strategy.value,
            "conversations": self.conversations,
            "requests_compared": self.requests,
            "ends_compared": self.rewards,
            "differences": self.differences,
            "deviations": {kind.value: count for kind, count in sorted(self.deviations.items())},
            "oddities": dict(sorted(self.oddities.items())),
            "sha256": self.sha256,
        }


def plan_checks(
    source: Source,
    tasks: TaskParams,
    *,
    envs: Sequence[str] = (),
    splits: Sequence[str] = (),
    strategy: str | None = None,
    user_strategy: str | None = None,
) -> list[tuple[Domain, Approach, list[Task]]]:
    """Return what is to be compared; all of it by default.

    A split alone means the envs that have it; strategy and user strategy together are one approach, whether it is in
    `APPROACHES` or not. Raises `BenchError` when there is no such env, split, task or strategy.
    """
    if strategy and user_strategy:
        approaches = [Approach(Strategy(strategy), UserStrategy(user_strategy))]
    else:
        fitting = [each for each in APPROACHES if strategy in {None, each.strategy}]
        fitting = [each for each in fitting if user_strategy in {None, each.user_strategy}]
        approaches = fitting or [Approach(Strategy(strategy or "fc"))]
    chosen = envs or [env for env in source.envs() if set(splits) <= set(source.splits(env))] or source.envs()
    domains = [source.domain(env, split) for env in chosen for split in splits or source.splits(env)]
    for domain in domains:
        for approach in approaches:
            check_approach(domain, approach)
    return [(domain, approach, select_tasks(domain, tasks)) for domain in domains for approach in approaches]


def check_fidelity(
    original: Original,
    domain: Domain,
    approach: Approach,
    *,
    tasks: Sequence[Task] | None = None,
    variants: Sequence[str] = VARIANTS,
    on_progress: Callable[[int], None] | None = None,
) -> FidelityRow:
    """Play the scripts of one env and approach on both sides and compare.

    `tasks` are all of the split by default, `variants` the scripts of each; `on_progress` gets the number of
    conversations that are compared. Raises `BenchError` when the original could not be run.
    """
    row = FidelityRow(domain.ref.env, domain.ref.split, approach)
    masks: list[Callable[[Trace], Trace]] = [lambda trace: trace] * 2
    if original.domain_path is not None:  # what each side plays is comparable without each package's own fixed texts
        masks = [FixedTextMask(TauBenchCheckout(path)) for path in (original.path, original.domain_path)]
    theirs, own = masks
    for chunk, played in _play_originals(original, domain, approach, make_cases(domain, approach, variants, tasks)):
        with asyncio.Runner() as loop:
            for case, wanted in zip(chunk, played, strict=True):
                row.add(case, theirs(wanted), own(loop.run(play_ours(domain, approach, case))))
        if on_progress is not None:
            on_progress(row.conversations)
    return row


def _play_originals(
    original: Original, domain: Domain, approach: Approach, cases: Sequence[Case]
) -> Iterator[tuple[Sequence[Case], list[Trace]]]:
    """Yield the scripts in parts, each with what the original made of it, some parts ahead of the reader."""
    displays: Sequence[str] = ()
    if approach.strategy is Strategy.FEW_SHOT and isinstance(domain, TauBenchDomain):
        displays = few_shot_displays(domain.checkout, domain.ref.env, approach)
    chunks = [cases[start : start + 120] for start in range(0, len(cases), 120)]
    place = (domain.ref.env, domain.ref.split)
    with ThreadPoolExecutor(max_workers=original.jobs) as pool:
        played = pool.map(lambda part: original.play(place, approach, part, displays), chunks)
        yield from zip(chunks, played, strict=True)


def _deviation(case: Case, original: Trace, ours: Trace) -> Deviation | None:
    """Return why two conversations may end differently; None when they may not.

    The script must have the cause at the place where the one side ended: an end without it is no intended difference.
    """
    if _raised(original):
        role = original.requests[-1].role if original.requests else ""
        kind = next(reversed(_oddities(case, original, role)), "")
        if role == "agent" and kind in {*BREAKING_CALLS, *BREAKING_TEXTS}:
            return Deviation.AGENT_UNREADABLE
        breaking = {*BREAKING_CUSTOMER[UserStrategy.REACT], BROKEN_REFLECTION} - {SILENT}
        return Deviation.CUSTOMER_UNREADABLE if role != "agent" and kind in breaking else None
    if ours.end.startswith(Outcome.USER_ERROR) and SILENT in _oddities(case, ours, "user"):
        return Deviation.CUSTOMER_SILENT
    return Deviation.ERROR_LIMIT if ours.end.startswith(Outcome.AGENT_ERROR) else None


def _oddities(case: Case, trace: Trace, role: str) -> list[str]:
    """Return what was odd about each answer that a role gave; an answer after the script's end is not odd."""
    asked = sum(request.role == role for request in trace.requests)
    kinds = case.odd.get(role, ())
    return [*kinds[:asked], *[""] * (asked - len(kinds))]


def _raised(trace: Trace) -> bool:
    """Whether the original lost the conversation to an exception."""
    return bool(trace.end) and trace.end != "step_limit"


def _first_difference(theirs: Sequence[RecordedRequest], own: Sequence[RecordedRequest]) -> str:
    for number, (wanted, made) in enumerate(zip_longest(theirs, own)):
        if wanted is None:
            return f"request {number}: ours asks its {made.role} once more than the original: {_last_message(made)}"
        if made is None:
            return f"request {number}: only the original makes it, of its {wanted.role}: {_last_message(wanted)}"
        if wanted != made:
            difference = f"ours asks its {made.role} in its place"
            if wanted.role == made.role:
                difference = _text_difference(_texts_of(wanted), _texts_of(made))
            return f"request {number}, of the {wanted.role}: {difference}"
    return ""


def _texts_of(request: RecordedRequest) -> dict[str, str]:
    return {"tools": request.tools, "model and sampling": request.rest, **_numbered(request.messages)}


def _numbered(messages: Sequence[str]) -> dict[str, str]:
    return {f"message {number}": message for number, message in enumerate(messages)}


def _end_difference(original: Trace, ours: Trace) -> str:
    for name in ("end", "reward", "db", "outputs"):
        left, right = getattr(original, name), getattr(ours, name)
        if left != right:
            return f"{name}: the original {left!r}, ours {right!r}"
    difference = _text_difference(_numbered(original.messages), _numbered(ours.messages))
    return difference and f"the agent's history at the end, {difference}"


_SHOWN_CHARS = 300
"""Characters shown on each side of the place where two texts part."""


def _text_difference(theirs: Mapping[str, str], own: Mapping[str, str]) -> str:
    """Return which of the named texts differ first, and where they part; empty when all are equal."""
    for name in {**theirs, **own}:
        pair = [texts.get(name, "(no message)") for texts in (theirs, own)]
        if pair[0] != pair[1]:
            return f"{name}: {_parting(*pair)}"
    return ""


def _parting(left: str, right: str) -> str:
    pairs = enumerate(zip(left, right, strict=False))
    at = next((index for index, (a, b) in pairs if a != b), min(len(left), len(right)))
    start = max(0, at - 60)
    end = start + _SHOWN_CHARS
    theirs, ours = (f"{'…' if start else ''}{text[start:end]}{'…' if text[end:] else ''}" for text in (left, right))
    return f"they part at character {at}\n    original: {theirs}\n    ours:     {ours}"


def _last_message(request: RecordedRequest) -> str:
    return json.loads(request.messages[-1]).get("content", "")[-_SHOWN_CHARS:] if request.messages else "(no message)"


SHIPPED_HASHES = Path(__file__).with_name("hashes.json")
"""The hashes that come with the package: of every task of every env."""
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def hash_conversation(trace: Trace, requests: int, *, end: bool) -> str:
    """Return the number of requests, whether the end is hashed too, and the sha256 of these first requests and it."""
    asked = [[each.role, each.messages, each.tools, each.rest] for each in trace.requests[:requests]]
    ended = [trace.end, trace.reward, trace.db, dict(trace.outputs), trace.messages] if end else []
    return f"{requests}{'' if end else ' requests only'} {json_sha256([trace.case, asked, ended])[:16]}"


def json_sha256(value: Any) -> str:
    """Return the sha256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class HashFile:
    """A file of hashes."""

    path: Path
    version: str = ""
    """Of the original's files."""
    python: str = ""
    """Version of Python by which they were made: some of its own error texts are what tools answer."""
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name to the number of its conversations, or the hash of each; of its requests; and the sha256 over all."""

    @classmethod
    def read(cls, path: Path) -> "HashFile":
        """Read a file; one that is not there has no hashes, and one of another kind is a `BenchError`."""
        if not path.exists():
            return cls(path)
        problem = f"{path} is not a file of hashes of the original."
        next_step = "Write it again: `tautools fidelity --path CHECKOUT --write`."
        with as_bench_error(problem, next_step, OSError, ValueError, KeyError, TypeError):
            content = json.loads(path.read_text(encoding="utf-8"))
            version, python, rows = (content[name] for name in ("version", "python", "rows"))
        return cls(path, version, python, rows)

    def is_for(self, version: str) -> bool:
        """Whether the hashes were made of these files, by this version of Python."""
        return self.version == version and self.python == _PYTHON

    def verdict(self, name: str, sha256: str) -> str:
        """Return whether a row is as it was kept: `same`, `differs`, or empty where none was kept."""
        kept = self.rows.get(name)
        return "" if kept is None else "same" if kept["sha256"] == sha256 else "differs"

    def write(self, version: str, rows: Mapping[str, Mapping[str, Any]], command: str) -> None:
        """Write the file with these rows in it, and what makes it again; other rows of the same version stay."""
        old = self.rows if self.is_for(version) else {}
        content = {
            "what": "Hashes of what tau-bench's own agents and users ask, and of the rewards, for the scripts of "
            "tautools.bench.fidelity.scripts",
            "command": command,
            "version": version,
            "python": _PYTHON,
            "written": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "rows": dict(sorted({**old, **rows}.items())),
        }
        write_atomic(self.path, json.dumps(content, indent=1) + "\n")
