"""The agent's prompt."""

from typing import Any


class LLMAgent:
    def __init__(self, tools: list[Any], domain_policy: str, llm: str, llm_args: dict[str, Any]) -> None:
        self.system_prompt = f"You work here.\n{domain_policy}"
