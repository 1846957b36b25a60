"""Flags of `vllm serve` that some versions have and others do not, and what took their place."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GONE_FLAGS", "GoneFlag", "gone_flag"]


@dataclass(frozen=True, slots=True)
class GoneFlag:
    """One flag: why this vLLM may not know it, and what to write instead."""

    name: str
    why: str
    instead: str
    renamed: str = ""
    """The flag that takes the same value, as a name under `vllm.args`; empty where none does."""


_FORK = "Only Habana's fork of vLLM 0.9 has it"
_OLD_ENGINE = "It belonged to the engine before V1, which is gone"

GONE_FLAGS = (
    GoneFlag("enable-reasoning", "It was removed in vLLM 0.10", "Set `reasoning_parser`; that alone switches it on."),
    GoneFlag(
        "disable-log-requests",
        "Requests are not logged any more unless asked for",
        "Leave it out; `enable_log_requests: true` is the opposite.",
    ),
    GoneFlag(
        "chat-template-kwargs",
        "It never was an option of the server under this name",
        "Use `chat_template_kwargs` of the server file (`--default-chat-template-kwargs`), or for versions without it "
        "`extra_body: {chat_template_kwargs: {enable_thinking: false}}` of the role.",
        renamed="default_chat_template_kwargs",
    ),
    GoneFlag(
        "default-chat-template-kwargs",
        "This vLLM is too old for it",
        "Remove `chat_template_kwargs` from the server file and give it per request: "
        "`extra_body: {chat_template_kwargs: {enable_thinking: false}}` of the role; Qwen3 also reads `/no_think`.",
    ),
    GoneFlag(
        "device", f"{_FORK}; elsewhere the installed platform decides", "Leave it out, and install the right build."
    ),
    GoneFlag("use-padding-aware-scheduling", _FORK, "Leave it out; the Gaudi plugin pads by its buckets."),
    GoneFlag("num-scheduler-steps", f"{_FORK}. {_OLD_ENGINE}", "Leave it out."),
    GoneFlag("multi-step-stream-outputs", _OLD_ENGINE, "Leave it out."),
    GoneFlag(
        "swap-space",
        f"{_FORK}. {_OLD_ENGINE}",
        "Leave it out; requests that do not fit are computed again.",
    ),
    GoneFlag("use-v2-block-manager", _OLD_ENGINE, "Leave it out."),
    GoneFlag("preemption-mode", _OLD_ENGINE, "Leave it out."),
    GoneFlag("max-seq-len-to-capture", _OLD_ENGINE, "Leave it out, or set `max_cudagraph_capture_size`."),
    GoneFlag("worker-use-ray", "It has another name now", "Use `distributed_executor_backend: ray`."),
    GoneFlag(
        "speculative-model",
        "Drafting is one option now",
        "Use `speculative_config: {model: …, num_speculative_tokens: …}`.",
    ),
    GoneFlag(
        "num-speculative-tokens",
        "Drafting is one option now",
        "Use `speculative_config: {method: …, num_speculative_tokens: …}`.",
    ),
    GoneFlag(
        "guided-decoding-backend",
        "It has another name now",
        "Use `structured_outputs_config: {backend: …}`.",
    ),
    GoneFlag("rope-scaling", "It moved into the model's configuration", "Use `hf_overrides: {rope_scaling: {…}}`."),
    GoneFlag("task", "What a server does is told otherwise now", "Leave it out for chat; others use `runner`."),
    GoneFlag(
        "tool-strict-level",
        "This vLLM is too old for it",
        "Leave it out; arguments of forced calls are then not held to their schema.",
    ),
)


def gone_flag(flag: str) -> GoneFlag | None:
    """Return what is known of a flag that a vLLM refuses, written with or without dashes or underscores."""
    plain = flag.lstrip("-").replace("_", "-")
    return next((each for each in GONE_FLAGS if each.name == plain), None)
