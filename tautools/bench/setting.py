"""What a run takes of a benchmark: approach, tasks and setting, checked against what the benchmark has; seeds.

The id of a setting makes conversations comparable.
"""

import hashlib
from collections.abc import Mapping

from tautools.bench.judge import BASIS, judge_texts
from tautools.bench.types import Approach, Domain, Expert, Source, Task, check_known
from tautools.errors import BenchError
from tautools.params.models import RunParams, TaskParams
from tautools.records import LOOP_VERSION, Limits, ModelConfig, Setting, Strategy, Thinking, canonical_json


def approach_of(run: RunParams) -> Approach:
    """Return how a run is to be played; experts belong to the strategy `experts` alone."""
    experts: tuple[Expert, ...] = ()
    if run.strategy is Strategy.EXPERTS:
        experts = tuple(
            Expert(name, role.description, role.thinking is Thinking.ON) for name, role in run.experts.items()
        )
    return Approach(run.strategy, run.user_strategy, run.few_shot_displays, experts)


def check_approach(domain: Domain, approach: Approach) -> None:
    """Refuse a strategy that the benchmark does not have, or that lacks its models.

    Raises
    ------
    BenchError
        Naming those that it has.
    """
    bench = domain.ref.bench
    check_known("strategy", approach.strategy.value, [each.value for each in domain.strategies], of=bench)
    users = [each.value for each in domain.user_strategies]
    check_known("user strategy", approach.user_strategy.value, users, of=bench)
    if approach.strategy is Strategy.EXPERTS and not approach.experts:
        raise BenchError(
            "The strategy experts has no experts.",
            next_step="Name them with --expert NAME=SERVER, or under `experts:` in the file.",
        )


def select_tasks(domain: Domain, wanted: TaskParams) -> list[Task]:
    """Return the tasks that were asked for, each once.

    `ids` in their order, or else the half-open range of indices in the bench's order; of these the first `limit`.

    Raises
    ------
    BenchError
        When an id does not exist (the nearest are named), or no task is left.
    """
    if wanted.ids is not None:
        names = list(dict.fromkeys(check_known("task", name, domain.tasks, of=domain.ref.env) for name in wanted.ids))
    else:
        end = None if wanted.end_index == -1 else wanted.end_index
        names = list(domain.tasks)[wanted.start_index : end]
    if not names:
        raise BenchError(
            f"No task of {domain.ref.env} is selected.",
            evidence=f"{domain.ref.env} has {len(domain.tasks)} tasks in its split {domain.ref.split!r}; "
            f"asked for: {wanted.model_dump(exclude_defaults=True)}.",
            next_step="Widen the range, or name tasks by their ids.",
        )
    return [domain.tasks[name] for name in names[: wanted.limit]]


def conversation_seed(seed: int, task_id: str, trial: int) -> int:
    """Return the seed of one conversation, from which those of its requests follow (`llm.request.request_seed`).

    It depends on the run's seed, the task and the trial and on nothing else, so that strategies, models and personas
    meet the same seeds and can be compared in pairs.

    Returns
    -------
    int
        In 0 .. 2**31 - 1.
    """
    digest = hashlib.sha256(canonical_json([seed, task_id, trial]).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


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
    parties : mapping of str to ModelConfig
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
        user=parties.get("user", ModelConfig(model="human", provider="human")),
        user_strategy=run.user_strategy,
        experts={part.removeprefix("expert:"): each for part, each in parties.items() if part.startswith("expert:")},
        judge=judge,
        prompts=dict(domain.instructions(approach))
        | ({"persona": persona.sha256} if persona else {})
        | (judge_texts(domain) if judge else {}),
        limits=Limits(**run.limits.model_dump()),
        seed=run.seed,
        seed_rule=run.seed_rule,
        persona=persona.label if persona else None,
        intensity=(persona.intensity or None) if persona else None,
        simulated=simulated,
        loop_version=LOOP_VERSION,
    )
