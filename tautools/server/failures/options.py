"""Failures of what was asked for: flags, parsers, lengths, templates."""

from __future__ import annotations

from tautools.server.failures.fixes import (
    add_tool_parser,
    drop_flags,
    length_from_log,
    nearest_reasoning_parser,
    nearest_tool_parser,
)
from tautools.server.failures.row import Evidence, failure

__all__ = ["OPTIONS"]

_REFUSED = Evidence(exit_codes=frozenset({2}), or_unknown=True)

OPTIONS = (
    failure(
        "20",
        "unknown_flag",
        r"error: unrecognized arguments: (?P<what>.+)",
        "This vLLM does not know {what}.",
        "Remove or rename the flag in the server file; `vllm serve --help=all` lists what this version knows.",
        fix=drop_flags,
    ),
    failure(
        "21",
        "model_missing",
        r"the following arguments are required: model_tag",
        "The command names no model, or an option that takes a list has swallowed it.",
        "Put the model before all options in `serve_command`'s script.",
    ),
    failure(
        "22",
        "bad_value",
        r"error: argument (?P<what>--?[\w/, -]+): (?P<why>.+)",
        "vLLM refuses the value of {what}: {why}.",
        "Correct the value in the server file; JSON is written as a YAML mapping there.",
        evidence=_REFUSED,
    ),
    failure(
        "23",
        "no_tool_parser",
        r"--enable-auto-tool-choice requires",
        "Tool calls were switched on without a parser that reads them.",
        "Set `tool_call_parser` in the server file (`hermes` for Qwen3).",
        fix=add_tool_parser,
    ),
    failure(
        "24",
        "unknown_tool_parser",
        r"invalid tool call parser: (?P<what>[^\s(]+)(?: \(chose from \{(?P<list>[^}]*)\})?|"
        r"Tool parser '(?P<what2>[^']+)' not found(?:\. Available parsers: (?P<list2>[^\"]*))?",
        "This vLLM has no tool parser named {what}.",
        "Choose one that the log line lists; Qwen3 and Hermes models use `hermes`.",
        fix=nearest_tool_parser,
    ),
    failure(
        "25",
        "unknown_reasoning_parser",
        r"invalid reasoning parser: (?P<what>[^\s(]+)(?: \(chose from \{(?P<list>[^}]*)\})?|"
        r"Reasoning parser '(?P<what2>[^']+)' not found(?:\. Available parsers: (?P<list2>[^\"]*))?",
        "This vLLM has no reasoning parser named {what}.",
        "Choose one that the log line lists, or leave `reasoning_parser` out.",
        fix=nearest_reasoning_parser,
    ),
    failure(
        "26",
        "no_tool_parser",
        r"[\"'\\]*auto[\"'\\]* tool choice requires",
        "The server was started without a tool parser, so every turn of the benchmark is refused.",
        "Set `tool_call_parser` in the server file and start it again.",
        fix=add_tool_parser,
    ),
    failure(
        "4",
        "length_above_model",
        r"max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len[^\d]*(?P<most>\d+)?",
        "max_model_len {asked} is more than the model was made for ({most}).",
        "Lower `max_model_len` in the server file to {most}.",
        fix=length_from_log,
    ),
    failure(
        "27",
        "no_chat_template",
        r"default chat template is no longer",
        "The model comes without a chat template; it may be a base model.",
        "Use the instruct model, or give `chat_template`.",
    ),
    failure(
        "28",
        "chat_template_missing",
        r"chat template path doesn't exist|appears path-like, but doesn't exist|"
        r"The supplied chat template \((?P<what>[^)]*)\).*(?:doesn't|does not) exist",
        "The chat template file is not where the server looks.",
        "Correct `chat_template`, or bind its folder into the container.",
    ),
)
