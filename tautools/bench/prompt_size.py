"""How long an agent's prompt grows over a conversation, from each task's reference and the tools' real answers.

An estimate in characters, made without a model: the system prompt and the tools as they are sent, the reference actions
with what the benchmark's own tools return for them, and spoken rounds whose number and length are assumed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tautools.bench.types import Approach, Domain, Task
from tautools.llm.types import ToolSpec
from tautools.records import BenchRef, Strategy

ASSUMED_ROUNDS = 5
"""Rounds of speech that a conversation is assumed to have besides its calls."""
ASSUMED_ROUND_CHARS = 450
"""Characters that customer and agent are assumed to say in one round together."""

_action_chars_by_task: dict[tuple[BenchRef, str], int] = {}


def prompt_chars(messages: Iterable[Mapping[str, Any]], tools: Sequence[ToolSpec]) -> int:
    """Return the characters of a prompt: contents and calls of its messages, and its tools as JSON."""
    messages = list(messages)
    calls = [call["function"] for message in messages for call in message.get("tool_calls") or ()]
    written = sum(len(str(message.get("content") or "")) for message in messages)
    written += sum(len(each["name"]) + len(each["arguments"]) for each in calls)
    return written + (len(json.dumps(list(tools))) if tools else 0)


def sent_tools(domain: Domain, approach: Approach) -> Sequence[ToolSpec]:
    """Return the tools that requests of the agent carry; by text they stand in the system prompt."""
    return () if approach.strategy in {Strategy.ACT, Strategy.REACT} else domain.tools


def reference_prompt_chars(domain: Domain, approach: Approach, tasks: Iterable[Task]) -> dict[str, int]:
    """Return by task id the characters of an agent's last prompt, if it follows the reference.

    Raises
    ------
    BenchError
        When the benchmark's tools cannot be run without an event loop.
    """
    fixed = prompt_chars(domain.agent(approach, 0).messages, sent_tools(domain, approach))
    spoken = ASSUMED_ROUNDS * ASSUMED_ROUND_CHARS
    return {task.id: fixed + spoken + _action_chars(domain, task) for task in tasks}


def _action_chars(domain: Domain, task: Task) -> int:
    """Return the characters of a task's actions and answers; replayed once in a process, as a sweep asks many times."""
    key = (domain.ref, task.id)
    if key not in _action_chars_by_task:
        _, results = domain.play_reference(task)
        _action_chars_by_task[key] = sum(
            len(action.name) + len(json.dumps(dict(action.arguments))) + len(result.text)
            # What the customer's own tools give back the agent never sees: it asks, and the customer says it.
            if action.requestor == "assistant"
            else ASSUMED_ROUND_CHARS
            for action, result in zip(task.reference, results, strict=True)
        )
    return _action_chars_by_task[key]
