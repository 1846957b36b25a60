"""Compare our loop with the original, script by script: requests, ends and rewards, and hashes that were kept of them.

A `Deviation` is an intended difference; everything else is reported. `docs/fidelity.md` lists the deviations for
people, and a test holds the two together.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tautools.bench.fidelity.ours import play_ours
from tautools.bench.fidelity.scripts import VARIANTS, make_cases
from tautools.bench.fidelity.spoken import BREAKING_CALLS, BREAKING_CUSTOMER, BREAKING_TEXTS, BROKEN_REFLECTION, SILENT
from tautools.bench.fidelity.traces import FixedTextMask, fingerprint
from tautools.bench.types import Approach
from tautools.errors import BenchError
from tautools.files import write_atomic
from tautools.records import Outcome, Strategy, UserStrategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tautools.bench.fidelity.scripts import Case
    from tautools.bench.fidelity.traces import Original, RecordedRequest, Trace
    from tautools.bench.types import Domain, Task


SHIPPED_HASHES = Path(__file__).with_name("hashes.json")
"""The hashes that come with the package: of every task of every env."""


@dataclass
class ConversationHashes:
    """The hashes of one row, conversation by conversation."""

    hashes: dict[str, str] = field(default_factory=dict)
    """Case to the number of requests, whether the end is hashed too, and the sha256 of both."""
    requests: int = 0

    def keep(self, case: str, requests: int, digest: str, *, end: bool) -> None:
        """Add a conversation."""
        self.hashes[case] = f"{requests}{'' if end else ' requests only'} {digest[:16]}"
        self.requests += requests

    @property
    def sha256(self) -> str:
        """One hash over all of them."""
        return hashlib.sha256(json.dumps(self.hashes, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class HashFile:
    """A file of hashes."""

    path: Path
    version: str = ""
    """Of the original's files."""
    python: str = ""
    """Version of Python by which they were made: some of its own error texts are what tools answer."""
    written: str = ""
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> HashFile:
        """Read a file; one that is not there holds no hashes.

        Raises
        ------
        BenchError
            When it is not such a file.
        """
        if not path.exists():
            return cls(path)
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, told["version"], told["python"], told["written"], told["rows"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(
                f"{path} is not a file of hashes of the original.",
                evidence=f"{type(error).__name__}: {error}",
                next_step="Write it anew: `tautools fidelity --path CHECKOUT --write`.",
            ) from error

    def speaks_of(self, version: str) -> bool:
        """Whether the hashes were made of these files, by such a Python."""
        return self.version == version and self.python == python_version()

    def verdict(self, name: str, found: ConversationHashes) -> str:
        """Return whether a row is as it was kept: `same`, `differs`, or empty where none was kept."""
        kept = self.rows.get(name)
        if kept is None:
            return ""
        return "same" if kept["sha256"] == found.sha256 else "differs"

    def conversations(self, name: str) -> dict[str, tuple[int, bool]]:
        """Return, for each conversation kept by itself, how many requests are hashed, and whether its end is."""
        told = {case: text.split() for case, text in self._each(name).items()}
        return {case: (int(words[0]), len(words) == 2) for case, words in told.items()}

    def differing(self, name: str, found: ConversationHashes) -> list[str]:
        """Return the conversations that are not as they were kept, where each was kept by itself."""
        kept = self._each(name)
        return [case for case in kept | found.hashes if kept.get(case) != found.hashes.get(case)]

    def _each(self, name: str) -> dict[str, str]:
        kept = self.rows.get(name, {}).get("conversations", {})
        return kept if isinstance(kept, dict) else {}

    def write(self, version: str, rows: Iterable[tuple[str, ConversationHashes]], command: str, *, each: bool) -> None:
        """Write the file with these rows in it; rows of the same version that were not made anew stay."""
        old = dict(self.rows) if self.speaks_of(version) else {}
        new = {
            name: {
                "conversations": kept.hashes if each else len(kept.hashes),
                "requests": kept.requests,
                "sha256": kept.sha256,
            }
            for name, kept in rows
        }
        told = {
            "what": "Hashes of what tau-bench's own agents and users ask, and of the rewards, for the scripts of "
            "tautools.bench.fidelity.scripts",
            "command": command,
            "version": version,
            "python": python_version(),
            "written": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "rows": dict(sorted({**old, **new}.items())),
        }
        write_atomic(self.path, json.dumps(told, indent=1) + "\n")


def python_version() -> str:
    """Return major and minor version of the running Python."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


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


def deviation_of(case: Case, original: Trace, ours: Trace) -> Deviation | None:
    """Return why two conversations may end differently; None when they may not.

    The script must hold the cause at the place where the one side ended: an end without it is no intended difference.
    """
    if original_raised(original):
        role, kind = _last_oddity(case, original)
        if role == "agent" and kind in {*BREAKING_CALLS, *BREAKING_TEXTS}:
            return Deviation.AGENT_UNREADABLE
        breaking = {*BREAKING_CUSTOMER[UserStrategy.REACT], BROKEN_REFLECTION} - {SILENT}
        return Deviation.CUSTOMER_UNREADABLE if role != "agent" and kind in breaking else None
    if ours.end.startswith(Outcome.USER_ERROR) and SILENT in _oddities_heard(case, ours, "user"):
        return Deviation.CUSTOMER_SILENT
    if ours.end.startswith(Outcome.AGENT_ERROR):
        return Deviation.ERROR_LIMIT
    return None


def _last_oddity(case: Case, trace: Trace) -> tuple[str, str]:
    """Return who answered last and what was odd about it."""
    role = trace.requests[-1].role if trace.requests else ""
    heard = _oddities_heard(case, trace, role)
    return role, heard[-1] if heard else ""


def _oddities_heard(case: Case, trace: Trace, role: str) -> Sequence[str]:
    """Return what was odd about each answer of a role that was heard; an answer after the script's end is not."""
    asked = sum(each.role == role for each in trace.requests)
    kinds = case.odd.get(role, ())
    return [*kinds[:asked], *[""] * (asked - len(kinds))]


def original_raised(trace: Trace) -> bool:
    """Whether the original lost the conversation to an exception."""
    return bool(trace.end) and trace.end != "step_limit"


_SHOWN_CHARS = 300
"""Characters shown on each side of the place where two texts part."""


@dataclass(frozen=True, slots=True)
class TraceComparison:
    """What became of one comparison."""

    case: str
    requests: int
    """Requests that were compared."""
    rewarded: bool
    """Whether the end and the reward were compared too."""
    deviations: tuple[Deviation, ...] = ()
    difference: str = ""
    """The first one, for people; empty when there is none."""


def compare_traces(case: Case, original: Trace, ours: Trace) -> TraceComparison:
    """Compare every request in its order, then the end.

    Where an intended difference ends one side before the other, what came before it is compared.

    Parameters
    ----------
    case : Case
        The script.
    original, ours : Trace
        What each side made of it.
    """
    known = deviation_of(case, original, ours)
    theirs, own = original.requests, ours.requests
    if known is not None:
        shorter = len(theirs) if original_raised(original) else len(own)
        theirs, own = theirs[:shorter], own[:shorter]
    difference = _first_difference(theirs, own) or ("" if known else _end_difference(original, ours))
    return TraceComparison(
        case=original.case,
        requests=len(theirs),
        rewarded=known is None,
        deviations=((Deviation.CONSTRUCTOR,) if original.constructor else ()) + ((known,) if known else ()),
        difference=difference,
    )


def _first_difference(theirs: Sequence[RecordedRequest], own: Sequence[RecordedRequest]) -> str:
    for number, (wanted, made) in enumerate(zip_longest(theirs, own)):
        if wanted is None:
            return f"request {number}: ours asks its {made.role} once more than the original: {_last_message(made)}"
        if made is None:
            return f"request {number}: only the original makes it, of its {wanted.role}: {_last_message(wanted)}"
        if wanted != made:
            return f"request {number}, of the {wanted.role}: {_request_difference(wanted, made)}"
    return ""


def _request_difference(wanted: RecordedRequest, made: RecordedRequest) -> str:
    if wanted.role != made.role:
        return f"ours asks its {made.role} in its place"
    for name, left, right in (("tools", wanted.tools, made.tools), ("model and sampling", wanted.rest, made.rest)):
        if left != right:
            return f"{name}: {_text_difference(left, right)}"
    return _history_difference(wanted.messages, made.messages)


def _history_difference(wanted: Sequence[str], made: Sequence[str]) -> str:
    for number, (left, right) in enumerate(zip_longest(wanted, made, fillvalue="(no message)")):
        if left != right:
            return f"message {number}: {_text_difference(left, right)}"
    return ""


def _end_difference(original: Trace, ours: Trace) -> str:
    for name in ("end", "reward", "db", "outputs"):
        left, right = getattr(original, name), getattr(ours, name)
        if left != right:
            return f"{name}: the original {left!r}, ours {right!r}"
    found = _history_difference(original.messages, ours.messages)
    return found and f"the agent's history at the end, {found}"


def _text_difference(left: str, right: str) -> str:
    at = next(
        (place for place, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )
    start = max(0, at - 60)
    return f"they part at character {at}\n    original: {_excerpt(left, start)}\n    ours:     {_excerpt(right, start)}"


def _excerpt(text: str, start: int) -> str:
    return (
        f"{'…' if start else ''}{text[start : start + _SHOWN_CHARS]}{'…' if len(text) > start + _SHOWN_CHARS else ''}"
    )


def _last_message(asked: RecordedRequest) -> str:
    return json.loads(asked.messages[-1]).get("content", "")[-_SHOWN_CHARS:] if asked.messages else "(no message)"


APPROACHES = (
    *(Approach(strategy) for strategy in (Strategy.FC, Strategy.ACT, Strategy.REACT, Strategy.FEW_SHOT)),
    *(Approach(Strategy.FC, each) for each in (UserStrategy.REACT, UserStrategy.VERIFY, UserStrategy.REFLECTION)),
)
"""Every agent against the plain user, every user with the plain agent: the two sides know nothing of each other."""

_Mask: TypeAlias = "Callable[[Trace], Trace]"
_CHUNK = 120


@dataclass
class FidelityRow:
    """What was found for one env, split and approach."""

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
    """What was odd about answers that were heard, by kind."""
    differences: list[str] = field(default_factory=list)
    kept: ConversationHashes = field(default_factory=ConversationHashes)
    """Hashes of what the original did, as far as it was compared."""

    @property
    def name(self) -> str:
        """Env, split, strategy and user strategy."""
        return "/".join((self.env, self.split, self.approach.strategy, self.approach.user_strategy))

    def take(self, case: Case, original: Trace, ours: Trace) -> None:
        """Count one conversation in."""
        verdict = compare_traces(case, original, ours)
        self.conversations += 1
        self.requests += verdict.requests
        self.rewards += verdict.rewarded
        self.deviations.update(verdict.deviations)
        asked = Counter(each.role for each in original.requests)
        heard = (kind for role, kinds in case.odd.items() for kind in kinds[: asked[role]] if kind)
        self.oddities.update(heard)
        if verdict.difference:
            self.differences.append(f"{self.name} {case.name}: {verdict.difference}")
        digest = fingerprint(original, verdict.requests, end=verdict.rewarded)
        self.kept.keep(case.name, verdict.requests, digest, end=verdict.rewarded)


def check_fidelity(
    original: Original,
    domain: Domain,
    approach: Approach,
    *,
    tasks: Sequence[Task] | None = None,
    variants: Sequence[str] = VARIANTS,
    on_progress: Callable[[int, int], None] | None = None,
) -> FidelityRow:
    """Play the scripts of one env and approach on both sides and compare.

    Parameters
    ----------
    original : Original
        The other side.
    domain : Domain
        Ours: the same env and split.
    approach : Approach
        How both sides are played.
    tasks : sequence of Task, optional
        All of the split by default.
    variants : sequence of str
        Which scripts of each task.
    on_progress : callable, optional
        Told how many conversations are compared, and of how many.

    Raises
    ------
    BenchError
        When the original could not be run.
    """
    row = FidelityRow(domain.ref.env, domain.ref.split, approach)
    cases = make_cases(domain, approach, variants, tasks)
    theirs, own = _masks(original, domain, approach)
    for chunk, played in _play_originals(original, domain, approach, cases):
        ours = asyncio.run(_play_all_ours(domain, approach, chunk))
        for case, wanted, made in zip(chunk, played, ours, strict=True):
            row.take(case, theirs(wanted), own(made))
        if on_progress is not None:
            on_progress(row.conversations, len(cases))
    return row


def _masks(original: Original, domain: Domain, approach: Approach) -> tuple[_Mask, _Mask]:
    """Return what makes both sides comparable: nothing, unless the original plays another package's env."""
    if original.domain_path is None:
        return _unmasked, _unmasked
    place = (domain.ref.env, domain.ref.split)
    stand_in = replace(original, path=original.domain_path, domain_path=None)
    return FixedTextMask(original.fixed_texts(place, approach)), FixedTextMask(stand_in.fixed_texts(place, approach))


def _unmasked(trace: Trace) -> Trace:
    return trace


def _play_originals(
    original: Original, domain: Domain, approach: Approach, cases: Sequence[Case]
) -> Iterator[tuple[Sequence[Case], list[Trace]]]:
    """Yield the scripts in parts, each with what the original made of it, some parts ahead of who reads."""
    chunks = [cases[start : start + _CHUNK] for start in range(0, len(cases), _CHUNK)]
    displays = displays_of(domain, approach)

    def play_original(chunk: Sequence[Case]) -> list[Trace]:
        return original.play((domain.ref.env, domain.ref.split), approach, chunk, displays)

    with ThreadPoolExecutor(max_workers=original.jobs) as pool:
        yield from zip(chunks, pool.map(play_original, chunks), strict=True)


def check_against_hashes(truth: HashFile, domain: Domain, approach: Approach, stand_in: Original) -> list[str]:
    """Play our side alone and return the conversations in which it is not what the original was when it was last asked.

    Parameters
    ----------
    truth : Truth
        Hashes that were kept conversation by conversation.
    domain : Domain
        The env that they were made on.
    approach : Approach
        How both sides are played.
    stand_in : Original
        The package of that env, for its own fixed texts, which do not count.
    """
    row = FidelityRow(domain.ref.env, domain.ref.split, approach)
    kept = truth.conversations(row.name)
    cases = make_cases(domain, approach, list(dict.fromkeys(name.split("/", 1)[1] for name in kept)))
    own = FixedTextMask(stand_in.fixed_texts((domain.ref.env, domain.ref.split), approach))
    for case, ours in zip(cases, asyncio.run(_play_all_ours(domain, approach, cases)), strict=True):
        requests, end = kept[case.name]
        row.kept.keep(case.name, requests, fingerprint(own(ours), requests, end=end), end=end)
    return truth.differing(row.name, row.kept)


async def _play_all_ours(domain: Domain, approach: Approach, cases: Sequence[Case]) -> list[Trace]:
    return [await play_ours(domain, approach, case) for case in cases]


def displays_of(domain: Domain, approach: Approach) -> Sequence[str]:
    """Return the solved examples that few-shot draws from; none under other strategies."""
    from tautools.bench.sources.tau_bench import TauBenchDomain
    from tautools.bench.sources.tau_bench_participants import FewShotDisplays

    if approach.strategy is not Strategy.FEW_SHOT or not isinstance(domain, TauBenchDomain):
        return ()
    return FewShotDisplays.of(domain.checkout, domain.ref.env, approach).texts
