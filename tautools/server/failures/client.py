"""Failures that only the client sees: in the text of a refused request, or in an answer that looks right."""

from __future__ import annotations

from tautools.server.failures.row import failure

__all__ = ["CLIENT"]

CLIENT = (
    failure(
        "C1",
        "context_overflow",
        r"maximum context length is (?P<most>\d+)",
        "The conversation grew longer than the server's context of {most} tokens.",
        "Give the server a longer `max_model_len` if the model has it; the task counts as too long otherwise.",
        part="client",
    ),
    failure(
        "C2",
        "wrong_model_name",
        r"The model `?(?P<what>[^`]+?)`? does not exist",
        "The server does not serve a model named {what}.",
        "Use the name that `tautools server ls` shows.",
        part="client",
    ),
    failure(
        "C3",
        "server_gone",
        r"(?i)connection (?:was )?(?:closed|reset|refused|aborted)|server disconnected|broken pipe|connect call failed|"
        r"peer closed|EngineCore encountered an issue",
        "The connection ended and the server is not alive any more.",
        "Look at `tautools server ls`; start it again. The conversation is owed, it is no failure of the model.",
        part="client",
    ),
    failure(
        "C4",
        "tool_call_in_text",
        r"<tool_call>|<function=|\[TOOL_CALLS\]|<\|python_tag\|>|<\|tool_call|"
        r"\{\s*\"name\"\s*:\s*\"[^\"]+\"\s*,\s*\"(?:arguments|parameters)\"\s*:",
        "The model's tool call stands in the text: the server's parser is not this model's.",
        "Set another `tool_call_parser` in the server file.",
        part="client",
    ),
    failure(
        "C5",
        "only_thinking",
        r"^$",
        "The model spent all its tokens on thinking and said nothing.",
        "Switch thinking off (`chat_template_kwargs: {enable_thinking: false}`), or raise `max_tokens` of the role.",
        part="client",
    ),
    failure(
        "C6",
        "wrong_key",
        r"\bUnauthorized\b|(?i:invalid|incorrect) api key",
        "The server refuses the key.",
        "Use the server by its name, which finds its key; or set the variable that `api_key_env` names.",
        part="client",
    ),
    failure(
        "C7",
        "template_refuses",
        r"roles must alternate|System role not supported|TemplateError|chat template.*(?:rais|refus)",
        "The model's chat template refuses the conversation.",
        "Give a template that takes system and tool messages with `chat_template`, or another model.",
        part="client",
    ),
)
