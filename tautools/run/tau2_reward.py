"""A conversation's score as tau2-bench writes it: its own answer where there is one, else rebuilt from ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tautools.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.bench.types import Task
    from tautools.records import Conversation

__all__ = ["reward_info"]


def reward_info(conversation: Conversation, task: Task, basis: str) -> dict[str, Any]:
    """Return the score of one conversation.

    Parameters
    ----------
    conversation : Conversation
        The conversation.
    task : Task
        Its task.
    basis : str
        What the reward rests on, such as `DB+COMMUNICATE`.
    """
    if conversation.outcome not in {Outcome.PASSED, Outcome.FAILED}:
        note = f"Ended early: {conversation.outcome.value}. {conversation.error}".strip()
        return {"reward": 0.0, "reward_basis": None, "info": {"note": note}}
    info = conversation.reward_info
    judged = [_judged(each) for each in info.get("nl_assertions") or ()]
    parts = dict(info["tau2"]) if "tau2" in info else _rebuilt(info, task, basis)
    breakdown = dict(parts.get("reward_breakdown") or {})
    if judged:
        breakdown["NL_ASSERTION"] = float(all(each["met"] for each in judged))
        parts["nl_assertions"] = judged
        parts["reward_basis"] = list(dict.fromkeys([*(parts.get("reward_basis") or ()), "NL_ASSERTION"]))
    return {**parts, "reward": conversation.reward, "reward_breakdown": breakdown}


def _judged(verdict: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "nl_assertion": verdict["assertion"],
        "met": bool(verdict["met"]),
        "justification": str(verdict.get("reason", "")),
    }


def _rebuilt(info: Mapping[str, Any], task: Task, basis: str) -> dict[str, Any]:
    named = [name for name in basis.split("+") if name]
    parts: dict[str, Any] = {"reward_basis": named, "reward_breakdown": {}}
    if "db" in info:
        parts["db_check"] = {"db_match": bool(info["db"]), "db_reward": float(info["db"])}
        parts["reward_breakdown"]["DB"] = float(info["db"])
    if "communicate" in info:
        parts["communicate_checks"] = _communicated(task, info.get("missing_info") or ())
        parts["reward_breakdown"]["COMMUNICATE"] = float(info["communicate"])
    if "assertions" in info:
        parts["env_assertions"] = _asserted(task, info["assertions"])
        parts["reward_breakdown"]["ENV_ASSERTION"] = float(all(each["met"] for each in info["assertions"]))
    if "ACTION" in named and "missing_actions" in info:
        parts["reward_breakdown"]["ACTION"] = float(not info["missing_actions"])
    return parts


def _communicated(task: Task, missing: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"info": info, "met": info not in missing, "justification": "not said" if info in missing else "said"}
        for info in task.communicate
    ]


def _asserted(task: Task, told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Set the verdicts beside the task's own assertions, whose order they have."""
    criteria = getattr(task.source_task, "evaluation_criteria", None)
    asserted = getattr(criteria, "env_assertions", None) or ()
    return [
        {"env_assertion": each.model_dump(mode="json"), "met": bool(verdict["met"]), "reward": float(verdict["met"])}
        for each, verdict in zip(asserted, told, strict=False)
    ]
