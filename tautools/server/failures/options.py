"""Failures of what was asked for: flags, parsers, lengths, templates."""

from __future__ import annotations

from tautools.server.failures.fixes import (
    add_tool_parser,
    batch_from_log,
    drop_flags,
    length_from_log,
    nearest_reasoning_parser,
    nearest_tool_parser,
    requests_from_log,
    without,
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
    failure(
        "54",
        "batch_below_length",
        r"max_num_batched_tokens \((?P<asked>\d+)\) is smaller than max_model_len \((?P<most>\d+)\)",
        "A batch may hold {asked} tokens, fewer than the {most} of one whole prompt.",
        "Set `max_num_batched_tokens` under `vllm.args` to {most} or more, or leave it out.",
        fix=batch_from_log,
    ),
    failure(
        "55",
        "batch_below_requests",
        r"max_num_batched_tokens \((?P<most>\d+)\) must be greater than or equal to max_num_seqs \((?P<asked>\d+)\)",
        "A batch may hold {most} tokens, fewer than the {asked} requests that may run at once.",
        "Lower `max_num_seqs` to {most}, or raise `max_num_batched_tokens` under `vllm.args`.",
        fix=requests_from_log,
    ),
    failure(
        "56",
        "unknown_quantization",
        r"Unknown quantization method: (?P<what>[\w-]+)",
        "This vLLM knows no quantization {what}.",
        "Leave `quantization` out: a quantized model names its own method.",
        fix=without("quantization"),
    ),
    failure(
        "64",
        "block_size",
        r"No common block size for (?P<what>\d+)",
        "The cache cannot be kept in blocks of {what} tokens on this device.",
        "Leave `block_size` out, or choose a multiple of 32.",
        fix=without("block_size"),
    ),
    failure(
        "65",
        "unknown_draft",
        r"Unsupported speculative method: '(?P<what>[^']+)'",
        "This model cannot draft by {what}.",
        "Leave `speculative_config` out, or name a method that the model brings.",
        fix=without("speculative_config"),
    ),
    failure(
        "66",
        "no_adapter",
        r"LoRAAdapterNotFoundError|No adapter found for (?P<what>\S+)",
        "The adapter's folder holds no adapter.",
        "Correct its path in `lora_modules` under `vllm.args`; it must hold an adapter_config.json.",
    ),
    failure(
        "67",
        "unknown_rope",
        r"Unknown RoPE scaling type (?P<what>\S+)",
        "This vLLM cannot stretch positions by {what}.",
        "Correct `rope_scaling` in `hf_overrides`, or use a newer vLLM.",
    ),
)
