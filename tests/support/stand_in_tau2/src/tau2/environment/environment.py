"""An environment: both sides' tools, kept in step."""

import json
from typing import Any

from tau2.data_model.message import ToolCall, ToolMessage


class Environment:
    def __init__(self, name: str, policy: str, tools: Any, user_tools: Any = None) -> None:
        self.name = name
        self.policy = policy
        self.tools = tools
        self.user_tools = user_tools

    def get_domain_name(self) -> str:
        return self.name

    def get_policy(self) -> str:
        return self.policy

    def get_tools(self) -> list[Any]:
        return list(self.tools.get_tools().values())

    def get_user_tools(self, include: list[str] | None = None) -> list[Any]:
        return list(self.user_tools.get_tools(include).values())

    def set_state(self, initialization_data: Any, initialization_actions: Any, message_history: list[Any]) -> None:
        for action in initialization_actions or ():
            self.make_tool_call(action.name, action.requestor, **action.arguments)
        for message in message_history:
            for call in getattr(message, "tool_calls", None) or ():
                self.get_response(call)

    def make_tool_call(self, tool_name: str, requestor: str = "assistant", **arguments: Any) -> Any:
        kit = self.user_tools if requestor == "user" else self.tools
        if tool_name not in kit.get_tools():
            raise ValueError(f"Tool '{tool_name}' not found.")
        return getattr(kit, tool_name)(**arguments)

    def sync_tools(self) -> None:
        if self.user_tools is not None and self.user_tools.db.desk.visitor == "fire":
            self.user_tools.db.desk.open = False

    def get_response(self, call: ToolCall) -> ToolMessage:
        error = False
        try:
            answer = self.make_tool_call(call.name, requestor=call.requestor, **call.arguments)
        except Exception as fault:
            answer, error = f"Error: {fault}", True
        text = answer if isinstance(answer, str) else json.dumps(answer.model_dump())
        return ToolMessage(id=call.id, content=text, requestor=call.requestor, error=error)
