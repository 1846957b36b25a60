"""The envs: a library, the same with a visitor who has tools, and one without splits."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tau2.data_model.tasks import Task
from tau2.environment.db import LibraryDB, VisitorDB
from tau2.environment.environment import Environment
from tau2.environment.toolkit import LibraryTools, VisitorTools

DATA = Path(__file__).parents[2] / "data" / "tau2" / "domains" / "library"


def _environment(env: str) -> Environment:
    tools = LibraryTools(LibraryDB.load(str(DATA / "db.json")))
    user_tools = VisitorTools(VisitorDB()) if env == "visit" else None
    return Environment(env, (DATA / "policy.md").read_text(), tools, user_tools)


def _tasks(env: str, split: str | None = "base") -> list[Task]:
    told = json.loads((DATA / "tasks.json").read_text())[env]
    return [Task.model_validate(each) for each in told["tasks"] if split is None or each["id"] in told["splits"][split]]


def _splits(env: str) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = json.loads((DATA / "tasks.json").read_text())[env]["splits"]
    return splits


class Registry:
    def get_domains(self) -> list[str]:
        return ["attic", "library", "visit"]

    def get_task_splits_loader(self, env: str) -> Callable[[], dict[str, list[str]]] | None:
        return None if env == "attic" else functools.partial(_splits, env)

    def get_tasks_loader(self, env: str) -> Callable[[str | None], list[Task]]:
        return functools.partial(_tasks, env)

    def get_env_constructor(self, env: str) -> Callable[..., Any]:
        return functools.partial(_environment, env)


registry = Registry()
