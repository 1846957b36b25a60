"""The interface that every source of benchmark tasks fits, and what the loop needs of the two participants.

A `Source` knows envs and splits; a `Domain` is one env loaded once per process (tasks, tools, prompts, database); an
`EnvState` is one conversation's view of the database, cheap to make. A `Participant` is the agent or the customer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from tautools.records import UserStrategy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.llm.types import Message, Reply, ToolCall, ToolSpec
    from tautools.params.personas import Persona
    from tautools.records import BenchRef, Strategy


Changes: TypeAlias = "Mapping[tuple[str, str], str | None]"
"""(table, key) to the canonical JSON of each entity that differs from the database as loaded; None: it is gone."""


@dataclass(frozen=True, slots=True)
class ReferenceAction:
    """One reference action of a task."""

    name: str
    arguments: Mapping[str, Any]
    requestor: str = "assistant"
    compared: tuple[str, ...] | None = None
    """Names of the arguments that matter where the benchmark asks for the action itself; None: all of them."""

    def compared_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of `arguments` that matter."""
        return {name: value for name, value in arguments.items() if self.compared is None or name in self.compared}


@dataclass(frozen=True, slots=True)
class Task:
    """One task, as the conversation needs it."""

    id: str
    user_system: str
    """The user model's system prompt: guidelines and scenario."""
    reference: tuple[ReferenceAction, ...]
    """The actions that solve it."""
    communicate: tuple[str, ...] = ()
    """What the agent must say to the user."""
    assertions: tuple[str, ...] = ()
    """What a judge decides about the conversation, in natural language."""
    source_task: Any = field(default=None, repr=False)
    """The source's own object, for its own scorer."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a tool gave back."""

    text: str
    """As it goes over the wire, an error with the bench's own words before it."""
    error: bool = False
    arguments: str = "{}"
    """The arguments as the bench read them, as JSON: what is sent back to the model as its call."""
    unreadable: bool = False
    """Whether the arguments could not be parsed at all."""


@dataclass(frozen=True, slots=True)
class Reward:
    """The scorer's answer."""

    value: float
    info: Mapping[str, Any]
    """What the value rests on, as far as the task scores it. `db`: bool, `different`: entities that differ from the
    expected ones. `communicate`: bool, `missing_info`. `assertions`: each of the environment with `assertion` in words
    and `met`. `missing_actions`: required ones that nobody made."""


@dataclass(frozen=True, slots=True)
class ConversationProtocol:
    """The rules of a conversation that come from the benchmark."""

    name: str
    user_opening: str | None
    """Message that asks the user model for its first words; None when the agent opens."""
    agent_opening: str | None
    """Fixed first words of the agent, when it opens."""
    stop_words: tuple[str, ...]
    """Any of them in the user's words ends the conversation."""
    max_rounds: int
    max_steps: int | None = None
    """The bench's own limit on steps; the lower of it and the run's counts. A step is a request of the agent."""
    terminal_tools: tuple[str, ...] = ()
    """Tools of the agent whose call ends the conversation at once."""
    opening_may_stop: bool = True
    """Whether a stop word in the user's first words ends the conversation before the agent was asked."""
    counts_messages: bool = False
    """tau2-bench's way to count: a step is a message of either party or the results of its calls, an error is a call
    that was refused, of either party; what the agent writes beside a call counts as said."""
    max_errors: int | None = None
    """The bench's own limit on errors; the lower of it and the run's counts."""


@dataclass(frozen=True, slots=True)
class Expert:
    """A model that an orchestrating agent can hand its move to."""

    name: str
    description: str = ""
    """What the agent is told about it."""
    thinks: bool = False
    """Whether it was asked to think before it answers."""


@dataclass(frozen=True, slots=True)
class Approach:
    """How both sides are played."""

    strategy: Strategy
    user_strategy: UserStrategy = UserStrategy.LLM
    few_shot_displays: str | None = None
    """File of solved examples for the strategy `few-shot`; the benchmark's own when not given."""
    experts: tuple[Expert, ...] = ()
    """Whom the agent can call under the strategy `experts`."""
    persona: Persona | None = None
    """What is added to the customer's system prompt; None when nothing is."""


class EnvState(Protocol):
    """One conversation's database behind the bench's own tools."""

    async def call(self, name: str, arguments: str, requestor: str = "assistant") -> Observation:
        """Run a tool with its arguments as JSON text, through the bench's own validation and coercion.

        `requestor` is `assistant` or, where the simulated customer has tools of its own, `user`.

        Unknown tools, unparsable JSON, schema violations and the tool's own refusals come back as observations with the
        package's own error texts; they are never exceptions.
        """
        ...

    def reward(self, agent_texts: Sequence[str]) -> Reward:
        """Score the state reached and what the agent said to the user, by the bench's rules."""
        ...

    def changes(self) -> Changes:
        """Return what the conversation has changed in the database so far."""
        ...


class Domain(Protocol):
    """One env of a source, loaded once per process."""

    ref: BenchRef
    """Which env it is and where it was loaded from, every field as it was found."""
    strategies: Sequence[Strategy]
    user_strategies: Sequence[UserStrategy]
    tasks: Mapping[str, Task]
    """By id, in the benchmark's order."""
    tools: Sequence[ToolSpec]
    user_tools: Sequence[ToolSpec]
    """What the simulated customer can call itself; empty in most envs."""
    policy: str
    agent_system: str
    """The agent's system prompt under tool calling, as the bench writes it."""
    reward_basis: str
    """What the reward rests on, such as `DB+COMMUNICATE`."""
    protocol: ConversationProtocol
    prompts: Mapping[str, str]
    """Name to sha256 of every text that models are shown."""

    def env_state(self, task: Task) -> EnvState:
        """Return a fresh world for one conversation of `task`."""
        ...

    def expected(self, task: Task) -> Changes | None:
        """Return what the reference actions change; None when there is no reference to compare with."""
        ...

    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""
        ...

    def agent(self, approach: Approach, seed: int) -> Participant:
        """Return the agent of one conversation, its system prompt in place; `seed` is the conversation's."""
        ...

    def user(self, task: Task, approach: Approach) -> Participant:
        """Return the customer of one conversation, its system prompt in place and the opening heard."""
        ...

    def instructions(self, approach: Approach) -> Mapping[str, str]:
        """Return, by name, the texts of `prompts` and of the approach itself that models are shown, as sha256."""
        ...


class Source(Protocol):
    """A place that benchmark tasks come from."""

    name: str
    version: str

    def envs(self) -> Sequence[str]:
        """Names of the envs."""
        ...

    def splits(self, env: str) -> Sequence[str]:
        """Names of the splits of an env, the default one first."""
        ...

    def domain(self, env: str, split: str | None = None) -> Domain:
        """Load an env (once); raise `BenchError` naming what there is when there is no such env or split."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """What a party does next: either calls, or words for the other party."""

    said: str = ""
    calls: tuple[ToolCall, ...] = ()
    unusable: bool = False
    """Empty, or meant as a call and not readable as one."""
    wrote: str = ""
    """The answer's text as the model wrote it, thinking removed."""


class AskModel(Protocol):
    """One model request of a party, counted and recorded by the loop; raises what ends the conversation."""

    async def __call__(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] | None = None,
        *,
        purpose: str = "chat",
        expert: str = "",
    ) -> Reply:
        """Ask the party's own model, or the expert of that name."""
        ...


class Participant(Protocol):
    """One party of a conversation: its history as its model sees it, and how it comes to its next move."""

    messages: list[Message]
    """Its history, system prompt first."""

    def receive(self, text: str) -> None:
        """Take in what the other party said."""
        ...

    async def next_turn(self, ask: AskModel) -> Turn:
        """Come to the next move, by as many requests as that takes."""
        ...

    def observe(self, next_turn: Turn, observations: Sequence[Observation]) -> None:
        """Take in the move and what its calls gave back, in their order; a move without calls gets none."""
        ...
