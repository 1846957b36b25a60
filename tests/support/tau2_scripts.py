"""Scripts for tau2: what both models answer, the same for the original and for our loop, and the comparison of both."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tautools.bench import conversation_seed, run_conversation
from tautools.bench.types import Approach, Domain, ReferenceAction, Task
from tautools.llm.request import request_seed
from tautools.llm.types import CallTag, Message, Reply, ToolCall, ToolSpec
from tautools.records import CallRecord, Limits, Outcome, SeedRule, Strategy

__all__ = ["PlayedCase", "make_case", "normal", "play"]

Answer = dict[str, Any]
ODDS = 0.35
ENDS = {
    "user_stop": {Outcome.PASSED, Outcome.FAILED},
    "max_steps": {Outcome.STEP_LIMIT},
    "too_many_errors": {Outcome.AGENT_ERROR},
}
"""The original's reasons to end, and what they are here."""


def say(text: str) -> Answer:
    return {"content": text}


def do(*calls: tuple[str, Any], content: str | None = None) -> Answer:
    made = [
        {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for index, (name, arguments) in enumerate(calls)
    ]
    return {"content": content, "tool_calls": made}


def make_case(domain: Domain, task: Task, variant: str) -> dict[str, Any]:
    """Return a script: `solve` follows the reference, `mixed` strews oddities over it, `errors` calls nothing right."""
    writer = _Writer(task, random.Random(f"{domain.ref.env}/{task.id}/{variant}"), odd=variant != "solve")
    writer.write()
    if variant == "errors":
        wrong = do(("no_such_tool", {}), ("no_such_tool", {"a": 1}), ("no_such_tool", {}))
        writer.user, writer.agent = [say("Hello.")], [wrong, wrong, wrong, wrong, say("Sorry.")]
    endless = variant != "solve" and writer.rng.random() < 0.1
    return {
        "name": f"{task.id}/{variant}",
        "task_id": task.id,
        "seed": conversation_seed(0, task.id, 0),
        "answers": {"agent": writer.agent, "user": writer.user},
        "after": {"agent": say("Is there anything else?"), "user": say("Go on." if endless else "No. ###STOP###")},
    }


@dataclass
class _Writer:
    task: Task
    rng: random.Random
    odd: bool
    agent: list[Answer] = field(default_factory=list)
    user: list[Answer] = field(default_factory=list)

    def write(self) -> None:
        self.user.append(say("Hello, I need your help."))
        self._strange_user()
        self.agent.append(say("Certainly. Could you confirm your details?"))
        self.user.append(say("Here you are: it is as I said."))
        for action in self.task.reference:
            self._strange_agent(action)
            if self.odd and self.rng.random() < 0.1:
                continue
            if action.requestor == "user":
                self.agent.append(say(f"Please use {action.name}."))
                self._strange_user()
                self.user += [do((action.name, dict(action.arguments))), say("That is done.")]
            else:
                self.agent.append(do((action.name, dict(action.arguments))))
        self.agent.append(say(" ".join(("It is done.", *self.task.communicate))))

    def _strange_agent(self, action: ReferenceAction) -> None:
        if not self.odd or self.rng.random() > ODDS:
            return
        arguments = dict(action.arguments)
        one = self.rng.choice(sorted(arguments) or ["none"])
        self.agent.append(
            self.rng.choice(
                [
                    do(("no_such_tool", arguments)),
                    do((action.name, {**arguments, "unasked": True})),
                    do((action.name, {**arguments, one: "Zoë 王 🙂 \u2028"})),
                    do((action.name, {**arguments, one: self.rng.choice([0, 2.0, None, ["a", {"b": 1}]])})),
                    do((action.name, {name: value for name, value in arguments.items() if name != one})),
                    do((action.name, arguments), ("no_such_tool", {}), (action.name, arguments)),
                    do((action.name, arguments), content="One moment, please: 1,234 and 327, please."),
                    do((action.name, arguments), content=""),
                    say("I use ###STOP### in my own words."),
                ]
            )
        )

    def _strange_user(self) -> None:
        if not self.odd or self.rng.random() > ODDS:
            return
        end = self.rng.random() < 0.15
        self.user.append(
            say(self.rng.choice(["Well. ###TRANSFER### now", "###OUT-OF-SCOPE###", "Bye ###STOP###."]))
            if end
            else say(self.rng.choice(["###stop###", "###TRANSFER##", 'Several\n\nlines, {braces} and "quotes".']))
        )


@dataclass
class ScriptClient:
    """Answers each role by the number of its request, and keeps what was asked."""

    case: dict[str, Any]
    requests: list[dict[str, Any]] = field(default_factory=list)

    async def complete(
        self, tag: CallTag, messages: Sequence[Message], tools: Sequence[ToolSpec] | None = None
    ) -> Reply:
        role = tag.role.value
        index = sum(each["role"] == role for each in self.requests)
        sent = json.loads(json.dumps(list(messages)))
        made = {"role": role, "messages": sent, "tools": list(tools or ()) or None}
        self.requests.append(made | {"seed": request_seed(tag)})
        lines = self.case["answers"][role]
        answer = lines[index] if index < len(lines) else self.case["after"][role]
        calls = tuple(
            ToolCall(each["id"], each["function"]["name"], each["function"]["arguments"])
            for each in answer.get("tool_calls") or ()
        )
        return Reply(answer["content"] or "", calls, "stop", "", CallRecord(role=tag.role))


@dataclass
class PlayedCase:
    """What our loop did with a script."""

    requests: list[dict[str, Any]]
    reward: float | None
    outcome: Outcome
    messages: int


async def play(domain: Domain, case: dict[str, Any]) -> PlayedCase:
    """Play a script with our loop."""
    client = ScriptClient(case)
    played = await run_conversation(
        domain,
        domain.tasks[case["task_id"]],
        approach=Approach(Strategy.FC),
        client=client,
        limits=Limits(),
        trial=0,
        seed=case["seed"],
        seed_rule=SeedRule.CONVERSATION,
    )
    return PlayedCase(client.requests, played.reward, played.outcome, len(played.messages))


def normal(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request without what says nothing: null fields, the name beside a call's own, no words beside calls."""
    return {**request, "messages": [_normal(message) for message in request["messages"]]}


def _normal(message: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in message.items() if value is not None}
    if "tool_calls" in kept:
        kept["tool_calls"] = [{k: v for k, v in call.items() if k != "name"} for call in kept["tool_calls"]]
        if not kept.get("content"):
            kept.pop("content", None)
    return kept
