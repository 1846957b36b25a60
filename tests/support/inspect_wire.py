"""An inspect model that speaks OpenAI's protocol with inspect's own conversions.

inspect's OpenAI provider demands a newer `openai` than litellm allows, so it cannot be loaded beside it. This one turns
messages, tools and answers by the same functions of inspect's (`messages_to_openai`, `openai_chat_tools`,
`chat_choices_from_openai`) and posts them with httpx.
"""

from __future__ import annotations

from typing import Any

import httpx
from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, modelapi
from inspect_ai.model._openai import chat_choices_from_openai, messages_to_openai, openai_chat_tools
from inspect_ai.tool import ToolChoice, ToolInfo
from openai.types.chat import ChatCompletion

__all__ = ["PROVIDER", "OpenAIWire"]

PROVIDER = "wire"


@modelapi(name=PROVIDER)
class OpenAIWire(ModelAPI):
    """Asks a server without streaming, as inspect does by default; its name is `<PROVIDER>/<model>`."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - the signature that inspect calls
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        self._client = httpx.AsyncClient(trust_env=False, timeout=60)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 - inspect's name for it
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Post one request and read the answer."""
        body: dict[str, Any] = {"model": self.model_name, "messages": await messages_to_openai(input)}
        if tools:
            body |= {"tools": openai_chat_tools(tools), "tool_choice": tool_choice}
        answer = await self._client.post(f"{self.base_url}/chat/completions", json=body)
        completion = ChatCompletion.model_validate(answer.raise_for_status().json())
        return ModelOutput(model=completion.model, choices=chat_choices_from_openai(completion, tools))
