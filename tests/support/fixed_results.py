"""A small workspace with fixed results, written by the run's own writer: the same figures wherever it is made.

Two settings of one env and a third of another; trials nested, conversations pending, faults, a user_error; calls that
failed, calls without a first token, tokens without usage, calls left in the text. All come from one generator.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tautools.errors import CallFault
from tautools.records import CallRecord, Conversation, Event, ModelConfig, Outcome, Role, Setting, Strategy
from tautools.run.folder import claim_folder
from tautools.run.ledger import ResultsWriter

START = 1_700_000_000.0
USER = ModelConfig(model="Qwen/Qwen3-32B")


@dataclass(frozen=True)
class Plan:
    """One setting of the fixed workspace."""

    env: str
    strategy: Strategy
    model: str
    tasks: int
    trials: tuple[int, ...]
    skill: float
    pending: tuple[tuple[str, int], ...] = ()
    """Conversations that were lost to a fault and are pending."""
    user_errors: tuple[tuple[str, int], ...] = ()
    simulated: bool = False
    given: Setting | None = None
    """A setting made elsewhere, such as by a sweep; then the fields above only say what to write."""

    @property
    def setting(self) -> Setting:
        if self.given is not None:
            return self.given
        return Setting(
            source="inspect-evals",
            source_version="0.26.0",
            protocol="inspect-tau2",
            reward_basis="DB+COMMUNICATE",
            env=self.env,
            strategy=self.strategy,
            agent=ModelConfig(model=self.model),
            user=USER,
            simulated=self.simulated,
        )


PLANS = (
    Plan("airline", Strategy.FC, "Qwen/Qwen3-8B", 24, (1, 3), 0.55),
    Plan("airline", Strategy.REACT, "Qwen/Qwen3-4B-Instruct-2507", 24, (3,), 0.25, pending=(("3", 2), ("7", 1))),
    Plan("retail", Strategy.FC, "Qwen/Qwen3-8B", 12, (2,), 0.5, user_errors=(("5", 0),)),
)


def write_fixed_results(workspace: Path, plans: tuple[Plan, ...] = PLANS) -> Path:
    """Write the results of `plans` under `workspace/results` and return the workspace."""
    random = Random(7)
    for plan in plans:
        _write_setting(workspace, plan, random)
    return workspace


def _write_setting(workspace: Path, plan: Plan, random: Random) -> None:
    setting = plan.setting
    folder = claim_folder(workspace / "results", setting, {"tautools": "fixed"}).path
    writer = ResultsWriter(folder)
    clock = START
    for trial in range(max(plan.trials)):
        for number in range(plan.tasks):
            task = str(number)
            ease = Random(number).uniform(-0.45, 0.45)  # tasks differ, trials of one task are alike
            clock += 30.0
            if (task, trial) in plan.pending:
                _lose(writer, setting, task, trial, clock)
            else:
                passed = random.random() < plan.skill + ease
                outcome = _outcome(plan, task, trial, passed, random)
                _hold(writer, setting, (task, trial), outcome, clock, random)
    writer.close()
    for trials in plan.trials:
        (folder / f"num_trials-{trials}.json").write_text(json.dumps([]))


def _outcome(plan: Plan, task: str, trial: int, passed: bool, random: Random) -> Outcome:
    if (task, trial) in plan.user_errors:
        return Outcome.USER_ERROR
    if passed:
        return Outcome.PASSED
    return Outcome.STEP_LIMIT if random.random() < 0.15 else Outcome.FAILED


def _lose(writer: ResultsWriter, setting: Setting, task: str, trial: int, clock: float) -> None:
    call = _call(Role.AGENT, setting, task, trial, turn=0, step=0, clock=clock, random=Random(1))
    lost = {"fault": CallFault.SERVER_FAULT.value, "ttft_s": None, "decode_s": None, "output_tokens": None}
    writer.call(call.model_copy(update=lost))
    writer.event(
        Event(kind="fault", at=clock, setting_id=setting.id, task_id=task, trial=trial, message="The server failed.")
    )


def _hold(
    writer: ResultsWriter, setting: Setting, pair: tuple[str, int], outcome: Outcome, clock: float, random: Random
) -> None:
    task, trial = pair
    start, step, counts = clock, 0, {"agent_calls": 0, "user_calls": 0, "prompt_tokens": 0, "output_tokens": 0}
    for turn in range(random.randint(2, 4)):
        for role in (Role.USER, *[Role.AGENT] * random.randint(1, 3)):
            call = _call(role, setting, task, trial, turn=turn, step=step, clock=clock, random=random)
            writer.call(call)
            clock += call.queue_s + (call.e2e_s or 0.0) + 0.02
            step += role is Role.AGENT
            counts[f"{role.value}_calls"] += 1
            counts["prompt_tokens"] += call.prompt_tokens or 0
            counts["output_tokens"] += call.output_tokens or 0
    scored = outcome.scored
    writer.commit(
        Conversation(
            setting_id=setting.id,
            env=setting.env,
            task_id=task,
            trial=trial,
            outcome=outcome,
            reward=float(outcome is Outcome.PASSED) if scored else None,
            messages=[{"role": "user", "content": "Hello"}],
            seed=trial,
            started_at=start,
            finished_at=clock,
            simulated=setting.simulated,
        ),
        counts,
    )


def _flags(setting: Setting, task: str) -> dict[str, Any]:
    """Return what looks wrong in the agent's later answers: some calls of retail are left in the text."""
    if setting.env != "retail" or task not in {"4", "9"}:
        return {}
    text = '<tool_call> {"name": "get_order_details", "arguments": {"order_id": "#W2378156"}} </tool_call>'
    return {"flags": ("unparsed_call:hermes",), "flagged_text": text}


def _call(
    role: Role, setting: Setting, task: str, trial: int, *, turn: int, step: int, clock: float, random: Random
) -> CallRecord:
    agent = role is Role.AGENT
    ttft = random.lognormvariate(-1.6 if agent else -0.9, 0.45) * (1.6 if "8B" in setting.agent.model else 1.0)
    tokens = random.randint(12, 90)
    decode = (tokens - 1) * random.lognormvariate(-4.3, 0.2)
    if random.random() < 0.01:
        ttft += 6.0  # the tail that a promise of 5 s is there for
    wall = random.random() < 0.02
    prompt = 2400 + 350 * step
    return CallRecord(
        role=role,
        env=setting.env,
        task_id=task,
        trial=trial,
        turn=turn,
        step=step,
        setting_id=setting.id,
        endpoint="http://127.0.0.1:8000/v1",
        model=setting.agent.model if agent else setting.user.model,
        started_at=clock,
        queue_s=0.001,
        ttft_s=None if wall else ttft,
        decode_s=None if wall else decode,
        e2e_s=ttft + decode,
        prompt_tokens=prompt,
        cached_tokens=(prompt // 16 * 16 if step else 0) if agent else None,
        output_tokens=tokens,
        finish_reason="stop",
        **_flags(setting, task) if agent and step else {},
        source="wall" if wall else "streamed",
        cold=(task, trial, turn) == ("0", 0, 0),
        in_flight=1 + int(task) % 8,
        replicas=1,
        simulated=setting.simulated,
    )
