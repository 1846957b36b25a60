"""The setting of a run, whose id makes conversations comparable, and the seed of each conversation."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tautools.bench.judge import BASIS, judge_texts
from tautools.records import LOOP_VERSION, ModelConfig, Setting, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tautools.bench.types import Approach, Domain, Source
    from tautools.params.models import RunParams


def conversation_seed(seed: int, task_id: str, trial: int) -> int:
    """Return the seed that every request of one conversation carries.

    It depends on the run's seed, the task and the trial and on nothing else, so that strategies, models and personas
    meet the same seeds and can be compared in pairs.

    Returns
    -------
    int
        In 0 .. 2**31 - 1.
    """
    digest = hashlib.sha256(canonical_json([seed, task_id, trial]).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


_PERSON = ModelConfig(model="human", provider="human")


def build_setting(
    run: RunParams,
    domain: Domain,
    source: Source,
    approach: Approach,
    *,
    parties: Mapping[str, ModelConfig],
    simulated: bool,
) -> Setting:
    """Return the setting of a run.

    Parameters
    ----------
    run : RunParams
        What a person asked for.
    domain, source
        The env and where it was loaded from.
    approach : Approach
        How both sides are played.
    parties : mapping of str to Party
        The models as they will be asked: `agent`, `user`, `judge`, `expert:<name>`. A person has no model.
    simulated : bool
        Whether any of them is simulated.
    """
    persona = approach.persona
    judge = parties.get("judge")
    return Setting(
        bench=domain.ref.bench,
        source=source.name,
        source_version=source.version,
        protocol=domain.protocol.name,
        reward_basis=f"{domain.reward_basis}+{BASIS}" if judge else domain.reward_basis,
        env=domain.ref.env,
        split=domain.ref.split,
        strategy=run.strategy,
        agent=parties["agent"],
        user=parties.get("user", _PERSON),
        user_strategy=run.user_strategy,
        experts={part.removeprefix("expert:"): each for part, each in parties.items() if part.startswith("expert:")},
        judge=judge,
        prompts=dict(domain.instructions(approach))
        | ({"persona": persona.sha256} if persona else {})
        | (judge_texts(domain) if judge else {}),
        limits=run.limits,
        seed=run.seed,
        persona=persona.label if persona else None,
        intensity=(persona.intensity or None) if persona else None,
        simulated=simulated,
        loop_version=LOOP_VERSION,
    )
