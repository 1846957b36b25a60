"""An agent that writes its actions as text."""

import json
from typing import Any

from litellm import completion

from tau_bench.agents.base import Agent
from tau_bench.envs.base import Env
from tau_bench.types import RESPOND_ACTION_FIELD_NAME, RESPOND_ACTION_NAME, Action, SolveResult

ACT_INSTRUCTION = """

Write "Action:" and then one action as JSON: {"name": ..., "arguments": {...}}. To speak, use the action "respond", whose
argument is "content".
"""
REACT_INSTRUCTION = f"""

Write "Thought:" and what you think before each action.
{ACT_INSTRUCTION}"""


class ChatReActAgent(Agent):
    def __init__(
        self,
        tools_info: list[dict[str, Any]],
        wiki: str,
        model: str,
        provider: str,
        use_reasoning: bool = True,
        temperature: float = 0.0,
    ) -> None:
        self.prompt = (
            f"{wiki}\nTools: {json.dumps(tools_info)}{REACT_INSTRUCTION if use_reasoning else ACT_INSTRUCTION}"
        )
        self.model = model
        self.provider = provider
        self.temperature = temperature

    def generate_next_step(self, messages: list[dict[str, Any]]) -> tuple[dict[str, Any], Action, float]:
        answer = completion(
            model=self.model, custom_llm_provider=self.provider, messages=messages, temperature=self.temperature
        )
        message = answer.choices[0].message
        written = message.content.split("Action:")[-1].strip()
        try:
            read = json.loads(written)
        except json.JSONDecodeError:
            read = {"name": RESPOND_ACTION_NAME, "arguments": {RESPOND_ACTION_FIELD_NAME: written}}
        action = Action(name=read["name"], kwargs=read["arguments"])
        return message.model_dump(), action, answer._hidden_params["response_cost"]

    def solve(self, env: Env, task_index: int | None = None, max_num_steps: int = 30) -> SolveResult:
        opening = env.reset(task_index=task_index)
        messages = [{"role": "system", "content": self.prompt}, {"role": "user", "content": opening.observation}]
        reward, info = 0.0, {}
        for _ in range(max_num_steps):
            message, action, _ = self.generate_next_step(messages)
            seen = env.step(action)
            reward = seen.reward
            info |= seen.info.model_dump()
            mark = "" if action.name == RESPOND_ACTION_NAME else "API output: "
            messages += [message, {"role": "user", "content": f"{mark}{seen.observation}"}]
            if seen.done:
                break
        return SolveResult(reward=reward, info=info, messages=messages)
