"""An agent that calls tools."""

import json
from typing import Any

from litellm import completion

from tau_bench.agents.base import Agent
from tau_bench.envs.base import Env
from tau_bench.types import RESPOND_ACTION_NAME, Action, SolveResult


class ToolCallingAgent(Agent):
    def __init__(
        self, tools_info: list[dict[str, Any]], wiki: str, model: str, provider: str, temperature: float = 0.0
    ) -> None:
        self.tools_info = tools_info
        self.wiki = wiki
        self.model = model
        self.provider = provider
        self.temperature = temperature

    def system(self) -> str:
        return self.wiki

    def solve(self, env: Env, task_index: int | None = None, max_num_steps: int = 30) -> SolveResult:
        system = {"role": "system", "content": self.system()}
        opening = env.reset(task_index=task_index)
        info = opening.info.model_dump()
        messages = [system, {"role": "user", "content": opening.observation}]
        cost = reward = 0.0
        for _ in range(max_num_steps):
            answer = completion(
                messages=messages,
                model=self.model,
                custom_llm_provider=self.provider,
                tools=self.tools_info,
                temperature=self.temperature,
            )
            cost += answer._hidden_params["response_cost"] or 0
            message = answer.choices[0].message.model_dump()
            action = message_to_action(message)
            seen = env.step(action)
            reward = seen.reward
            info |= seen.info.model_dump()
            messages.append(message)
            if action.name == RESPOND_ACTION_NAME:
                messages.append({"role": "user", "content": seen.observation})
            else:
                call = message["tool_calls"][0]
                message["tool_calls"] = [call]
                name = call["function"]["name"]
                told = {"role": "tool", "tool_call_id": call["id"], "name": name, "content": seen.observation}
                messages.append(told)
            if seen.done:
                break
        return SolveResult(reward=reward, info=info, messages=messages, total_cost=cost)


def message_to_action(message: dict[str, Any]) -> Action:
    calls = message.get("tool_calls")
    if not calls:
        return Action(name=RESPOND_ACTION_NAME, kwargs={"content": message["content"]})
    made = calls[0]["function"]
    return Action(name=made["name"], kwargs=json.loads(made["arguments"]))
