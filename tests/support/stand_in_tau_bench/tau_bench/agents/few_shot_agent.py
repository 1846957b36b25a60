"""An agent that calls tools and has seen others do it."""

import random
from typing import Any

from tau_bench.agents.tool_calling_agent import ToolCallingAgent


class FewShotToolCallingAgent(ToolCallingAgent):
    def __init__(
        self,
        tools_info: list[dict[str, Any]],
        wiki: str,
        model: str,
        provider: str,
        few_shot_displays: list[str],
        temperature: float = 0.0,
        num_few_shots: int = 5,
    ) -> None:
        super().__init__(tools_info, wiki, model, provider, temperature)
        if len(few_shot_displays) < num_few_shots:
            raise ValueError("not enough displays")
        self.few_shot_displays = few_shot_displays
        self.num_few_shots = num_few_shots

    def system(self) -> str:
        drawn = random.sample(self.few_shot_displays, self.num_few_shots)
        shown = (f"Case {number}:\n{display}" for number, display in enumerate(drawn, start=1))
        return "\n\n".join([self.wiki, *shown])
