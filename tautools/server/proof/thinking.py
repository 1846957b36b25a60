"""Rung 6: the model thinks or does not, as the server was asked to have it.

Asked without the door that the benchmark uses, because that door takes thinking out of the text, and here it matters
where the server puts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tautools.records import Thinking
from tautools.server.proof.ladder import Climb, Finding
from tautools.server.proof.probe import short

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["asked_thinking", "thinking_state"]

_SWITCHES = ("enable_thinking", "thinking")
"""What chat templates call it: Qwen's, and Granite's and DeepSeek's."""
_TAGS = ("<think>", "</think>")
_QUESTION = [{"role": "user", "content": "How many days do two weeks have? Answer with the number."}]


def asked_thinking(spec: Mapping[str, Any]) -> Thinking:
    """Return what a server's params ask of it: `chat_template_kwargs: {enable_thinking: false}` is `off`."""
    vllm = spec.get("vllm") if spec.get("engine", "vllm") == "vllm" else None
    given = (vllm or {}).get("chat_template_kwargs") or {}
    for name in _SWITCHES:
        if isinstance(given.get(name), bool):
            return Thinking.ON if given[name] else Thinking.OFF
    return Thinking.DEFAULT


def thinking_state(state: Climb) -> Finding:
    """Ask a plain question and see whether there is thinking, and whether it is kept out of the text."""
    body = {"model": state.model, "messages": _QUESTION, "temperature": 0, "max_tokens": 64}
    answer = state.http.post(f"{state.target.base_url}/chat/completions", body, key=state.target.key, timeout_s=600.0)
    if answer.status != 200:
        return Finding(False, f"the question was answered {answer.status}: {short(answer.text, 200)}")
    try:
        message = answer.json()["choices"][0]["message"]
        said = str(message.get("content") or "")
        thought = str(message.get("reasoning") or message.get("reasoning_content") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return Finding(False, f"the answer cannot be read: {short(answer.text, 200)}")
    return _judge(state.target.thinking, said, thought)


def _judge(asked: Thinking, said: str, thought: str) -> Finding:
    tag = next((tag for tag in _TAGS if tag in said), "")
    if asked is Thinking.ON:
        if tag:
            return Finding(False, f"it thinks, but {tag} stands in the text; set `reasoning_parser` in its server file")
        if not thought:
            return Finding(False, f"it was asked to think and does not; it said {short(said)}")
        return Finding(True, "it thinks, apart from the text")
    if thought or tag:
        where = "apart from the text" if thought else f"{tag} in the text"
        return Finding(
            False,
            f"it was asked not to think and does ({where}): {short(thought or said)}; see whether the chat template "
            "knows the switch in `chat_template_kwargs`, and whether the reasoning parser fits the model",
        )
    return Finding(True, "it does not think")
