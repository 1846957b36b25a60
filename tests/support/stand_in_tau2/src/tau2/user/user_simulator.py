"""The customer's prompt."""

from typing import Any


class UserSimulator:
    def __init__(self, llm: str, instructions: str, tools: list[Any] | None, llm_args: dict[str, Any]) -> None:
        self.system_prompt = f"You visit.{'' if tools is None else ' You have hands.'}\n{instructions}"
