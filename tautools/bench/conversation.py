"""The conversation loop: user and agent take turns, with tool calls in between, until something ends it.

The protocol is the benchmark's own (inspect's tau2: the user opens, a stop word in the user's text ends the
conversation, all calls of one answer run in order). The limits and the handling of faults are ours: what the benchmark,
a limit or a party's model ended is an outcome; what the infrastructure broke is raised as `ModelCallError` and stays
pending.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from tautools.bench.persona import attach_persona, verify_persona
from tautools.errors import CallFault, ModelCallError
from tautools.llm.types import CallTag
from tautools.records import Conversation, Outcome, Role, TrajectoryAction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tautools.bench.types import Approach, AskModel, Domain, Observation, Participant, Task, Turn
    from tautools.llm.types import CompletionClient, Message, Reply, ToolSpec
    from tautools.records import Limits


_PASSED_FROM = 1 - 1e-6


async def run_conversation(  # noqa: PLR0913 - everything that makes one conversation what it is, by name
    domain: Domain,
    task: Task,
    *,
    approach: Approach,
    client: CompletionClient,
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
        When the infrastructure failed: the conversation says nothing about the agent and is pending again.
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
    talk = _Episode(domain, task, approach, limits, client, tag, on_message)
    return await talk.hold()


class _ConversationEnd(Exception):  # noqa: N818 - a way out of the loop, not an error
    """The conversation is over for a reason other than the bench's own."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


@dataclass
class _Episode:
    """One conversation under way."""

    domain: Domain
    task: Task
    approach: Approach
    limits: Limits
    client: CompletionClient
    tag: CallTag
    on_message: Callable[[Message], None] | None
    actions: list[TrajectoryAction] = field(default_factory=list)
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
        self.env_state = self.domain.env_state(self.task)
        self.agent = self.domain.agent(self.approach, self.tag.seed or 0)
        self.user = self.domain.user(self.task, self.approach)
        if self.approach.persona is not None:
            attach_persona(self.user, self.approach.persona)
        if self.domain.protocol.agent_opening:
            self.agent.messages.append({"role": "assistant", "content": self.domain.protocol.agent_opening})
            self.actions.append(TrajectoryAction(said=self.domain.protocol.agent_opening))

    async def hold(self) -> Conversation:
        """Talk to the end and return the record."""
        started_at = time.time()
        outcome, reason = None, ""
        try:
            await self._within_time()
        except _ConversationEnd as end:
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
            raise _ConversationEnd(Outcome.TIME_LIMIT, f"No end within {self.limits.time_s} s.") from None

    async def _take_turns(self) -> None:
        protocol = self.domain.protocol
        rounds = min(self.limits.max_rounds, protocol.max_rounds)
        self._tell()
        for turn in range(rounds):
            words = await self._speak(self.user, Role.USER, turn) or ""
            self.agent.receive(words)
            self._tell()
            self._check_messages()
            if any(stop in words for stop in protocol.stop_words) and (turn or protocol.opening_may_stop):
                return
            answer = await self._speak(self.agent, Role.AGENT, turn)
            if answer is None:
                return
            self.actions.append(TrajectoryAction(said=answer))
            self.user.receive(answer)
            self._check_messages()
        raise _ConversationEnd(Outcome.STEP_LIMIT, f"No end within {rounds} rounds.")

    async def _speak(self, speaker: Participant, role: Role, turn: int) -> str | None:
        """Let one party act until it says something to the other; return its words, None when it ended the talk."""
        ask = self._asker(role, turn)
        made = 0
        while True:
            next_turn = await self._move(speaker, role, ask)
            made += 1
            if role is Role.USER:
                self._check_user(next_turn, made)
            observations = await self._act(next_turn, role)
            known = len(speaker.messages)
            speaker.observe(next_turn, observations)
            if role is Role.USER and next_turn.calls:
                self._tell_calls(speaker.messages[known:])
            if role is Role.AGENT:
                self._tell()
                if self._has_ended_it(next_turn, observations):
                    return None
            self._count(next_turn, observations, role)
            if not next_turn.calls:
                return next_turn.said
            self._check_messages()

    async def _move(self, speaker: Participant, role: Role, ask: AskModel) -> Turn:
        """Let a party come to its next move; a move is one step of the agent, however many requests it takes."""
        if role is Role.AGENT and not self.domain.protocol.counts_messages:
            limit = self._max_steps()
            if self.moves >= limit:
                raise _ConversationEnd(Outcome.STEP_LIMIT, f"No end within {limit} requests of the agent.")
            self.moves += 1
        return await speaker.next_turn(ask)

    def _asker(self, role: Role, turn: int) -> AskModel:
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
                verify_persona(messages, self.approach.persona, first=not self.steps[asked])
            tag = replace(self.tag, role=asked, turn=turn, step=self.steps[asked], purpose=purpose, expert=expert)
            self.steps[asked] += 1
            return await self._ask(tag, messages, tools)

        return ask

    async def _ask(self, tag: CallTag, messages: Sequence[Message], tools: Sequence[ToolSpec] | None) -> Reply:
        try:
            reply = await self.client.complete(tag, messages, tools)
        except asyncio.CancelledError as cancelled:
            self.trouble = cancelled.__cause__
            raise
        except ModelCallError as error:
            if error.fault is not CallFault.CONTEXT_OVERFLOW:
                raise
            outcome = Outcome.USER_ERROR if tag.role is Role.USER else Outcome.CONTEXT_OVERFLOW
            raise _ConversationEnd(outcome, f"The {tag.role}'s prompt no longer fits: {error.problem}") from error
        self.simulated = self.simulated or reply.record.simulated
        self._give_back(reply.lost_s)
        return reply

    def _give_back(self, lost_s: float) -> None:
        """Put off the time limit by what faults cost."""
        ends_at = self.clock.when() if self.clock is not None else None
        if self.clock is not None and ends_at is not None and lost_s:
            self.clock.reschedule(ends_at + lost_s)

    async def _act(self, next_turn: Turn, role: Role) -> list[Observation]:
        by: Literal["assistant", "user"] = "assistant" if role is Role.AGENT else "user"
        if next_turn.calls and by == "assistant" and next_turn.wrote.strip() and self.domain.protocol.counts_messages:
            self.actions.append(TrajectoryAction(said=next_turn.wrote))
        seen = [await self.env_state.call(call.name, call.arguments, by) for call in next_turn.calls]
        self.actions += [
            TrajectoryAction(by=by, call=call.name, arguments=call.arguments, error=each.error)
            for call, each in zip(next_turn.calls, seen, strict=True)
        ]
        return seen

    def _has_ended_it(self, next_turn: Turn, observations: list[Observation]) -> bool:
        terminal = self.domain.protocol.terminal_tools
        return any(
            call.name in terminal and not seen.unreadable
            for call, seen in zip(next_turn.calls, observations, strict=True)
        )

    def _check_user(self, next_turn: Turn, made: int) -> None:
        """Refuse what no customer does; `made` counts its moves since the agent spoke."""
        if next_turn.calls and not self.domain.user_tools:
            raise _ConversationEnd(
                Outcome.USER_ERROR, f"The user called the tool {next_turn.calls[0].name!r} and has no tools."
            )
        if next_turn.calls and made >= self.limits.max_user_calls:
            raise _ConversationEnd(Outcome.USER_ERROR, f"The user called tools {made} times in a row and said nothing.")
        if next_turn.unusable:
            wrote = f"The user's answer cannot be read: {next_turn.wrote[:300]!r}" if next_turn.wrote.strip() else ""
            raise _ConversationEnd(Outcome.USER_ERROR, wrote or "The user said nothing.")

    def _max_steps(self) -> int:
        return min(self.limits.max_steps, self.domain.protocol.max_steps or self.limits.max_steps)

    def _count(self, next_turn: Turn, observations: list[Observation], role: Role) -> None:
        """Count steps and errors in the bench's way; where it counts messages, `_check_messages` compares them."""
        if self.domain.protocol.counts_messages:
            self.moves += 1 + bool(next_turn.calls)
            self.errors += next_turn.unusable + sum(seen.error for seen in observations)
        elif role is Role.AGENT:
            self.errors += next_turn.unusable + sum(seen.unreadable for seen in observations)
            if self.errors >= self.limits.max_errors:
                raise _ConversationEnd(Outcome.AGENT_ERROR, f"{self.errors} answers of the agent could not be used.")

    def _check_messages(self) -> None:
        """End at a limit, looked at whenever no call waits for its result, and before what the last words mean."""
        protocol = self.domain.protocol
        if not protocol.counts_messages:
            return
        if self.errors >= min(self.limits.max_errors, protocol.max_errors or self.limits.max_errors):
            raise _ConversationEnd(Outcome.AGENT_ERROR, f"{self.errors} calls were refused or could not be read.")
        if self.moves >= self._max_steps():
            raise _ConversationEnd(Outcome.STEP_LIMIT, f"No end within {self._max_steps()} messages.")

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
        scored = self.env_state.reward([deed.said for deed in self.actions if not deed.call])
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
            actions=self.actions,
            seed=self.tag.seed or 0,
            started_at=started_at,
            finished_at=time.time(),
            error=reason,
            simulated=self.simulated,
        )
