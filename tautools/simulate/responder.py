"""What the simulated model answers: which role it plays, whether this conversation is solved, which step is due.

A solved conversation follows the task's reference actions and gives the required information; one that is given up
changes nothing and says nothing that scores. The steps follow from the task and a seed alone, so the agent finds its
place from the messages it is sent and keeps no memory. Requests that name no task get short and harmless answers.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tautools.bench.agents.experts import CALL_EXPERT
from tautools.bench.judge import STATEMENTS_LINE
from tautools.bench.types import Domain, ReferenceAction, Task
from tautools.errors import ParamsError
from tautools.records import Role
from tautools.simulate.customer import ask_customer, customer_answer, persona_label, with_persona
from tautools.simulate.reply import SchemaFiller, Step, last_tool_called, render, turns_so_far
from tautools.simulate.requests import ChatRequest, TaskField, TaskLibrary, text_of

CLOSING = "Is there anything else I can help you with?"
_GREETING = "I am happy to help with that. May I have your user id, or your name and zip code or email?"
_GREETING_BY_PHONE = "I am happy to help with that. May I have your name and your phone number?"
_CONSENT = "Thank you. I have what I need and can make the changes you asked for. Shall I go ahead?"
_TRANSFER_TEXT = "YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON."
# Apologies that share as few letter runs as possible: one of them is free of any text that would score.
_APOLOGIES = (
    f"I am sorry, I am unable to do that. {CLOSING}",
    "I regret that I am unable to help with this. Is there anything else?",
    "Unable to help, sorry. Anything else?",
)
_NO_TASK = "This is a simulated model: I can play a task of the benchmark when the request names one."
_REASONING = "I look at the conversation so far and choose the next step."

_READ_PREFIXES = ("get_", "find_", "search_", "list_", "calculate", "check_")
# Which tool looks up what an argument names.
_LOOKUP_TOOLS = {
    "reservation_id": "get_reservation_details",
    "order_id": "get_order_details",
    "user_id": "get_user_details",
}
# How a caller is found: tool, argument, and what the argument looks like in a scenario.
_FIRST_LOOKUPS = (
    ("get_user_details", "user_id", re.compile(r"\b[a-z]+_[a-z]+_\d{4}\b")),
    ("get_customer_by_phone", "phone_number", re.compile(r"\b\d{3}-\d{3}-\d{4}\b")),
)
_NUMBER = re.compile(r"\d+(\.\d+)?")

_LONGEST_PROBE = 200
"""Characters; a longer message talks about something and does not ask for a word."""
_FILLING = r"(?:only|just|exactly|with|the|single|one|word|words|text|string|following|this|in|token|back|to|me)"
_WORD_ASKED = re.compile(
    rf"\b(?:reply|answer|respond|say|write|output|repeat)\b(?:[\s:]+{_FILLING}\b)*[\s:]+[\"'“`*]*([\w-]+)",
    re.IGNORECASE,
)
_PLAINLY_ASKED = re.compile(r"\b(?:word|exactly|only|just)\b", re.IGNORECASE)


def pass_probability(domain: Domain, skill: float) -> dict[str, float]:
    """Return for each task the probability that a conversation of it passes.

    A solved conversation passes when the task's reference does, one given up passes when doing nothing does; the draws
    are independent. So it is `skill * reference + (1 - skill) * baseline`.

    Raises
    ------
    ParamsError
        When `skill` is not in [0, 1].
    """
    from tautools.bench import null_baseline, reference_reward

    if not 0 <= skill <= 1:
        raise ParamsError(f"A skill of {skill} is not a probability.", next_step="Give a skill from 0 to 1.")
    baseline = null_baseline(domain)
    return {
        name: skill * (reference_reward(domain, task).value >= 1) + (1 - skill) * (baseline[name] >= 1)
        for name, task in domain.tasks.items()
    }


def expected_pass_hat_k(domain: Domain, skill: float, k: int) -> float:
    """Return the expected pass^k (arXiv:2406.12045) of a simulated agent over all tasks of an env: the mean of p**k.

    Raises
    ------
    ParamsError
        When `skill` is not in [0, 1] or `k` is below 1.
    """
    if k < 1:
        raise ParamsError(f"pass^{k} has no meaning.", next_step="Give a k of 1 or more.")
    chances = pass_probability(domain, skill).values()
    return sum(chance**k for chance in chances) / len(chances)


def is_read_only(name: str) -> bool:
    """Whether a tool of that name only looks things up."""
    return name.startswith(_READ_PREFIXES)


def solving_steps(task: Task, tools: Collection[str], ending: Collection[str] = ()) -> tuple[Step, ...]:
    """Return the steps that follow the task's reference; a tool in `ending` ends the conversation: it is last."""
    reference = [each for each in task.reference if each.name not in ending]
    actions = [each for each in reference if each.requestor == "assistant"]
    steps: list[Step] = [Step(_greeting(tools))]
    known: set[str] = set()
    if not any(is_read_only(action.name) for action in actions):
        steps += _first_lookup(task, tools)
    for action in reference:
        if action.requestor != "assistant":
            steps.append(Step(ask_customer(action)))
            continue
        steps += _lookups_before(action, tools, known)
        writes = not is_read_only(action.name) and action.name != "transfer_to_human_agents"
        if writes and Step(_CONSENT) not in steps:
            steps.append(Step(_CONSENT))
        steps.append(Step(tool=action.name, arguments=action.arguments))
    last = [Step(tool=each.name, arguments=each.arguments) for each in task.reference if each.name in ending][-1:]
    if task.communicate or not last:
        steps.append(Step(_closing_text(task, actions)))
    return (*steps, *last)


def give_up_steps(task: Task, tools: Collection[str], style: int) -> tuple[Step, ...]:
    """Return the steps of a conversation that is not solved; `style` chooses how soon it is given up."""
    reads: list[Step] = [
        Step(tool=each.name, arguments=each.arguments)
        for each in task.reference
        if each.requestor == "assistant" and is_read_only(each.name)
    ]
    reads = (reads or _first_lookup(task, tools))[: style % 4]
    greeting: list[Step] = [Step(_without_scoring(_greeting(tools), task))] if style % 2 else []
    return (*greeting, *reads, Step(_without_scoring(_APOLOGIES[style % len(_APOLOGIES)], task)))


def next_step_index(steps: Sequence[Step], turns: Sequence[str]) -> int:
    """Return the index of the next step, given the turns so far.

    A turn that is not the step that was due (an answer cut short, words of another model) is ignored, so the step comes
    again. A tool's error is not: the reference goes on after a refused call too.
    """
    index = 0
    for turn in turns:
        if index < len(steps) and turn == steps[index].tool:
            index += 1
    return index


def _greeting(tools: Collection[str]) -> str:
    return _GREETING_BY_PHONE if "get_customer_by_phone" in tools else _GREETING


def _first_lookup(task: Task, tools: Collection[str]) -> list[Step]:
    for tool, argument, pattern in _FIRST_LOOKUPS:
        value = pattern.search(task.user_system)
        if value is not None and tool in tools:
            return [Step(tool=tool, arguments={argument: value.group()})]
    return []


def _lookups_before(action: ReferenceAction, tools: Collection[str], known: set[str]) -> list[Step]:
    """Return the lookups that should come before an action: of each thing it names that is not known yet."""
    steps: list[Step] = []
    for argument, tool in _LOOKUP_TOOLS.items():
        value = action.arguments.get(argument)
        if not isinstance(value, str) or value in known:
            continue
        known.add(value)
        if tool in tools and not is_read_only(action.name):
            steps.append(Step(tool=tool, arguments={argument: value}))
    return steps


def _closing_text(task: Task, actions: Sequence[ReferenceAction]) -> str:
    numbers = [item for item in task.communicate if _NUMBER.fullmatch(item)]
    words = [item for item in task.communicate if not _NUMBER.fullmatch(item)]
    sentences = [f"The figures you asked about are {' and '.join(numbers)}."] if numbers else []
    sentences += [f"For your records, the details are: {' and '.join(words)}."] if words else []
    if actions and actions[-1].name == "transfer_to_human_agents":
        return " ".join([*sentences, _TRANSFER_TEXT])
    return " ".join([*(sentences or ["Your request has been taken care of as far as our policy allows."]), CLOSING])


def _without_scoring(text: str, task: Task) -> str:
    """Return `text`, or other words where the scorer would find in it what the agent must say."""
    for words in (text, *_APOLOGIES, "Sorry, no."):
        plain = words.lower().replace(",", "")
        if not any(item.lower() in plain for item in task.communicate):
            return words
    return "-"


def answer_probe(request: ChatRequest) -> Step:
    """Answer a request without a task: a customer's as its prompt says, an agent's as one of skill 0."""
    instructions = " ".join(text_of(message) for message in request.messages if message["role"] == "system")
    if "<scenario>" in instructions:
        return customer_answer(request.messages, request.tools)
    last = request.messages[-1]
    text = text_of(last)
    if last["role"] == "tool":
        return Step(f"The tool answered: {text[:400]}")
    tool = _tool_named(text, request.tools)
    if tool is not None:
        return _fill_call(tool, text)
    word = _WORD_ASKED.search(text) if len(text) <= _LONGEST_PROBE else None
    # A model with a role talks to customers, who seldom ask for a word.
    if word and (not instructions or _PLAINLY_ASKED.search(word.group())):
        return Step(word.group(1))
    return Step(_APOLOGIES[0] if instructions else _NO_TASK)


def forced_call(request: ChatRequest) -> Step:
    """Call the tool that `tool_choice` forces, with arguments that fit its schema."""
    named = [tool for tool in request.tools if tool["function"]["name"] == request.forced_tool]
    text = next((text_of(item) for item in reversed(request.messages) if item["role"] == "user"), "")
    return _fill_call((named or request.tools)[0], text)


def _fill_call(tool: Mapping[str, Any], text: str) -> Step:
    schema = tool["function"].get("parameters") or {"type": "object"}
    arguments = SchemaFiller(text, schema).value({"type": "object", **schema})
    return Step(tool=tool["function"]["name"], arguments=arguments)


def _tool_named(text: str, tools: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    words = set(re.findall(r"[a-z]{4,}", text.lower()))
    for tool in tools:
        name = tool["function"]["name"]
        # A single tool is called when its subject is mentioned; of many, only the one that is named.
        if name in text or (len(tools) == 1 and words & set(re.findall(r"[a-z]{4,}", name.lower()))):
            return tool
    return None


def is_solved(skill: float, seed: int, conversation: str) -> bool:
    """Whether a conversation is solved: a seeded draw below `skill`, the same each time, independent of all others."""
    return _draw(f"{seed}/{conversation}") / 2**64 < skill


class Responder:
    """Answers each request from its content alone; it remembers no conversation.

    A conversation is solved with the probability `skill`; another `seed` solves other conversations.
    """

    def __init__(self, skill: float, seed: int) -> None:
        self.skill = skill
        self.seed = seed
        self.library = TaskLibrary()

    async def answer(self, request: ChatRequest) -> Step:
        """Return the answer to one request.

        Raises
        ------
        ApiError
            400 when the request names a task that does not exist.
        """
        reply = await self._reply(request)
        return replace(reply, reasoning=_REASONING) if request.thinking else reply

    async def _reply(self, request: ChatRequest) -> Step:
        field = request.task
        if field is not None and field.role is Role.JUDGE:
            label = persona_label(request.messages)
            return Step(label) if label else self._judge(request, field)
        if field is not None and field.role is Role.USER:
            reply = customer_answer(request.messages, request.tools)
            return replace(reply, text=with_persona(request.messages, reply.text)) if reply.text else reply
        if request.forced_tool is not None:
            return forced_call(request)
        if field is not None and field.role in {Role.AGENT, Role.EXPERT}:
            return await self._agent(request, field)
        return answer_probe(request)

    def _judge(self, request: ChatRequest, field: TaskField) -> Step:
        """Call each statement met with the probability `skill`, the same each time."""
        question = text_of(request.messages[1]) if len(request.messages) > 1 else ""
        count = len(re.findall(r"^\d+\. ", question.rpartition(STATEMENTS_LINE)[2], re.MULTILINE))
        draws = [is_solved(self.skill, self.seed, f"judge/{field.conversation}/{number}") for number in range(count)]
        verdicts = [{"number": at, "met": met, "reason": "SIMULATED"} for at, met in enumerate(draws, start=1)]
        return Step(json.dumps({"verdicts": verdicts}))

    async def _agent(self, request: ChatRequest, field: TaskField) -> Step:
        domain, task = await self.library.find(field)
        tools = {str(tool["function"]["name"]) for tool in domain.tools}
        if is_solved(self.skill, self.seed, field.conversation):
            steps = solving_steps(task, tools, domain.protocol.terminal_tools)
        else:
            steps = give_up_steps(task, tools, _draw(f"style/{self.seed}/{field.conversation}"))
        index = next_step_index(steps, turns_so_far(request, field.strategy))
        # When the user goes on after the last step, its words are repeated.
        step = steps[index] if index < len(steps) else steps[-1] if steps[-1].text else Step(CLOSING)
        if field.role is Role.EXPERT:
            return Step(
                f"<tool_call>{step.call_text()}</tool_call>" if step.tool else f"<message>{step.text}</message>"
            )
        expert = _choose_expert(request, f"{self.seed}/{field.conversation}/{index}")
        if expert:
            return Step(tool=CALL_EXPERT, arguments={"expert": expert})
        return render(step, _thought(step), field.strategy)


def _choose_expert(request: ChatRequest, draw: str) -> str:
    """Return the expert that takes this step, drawn from all that the request offers; empty for the agent itself."""
    offered = [tool["function"] for tool in request.tools if tool["function"]["name"] == CALL_EXPERT]
    if not offered or last_tool_called(request.messages) == CALL_EXPERT:
        return ""  # there is none, or the last one could not help
    names = offered[0]["parameters"]["properties"]["expert"]["enum"]
    return str(["", *names][_draw(f"expert/{draw}") % (len(names) + 1)])


def _thought(step: Step) -> str:
    if step.tool:
        purpose = "look this up first" if is_read_only(step.tool) else "make the change now"
        return f"I should {purpose}: {step.tool} is the tool for it."
    return "I have no tool to use now; I should speak to the user."


def _draw(text: str) -> int:
    """Return an integer below 2**64 that follows from `text` alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
