"""Settings and conversations made by hand, for tests of what becomes of them on disk."""

from __future__ import annotations

from typing import Any

from tautools.records import Conversation, ModelConfig, Outcome, Setting, Strategy


def made_setting(**changes: Any) -> Setting:
    given = {
        "source": "inspect-evals",
        "source_version": "0.26.0",
        "protocol": "inspect-tau2",
        "reward_basis": "DB+COMMUNICATE",
        "env": "retail",
        "strategy": Strategy.FC,
        "agent": ModelConfig(model="Qwen/Qwen3-4B-Instruct-2507"),
        "user": ModelConfig(model="Qwen/Qwen3-32B"),
    }
    return Setting(**(given | changes))


def made_conversation(setting: Setting, task_id: str = "0", trial: int = 0, **changes: Any) -> Conversation:
    given = {
        "setting_id": setting.id,
        "env": setting.env,
        "task_id": task_id,
        "trial": trial,
        "outcome": Outcome.PASSED,
        "reward": 1.0,
        "messages": [
            {"role": "system", "content": "Policy."},
            {"role": "user", "content": f"Task {task_id}, please. ñ ü 客户"},
            {"role": "assistant", "content": "Done."},
        ],
        "seed": 7,
        "started_at": 100.0,
        "finished_at": 110.0,
    }
    return Conversation(**(given | changes))
