"""An env: a database, tools that work on it, tasks, a customer, and the reward."""

import random
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from tau_bench.envs.tool import Tool
from tau_bench.envs.user import UserStrategy, load_user
from tau_bench.types import (
    RESPOND_ACTION_NAME,
    Action,
    EnvInfo,
    EnvResetResponse,
    EnvResponse,
    RewardActionInfo,
    RewardOutputInfo,
    RewardResult,
    Task,
)


def to_hashable(item: Any) -> Any:
    if isinstance(item, dict):
        return tuple((name, to_hashable(item[name])) for name in sorted(item))
    if isinstance(item, list):
        return tuple(map(to_hashable, item))
    return item


def consistent_hash(value: Any) -> str:
    return sha256(str(value).encode()).hexdigest()


class Env:
    def __init__(
        self,
        data_load_func: Callable[[], dict[str, Any]],
        tools: list[type[Tool]],
        tasks: list[Task],
        wiki: str,
        rules: list[str],
        user_strategy: str | UserStrategy,
        user_model: str,
        user_provider: str | None = None,
        task_index: int | None = None,
    ) -> None:
        self.data_load_func = data_load_func
        self.data = data_load_func()
        self.tools_info = [tool.get_info() for tool in tools]
        self.tools_map = {info["function"]["name"]: tool for info, tool in zip(self.tools_info, tools, strict=True)}
        self.terminate_tools: list[str] = []
        self.tasks = tasks
        self.task_index = random.randint(0, len(tasks)) if task_index is None else task_index
        self.task = tasks[self.task_index]
        self.wiki = wiki
        self.rules = rules
        self.user = load_user(user_strategy=user_strategy, model=user_model, provider=user_provider)
        self.actions: list[Action] = []

    def reset(self, task_index: int | None = None) -> EnvResetResponse:
        self.task_index = random.randint(0, len(self.tasks)) if task_index is None else task_index
        self.task = self.tasks[self.task_index]
        self.data = self.data_load_func()
        self.actions = []
        said = self.user.reset(instruction=self.task.instruction)
        return EnvResetResponse(observation=said, info=EnvInfo(task=self.task, source="user"))

    def step(self, action: Action) -> EnvResponse:
        self.actions.append(action)
        info = EnvInfo(task=self.task, source="user" if action.name == RESPOND_ACTION_NAME else action.name)
        done = False
        if action.name == RESPOND_ACTION_NAME:
            seen = self.user.step(action.kwargs["content"])
            done = "###STOP###" in seen
        elif action.name in self.tools_map:
            done = action.name in self.terminate_tools
            try:
                seen = self.tools_map[action.name].invoke(data=self.data, **action.kwargs)
            except Exception as error:
                seen = f"Error: {error}"
        else:
            seen = f"Unknown action {action.name}"
        if done:
            info.reward_info = self.calculate_reward()
            info.user_cost = self.user.get_total_cost()
        reward = info.reward_info.reward if info.reward_info else 0
        return EnvResponse(observation=seen, reward=reward, done=done, info=info)

    def get_data_hash(self) -> str:
        return consistent_hash(to_hashable(self.data))

    def calculate_reward(self) -> RewardResult:
        reached = self.get_data_hash()
        actions = [action for action in self.task.actions if action.name != RESPOND_ACTION_NAME]
        said = [a.kwargs["content"].lower().replace(",", "") for a in self.actions if a.name == RESPOND_ACTION_NAME]
        self.data = self.data_load_func()
        for action in self.task.actions:
            if action.name not in self.terminate_tools:
                self.step(action)
        wanted = self.get_data_hash()
        reward = float(reached == wanted)
        if not self.task.outputs:
            info = RewardActionInfo(r_actions=reward, gt_data_hash=wanted)
            return RewardResult(reward=reward, info=info, actions=actions)
        found = {output: any(output.lower() in words for words in said) for output in self.task.outputs}
        told = RewardOutputInfo(r_outputs=float(all(found.values())), outputs=found)
        return RewardResult(reward=reward * told.r_outputs, info=told, actions=actions)
