"""Plays scripts with our own loop, through a door that answers from them and keeps what is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tautools.bench.conversation import run_conversation
from tautools.bench.fidelity.traces import RecordedRequest, Trace, canonical
from tautools.llm.request import chat_body
from tautools.llm.types import Endpoint, Reply, ToolCall
from tautools.records import CallRecord, Limits, ModelConfig, Outcome, Role, Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.fidelity.scripts import Case
    from tautools.bench.types import Approach, Domain
    from tautools.llm.types import CallTag, Message, ToolSpec


_PARTIES = {
    Role.AGENT: ModelConfig(model="agent-model", sampling=Sampling(temperature=0.0)),
    Role.USER: ModelConfig(model="user-model"),
}
"""As the original is asked by default: its agent at temperature 0, its user at the server's own."""
_OURS_ALONE = ("messages", "tools", "stream", "stream_options", "seed")
"""Fields of a body that are compared by themselves, or that the docs list as ours."""


async def play_ours(domain: Domain, approach: Approach, case: Case) -> Trace:
    """Hold one conversation by its script, as `run_conversation` holds any."""
    client = _ScriptedClient(case)
    task = domain.tasks[case.task_id]
    held = await run_conversation(
        domain, task, approach=approach, client=client, limits=Limits(), trial=0, seed=case.seed
    )
    scored = held.outcome in {Outcome.PASSED, Outcome.FAILED}
    info = held.reward_info
    return Trace(
        case=case.name,
        requests=tuple(client.asked),
        messages=tuple(map(canonical, held.messages)),
        reward=held.reward,
        db=info["db"] if scored else None,
        outputs=info.get("outputs", {}) if scored else {},
        end="" if scored else f"{held.outcome}: {held.error}" if held.outcome != Outcome.STEP_LIMIT else "step_limit",
    )


class _ScriptedClient:
    """Answers each role by the number of its request."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._count: dict[str, int] = {}
        self.asked: list[RecordedRequest] = []

    async def complete(
        self, tag: CallTag, messages: Sequence[Message], tools: Sequence[ToolSpec] | None = None
    ) -> Reply:
        """Keep the request as it would be sent, and answer with the next line of the role."""
        role = "check" if tag.purpose == "check" else tag.role.value
        index = self._count.get(role, 0)
        self._count[role] = index + 1
        party = _PARTIES[tag.role]
        body = chat_body(Endpoint("", party.model), party, tag, messages, tools)
        self.asked.append(_own_request(role, body))
        lines = self._case.answers.get(role, ())
        return _reply(lines[index] if index < len(lines) else self._case.after[role], tag)


def _own_request(role: str, body: dict[str, Any]) -> RecordedRequest:
    rest = {name: value for name, value in body.items() if name not in _OURS_ALONE}
    return RecordedRequest(
        role=role,
        messages=tuple(map(canonical, body["messages"])),
        tools=canonical(body["tools"]) if body.get("tools") else "",
        rest=canonical(rest),
    )


def _reply(answer: dict[str, Any], tag: CallTag) -> Reply:
    told = answer.get("tool_calls") or []
    calls = tuple(ToolCall(each["id"], each["function"]["name"], each["function"]["arguments"]) for each in told)
    finish = "tool_calls" if calls else "stop"
    return Reply(answer["content"] or "", calls, finish, "", CallRecord(role=tag.role))
