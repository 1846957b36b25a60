"""Results in tau2-bench's own format: `{timestamp, info, tasks, simulations}`, as its viewer and its metrics read it.

A conversation that the infrastructure lost is in no ledger and so is not here; one in which the user model failed has
tau2-bench's own reason, and its own reward of 0. The agent's history and the user's are put together into one list of
messages, in the order in which they happened.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tautools.bench.agents.text import read_action
from tautools.bench.sources.bounds import shown_arguments
from tautools.bench.types import Task
from tautools.errors import BenchError
from tautools.llm.types import REFUSAL_CHECK
from tautools.records import CallRecord, CommitRow, Conversation, ModelConfig, Outcome, Role, SeedRule, Strategy
from tautools.run.folder import SettingFolder
from tautools.run.ledger import is_tool_output, read_calls
from tautools.run.trajectory import user_turns

_TERMINATION = {
    Outcome.PASSED: "user_stop",
    Outcome.FAILED: "user_stop",
    Outcome.STEP_LIMIT: "max_steps",
    Outcome.TIME_LIMIT: "timeout",
    Outcome.CONTEXT_OVERFLOW: "context_window_exceeded",
    Outcome.AGENT_ERROR: "too_many_errors",
    Outcome.USER_ERROR: "user_error",
}
"""How we say that a conversation ended, and how tau2-bench does."""


def _reward_info(conversation: Conversation, task: Task, basis: str) -> dict[str, Any]:
    """Return the score of one conversation, which rests on a basis such as `DB+COMMUNICATE`."""
    if conversation.outcome not in {Outcome.PASSED, Outcome.FAILED}:
        note = f"Ended early: {conversation.outcome.value}. {conversation.error}".strip()
        return {"reward": 0.0, "reward_basis": None, "info": {"note": note}}
    info = conversation.reward_info
    parts = dict(info["tau2"]) if "tau2" in info else _rebuilt(info, task, basis)
    breakdown = dict(parts.get("reward_breakdown") or {})
    if verdicts := info.get("nl_assertions"):
        breakdown["NL_ASSERTION"] = float(all(each["met"] for each in verdicts))
        parts["nl_assertions"] = [
            {"nl_assertion": each["assertion"], "met": bool(each["met"]), "justification": str(each.get("reason", ""))}
            for each in verdicts
        ]
        parts["reward_basis"] = list(dict.fromkeys([*(parts.get("reward_basis") or ()), "NL_ASSERTION"]))
    return {**parts, "reward": conversation.reward, "reward_breakdown": breakdown}


def _rebuilt(info: Mapping[str, Any], task: Task, basis: str) -> dict[str, Any]:
    named = [name for name in basis.split("+") if name]
    breakdown: dict[str, float] = {}
    parts: dict[str, Any] = {"reward_basis": named, "reward_breakdown": breakdown}
    if "db" in info:
        parts["db_check"] = {"db_match": bool(info["db"]), "db_reward": float(info["db"])}
        breakdown["DB"] = float(info["db"])
    if "communicate" in info:
        missing = info.get("missing_info") or ()
        parts["communicate_checks"] = [
            {"info": each, "met": each not in missing, "justification": "not said" if each in missing else "said"}
            for each in task.communicate
        ]
        breakdown["COMMUNICATE"] = float(info["communicate"])
    if "assertions" in info:
        verdicts = [bool(each["met"]) for each in info["assertions"]]  # in the order of the task's own
        asserted = getattr(getattr(task.source_task, "evaluation_criteria", None), "env_assertions", None) or ()
        parts["env_assertions"] = [
            {"env_assertion": each.model_dump(mode="json"), "met": met, "reward": float(met)}
            for each, met in zip(asserted, verdicts, strict=False)
        ]
        breakdown["ENV_ASSERTION"] = float(all(verdicts))
    if "ACTION" in named and "missing_actions" in info:
        breakdown["ACTION"] = float(not info["missing_actions"])
    return parts


Message = dict[str, Any]
_ROLES = {"assistant": Role.AGENT, "user": Role.USER}


def trajectory(conversation: Conversation, strategy: Strategy, calls: Sequence[CallRecord]) -> list[Message]:
    """Return the messages of a conversation as tau2-bench writes them, with times and tokens of its model calls.

    Under `act` and `react` the agent's calls are read from its text; calls of attempts that were lost do no harm.
    """
    by_text = strategy in {Strategy.ACT, Strategy.REACT}
    turns = user_turns(conversation)
    messages: list[Message] = []
    for message in conversation.messages:
        if message["role"] == "system":
            continue
        if message["role"] == "user" and not (by_text and is_tool_output(message)):
            messages += [_from_openai(each, "user") for each in next(turns, []) or [message]]
        else:
            messages.append(_agent(message, messages, by_text=by_text))
    messages += [_from_openai(each, "user") for unheard in turns for each in unheard]
    _mark_errors(messages, conversation)
    _set_times(messages, conversation, calls)
    return [{**message, "turn_idx": index} for index, message in enumerate(messages)]


def _iso_time(unix_s: float) -> str:
    """Return a time as tau2-bench writes it: local, without a zone."""
    return datetime.fromtimestamp(unix_s, UTC).astimezone().replace(tzinfo=None).isoformat()


def _agent(message: Message, before: Sequence[Message], *, by_text: bool) -> Message:
    if message["role"] == "user":  # what a tool gave back under `act` and `react`
        asked = before[-1].get("tool_calls") if before else None
        text = str(message.get("content", "")).removeprefix("API output:").strip()
        return _tool_result(asked[0]["id"] if asked else "", text, "assistant")
    if by_text and message["role"] == "assistant":
        return _from_text(message, len(before))
    return _from_openai(message, "assistant")


def _from_openai(message: Message, requestor: str) -> Message:
    if message["role"] == "tool":
        return _tool_result(message.get("tool_call_id", ""), message.get("content"), requestor)
    calls = [
        _call(call.get("id") or "", call["function"]["name"], call["function"]["arguments"], requestor)
        for call in message.get("tool_calls") or ()
    ]
    return _message(requestor, message.get("content"), calls)


def _from_text(message: Message, index: int) -> Message:
    """Read an answer of `act` or `react`; the text as it was written stands next to what it meant."""
    raw_text = str(message.get("content") or "")
    turn = read_action(raw_text)
    calls = [
        _call(f"text_{index}_{number}", call.name, call.arguments, "assistant")
        for number, call in enumerate(turn.calls)
    ]
    return {**_message("assistant", None if calls else turn.text, calls), "raw_data": {"content": raw_text}}


def _call(call_id: str, name: str, arguments: str, requestor: str) -> Message:
    given = shown_arguments(arguments)
    named = given if isinstance(given, dict) else {"": given}
    return {"id": call_id, "name": name, "arguments": named, "requestor": requestor}


def _message(role: str, content: Any, calls: list[Message] | None = None) -> Message:
    return {"role": role, "content": content or None if calls else content or "", "tool_calls": calls or None}


def _tool_result(call_id: str, content: Any, requestor: str) -> Message:
    return {"id": call_id, "role": "tool", "content": content, "requestor": requestor, "error": False}


def _mark_errors(messages: Sequence[Message], conversation: Conversation) -> None:
    errors = {
        side: iter([each.error for each in conversation.actions if each.call and each.by == side]) for side in _ROLES
    }
    for message in messages:
        if message["role"] == "tool":
            message["error"] = next(errors[message["requestor"]], str(message["content"]).startswith("Error"))


def _set_times(messages: Sequence[Message], conversation: Conversation, calls: Sequence[CallRecord]) -> None:
    """Give each message its time, and to those of models what their request cost."""
    requests = {role: iter(each) for role, each in _requests(conversation, calls).items()}
    now = conversation.started_at
    for index, message in enumerate(messages):
        greeting = index == 0 and message["role"] == "assistant"
        role = _ROLES.get(message["role"])
        call = None if greeting or role not in requests else next(requests[role], None)
        if call is None:
            now += 1e-6  # in order, and no time of its own
        else:
            now = max(now + 1e-6, call.started_at + call.queue_s + (call.e2e_s or 0.0))
            message |= {"generation_time_seconds": call.e2e_s, "cost": call.cost_usd}
            if call.prompt_tokens is not None and call.output_tokens is not None:
                message["usage"] = {"prompt_tokens": call.prompt_tokens, "completion_tokens": call.output_tokens}
        message["timestamp"] = _iso_time(min(now, conversation.finished_at))


def _requests(conversation: Conversation, calls: Sequence[CallRecord]) -> dict[Role, list[CallRecord]]:
    """Return each side's requests in order, where there was one for each of its messages."""
    by_role: dict[Role, list[CallRecord]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: (call.started_at, call.step)):
        within = conversation.started_at - 1.0 <= call.started_at <= conversation.finished_at
        if (
            call.role in _ROLES.values()
            and not call.fault
            and not call.expert
            and call.purpose != REFUSAL_CHECK
            and within
        ):
            by_role[call.role].append(call)
    views = {Role.AGENT: conversation.messages, Role.USER: conversation.user_messages}
    answers = {role: sum(each["role"] == "assistant" for each in view) for role, view in views.items()}
    answers[Role.AGENT] -= bool(conversation.messages[1:2]) and conversation.messages[1]["role"] == "assistant"
    return {role: each for role, each in by_role.items() if len(each) == answers[role]}


def tau2_results(folder: SettingFolder, rows: Sequence[CommitRow]) -> dict[str, Any]:
    """Return finished conversations of a setting as tau2-bench's `Results`; errors as `export`."""
    if folder.setting.bench != "tau2":
        raise BenchError(
            f"tau2-bench's format holds tasks of tau2, and {folder.path} is of {folder.setting.bench}.",
            next_step="Export it with --format tau-bench.",
        )
    domain = folder.domain
    order = {task_id: index for index, task_id in enumerate(domain.tasks)}
    in_order = sorted(rows, key=lambda row: (row.trial, order.get(row.task_id, len(order))))
    conversations = [folder.conversation(row) for row in in_order]
    calls: dict[tuple[str, int], list[CallRecord]] = defaultdict(list)
    for call in read_calls(folder.path):
        if call.setting_id in {"", folder.id}:
            calls[call.task_id, call.trial].append(call)
    tasks = [folder.task(each).source_task for each in dict.fromkeys(each.task_id for each in conversations)]
    return {
        "timestamp": _iso_time(time.time()),
        "info": _info(folder, rows),
        "tasks": [each if isinstance(each, dict) else each.model_dump(mode="json") for each in tasks],
        "simulations": [_simulation(folder, each, calls[each.task_id, each.trial]) for each in conversations],
    }


def _info(folder: SettingFolder, rows: Sequence[CommitRow]) -> dict[str, Any]:
    setting, limits, domain = folder.setting, folder.setting.limits, folder.domain
    own_agent = "llm_agent" if setting.strategy is Strategy.FC else f"tautools_{setting.strategy}"
    return {
        "git_commit": f"tautools {folder.provenance.get('tautools', '')}, "
        f"{setting.source} {setting.source_version}, setting {folder.id}{', SIMULATED' if setting.simulated else ''}",
        "num_trials": max((row.trial for row in rows), default=-1) + 1,
        "max_steps": min(limits.max_steps, domain.protocol.max_steps or limits.max_steps),
        "max_errors": limits.max_errors,
        "user_info": {"implementation": "user_simulator", **_model(setting.user)},
        "agent_info": {"implementation": own_agent, **_model(setting.agent)},
        "environment_info": {"domain_name": setting.env, "policy": domain.policy, "tool_defs": None},
        "seed": None if setting.seed_rule is SeedRule.NONE else setting.seed,
    }


def _model(config: ModelConfig) -> dict[str, Any]:
    return {"llm": config.model, "llm_args": config.sampling.model_dump(exclude_defaults=True, exclude_none=True)}


def _simulation(folder: SettingFolder, conversation: Conversation, calls: Sequence[CallRecord]) -> dict[str, Any]:
    started, finished, task = conversation.started_at, conversation.finished_at, folder.task(conversation.task_id)
    key = f"{conversation.setting_id}/{conversation.task_id}/{conversation.trial}"
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, key)),
        "task_id": conversation.task_id,
        "timestamp": _iso_time(started),
        "start_time": _iso_time(started),
        "end_time": _iso_time(finished),
        "duration": finished - started,
        "termination_reason": _TERMINATION[conversation.outcome],
        "agent_cost": _cost(calls, Role.AGENT),
        "user_cost": _cost(calls, Role.USER),
        "reward_info": _reward_info(conversation, task, folder.domain.reward_basis),
        "messages": trajectory(conversation, folder.setting.strategy, calls),
        "trial": conversation.trial,
        # There each request carries this seed; by another rule none of them did.
        "seed": conversation.seed if folder.setting.seed_rule is SeedRule.CONVERSATION else None,
        "mode": "half_duplex",
        "info": {
            "outcome": conversation.outcome.value,
            "simulated": conversation.simulated,
            "seed": conversation.seed,
            "seed_rule": folder.setting.seed_rule.value,
        },
    }


def _cost(calls: Sequence[CallRecord], role: Role) -> float | None:
    """Return what a side's requests cost [USD]; None when it is not known of one of them."""
    costs = [call.cost_usd for call in calls if call.role is role and not call.fault]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if costs and len(known) == len(costs) else None
