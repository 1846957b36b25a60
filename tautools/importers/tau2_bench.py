"""tau2-bench's results: one JSON file, or `results.json` beside a folder with one file for each simulation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tautools.importers.rows import (
    RowStatus,
    SourceFacts,
    SourceRow,
    actions_text,
    arguments_text,
    count_by_role,
    identify,
    outcome_of_reward,
    parse_model,
    task_id_text,
    tool_call,
    unix_time,
    whole_number,
)
from tautools.records import Outcome, Strategy, TrajectoryAction

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


_PARTS = ("DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE", "NL_ASSERTION")
_USUAL_IMPLEMENTATIONS = ("llm_agent", "user_simulator")
_OUTCOMES = {
    "max_steps": Outcome.STEP_LIMIT,
    "timeout": Outcome.TIME_LIMIT,
    "too_many_errors": Outcome.AGENT_ERROR,
    "agent_error": Outcome.AGENT_ERROR,
    "context_window_exceeded": Outcome.CONTEXT_OVERFLOW,
}
"""Ends that count as a reward of 0."""
_LOST_ENDS = {
    "infrastructure_error": RowStatus.INFRA,
    "unexpected_error": RowStatus.ERROR,
    "user_error": RowStatus.ERROR,
}


def is_results(value: Any) -> bool:
    """Whether this is a results file, with or without simulations in it."""
    return isinstance(value, dict) and isinstance(value.get("info"), dict) and "environment_info" in value["info"]


def why_foreign(value: Mapping[str, Any]) -> str:
    """Return why something with simulations is no results file of tau2-bench."""
    return (
        "It has `simulations` as tau2-bench's files do, but no `info.environment_info`, `info.agent_info` and "
        f"`info.user_info`: which models were used, and how, is not said. Its keys: {', '.join(list(value)[:8])}."
    )


def results_facts(value: Mapping[str, Any]) -> SourceFacts:
    """Return what the head of a results file says."""
    info = value["info"]
    agent, user, env = (_info_part(info, name) for name in ("agent_info", "user_info", "environment_info"))
    played = tuple(
        str(each.get("implementation") or usual)
        for each, usual in zip((agent, user), _USUAL_IMPLEMENTATIONS, strict=True)
    )
    return SourceFacts(
        bench="tau2",
        harness="tau2-bench",
        protocol="tau2-bench" if played == _USUAL_IMPLEMENTATIONS else f"tau2-bench {played[0]} {played[1]}",
        source_version=str(info.get("git_commit") or "unknown"),
        reward_basis=_basis(value),
        env=str(env["domain_name"]) if env.get("domain_name") else None,
        split="base",
        strategy=Strategy.FC,
        agent=parse_model(agent.get("llm"), agent.get("llm_args")),
        user=parse_model(user.get("llm"), user.get("llm_args")),
        num_trials=whole_number(info.get("num_trials")) or None,
        seed=whole_number(info.get("seed")),
    )


def references(value: Mapping[str, Any]) -> dict[str, str]:
    """Return the reference actions of the tasks in the file, as canonical JSON by task id."""
    by_task = {}
    for task in value.get("tasks") or ():
        criteria = task.get("evaluation_criteria") if isinstance(task, dict) else None
        name = task_id_text(task.get("id")) if isinstance(task, dict) else None
        text = actions_text((criteria or {}).get("actions") or [], "arguments")
        if name is not None and text is not None:
            by_task[name] = text
    return by_task


def read_simulation(index: int, value: Any, env: str, reference: Mapping[str, str]) -> SourceRow:
    """Read one simulation."""
    named = replace(identify(index, value, trial=0), env=env)
    if named.status is not RowStatus.KEPT:
        return named
    end = str(value.get("termination_reason") or "")
    if end in _LOST_ENDS:
        return named.but(_LOST_ENDS[end], end)
    if end and end not in {*_OUTCOMES, "user_stop", "agent_stop"}:
        return named.but(RowStatus.UNREADABLE, f"termination_reason {end!r}")
    return _read_played(named, value, _OUTCOMES.get(end), reference.get(named.task_id))


def _read_played(named: SourceRow, value: Mapping[str, Any], ended: Outcome | None, reference: str | None) -> SourceRow:
    scored = value.get("reward_info")
    judged = outcome_of_reward(scored.get("reward")) if isinstance(scored, dict) else None
    if ended is None and judged is None:
        return named.but(RowStatus.NO_SCORE, "no reward")
    messages = value.get("messages")
    readable = isinstance(messages, list) and all(isinstance(each, dict) and each.get("role") for each in messages)
    if not readable or not messages:
        return named.but(RowStatus.UNREADABLE, "its messages cannot be read")
    outcome, reward = (ended, 0.0) if ended is not None or judged is None else judged
    times = unix_time(value.get("start_time")), unix_time(value.get("end_time"))
    known = None not in times and any(each.get("timestamp") for each in messages)
    return replace(
        named,
        outcome=outcome,
        reward=reward,
        reward_info=_parts(scored) if isinstance(scored, dict) else {},
        messages=[each for message in messages for each in _message(message)],
        actions=list(_actions_of(messages)),
        # Files that were scrubbed of their times keep made-up ones in these two fields.
        started_at=times[0] if known else None,
        finished_at=times[1] if known else None,
        counts=_counts(messages),
        reference=reference,
        error="" if ended is None else str(value.get("termination_reason")),
        seed=whole_number(value.get("seed")) or 0,
    )


def _message(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a message as the agent's side saw it, which does not see the customer's own tool calls."""
    role, content = message["role"], message.get("content")
    calls = [each for each in message.get("tool_calls") or () if isinstance(each, dict)]
    if role == "tool":
        if message.get("requestor", "assistant") == "assistant":
            yield {"role": "tool", "tool_call_id": str(message.get("id") or ""), "content": str(content or "")}
        return
    converted: dict[str, Any] = {"role": role, "content": content}
    if calls and role == "assistant":
        converted["tool_calls"] = [
            tool_call(str(call.get("id") or ""), str(call.get("name")), call.get("arguments")) for call in calls
        ]
    if content or "tool_calls" in converted:
        yield converted


def _actions_of(messages: Sequence[Mapping[str, Any]]) -> Iterator[TrajectoryAction]:
    for message in messages:
        calls = [each for each in message.get("tool_calls") or () if isinstance(each, dict)]
        by = "user" if message["role"] == "user" else "assistant"
        for call in calls:
            yield TrajectoryAction(by=by, call=str(call.get("name")), arguments=arguments_text(call.get("arguments")))
        if message["role"] == "assistant" and message.get("content") and not calls:
            yield TrajectoryAction(text=str(message["content"]))


def _parts(scored: Mapping[str, Any]) -> dict[str, Any]:
    checks = scored.get("communicate_checks")
    checks = [each for each in checks if isinstance(each, dict)] if isinstance(checks, list) else []
    parts: dict[str, Any] = {"original": dict(scored)}
    database = scored.get("db_check")
    if isinstance(database, dict) and isinstance(database.get("db_match"), bool):
        parts["db"] = database["db_match"]
    if checks:
        parts["missing_info"] = [str(each.get("info")) for each in checks if not each.get("met")]
        parts["communicate"] = not parts["missing_info"]
    return parts


def _counts(messages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count requests by the messages that they gave; the greeting comes from no model."""
    greeted = bool(messages) and messages[0]["role"] == "assistant"
    counts = {
        "agent_calls": count_by_role(messages, "assistant") - greeted,
        "user_calls": count_by_role(messages, "user"),
        "tool_calls": count_by_role(messages, "tool"),
    }
    usage = [each["usage"] for each in messages if isinstance(each.get("usage"), dict)]
    if usage:
        counts["prompt_tokens"] = sum(whole_number(each.get("prompt_tokens")) or 0 for each in usage)
        counts["output_tokens"] = sum(whole_number(each.get("completion_tokens")) or 0 for each in usage)
    return counts


def _basis(value: Mapping[str, Any]) -> str:
    """Return all that rewards in the file are made of; each task names its own part of it."""
    scored = [each.get("reward_info") for each in value.get("simulations") or () if isinstance(each, dict)]
    bases = [each.get("reward_basis") for each in scored if isinstance(each, dict)]
    named = {str(part) for basis in bases if isinstance(basis, list) for part in basis}
    return "+".join([*(part for part in _PARTS if part in named), *sorted(named.difference(_PARTS))]) or "unknown"


def _info_part(info: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = info.get(name)
    return part if isinstance(part, dict) else {}
