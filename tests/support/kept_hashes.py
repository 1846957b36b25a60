"""Our side of the fidelity check alone, compared with hashes that were kept of the original's conversations."""

from __future__ import annotations

import asyncio

from tautools.bench.fidelity.check import HashFile, hash_conversation
from tautools.bench.fidelity.scripts import make_cases
from tautools.bench.fidelity.traces import FixedTextMask, Original, Trace, play_ours
from tautools.bench.sources.tau_bench_checkout import TauBenchCheckout
from tautools.bench.types import Approach, Domain


def kept_conversations(kept: HashFile, name: str) -> dict[str, str]:
    """Return by case what is kept of it: the number of requests, `requests only` without its end, and the hash."""
    hashes: dict[str, str] = kept.rows[name]["conversations"]
    return hashes


def differing_conversations(kept: HashFile, domain: Domain, approach: Approach, stand_in: Original) -> list[str]:
    """Play our side and return the conversations that differ from their hashes.

    `stand_in` is the package of the env, for its own fixed texts, which do not count.
    """
    env, split = domain.ref.env, domain.ref.split
    expected = kept_conversations(kept, "/".join((env, split, approach.strategy, approach.user_strategy)))
    cases = make_cases(domain, approach, list(dict.fromkeys(name.split("/", 1)[1] for name in expected)))
    mask = FixedTextMask(TauBenchCheckout(stand_in.path))

    async def play() -> list[Trace]:
        return [mask(await play_ours(domain, approach, case)) for case in cases]

    ours: dict[str, str] = {}
    for trace in asyncio.run(play()):
        requests, *rest, _ = expected[trace.case].split()
        ours[trace.case] = hash_conversation(trace, int(requests), end=not rest)
    return [name for name in expected | ours if expected.get(name) != ours.get(name)]
