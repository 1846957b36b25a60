"""The conversation loop: user and agent take turns, with tool calls in between, until something ends it.

The protocol is the benchmark's own (inspect's tau2: the user opens, a stop word in the user's text ends the
conversation, all calls of one answer run in order). The limits and the handling of faults are ours: what the benchmark,
a limit or a party's model ended is an outcome; what the infrastructure broke is raised as `ModelCallError` and stays
pending.
"""

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tautools.bench.blame import may_refuse_words, refused_side
from tautools.bench.persona import verify_persona
from tautools.bench.types import Approach, AskModel, Domain, Observation, Participant, Reward, Task, Turn, sound_reply
from tautools.errors import BenchError, CallFault, ModelCallError
from tautools.llm.answers import says_the_same
from tautools.llm.types import REFUSAL_CHECK, CallTag, CompletionClient, Message, Reply, ToolSpec
from tautools.records import Conversation, Limits, Outcome, Role, SeedRule, TrajectoryAction, UserStrategy

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
    seed_rule: SeedRule = SeedRule.REQUEST,
    repeat: int = 0,
    setting_id: str = "",
    on_message: Callable[[Message], None] | None = None,
) -> Conversation:
    """Run one conversation and score it.

    Parameters
    ----------
    domain, task
        The env and one of its tasks.
    approach : Approach
        How both sides are played.
    client : CompletionClient
        Asks the models of all roles.
    limits : Limits
        Where the conversation ends if neither party ends it.
    trial : int
        Which repetition this is, from 0.
    seed : int
        The conversation's own seed, from `conversation_seed`.
    seed_rule : SeedRule
        Which seed each request carries.
    repeat : int
        How often this conversation was run before and could not be used; by the rule `request` its requests are drawn
        anew, as a customer that broke its role would only break it again.
    setting_id : str
        Id of the setting, for the records.
    on_message : callable, optional
        Gets each message as the agent's side sees it, the system prompt first; and, with `by: user`, the calls of a
        customer with tools and their results.

    Returns
    -------
    Conversation
        With an outcome that is finished; `user_error` has no reward.

    Raises
    ------
    ModelCallError
        When the infrastructure failed: the conversation says nothing about the agent and stays pending.
    """
    tag = CallTag(
        role=Role.AGENT,
        ref=domain.ref,
        task_id=task.id,
        trial=trial,
        strategy=str(approach.strategy),
        setting_id=setting_id,
        conversation=f"{setting_id}/{task.id}/{trial}",
        seed=seed,
        seed_rule=seed_rule,
        repeat=repeat,
    )
    return await _Episode(domain, task, approach, limits, client, tag, on_message).run()


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
    requests: Counter[Role] = field(default_factory=Counter)
    """Model requests so far, by role."""
    steps: int = 0
    """Turns of the agent so far, or messages where the bench counts those."""
    errors: int = 0
    reported: int = 0
    """How many of the agent's messages `on_message` has got."""
    simulated: bool = False
    clock: asyncio.Timeout | None = None
    fault: BaseException | None = None
    """The fault that a model call was still retrying when it was cancelled."""

    def __post_init__(self) -> None:
        self.protocol = self.domain.protocol
        self.max_steps = min(self.limits.max_steps, self.protocol.max_steps or self.limits.max_steps)
        self.env_state = self.domain.env_state(self.task)
        self.agent = self.domain.agent(self.approach, self.tag.seed or 0)
        self.user = self.domain.user(self.task, self.approach)
        if self.approach.persona is not None:
            self.user.add_persona(self.approach.persona.block)
        if self.protocol.agent_opening:
            self.agent.messages.append({"role": "assistant", "content": self.protocol.agent_opening})
            self.actions.append(TrajectoryAction(text=self.protocol.agent_opening))

    async def run(self) -> Conversation:
        """Run the conversation to its end and return the record."""
        started_at = time.time()
        outcome, reason = None, ""
        try:
            async with asyncio.timeout(self.limits.time_s) as self.clock:  # excludes what faults cost
                await self._take_turns()
        except _ConversationEnd as end:
            outcome, reason = end.outcome, str(end)
        except TimeoutError:
            if self.clock is None or not self.clock.expired():
                raise
            if self.fault is not None and not self._is_pause(self.fault):
                raise self.fault from None
            outcome, reason = Outcome.TIME_LIMIT, f"No end within {self.limits.time_s} s."
        return self._record(outcome, reason, started_at)

    def _is_pause(self, fault: BaseException) -> bool:
        """Whether a server was only between two words; one that was silent for half of the limit is at fault."""
        silent_s = getattr(fault, "silent_s", 0.0)
        return 0 < silent_s < (self.limits.time_s or 0) / 2

    async def _take_turns(self) -> None:
        rounds = min(self.limits.max_rounds, self.protocol.max_rounds)
        self._report_messages()
        for turn in range(rounds):
            request = await self._reply_of(self.user, Role.USER, turn) or ""
            self.agent.receive(request)
            self._report_messages()
            self._check_message_limits()
            stops = any(stop in request for stop in self.protocol.stop_words)
            if stops and (turn or self.protocol.opening_may_stop):
                return
            answer = await self._reply_of(self.agent, Role.AGENT, turn)
            if answer is None:
                return
            self.actions.append(TrajectoryAction(text=answer))
            self.user.receive(answer)
            self._check_message_limits()
        raise _ConversationEnd(Outcome.STEP_LIMIT, f"No end within {rounds} rounds.")

    async def _reply_of(self, party: Participant, role: Role, number: int) -> str | None:
        """Let one party act until it says something to the other one; None when a call ended the conversation."""
        ask: AskModel = functools.partial(self._ask, role, number)
        turns = 0
        while True:
            if role is Role.AGENT and not self.protocol.counts_messages:
                self._count_step()
            turn = (await party.next_turn(ask)).sound()
            turns += 1
            if role is Role.USER:
                self._check_user(turn, turns)
            observations = await self._run_calls(turn, role)
            known = len(party.messages)
            party.observe(turn, observations)
            if role is Role.USER and turn.calls and self.on_message is not None:
                for message in party.messages[known:]:  # the agent's messages do not have the customer's own calls
                    self.on_message({**message, "by": "user"})
            if role is Role.AGENT:
                self._report_messages()
                made = [call.name for call, seen in zip(turn.calls, observations, strict=True) if not seen.unreadable]
                if not set(made).isdisjoint(self.protocol.terminal_tools):
                    return None
            self._count(turn, observations, role)
            if not turn.calls:
                return turn.text
            self._check_message_limits()

    def _count_step(self) -> None:
        """Count a turn of the agent, which is one step however many requests it takes; end at the limit."""
        if self.steps >= self.max_steps:
            raise _ConversationEnd(Outcome.STEP_LIMIT, f"No end within {self.max_steps} requests of the agent.")
        self.steps += 1

    async def _ask(
        self,
        role: Role,
        turn: int,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] | None = None,
        *,
        purpose: str = "chat",
        expert: str = "",
    ) -> Reply:
        """Let a party ask one of its models."""
        role = Role.EXPERT if expert else role
        if role is Role.USER and self.approach.persona is not None:
            verify_persona(messages, self.approach.persona, first=not self.requests[role])
        tag = replace(self.tag, role=role, turn=turn, step=self.requests[role], purpose=purpose, expert=expert)
        self.requests[role] += 1
        try:
            reply = sound_reply(await self.client.complete(tag, messages, tools))
        except asyncio.CancelledError as cancelled:
            self.fault = cancelled.__cause__
            raise
        except ModelCallError as error:
            self.fault = error  # a time limit that ends meanwhile is not the agent's
            end = await self._end_by(error, tag, messages, tools)
            if end is None:
                raise
            raise end from error
        self.simulated = self.simulated or reply.record.simulated
        ends_at = self.clock.when() if self.clock is not None else None
        if self.clock is not None and ends_at is not None and reply.lost_s:
            self.clock.reschedule(ends_at + reply.lost_s)  # what faults cost does not count
        return reply

    async def _end_by(
        self, error: ModelCallError, tag: CallTag, messages: Sequence[Message], tools: Sequence[ToolSpec] | None
    ) -> _ConversationEnd | None:
        """Return how a fault that a party's own words caused ends the conversation; None for the infrastructure's."""
        if error.fault is CallFault.CONTEXT_OVERFLOW:
            outcome = Outcome.USER_ERROR if tag.role is Role.USER else Outcome.CONTEXT_OVERFLOW
            return _ConversationEnd(outcome, f"The {tag.role}'s prompt no longer fits: {error.problem}")
        if tag.purpose != "chat" or not may_refuse_words(error):
            return None

        async def accepts(tried: Sequence[Message]) -> bool:
            try:
                await self.client.complete(replace(tag, purpose=REFUSAL_CHECK), tried, tools)
            except ModelCallError as again:
                if not may_refuse_words(again):
                    raise
                return False
            return True

        side = await refused_side(accepts, messages, tools)
        if not side:
            return None
        by_agent = side == ("user" if tag.role is Role.USER else "assistant")
        reason = (
            f"The {tag.role}'s server refuses what the {'agent' if by_agent else 'user'} wrote before: {error.seen}"
        )
        return _ConversationEnd(Outcome.AGENT_ERROR if by_agent else Outcome.USER_ERROR, reason)

    async def _run_calls(self, turn: Turn, role: Role) -> list[Observation]:
        by: Literal["assistant", "user"] = "assistant" if role is Role.AGENT else "user"
        if turn.calls and by == "assistant" and turn.raw_text.strip() and self.protocol.counts_messages:
            self.actions.append(TrajectoryAction(text=turn.raw_text))
        observations = [(await self.env_state.call(call.name, call.arguments, by)).sound() for call in turn.calls]
        self.actions += [
            TrajectoryAction(by=by, call=call.name, arguments=call.arguments, error=seen.error, flag=seen.flag)
            for call, seen in zip(turn.calls, observations, strict=True)
        ]
        return observations

    def _check_user(self, turn: Turn, turns: int) -> None:
        """Refuse what no customer does; `turns` counts its turns since the agent spoke."""
        if turn.calls and not self.domain.user_tools:
            reason = f"The user called the tool {turn.calls[0].name!r} and has no tools."
        elif turn.calls and turns >= self.limits.max_user_calls:
            reason = f"The user called tools {turns} times in a row and said nothing."
        elif turn.unusable and turn.raw_text.strip():
            reason = f"The user's answer cannot be read: {turn.raw_text[:300]!r}"
        elif turn.unusable:
            reason = "The user said nothing."
        elif self.approach.user_strategy is not UserStrategy.HUMAN and says_the_same(turn.text, self._last_words()):
            reason = f"The user repeated the agent's words: {turn.text[:300]!r}"
        else:
            return
        raise _ConversationEnd(Outcome.USER_ERROR, reason)

    def _last_words(self) -> str:
        """Return what the agent said last."""
        return next((each.text for each in reversed(self.actions) if each.by == "assistant" and not each.call), "")

    def _count(self, turn: Turn, observations: list[Observation], role: Role) -> None:
        """Count steps and errors in the bench's way; where it counts messages, `_check_message_limits` compares."""
        if self.protocol.counts_messages:
            self.steps += 1 + bool(turn.calls)
            self.errors += turn.unusable + sum(observation.error for observation in observations)
        elif role is Role.AGENT:
            self.errors += turn.unusable + sum(observation.unreadable for observation in observations)
            if self.errors >= self.limits.max_errors:
                raise _ConversationEnd(Outcome.AGENT_ERROR, f"{self.errors} answers of the agent could not be used.")

    def _check_message_limits(self) -> None:
        """End at a limit; checked when no call waits for its result, and before the last words are looked at."""
        if not self.protocol.counts_messages:
            return
        if self.errors >= min(self.limits.max_errors, self.protocol.max_errors or self.limits.max_errors):
            raise _ConversationEnd(Outcome.AGENT_ERROR, f"{self.errors} calls were refused or could not be read.")
        if self.steps >= self.max_steps:
            raise _ConversationEnd(Outcome.STEP_LIMIT, f"No end within {self.max_steps} messages.")

    def _report_messages(self) -> None:
        """Pass the agent's new messages to `on_message`."""
        if self.on_message is not None:
            for message in self.agent.messages[self.reported :]:
                self.on_message(message)
        self.reported = len(self.agent.messages)

    def _scored(self) -> Reward:
        """Score; a state that the scorer fails on although it scores an untouched one gets nothing."""
        try:
            return self.env_state.reward([action.text for action in self.actions if not action.call])
        except BenchError:
            raise  # the benchmark's own process, or a package that is not as expected
        except Exception as error:  # noqa: BLE001 - the state is made of what a model wrote
            self.domain.env_state(self.task).reward([])
            return Reward(0.0, {"unscorable": f"{type(error).__name__}: {error}"})

    def _record(self, outcome: Outcome | None, reason: str, started_at: float) -> Conversation:
        scored = self._scored()
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
            env=self.domain.ref.env,
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
