"""What was chosen, in full: the setting whose id makes conversations comparable."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tautools.bench.agents import agent_instructions
from tautools.records import LOOP_VERSION, Setting, Strategy

if TYPE_CHECKING:
    from tautools.bench.types import Domain, Source
    from tautools.params.models import RunParams
    from tautools.records import Party

__all__ = ["build_setting"]


def build_setting(
    run: RunParams, domain: Domain, source: Source, agent: Party, user: Party, simulated: bool
) -> Setting:
    """Return the setting of a run.

    Parameters
    ----------
    run : RunParams
        What a person asked for.
    domain, source
        The env and where it was loaded from.
    agent, user : Party
        The models as they will be asked.
    simulated : bool
        Whether any of them is simulated.
    """
    return Setting(
        bench=domain.bench,
        source=source.name,
        source_version=source.version,
        protocol=domain.protocol.name,
        reward_basis=source.reward_basis,
        env=domain.env,
        split=domain.split,
        strategy=run.strategy,
        agent=agent,
        user=user,
        prompts=_prompts(domain, run.strategy),
        limits=run.limits,
        seed=run.seed,
        simulated=simulated,
        loop_version=LOOP_VERSION,
    )


def _prompts(domain: Domain, strategy: Strategy) -> dict[str, str]:
    """Return the hashes of the texts that this strategy's models are shown."""
    own = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in agent_instructions(strategy).items()}
    shown = {
        name: digest for name, digest in domain.prompts.items() if strategy is Strategy.FC or name != "agent_system"
    }
    return shown | own
