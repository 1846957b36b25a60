"""The conversation loop: user and agent in turn, tools in between, until something ends it.

The protocol is the bench's own (inspect's tau2: the user opens, a stop word in the user's words ends the talk, all
calls of one answer run in order). Ours are the limits and what becomes of trouble: what the bench, a limit or a party's
model ended is an outcome; what the infrastructure broke is raised as `ModelCallError` and owed again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from tautools.bench.persona import check_worn, put_on
from tautools.errors import CallFault, ModelCallError
from tautools.llm.types import CallTag
from tautools.records import Conversation, Deed, Outcome, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tautools.bench.agents.move import Ask, Move, Speaker
    from tautools.bench.types import Approach, Domain, Observation, Task
    from tautools.llm.types import Door, Message, Reply, ToolSpec
    from tautools.records import Limits

__all__ = ["converse"]

_PASSED_FROM = 1 - 1e-6


async def converse(  # noqa: PLR0913 - everything that makes one conversation what it is, by name
    domain: Domain,
    task: Task,
    *,
    approach: Approach,
    door: Door,
    limits: Limits,
    trial: int,
    seed: int,
    setting_id: str = "",
    on_message: Callable[[Message], None] | None = None,
) -> Conversation:
    """Hold one conversation and score it.

    Parameters
    ----------
    domain, task
        The env and one of its tasks.
    approach : Approach
        How both sides are played.
    door : Door
        The way to the models of both roles.
    limits : Limits
        Where the conversation ends if nobody ends it.
    trial : int
        Which repetition this is, from 0.
    seed : int
        The conversation's own seed, from `conversation_seed`; each request carries it.
    setting_id : str
        Id of the setting, for the records.
    on_message : callable, optional
        Told of each message as the agent's side sees it, the system prompt first; and, as `by: user`, of the calls of
        a customer with tools and what they gave back.

    Returns
    -------
    Conversation
        With an outcome that is finished; `user_error` has no reward.

    Raises
    ------
    ModelCallError
        When the infrastructure failed: the conversation says nothing about the agent and is owed again.
    """
    tag = CallTag(
        role=Role.AGENT,
        env=domain.env,
        task_id=task.id,
        trial=trial,
        strategy=str(approach.strategy),
        split=domain.split,
        bench=domain.bench,
        source=domain.source,
        path=domain.path,
        python=domain.python,
        setting_id=setting_id,
        conversation=f"{setting_id}/{task.id}/{trial}",
        seed=seed,
    )
    talk = _Talk(domain, task, approach, limits, door, tag, on_message)
    return await talk.hold()


class _Ended(Exception):  # noqa: N818 - a way out of the loop, not an error
    """The conversation is over for a reason other than the bench's own."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


@dataclass
class _Talk:
    """One conversation under way."""

    domain: Domain
    task: Task
    approach: Approach
    limits: Limits
    door: Door
    tag: CallTag
    on_message: Callable[[Message], None] | None
    deeds: list[Deed] = field(default_factory=list)
    steps: Counter[Role] = field(default_factory=Counter)
    """Requests so far, by whose they are."""
    moves: int = 0
    """Steps so far: moves of the agent, or messages where the bench counts those."""
    errors: int = 0
    told: int = 0
    simulated: bool = False
    clock: asyncio.Timeout | None = None
    trouble: BaseException | None = None
    """The fault that a model call was still trying to get past when it was cancelled."""

    def __post_init__(self) -> None:
        self.world = self.domain.world(self.task)
        self.agent = self.domain.agent(self.approach, self.tag.seed or 0)
        self.user = self.domain.user(self.task, self.approach)
        if self.approach.persona is not None:
            put_on(self.user, self.approach.persona)
        if self.domain.protocol.agent_opening:
            self.agent.messages.append({"role": "assistant", "content": self.domain.protocol.agent_opening})
            self.deeds.append(Deed(said=self.domain.protocol.agent_opening))

    async def hold(self) -> Conversation:
        """Talk to the end and return the record."""
        started_at = time.time()
        outcome, reason = None, ""
        try:
            await self._within_time()
        except _Ended as end:
            outcome, reason = end.outcome, str(end)
        return self._record(outcome, reason, started_at)

    async def _within_time(self) -> None:
        """Talk within the time limit; what the infrastructure cost does not count, and what it ended is its fault."""
        try:
            async with asyncio.timeout(self.limits.time_s) as self.clock:
                await self._take_turns()
        except TimeoutError:
            if self.clock is None or not self.clock.expired():
                raise
            if self.trouble is not None:
                raise self.trouble from None
            raise _Ended(Outcome.TIME_LIMIT, f"No end within {self.limits.time_s} s.") from None

    async def _take_turns(self) -> None:
        protocol = self.domain.protocol
        rounds = min(self.limits.max_rounds, protocol.max_rounds)
        self._tell()
        for turn in range(rounds):
            words = await self._speak(self.user, Role.USER, turn) or ""
            self.agent.hear(words)
            self._tell()
            self._check_messages()
            if any(stop in words for stop in protocol.stop_words) and (turn or protocol.opening_may_stop):
                return
            answer = await self._speak(self.agent, Role.AGENT, turn)
            if answer is None:
                return
            self.deeds.append(Deed(said=answer))
            self.user.hear(answer)
            self._check_messages()
        raise _Ended(Outcome.STEP_LIMIT, f"No end within {rounds} rounds.")

    async def _speak(self, speaker: Speaker, role: Role, turn: int) -> str | None:
        """Let one party act until it says something to the other; return its words, None when it ended the talk."""
        ask = self._asker(role, turn)
        made = 0
        while True:
            move = await self._move(speaker, role, ask)
            made += 1
            if role is Role.USER:
                self._check_user(move, made)
            observations = await self._act(move, role)
            known = len(speaker.messages)
            speaker.acted(move, observations)
            if role is Role.USER and move.calls:
                self._tell_calls(speaker.messages[known:])
            if role is Role.AGENT:
                self._tell()
                if self._has_ended_it(move, observations):
                    return None
            self._count(move, observations, role)
            if not move.calls:
                return move.said
            self._check_messages()

    async def _move(self, speaker: Speaker, role: Role, ask: Ask) -> Move:
        """Let a party come to its next move; a move is one step of the agent, however many requests it takes."""
        if role is Role.AGENT and not self.domain.protocol.counts_messages:
            limit = self._max_steps()
            if self.moves >= limit:
                raise _Ended(Outcome.STEP_LIMIT, f"No end within {limit} requests of the agent.")
            self.moves += 1
        return await speaker.move(ask)

    def _asker(self, role: Role, turn: int) -> Ask:
        """Return the way in which one party asks its models during one turn."""

        async def ask(
            messages: Sequence[Message],
            tools: Sequence[ToolSpec] | None = None,
            *,
            purpose: str = "chat",
            expert: str = "",
        ) -> Reply:
            asked = Role.EXPERT if expert else role
            if asked is Role.USER and self.approach.persona is not None:
                check_worn(messages, self.approach.persona, first=not self.steps[asked])
            tag = replace(self.tag, role=asked, turn=turn, step=self.steps[asked], purpose=purpose, expert=expert)
            self.steps[asked] += 1
            return await self._ask(tag, messages, tools)

        return ask

    async def _ask(self, tag: CallTag, messages: Sequence[Message], tools: Sequence[ToolSpec] | None) -> Reply:
        try:
            reply = await self.door.complete(tag, messages, tools)
        except asyncio.CancelledError as cancelled:
            self.trouble = cancelled.__cause__
            raise
        except ModelCallError as error:
            if error.fault is not CallFault.CONTEXT_OVERFLOW:
                raise
            outcome = Outcome.USER_ERROR if tag.role is Role.USER else Outcome.CONTEXT_OVERFLOW
            raise _Ended(outcome, f"The {tag.role}'s prompt no longer fits: {error.problem}") from error
        self.simulated = self.simulated or reply.record.simulated
        self._give_back(reply.lost_s)
        return reply

    def _give_back(self, lost_s: float) -> None:
        """Put off the time limit by what faults cost."""
        ends_at = self.clock.when() if self.clock is not None else None
        if self.clock is not None and ends_at is not None and lost_s:
            self.clock.reschedule(ends_at + lost_s)

    async def _act(self, move: Move, role: Role) -> list[Observation]:
        by: Literal["assistant", "user"] = "assistant" if role is Role.AGENT else "user"
        if move.calls and by == "assistant" and move.wrote.strip() and self.domain.protocol.counts_messages:
            self.deeds.append(Deed(said=move.wrote))
        seen = [await self.world.call(call.name, call.arguments, by) for call in move.calls]
        self.deeds += [
            Deed(by=by, call=call.name, arguments=call.arguments, error=each.error)
            for call, each in zip(move.calls, seen, strict=True)
        ]
        return seen

    def _has_ended_it(self, move: Move, observations: list[Observation]) -> bool:
        terminal = self.domain.protocol.terminal_tools
        return any(
            call.name in terminal and not seen.unreadable for call, seen in zip(move.calls, observations, strict=True)
        )

    def _check_user(self, move: Move, made: int) -> None:
        """Refuse what no customer does; `made` counts its moves since the agent spoke."""
        if move.calls and not self.domain.user_tools:
            raise _Ended(Outcome.USER_ERROR, f"The user called the tool {move.calls[0].name!r} and has no tools.")
        if move.calls and made >= self.limits.max_user_calls:
            raise _Ended(Outcome.USER_ERROR, f"The user called tools {made} times in a row and said nothing.")
        if move.unusable:
            wrote = f"The user's answer cannot be read: {move.wrote[:300]!r}" if move.wrote.strip() else ""
            raise _Ended(Outcome.USER_ERROR, wrote or "The user said nothing.")

    def _max_steps(self) -> int:
        return min(self.limits.max_steps, self.domain.protocol.max_steps or self.limits.max_steps)

    def _count(self, move: Move, observations: list[Observation], role: Role) -> None:
        """Count steps and errors in the bench's way; where it counts messages, `_check_messages` compares them."""
        if self.domain.protocol.counts_messages:
            self.moves += 1 + bool(move.calls)
            self.errors += move.unusable + sum(seen.error for seen in observations)
        elif role is Role.AGENT:
            self.errors += move.unusable + sum(seen.unreadable for seen in observations)
            if self.errors >= self.limits.max_errors:
                raise _Ended(Outcome.AGENT_ERROR, f"{self.errors} answers of the agent could not be used.")

    def _check_messages(self) -> None:
        """End at a limit, looked at whenever no call waits for its result, and before what the last words mean."""
        protocol = self.domain.protocol
        if not protocol.counts_messages:
            return
        if self.errors >= min(self.limits.max_errors, protocol.max_errors or self.limits.max_errors):
            raise _Ended(Outcome.AGENT_ERROR, f"{self.errors} calls were refused or could not be read.")
        if self.moves >= self._max_steps():
            raise _Ended(Outcome.STEP_LIMIT, f"No end within {self._max_steps()} messages.")

    def _tell_calls(self, messages: Sequence[Message]) -> None:
        """Tell of the customer's own calls, which the agent's messages do not hold."""
        if self.on_message is not None:
            for message in messages:
                self.on_message({**message, "by": "user"})

    def _tell(self) -> None:
        if self.on_message is not None:
            for message in self.agent.messages[self.told :]:
                self.on_message(message)
        self.told = len(self.agent.messages)

    def _record(self, outcome: Outcome | None, reason: str, started_at: float) -> Conversation:
        scored = self.world.reward([deed.said for deed in self.deeds if not deed.call])
        reward: float | None = scored.value
        info = dict(scored.info)
        if outcome is None:
            outcome = Outcome.PASSED if scored.value >= _PASSED_FROM else Outcome.FAILED
        else:
            # What the bench's scorer would have said of the state reached; inspect, for one, scores at its round limit.
            info["scorer_reward"] = scored.value
            reward = 0.0 if outcome.scored else None
        return Conversation(
            setting_id=self.tag.setting_id,
            env=self.domain.env,
            task_id=self.task.id,
            trial=self.tag.trial,
            outcome=outcome,
            reward=reward,
            reward_info=info,
            messages=self.agent.messages,
            user_messages=self.user.messages,
            deeds=self.deeds,
            seed=self.tag.seed or 0,
            started_at=started_at,
            finished_at=time.time(),
            error=reason,
            simulated=self.simulated,
        )
