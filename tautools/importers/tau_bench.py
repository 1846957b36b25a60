"""tau-bench v1's results, and `num_trials-<n>.json` of our own, which has its form.

A row with `info.error` is a fault that v1 scores 0: here it is pending. `reward_info` null with reward 0 means that the
30 steps were used up. Several runs may have written into one file, of different envs even: each row is taken by itself,
its env from the policy that its agent was given.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tautools.importers.rows import (
    RowStatus,
    SourceFacts,
    SourceRow,
    actions_text,
    count_by_role,
    identify,
    outcome_of_reward,
    parse_model,
    plain_messages,
    unix_time,
    whole_number,
)
from tautools.records import Outcome, Strategy, UserStrategy
from tautools.run.ledger import is_tool_output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


_POLICY = re.compile(r"\s*#*\s*(airline|retail) agent policy", re.IGNORECASE)
_TOOL_WORDS = (("airline", ("reservation", "flight", "airport")), ("retail", ("order", "product", "exchange")))
"""Words in the names of an env's tools, for rows whose policy is not there."""
_TRIALS = re.compile(r"num_trials-(\d+)")
_FILE_NAME = re.compile(
    r"(?P<strategy>tool-calling|few-shot|react|act)-(?P<model>.+)-(?P<temperature>\d+(?:\.\d+)?)_range_-?\d+--?\d+"
    r"_user-(?P<user>.+)-(?P<user_strategy>llm|react|verify|reflection|human)_\d{10}"
)
"""How v1 names its files."""


def is_rows(values: Sequence[Any]) -> bool:
    """Whether these are rows of v1's form; damaged ones may be among them."""
    return any(isinstance(each, dict) and {"task_id", "reward", "info"} <= each.keys() for each in values)


def is_view(values: Sequence[Any]) -> bool:
    """Whether rows of v1's form were written by tautools."""
    infos = [each.get("info") for each in values if isinstance(each, dict)]
    return any(isinstance(info, dict) and {"outcome", "setting_id"} <= info.keys() for info in infos)


def read_row(index: int, value: Any) -> SourceRow:
    """Read one row of a file."""
    named = identify(index, value)
    if named.status is not RowStatus.KEPT:
        return named
    info = value.get("info")
    if not isinstance(info, dict):
        return named.but(RowStatus.UNREADABLE, "no info")
    if "outcome" in info and "setting_id" in info:
        return _read_own_row(named, value, info)
    if info.get("error"):
        return named.but(RowStatus.ERROR, _first_line(info["error"]))
    return _read_original_row(named, value, info)


def _read_original_row(named: SourceRow, value: Mapping[str, Any], info: Mapping[str, Any]) -> SourceRow:
    messages = plain_messages(value.get("traj"))
    judged = outcome_of_reward(value.get("reward"))
    if messages is None or judged is None:
        return named.but(
            RowStatus.UNREADABLE, "its messages cannot be read" if messages is None else "no reward from 0 to 1"
        )
    if not messages:
        return named.but(RowStatus.ERROR, "nothing was said")
    scored = info.get("reward_info")
    outcome = judged[0] if scored is not None or judged[1] else Outcome.STEP_LIMIT
    task = info.get("task")
    return replace(
        named,
        env=_env_of(messages, task),
        outcome=outcome,
        reward=judged[1],
        reward_info=_parts(scored) if isinstance(scored, dict) else {},
        messages=messages,
        counts=_counts(messages),
        reference=actions_text(task.get("actions"), "kwargs") if isinstance(task, dict) else None,
    )


def _read_own_row(named: SourceRow, value: Mapping[str, Any], info: Mapping[str, Any]) -> SourceRow:
    messages = plain_messages(value.get("traj"))
    try:
        outcome = Outcome(info["outcome"])
    except ValueError:
        return named.but(RowStatus.UNREADABLE, f"outcome {info['outcome']!r}")
    judged = outcome_of_reward(value.get("reward"))
    if messages is None or (outcome.scored and judged is None):
        return named.but(
            RowStatus.UNREADABLE, "its messages cannot be read" if messages is None else "no reward from 0 to 1"
        )
    if outcome is Outcome.INFRA:
        return named.but(RowStatus.INFRA, _first_line(info.get("error") or ""))
    before = info.get("imported")
    timed = before.get("timed") is True if isinstance(before, dict) else True
    return replace(
        named,
        env=_env_of(messages, None),
        outcome=outcome,
        reward=judged[1] if outcome.scored and judged else None,
        reward_info=info.get("reward_info") or {},
        messages=messages,
        started_at=unix_time(info.get("started_at")) if timed else None,
        finished_at=unix_time(info.get("finished_at")) if timed else None,
        counts=_counts(messages),
        error=str(info.get("error") or ""),
        seed=whole_number(info.get("seed")) or 0,
        simulated=info.get("simulated") is True,
    )


def row_facts(path: Path, values: Sequence[Any], rows: Sequence[SourceRow]) -> SourceFacts:
    """Return what a file of rows says, its name included."""
    named, trials = _FILE_NAME.search(path.name), _TRIALS.search(path.name)
    strategy = Strategy.FEW_SHOT if named and named["strategy"] == "few-shot" else _strategy_of(rows)
    num_trials = int(trials[1]) if trials and int(trials[1]) > 0 else None
    if is_view(values):
        ids = {each["info"].get("setting_id") for each in values if is_view([each])}
        ours = str(ids.pop()) if len(ids) == 1 else None
        return SourceFacts("tau2", "tautools", "unknown", strategy=strategy, num_trials=num_trials, setting_id=ours)
    return SourceFacts(
        bench="tau-bench",
        harness="tau-bench",
        protocol="tau-bench",
        reward_basis="DB+OUTPUTS",
        strategy=strategy,
        agent=parse_model(named["model"], {"temperature": float(named["temperature"])}) if named else None,
        user=parse_model(named["user"]) if named else None,
        user_strategy=UserStrategy(named["user_strategy"]) if named else None,
        num_trials=num_trials,
    )


def _strategy_of(rows: Sequence[SourceRow]) -> Strategy | None:
    messages = [message for row in rows for message in row.messages if message["role"] in {"assistant", "tool"}]
    if any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
        return Strategy.FC
    texts = [str(message["content"]) for message in messages]
    acts = sum("Action:" in text for text in texts)
    if not acts or 2 * acts < len(texts):
        return None
    return Strategy.REACT if 2 * sum("Thought:" in text for text in texts) > acts else Strategy.ACT


def _env_of(messages: Sequence[Mapping[str, Any]], task: Any) -> str:
    first = str(messages[0].get("content") or "") if messages else ""
    policy = _POLICY.match(first) if messages and messages[0]["role"] == "system" else None
    if policy:
        return policy[1].lower()
    calls = [call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()]
    actions = task.get("actions") if isinstance(task, dict) else None
    calls += [str(each.get("name")) for each in actions or () if isinstance(each, dict)]
    envs = {env for env, words in _TOOL_WORDS for name in calls if any(word in name for word in words)}
    return envs.pop() if len(envs) == 1 else ""


def _parts(scored: Mapping[str, Any]) -> dict[str, Any]:
    """Return v1's verdict by the names of ours; the original is kept alongside."""
    info = scored.get("info")
    parts: dict[str, Any] = {"original": {"reward": scored.get("reward"), "info": info}}
    if isinstance(info, dict) and "r_actions" in info:
        parts["db"] = bool(info["r_actions"])
    outputs = info.get("outputs") if isinstance(info, dict) else None
    if isinstance(outputs, dict):
        parts["missing_info"] = [text for text, communicated in outputs.items() if not communicated]
        parts["communicate"] = not parts["missing_info"]
    return parts


def _counts(messages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    tools = sum(is_tool_output(message) for message in messages)
    asked = count_by_role(messages, "user") - sum(is_tool_output(each) for each in messages if each["role"] == "user")
    return {"agent_calls": count_by_role(messages, "assistant"), "user_calls": asked, "tool_calls": tools}


def _first_line(text: Any) -> str:
    return next(iter(str(text).strip().splitlines()), "")[:300]
