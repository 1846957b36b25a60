"""What a tool is."""

from typing import Any


class Tool:
    @staticmethod
    def invoke(*args: Any, **kwargs: Any) -> str:
        raise NotImplementedError

    @staticmethod
    def get_info() -> dict[str, Any]:
        raise NotImplementedError


def described(name: str, description: str, **parameters: dict[str, Any]) -> dict[str, Any]:
    """Write a tool whose arguments are all needed as OpenAI's API wants it."""
    schema = {"type": "object", "properties": parameters, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}
