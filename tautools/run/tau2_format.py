"""Results in tau2-bench's own format: `{timestamp, info, tasks, simulations}`, as its viewer and its metrics read it.

A conversation that the infrastructure lost is in no ledger and so is not here; one in which the customer failed has
tau2-bench's own reason, and its own reward of 0 for whatever it did not let end.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tautools.errors import BenchError
from tautools.records import Outcome, Role, Strategy
from tautools.run.benchmark import domain_of, task_of
from tautools.run.ledger import read_calls, read_conversation
from tautools.run.tau2_messages import iso_time, trajectory
from tautools.run.tau2_reward import reward_info

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.types import Domain
    from tautools.records import CallRecord, CommitRow, Conversation, Party, Setting
    from tautools.run.folder import SettingFolder

__all__ = ["TERMINATION", "tau2_results"]

TERMINATION = {
    Outcome.PASSED: "user_stop",
    Outcome.FAILED: "user_stop",
    Outcome.STEP_LIMIT: "max_steps",
    Outcome.TIME_LIMIT: "timeout",
    Outcome.CONTEXT_OVERFLOW: "context_window_exceeded",
    Outcome.AGENT_ERROR: "too_many_errors",
    Outcome.USER_ERROR: "user_error",
}
"""How we say that a conversation ended, and how tau2-bench does."""


def tau2_results(folder: SettingFolder, rows: Sequence[CommitRow]) -> dict[str, Any]:
    """Return a setting's finished conversations as tau2-bench's `Results`.

    Parameters
    ----------
    folder : SettingFolder
        Where they lie.
    rows : sequence of CommitRow
        Which of them.

    Raises
    ------
    BenchError
        When they are not of tau2, or the benchmark they were made with is not there any more.
    RecordError
        When a conversation is damaged.
    """
    if folder.setting.bench != "tau2":
        raise BenchError(
            f"tau2-bench's format holds tasks of tau2, and {folder.path} is of {folder.setting.bench}.",
            next_step="Export it with --format tau-bench.",
        )
    domain = domain_of(folder)
    calls = _calls_by_conversation(folder, rows)
    place = {task_id: index for index, task_id in enumerate(domain.tasks)}
    in_order = sorted(rows, key=lambda row: (row.trial, place.get(row.task_id, len(place))))
    conversations = [read_conversation(folder.path, row) for row in in_order]
    ids = dict.fromkeys(each.task_id for each in conversations)
    return {
        "timestamp": iso_time(time.time()),
        "info": _info(folder, domain, rows),
        "tasks": [_task_data(domain, task_id) for task_id in ids],
        "simulations": [
            _simulation(each, folder.setting, domain, calls[each.task_id, each.trial]) for each in conversations
        ],
    }


def _calls_by_conversation(folder: SettingFolder, rows: Sequence[CommitRow]) -> dict[tuple[str, int], list[CallRecord]]:
    wanted = {(row.task_id, row.trial) for row in rows}
    found: dict[tuple[str, int], list[CallRecord]] = defaultdict(list)
    for call in read_calls(folder.path):
        if (call.task_id, call.trial) in wanted and call.setting_id in {"", folder.id}:
            found[call.task_id, call.trial].append(call)
    return found


def _info(folder: SettingFolder, domain: Domain, rows: Sequence[CommitRow]) -> dict[str, Any]:
    setting = folder.setting
    own_agent = "llm_agent" if setting.strategy is Strategy.FC else f"tautools_{setting.strategy}"
    return {
        "git_commit": f"tautools {folder.provenance.get('tautools', '')}, "
        f"{setting.source} {setting.source_version}, setting {folder.id}{', SIMULATED' if setting.simulated else ''}",
        "num_trials": max((row.trial for row in rows), default=-1) + 1,
        "max_steps": min(setting.limits.max_steps, domain.protocol.max_steps or setting.limits.max_steps),
        "max_errors": setting.limits.max_errors,
        "user_info": {"implementation": "user_simulator", **_model(setting.user)},
        "agent_info": {"implementation": own_agent, **_model(setting.agent)},
        "environment_info": {"domain_name": setting.env, "policy": domain.policy, "tool_defs": None},
        "seed": setting.seed,
    }


def _model(party: Party) -> dict[str, Any]:
    chosen = party.sampling.model_dump(exclude_defaults=True)
    return {"llm": party.model, "llm_args": {name: value for name, value in chosen.items() if value is not None}}


def _task_data(domain: Domain, task_id: str) -> Any:
    source = task_of(domain, task_id).source_task
    data = getattr(source, "data", None)
    return source.model_dump(mode="json") if data is None else data


def _simulation(
    conversation: Conversation, setting: Setting, domain: Domain, calls: Sequence[CallRecord]
) -> dict[str, Any]:
    started, finished = conversation.started_at, conversation.finished_at
    key = f"{conversation.setting_id}/{conversation.task_id}/{conversation.trial}"
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, key)),
        "task_id": conversation.task_id,
        "timestamp": iso_time(started),
        "start_time": iso_time(started),
        "end_time": iso_time(finished),
        "duration": finished - started,
        "termination_reason": TERMINATION[conversation.outcome],
        "agent_cost": _cost(calls, Role.AGENT),
        "user_cost": _cost(calls, Role.USER),
        "reward_info": reward_info(conversation, task_of(domain, conversation.task_id), domain.reward_basis),
        "messages": trajectory(conversation, setting.strategy, calls),
        "trial": conversation.trial,
        "seed": conversation.seed,
        "mode": "half_duplex",
        "info": {"outcome": conversation.outcome.value, "simulated": conversation.simulated},
    }


def _cost(calls: Sequence[CallRecord], role: Role) -> float | None:
    """Return what a side's requests cost [USD]; None when it is not known of one of them."""
    costs = [call.cost_usd for call in calls if call.role is role and not call.fault]
    return None if not costs or None in costs else sum(cost for cost in costs if cost is not None)
