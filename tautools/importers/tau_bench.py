"""tau-bench v1's results, and `num_trials-<n>.json` of our own, which has its form.

A row with `info.error` is a fault that v1 scores 0: here it is pending. `reward_info` null with reward 0 means that the
30 steps were used up. Several runs may have written into one file, of different envs even: each row is taken by itself,
its env from the policy that its agent was given.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tautools.importers.rows import (
    RowStatus,
    SourceFacts,
    SourceFile,
    SourceRow,
    actions_text,
    identify,
    model_params,
    outcome_of_reward,
    part,
    plain_messages,
    row_times,
    verdict_parts,
    whole_number,
)
from tautools.records import Outcome, Strategy
from tautools.run.ledger import is_tool_output

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


def read_rows(path: Path, sha256: str, values: Sequence[Any], notes: list[str]) -> SourceFile:
    """Read a file of rows; None among them stands for one that cannot be read."""
    rows = [_read_row(index, value) for index, value in enumerate(values)]
    envs = Counter(row.env for row in rows if row.env)
    if len(envs) > 1:
        notes.append("rows of several envs: " + ", ".join(f"{count} {env}" for env, count in envs.most_common()))
    form = "tautools" if _is_view(values) else "tau-bench"
    return SourceFile(path, sha256, form, _row_facts(path, values, rows), rows, notes)


def _is_view(values: Sequence[Any]) -> bool:
    """Whether rows of v1's form were written by tautools."""
    return any({"outcome", "setting_id"} <= part(each, "info").keys() for each in values)


def _read_row(index: int, value: Any) -> SourceRow:
    named = identify(index, value)
    if named.status is not RowStatus.KEPT:
        return named
    info, own = value.get("info"), _is_view([value])
    if not isinstance(info, dict):
        return named.but(RowStatus.UNREADABLE, "no info")
    if own and info["outcome"] not in list(Outcome):
        return named.but(RowStatus.UNREADABLE, f"outcome {info['outcome']!r}")
    if not own and info.get("error"):
        return named.but(RowStatus.ERROR, _first_line(info["error"]))
    messages, judged = plain_messages(value.get("traj")), outcome_of_reward(value.get("reward"))
    if messages is None or (judged is None and (not own or Outcome(info["outcome"]).scored)):
        problem = "its messages cannot be read" if messages is None else "no reward from 0 to 1"
        return named.but(RowStatus.UNREADABLE, problem)
    task = None if own else info.get("task")
    told = replace(named, env=_env_of(messages, task), messages=messages, counts=_counts(messages))
    return _own_row(told, judged, info) if own else _original_row(told, judged, info)


def _original_row(told: SourceRow, judged: Any, info: Mapping[str, Any]) -> SourceRow:
    if not told.messages:
        return told.but(RowStatus.ERROR, "nothing was said")
    (outcome, reward), scored = judged, info.get("reward_info")
    return replace(
        told,
        outcome=outcome if scored is not None or reward else Outcome.STEP_LIMIT,
        reward=reward,
        reward_info=_parts(scored) if isinstance(scored, dict) else {},
        reference=actions_text(part(info, "task").get("actions"), "kwargs"),
    )


def _own_row(told: SourceRow, judged: Any, info: Mapping[str, Any]) -> SourceRow:
    outcome, before = Outcome(info["outcome"]), part(info, "imported")
    if outcome is Outcome.INFRA:
        return told.but(RowStatus.INFRA, _first_line(info.get("error") or ""))
    timed = not before or before.get("timed") is True
    return replace(
        told,
        outcome=outcome,
        reward=judged[1] if outcome.scored else None,
        reward_info=info.get("reward_info") or {},
        error=str(info.get("error") or ""),
        seed=whole_number(info.get("seed")) or 0,
        simulated=info.get("simulated") is True,
        **(row_times(info.get("started_at"), info.get("finished_at")) if timed else {}),
    )


def _row_facts(path: Path, values: Sequence[Any], rows: Sequence[SourceRow]) -> SourceFacts:
    """Return what a file of rows says, its name included."""
    named, trials = _FILE_NAME.search(path.name), _TRIALS.search(path.name)
    few_shot = named is not None and named["strategy"] == "few-shot"
    params: dict[str, Any] = {"strategy": Strategy.FEW_SHOT.value if few_shot else _strategy_of(rows)}
    num_trials = int(trials[1]) or None if trials else None
    if _is_view(values):
        ids = {each["info"]["setting_id"] for each in values if _is_view([each])}
        ours = str(ids.pop()) if len(ids) == 1 else None
        return SourceFacts("tautools", "unknown", num_trials=num_trials, setting_id=ours, params=params)
    params["bench"] = "tau-bench"
    if named:
        params |= model_params("agent", named["model"], {"temperature": float(named["temperature"])})
        params |= model_params("user", named["user"]) | {"user_strategy": named["user_strategy"]}
    return SourceFacts("tau-bench", "tau-bench", reward_basis="DB+OUTPUTS", num_trials=num_trials, params=params)


def _strategy_of(rows: Sequence[SourceRow]) -> str | None:
    messages = [message for row in rows for message in row.messages if message["role"] in {"assistant", "tool"}]
    if any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
        return Strategy.FC.value
    texts = [str(message["content"]) for message in messages]
    acts = sum("Action:" in text for text in texts)
    if not acts or 2 * acts < len(texts):
        return None
    return (Strategy.REACT if 2 * sum("Thought:" in text for text in texts) > acts else Strategy.ACT).value


def _env_of(messages: Sequence[Mapping[str, Any]], task: Any) -> str:
    first = messages[0] if messages else {}
    policy = _POLICY.match(str(first.get("content") or "")) if first.get("role") == "system" else None
    if policy:
        return policy[1].lower()
    calls = [call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()]
    actions = task.get("actions") if isinstance(task, dict) else None
    calls += [str(each.get("name")) for each in actions or () if isinstance(each, dict)]
    envs = {env for env, words in _TOOL_WORDS for name in calls if any(word in name for word in words)}
    return envs.pop() if len(envs) == 1 else ""


def _parts(scored: Mapping[str, Any]) -> dict[str, Any]:
    info = part(scored, "info")
    outputs = info.get("outputs")
    original = {"reward": scored.get("reward"), "info": scored.get("info")}
    return verdict_parts(original, info.get("r_actions"), outputs.items() if isinstance(outputs, dict) else None)


def _counts(messages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    roles = Counter(message["role"] for message in messages)
    tools = sum(is_tool_output(message) for message in messages)
    asked = roles["user"] + roles["tool"] - tools
    return {"agent_calls": roles["assistant"], "user_calls": asked, "tool_calls": tools}


def _first_line(text: Any) -> str:
    return next(iter(str(text).strip().splitlines()), "")[:300]
