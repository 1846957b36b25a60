"""What was done in a stored conversation, in order: actions, beside its task's reference too, and all messages."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from tautools.bench.agents.text import read_action, text_of_respond_call
from tautools.bench.sources.bounds import shown_arguments
from tautools.errors import BenchError, RecordError
from tautools.records import CommitRow, Conversation, Setting, Strategy, TrajectoryAction, canonical_json
from tautools.run.folder import SettingFolder
from tautools.run.ledger import is_tool_output

_TEXT = {Strategy.ACT, Strategy.REACT}


def actions_of(conversation: Conversation, setting: Setting) -> list[TrajectoryAction]:
    """Return the calls of a conversation and the agent's words to the user, in order.

    Records without `Conversation.actions`, such as those of other programs, are read by the rules of their benchmark;
    `RecordError` when the user made calls whose place between the agent's is not recorded.
    """
    if conversation.actions:
        return conversation.actions
    if any(message.get("tool_calls") for message in conversation.user_messages):
        raise RecordError(
            f"What was done in task {conversation.task_id}, trial {conversation.trial} cannot be put in order.",
            evidence="The user called tools, and the record does not say when.",
            next_step="Run it again with this version, which records it.",
        )
    answers = (message for message in conversation.messages if message["role"] == "assistant")
    return [action for message in answers for action in actions_in(message, setting.strategy, setting.bench)]


def actions_in(message: Mapping[str, Any], strategy: Strategy, bench: str) -> Iterator[TrajectoryAction]:
    """Yield what one message of an agent did, by the rules of its benchmark."""
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    text = str(message.get("content") or "")
    if calls and bench == "tau-bench":
        yield _action_v1(calls[0]["name"], calls[0]["arguments"])
    elif calls:
        yield from (TrajectoryAction(call=call["name"], arguments=call["arguments"]) for call in calls)
    elif strategy not in _TEXT:
        yield TrajectoryAction(text=text)
    elif bench == "tau-bench":
        yield _read_v1(text)
    else:
        turn = read_action(text)
        yield from (TrajectoryAction(call=call.name, arguments=call.arguments) for call in turn.calls)
        if not turn.calls:
            yield TrajectoryAction(text=turn.text)


def _action_v1(name: str, arguments: str) -> TrajectoryAction:
    """Read a call as tau-bench does: one of `respond`, which is no tool, is words."""
    text = text_of_respond_call(name, arguments)
    return TrajectoryAction(call=name, arguments=arguments) if text is None else TrajectoryAction(text=text)


def _read_v1(text: str) -> TrajectoryAction:
    """Read an answer as tau-bench does: what follows the last `Action:` is an action if it is JSON, else words."""
    written = text.rsplit("Action:", maxsplit=1)[-1].strip()
    try:
        action = json.loads(written)
        return _action_v1(str(action["name"]), json.dumps(action["arguments"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return TrajectoryAction(text=written)


def interleaved(conversation: Conversation) -> list[dict[str, Any]]:
    """Return the messages in the order in which they happened; the user's calls and their results carry `by: user`.

    The agent does not see what a user with tools calls, so its messages do not contain it; those of the user do.
    """
    turns = user_turns(conversation)
    messages: list[dict[str, Any]] = []
    for message in conversation.messages:
        if message["role"] == "user" and not is_tool_output(message):
            messages += _calls_in(next(turns, []))
        messages.append(message)
    return [*messages, *(call for turn in turns for call in _calls_in(turn))]


def user_turns(conversation: Conversation) -> Iterator[list[dict[str, Any]]]:
    """Yield the user's calls up to each of its texts, with that text; at the end calls that no text followed."""
    turn: list[dict[str, Any]] = []
    for message in conversation.user_messages:
        if message["role"] in {"assistant", "tool"}:
            turn.append(message)
        if message["role"] == "assistant" and not message.get("tool_calls"):
            yield turn
            turn = []
    yield turn


def _calls_in(turn: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**each, "by": "user"} for each in turn if each["role"] == "tool" or each.get("tool_calls")]


def made_by_user(message: Mapping[str, Any]) -> bool:
    """Whether a message is a call that the user made, or what its tool gave back."""
    return message.get("by") == "user"


@dataclass(frozen=True, slots=True)
class MadeCall:
    """One tool call, as it was made."""

    name: str
    arguments: Any
    """Parsed, or the text when it cannot be parsed."""
    by: str = "assistant"
    """`assistant`, or `user` for a call of the user."""

    def same_tool(self) -> str:
        """Return what calls of one tool have in common."""
        return f"{self.by} {self.name}"

    def same_call(self) -> str:
        """Return what equal calls have in common."""
        return f"{self.same_tool()} {canonical_json(self.arguments)}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {"name": self.name, "arguments": self.arguments} | ({} if self.by == "assistant" else {"by": self.by})


class ActionPair(NamedTuple):
    """An expected action and the actual one that stands next to it; either may be missing."""

    expected: MadeCall | None
    actual: MadeCall | None

    @property
    def mark(self) -> str:
        """`same`, `differs`, `missing` or `more`."""
        if self.expected is None:
            return "more"
        if self.actual is None:
            return "missing"
        return "same" if self.expected.same_call() == self.actual.same_call() else "differs"


def made_calls_of(conversation: Conversation, setting: Setting) -> list[MadeCall]:
    """Return the tool calls of a conversation, in order, under any strategy; none when their order is not recorded."""
    try:
        actions = actions_of(conversation, setting)
    except RecordError:
        return []
    return [MadeCall(each.call, shown_arguments(each.arguments), each.by) for each in actions if each.call]


def expected_of(folder: SettingFolder, task_id: str) -> list[MadeCall] | None:
    """Return a task's reference actions as calls; None when the benchmark is not installed as it was then."""
    try:
        reference = folder.task(task_id).reference
    except BenchError:
        return None
    return [MadeCall(each.name, dict(each.arguments), each.requestor) for each in reference]


def align_actions(expected: Sequence[MadeCall], actual: Sequence[MadeCall]) -> list[ActionPair]:
    """Set actual actions next to the expected ones, in order: equal ones first, then those of one name."""
    pairs: list[ActionPair] = []
    for _, start, end, first, last in _opcodes(MadeCall.same_call, expected, actual):
        wanted, made = expected[start:end], actual[first:last]
        for kind, i1, i2, j1, j2 in _opcodes(MadeCall.same_tool, wanted, made):
            if kind == "equal":
                pairs += [ActionPair(*both) for both in zip(wanted[i1:i2], made[j1:j2], strict=True)]
            else:
                pairs += [ActionPair(call, None) for call in wanted[i1:i2]]
                pairs += [ActionPair(None, call) for call in made[j1:j2]]
    return pairs


def _opcodes(
    common: Callable[[MadeCall], str], expected: Sequence[MadeCall], actual: Sequence[MadeCall]
) -> Sequence[tuple[str, int, int, int, int]]:
    return SequenceMatcher(None, [*map(common, expected)], [*map(common, actual)], autojunk=False).get_opcodes()


def conversation_dict(folder: SettingFolder, row: CommitRow) -> dict[str, Any]:
    """Return everything about one conversation as a program reads it."""
    conversation = folder.conversation(row)
    return {
        "folder": folder.path,
        "setting": folder.setting,
        "row": row,
        "conversation": conversation,
        "expected": expected_of(folder, row.task_id),
        "actual": made_calls_of(conversation, folder.setting),
    }
