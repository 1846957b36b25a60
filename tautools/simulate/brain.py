"""What the simulated model answers: which part it plays, whether this conversation is solved, which step is due."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from tautools.bench.agents.expert_words import TOOL
from tautools.bench.judge_words import STATEMENTS
from tautools.records import Role
from tautools.simulate.errands import customer_answer
from tautools.simulate.library import Library
from tautools.simulate.mood import in_mood, label_of
from tautools.simulate.playbook import CLOSING, given_up, place_in, reads_only, solved
from tautools.simulate.probe import forced_call, probe_answer
from tautools.simulate.speech import Do, Say, Speech, called_last, hand_over, moves_of, render, render_tagged

if TYPE_CHECKING:
    from tautools.simulate.requests import ChatRequest, TaskField
    from tautools.simulate.speech import Step

__all__ = ["Brain", "is_solved"]

_REASONING = "I look at what was said so far and choose the next step."


def is_solved(skill: float, seed: int, conversation: str) -> bool:
    """Whether a conversation is solved: a seeded draw below `skill`, the same each time, independent of all others."""
    return _draw(f"{seed}/{conversation}") / 2**64 < skill


class Brain:
    """Answers requests from what they say alone; it remembers no conversation.

    Parameters
    ----------
    skill : float
        Probability that a conversation is solved, in [0, 1].
    seed : int
        The server's; another seed solves other conversations.
    """

    def __init__(self, skill: float, seed: int) -> None:
        self.skill = skill
        self.seed = seed
        self.library = Library()

    async def answer(self, request: ChatRequest) -> Speech:
        """Return the answer to one request.

        Raises
        ------
        ApiError
            400 when the request names a task that does not exist.
        """
        speech = await self._speech(request)
        return replace(speech, reasoning=_REASONING) if request.thinking else speech

    async def _speech(self, request: ChatRequest) -> Speech:
        field = request.task
        if field is not None and field.role is Role.JUDGE:
            mood = label_of(request.messages)
            return Speech(text=mood) if mood else self._judge(request, field)
        if field is not None and field.role is Role.USER:
            speech = customer_answer(request.messages, request.tools)
            return replace(speech, text=in_mood(request.messages, speech.text)) if speech.text else speech
        if request.forced_tool is not None:
            return forced_call(request)
        if field is not None and field.role in {Role.AGENT, Role.EXPERT}:
            return await self._agent(request, field)
        return probe_answer(request)

    def _judge(self, request: ChatRequest, field: TaskField) -> Speech:
        """Say of each statement that it is met, with the probability `skill`, the same each time."""
        asked = str(request.messages[1].get("content") if len(request.messages) > 1 else "")
        count = len(re.findall(r"^\d+\. ", asked.rpartition(STATEMENTS)[2], re.MULTILINE))
        draws = [is_solved(self.skill, self.seed, f"judge/{field.conversation}/{number}") for number in range(count)]
        told = [{"number": at, "met": met, "reason": "SIMULATED"} for at, met in enumerate(draws, start=1)]
        return Speech(text=json.dumps({"verdicts": told}))

    async def _agent(self, request: ChatRequest, field: TaskField) -> Speech:
        domain, task = await self.library.find(field)
        tools = {str(tool["function"]["name"]) for tool in domain.tools}
        if is_solved(self.skill, self.seed, field.conversation):
            steps = solved(task, tools, domain.protocol.terminal_tools)
        else:
            steps = given_up(task, tools, _draw(f"style/{self.seed}/{field.conversation}"))
        place = place_in(steps, moves_of(request, field.strategy))
        step = steps[place] if place < len(steps) else _afterwards(steps)
        if field.role is Role.EXPERT:
            return render_tagged(step)
        expert = _expert_for(request, f"{self.seed}/{field.conversation}/{place}")
        return hand_over(expert) if expert else render(step, _thought(step), field.strategy)


def _expert_for(request: ChatRequest, draw: str) -> str:
    """Return the expert that takes this step, drawn from all whom the request offers and the agent itself; or none."""
    offered = [tool["function"] for tool in request.tools if tool["function"]["name"] == TOOL]
    if not offered or called_last(request.messages) == TOOL:
        return ""  # nobody to ask, or the one who was asked could not help
    names = offered[0]["parameters"]["properties"]["expert"]["enum"]
    return str(["", *names][_draw(f"expert/{draw}") % (len(names) + 1)])


def _afterwards(steps: tuple[Step, ...]) -> Step:
    """Return what is said when the user goes on talking after the last step."""
    last = steps[-1]
    return last if isinstance(last, Say) else Say(CLOSING)


def _thought(step: Step) -> str:
    if isinstance(step, Do):
        purpose = "look this up first" if reads_only(step.name) else "make the change now"
        return f"I should {purpose}: {step.name} is the tool for it."
    return "I have no tool to use now; I should speak to the user."


def _draw(text: str) -> int:
    """Return an integer below 2**64 that follows from `text` alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
