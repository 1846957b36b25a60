"""Our own words around experts. Raise `VERSION` with any change: it changes what scores mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.types import Expert
    from tautools.llm.types import ToolSpec

__all__ = ["TOOL", "VERSION", "expert_instructions", "expert_tool", "fault_text", "unknown_text"]

VERSION = 1

TOOL = "call_expert"
"""Name of the tool by which an expert is called; ToolOrchestra's."""

_OFFER = """\
Hand the next step over to an expert. The expert reads the policy, the tools and the whole conversation, and takes the
step in your place: either it speaks to the customer or it makes one call of a tool. Use it when an expert is likelier
than you to take this step rightly."""

_FORM = """\
You are an expert whom the agent of this conversation has called in. Take exactly the next step in the agent's place:
either say something to the customer or make one call of a tool.

Words for the customer stand between <message> and </message>:
<message>what the customer reads</message>

A call of a tool stands between <tool_call> and </tool_call>, as one JSON object:
<tool_call>{"name": "<tool>", "arguments": {"<argument>": <value>}}</tool_call>
"""

_THINK = """
You may think before that, between <think> and </think>; nobody else reads it.
"""


def expert_instructions(*, thinks: bool) -> str:
    """Return what an expert is told after the bench's own system prompt; one that is to think is told where."""
    return _FORM + _THINK if thinks else _FORM


def expert_tool(experts: Sequence[Expert]) -> ToolSpec:
    """Return the tool that calls an expert, with a description of each."""
    told = [f"{each.name}: {each.description}" if each.description else each.name for each in experts]
    parameters = {
        "type": "object",
        "properties": {
            "expert": {
                "type": "string",
                "enum": [each.name for each in experts],
                "description": f"Who takes the step. {'; '.join(told)}.",
            }
        },
        "required": ["expert"],
    }
    return {"type": "function", "function": {"name": TOOL, "description": _OFFER, "parameters": parameters}}


def fault_text(name: str, wrote: str) -> str:
    """Return what the orchestrator is told when an expert's answer holds no step."""
    said = f"It wrote: {wrote.strip()[:300]}" if wrote.strip() else "It wrote nothing."
    return f"Error: the answer of {name} holds no step that can be taken. {said}"


def unknown_text(name: str, names: Sequence[str]) -> str:
    """Return what the orchestrator is told when it calls an expert that is not there."""
    return f"Error: there is no expert {name!r}. There are: {', '.join(names)}."
