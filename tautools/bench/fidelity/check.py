"""Compares our loop with the original, script by script, and gathers what was found."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from tautools.bench.fidelity.compare import compare
from tautools.bench.fidelity.ours import play
from tautools.bench.fidelity.scripts import VARIANTS, make_cases
from tautools.bench.fidelity.trace import Anonymous, fingerprint
from tautools.bench.fidelity.truth import Kept
from tautools.bench.types import Approach
from tautools.records import Strategy, UserStrategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tautools.bench.fidelity.deviations import Deviation
    from tautools.bench.fidelity.original import Original
    from tautools.bench.fidelity.scripts import Case
    from tautools.bench.fidelity.trace import Trace
    from tautools.bench.fidelity.truth import Truth
    from tautools.bench.types import Domain, Task

__all__ = ["APPROACHES", "Row", "check", "displays_of", "hold_to"]

APPROACHES = (
    *(Approach(strategy) for strategy in (Strategy.FC, Strategy.ACT, Strategy.REACT, Strategy.FEW_SHOT)),
    *(Approach(Strategy.FC, each) for each in (UserStrategy.REACT, UserStrategy.VERIFY, UserStrategy.REFLECTION)),
)
"""Every agent against the plain user, every user with the plain agent: the two sides know nothing of each other."""

_Naming: TypeAlias = "Callable[[Trace], Trace]"
_CHUNK = 120


@dataclass
class Row:
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
    kept: Kept = field(default_factory=Kept)
    """Hashes of what the original did, as far as it was compared."""

    @property
    def name(self) -> str:
        """Env, split, strategy and user strategy."""
        return "/".join((self.env, self.split, self.approach.strategy, self.approach.user_strategy))

    def take(self, case: Case, original: Trace, ours: Trace) -> None:
        """Count one conversation in."""
        verdict = compare(case, original, ours)
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


def check(
    original: Original,
    domain: Domain,
    approach: Approach,
    *,
    tasks: Sequence[Task] | None = None,
    variants: Sequence[str] = VARIANTS,
    on_progress: Callable[[int, int], None] | None = None,
) -> Row:
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
    row = Row(domain.env, domain.split, approach)
    cases = make_cases(domain, approach, variants, tasks)
    theirs, own = _names(original, domain, approach)
    for chunk, played in _originals(original, domain, approach, cases):
        ours = asyncio.run(_ours(domain, approach, chunk))
        for case, wanted, made in zip(chunk, played, ours, strict=True):
            row.take(case, theirs(wanted), own(made))
        if on_progress is not None:
            on_progress(row.conversations, len(cases))
    return row


def _names(original: Original, domain: Domain, approach: Approach) -> tuple[_Naming, _Naming]:
    """Return what makes both sides comparable: nothing, unless the original plays another package's env."""
    if original.domain_path is None:
        return _as_it_is, _as_it_is
    place = (domain.env, domain.split)
    stand_in = replace(original, path=original.domain_path, domain_path=None)
    return Anonymous(original.fixed_texts(place, approach)), Anonymous(stand_in.fixed_texts(place, approach))


def _as_it_is(trace: Trace) -> Trace:
    return trace


def _originals(
    original: Original, domain: Domain, approach: Approach, cases: Sequence[Case]
) -> Iterator[tuple[Sequence[Case], list[Trace]]]:
    """Yield the scripts in parts, each with what the original made of it, some parts ahead of who reads."""
    chunks = [cases[start : start + _CHUNK] for start in range(0, len(cases), _CHUNK)]
    displays = displays_of(domain, approach)

    def play_original(chunk: Sequence[Case]) -> list[Trace]:
        return original.play((domain.env, domain.split), approach, chunk, displays)

    with ThreadPoolExecutor(max_workers=original.jobs) as pool:
        yield from zip(chunks, pool.map(play_original, chunks), strict=True)


def hold_to(truth: Truth, domain: Domain, approach: Approach, stand_in: Original) -> list[str]:
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
    row = Row(domain.env, domain.split, approach)
    kept = truth.conversations(row.name)
    cases = make_cases(domain, approach, list(dict.fromkeys(name.split("/", 1)[1] for name in kept)))
    own = Anonymous(stand_in.fixed_texts((domain.env, domain.split), approach))
    for case, ours in zip(cases, asyncio.run(_ours(domain, approach, cases)), strict=True):
        requests, end = kept[case.name]
        row.kept.keep(case.name, requests, fingerprint(own(ours), requests, end=end), end=end)
    return truth.differing(row.name, row.kept)


async def _ours(domain: Domain, approach: Approach, cases: Sequence[Case]) -> list[Trace]:
    return [await play(domain, approach, case) for case in cases]


def displays_of(domain: Domain, approach: Approach) -> Sequence[str]:
    """Return the solved examples that few-shot draws from; none under other strategies."""
    from tautools.bench.agents.tau_bench import Displays
    from tautools.bench.sources.tau_bench import TauBenchDomain

    if approach.strategy is not Strategy.FEW_SHOT or not isinstance(domain, TauBenchDomain):
        return ()
    return Displays.of(domain, approach).texts
