"""Result files as other programs write them, made by hand: rows of tau-bench v1, results of tau2-bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["CAST", "simulation", "tau2_results", "v1_error", "v1_row", "write"]

CAST = {"agent.model": "m-4B", "user.model": "u-32B"}
"""Flags that tell what v1's rows do not."""


def write(path: Path, value: Any) -> Path:
    """Write JSON, or text and bytes as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
    path.write_bytes(raw)
    return path


def v1_row(task: int = 0, trial: int = 0, reward: Any = 1.0, **changes: Any) -> dict[str, Any]:
    """Return a row that v1 scored; `words` stand in its messages, so that rows can be told apart."""
    call = {"id": "c1", "type": "function", "function": {"name": "get_order_details", "arguments": '{"order_id": "1"}'}}
    traj = [
        {"role": "system", "content": f"# {changes.pop('env', 'Retail')} agent policy\n\nBe kind."},
        {"role": "user", "content": changes.pop("words", "Hi.")},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "name": "get_order_details", "content": "{}"},
        {"role": "assistant", "content": "Done.", "tool_calls": None},
        {"role": "user", "content": "###STOP###"},
    ]
    scored = {"reward": reward, "info": {"r_actions": reward, "gt_data_hash": "x"}, "actions": []}
    info = {"task": {"user_id": "a", "actions": [], "instruction": "", "outputs": []}, "reward_info": scored}
    return {"task_id": task, "reward": reward, "info": info, "traj": traj, "trial": trial} | changes


def v1_error(task: int = 0, trial: int = 0) -> dict[str, Any]:
    """Return a row of an exception, which v1 scores 0."""
    info = {"error": "Connection refused\nmore", "traceback": "Traceback"}
    return {"task_id": task, "reward": 0.0, "info": info, "traj": [], "trial": trial}


def simulation(task: str = "0", trial: int = 0, reward: float | None = 1.0, **changes: Any) -> dict[str, Any]:
    """Return a simulation of tau2-bench that its customer ended."""
    at = changes.pop("minute", 5)
    said = [
        {"role": "assistant", "content": "Hi! How can I help you today?", "timestamp": f"2026-03-08T20:{at:02}:00"},
        {
            "role": "user",
            "content": changes.pop("words", "Hi."),
            "usage": {"prompt_tokens": 10, "completion_tokens": 2},
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "name": "get_order_details", "arguments": {"order_id": "1"}}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 5},
        },
        {"role": "tool", "id": "c", "content": "{}", "requestor": "assistant"},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "###STOP###"},
    ]
    scored = {"reward": reward, "db_check": {"db_match": reward == 1.0}, "reward_basis": ["DB", "COMMUNICATE"]}
    return {
        "id": f"{task}-{trial}-{at}",
        "task_id": task,
        "trial": trial,
        "seed": 1,
        "start_time": f"2026-03-08T20:{at:02}:00",
        "end_time": f"2026-03-08T20:{at:02}:30",
        "termination_reason": "user_stop",
        "reward_info": None if reward is None else scored,
        "messages": said,
    } | changes


def tau2_results(simulations: list[Any], **changes: Any) -> dict[str, Any]:
    """Return a results file of retail."""
    info = {
        "git_commit": "abc",
        "num_trials": 1,
        "seed": 300,
        "user_info": {"implementation": "user_simulator", "llm": "openai/u-32B", "llm_args": {"temperature": 0.0}},
        "agent_info": {"implementation": "llm_agent", "llm": "hosted_vllm/m-4B", "llm_args": {"temperature": 0.2}},
        "environment_info": {"domain_name": "retail", "policy": "Be kind."},
    }
    return {"timestamp": "2026-03-08T20:20:46", "info": info, "tasks": [], "simulations": simulations} | changes
