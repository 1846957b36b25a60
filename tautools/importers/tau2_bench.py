"""tau2-bench's results: one JSON file, or `results.json` beside a folder with one file for each simulation."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

from tautools.importers.rows import (
    RowStatus,
    SourceFacts,
    SourceFile,
    SourceRow,
    are_messages,
    arguments_text,
    identify,
    model_params,
    outcome_of_reward,
    part,
    read_loosely,
    row_times,
    task_id_text,
    tau2_reference,
    tool_call,
    verdict_parts,
    whole_number,
)
from tautools.records import Outcome, SeedRule, Strategy, TrajectoryAction

_PARTS = ("DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE", "NL_ASSERTION")
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


def is_results(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether this is a results file, with or without simulations in it."""
    return "environment_info" in part(value, "info")


def read_results(path: Path, sha256: str, value: Mapping[str, Any], notes: list[str]) -> SourceFile:
    """Read a results file, with the simulations in it and those beside it."""
    simulations = list(value.get("simulations") or ())
    beside = sorted((path.parent / "simulations").glob("*.json")) if path.name == "results.json" else []
    if beside:
        contents = [file.read_bytes() for file in beside]
        simulations += [read_loosely(content)[0] for content in contents]
        sha256 = hashlib.sha256(b"".join([sha256.encode(), *contents])).hexdigest()
        notes.append(f"with {len(beside)} files of simulations/; the hash is over all")
    facts = _results_facts({**value, "simulations": simulations})
    indexed = value.get("simulation_index")
    if isinstance(indexed, list) and len(indexed) != len(simulations):
        notes.append(f"its index names {len(indexed)} simulations, {len(simulations)} are there")
    tasks = [task for task in value.get("tasks") or () if isinstance(task, dict)]
    reference = {task_id_text(task.get("id")): tau2_reference(task) for task in tasks}
    rows = [_read_simulation(n, each, facts.params.get("env", ""), reference) for n, each in enumerate(simulations)]
    return SourceFile(path, sha256, "tau2-bench", facts, rows, notes)


def _results_facts(value: Mapping[str, Any]) -> SourceFacts:
    info = value["info"]
    agent, user, env = (part(info, name) for name in ("agent_info", "user_info", "environment_info"))
    played = (str(agent.get("implementation") or "llm_agent"), str(user.get("implementation") or "user_simulator"))
    usual = played == ("llm_agent", "user_simulator")
    params = {"bench": "tau2", "tasks.split": "base", "strategy": Strategy.FC.value}
    return SourceFacts(
        harness="tau2-bench",
        protocol="tau2-bench" if usual else f"tau2-bench {played[0]} {played[1]}",
        source_version=str(info.get("git_commit") or "unknown"),
        reward_basis=_basis(value),
        num_trials=whole_number(info.get("num_trials")) or None,
        seed=whole_number(info.get("seed")),
        seed_rule=_seed_rule(value["simulations"]),
        params=params
        | ({"env": str(env["domain_name"])} if env.get("domain_name") else {})
        | model_params("agent", agent.get("llm"), agent.get("llm_args"))
        | model_params("user", user.get("llm"), user.get("llm_args")),
    )


def _seed_rule(simulations: Sequence[Any]) -> SeedRule:
    """Return what the requests carried: in tau2-bench the simulation's seed; our own exports say by which rule."""
    told = [each for each in simulations if isinstance(each, dict)]
    ours = next((part(each, "info").get("seed_rule") for each in told), None)
    if ours in set(SeedRule):
        return SeedRule(ours)
    return SeedRule.CONVERSATION if any(each.get("seed") is not None for each in told) else SeedRule.NONE


def _read_simulation(index: int, value: Any, env: str, reference: Mapping[Any, str | None]) -> SourceRow:
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
    scored = part(value, "reward_info")
    judged = outcome_of_reward(scored.get("reward"))
    if ended is None and judged is None:
        return named.but(RowStatus.NO_SCORE, "no reward")
    messages = value.get("messages")
    if not messages or not are_messages(messages):
        return named.but(RowStatus.UNREADABLE, "its messages cannot be read")
    outcome, reward = (ended, 0.0) if ended is not None or judged is None else judged
    # Files that were scrubbed of their times keep made-up ones in these two fields.
    timed = any(each.get("timestamp") for each in messages)
    return replace(
        named,
        outcome=outcome,
        reward=reward,
        reward_info=_parts(scored) if scored else {},
        messages=[each for message in messages for each in _message(message)],
        actions=list(_actions_of(messages)),
        counts=_counts(messages),
        reference=reference,
        error="" if ended is None else str(value.get("termination_reason")),
        seed=whole_number(value.get("seed")) or 0,
        **(row_times(value.get("start_time"), value.get("end_time")) if timed else {}),
    )


def _calls_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [each for each in message.get("tool_calls") or () if isinstance(each, dict)]


def _message(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a message as the agent's side saw it, which does not see the customer's own tool calls."""
    role, content = message["role"], message.get("content")
    if role == "tool":
        if message.get("requestor", "assistant") == "assistant":
            yield {"role": "tool", "tool_call_id": str(message.get("id") or ""), "content": str(content or "")}
        return
    calls = _calls_of(message) if role == "assistant" else []
    made = [tool_call(str(call.get("id") or ""), str(call.get("name")), call.get("arguments")) for call in calls]
    if content or made:
        yield {"role": role, "content": content} | ({"tool_calls": made} if made else {})


def _actions_of(messages: Sequence[Mapping[str, Any]]) -> Iterator[TrajectoryAction]:
    for message in messages:
        calls = _calls_of(message)
        by = "user" if message["role"] == "user" else "assistant"
        for call in calls:
            yield TrajectoryAction(by=by, call=str(call.get("name")), arguments=arguments_text(call.get("arguments")))
        if message["role"] == "assistant" and message.get("content") and not calls:
            yield TrajectoryAction(text=str(message["content"]))


def _parts(scored: Mapping[str, Any]) -> dict[str, Any]:
    checks = scored.get("communicate_checks")
    checks = [each for each in checks if isinstance(each, dict)] if isinstance(checks, list) else []
    matched = part(scored, "db_check").get("db_match")
    informed = [(str(each.get("info")), each.get("met")) for each in checks]
    return verdict_parts(dict(scored), matched if isinstance(matched, bool) else None, informed or None)


def _counts(messages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count requests by the messages that they gave; the greeting comes from no model."""
    roles = Counter(message["role"] for message in messages)
    asked = roles["assistant"] - (messages[0]["role"] == "assistant")
    counts = {"agent_calls": asked, "user_calls": roles["user"], "tool_calls": roles["tool"]}
    usage = [each["usage"] for each in messages if isinstance(each.get("usage"), dict)]
    if usage:
        counts["prompt_tokens"] = sum(whole_number(each.get("prompt_tokens")) or 0 for each in usage)
        counts["output_tokens"] = sum(whole_number(each.get("completion_tokens")) or 0 for each in usage)
    return counts


def _basis(value: Mapping[str, Any]) -> str:
    """Return all that rewards in the file are made of; each task names its own part of it."""
    bases = [part(each, "reward_info").get("reward_basis") for each in value.get("simulations") or ()]
    named = {str(name) for basis in bases if isinstance(basis, list) for name in basis}
    return "+".join([*(name for name in _PARTS if name in named), *sorted(named.difference(_PARTS))]) or "unknown"
