"""The interface that every source of benchmark tasks fits, and what the loop needs of the two participants.

A `Source` knows envs and splits; a `Domain` is one env loaded once per process (tasks, tools, prompts, database); an
`EnvState` is one conversation's view of the database, cheap to make. A `Participant` is the agent or the customer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, TypeVar

from tautools.errors import BenchError, PersonaError, unknown_name
from tautools.llm.tool_calls import read_arguments, sound_text
from tautools.llm.types import Message, Reply, ToolCall, ToolSpec
from tautools.params.personas import Persona
from tautools.records import BenchRef, Strategy, UserStrategy

T = TypeVar("T")

Changes: TypeAlias = "Mapping[tuple[str, str], str | None]"
"""(table, key) to the canonical JSON of each entity that differs from the database as loaded; None: it is gone."""


@dataclass(frozen=True, slots=True)
class ReferenceAction:
    """One reference action of a task."""

    name: str
    arguments: Mapping[str, Any]
    requestor: str = "assistant"
    compared: Sequence[str] | None = None
    """Names of the arguments that matter where the benchmark asks for the action itself; None: all of them."""

    def compared_arguments(self, arguments: Any) -> Any:
        """Return those of `arguments` that matter; what is no object is returned as it is."""
        if not isinstance(arguments, dict) or self.compared is None:
            return arguments
        return {name: value for name, value in arguments.items() if name in self.compared}


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
    reward_basis: tuple[str, ...] = ()
    """The parts of its reward, such as `DB`; empty where the benchmark names none."""
    user_tools: frozenset[str] | None = None
    """Names of those of the env's `user_tools` that its customer has; None: all."""
    source_task: Any = field(default=None, repr=False)
    """The source's own object, for its own scorer."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a participant does next: either calls, or text for the other participant."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    unusable: bool = False
    """Empty, or meant as a call and not readable as one."""
    raw_text: str = ""
    """The answer as the model wrote it, thinking removed."""

    def sound(self) -> Turn:
        """Return it with texts that can be sent and stored; see `sound_text`.

        JSON can hold half a surrogate pair as an escape, and what an action says was decoded from JSON.
        """
        calls = tuple(map(_sound_call, self.calls))
        return Turn(sound_text(self.text), calls, self.unusable, sound_text(self.raw_text))

    @classmethod
    def of_text(cls, text: str, raw_text: str | None = None) -> Turn:
        """Return a turn that says `text`; empty text is unusable."""
        return cls(text, unusable=not text.strip(), raw_text=text if raw_text is None else raw_text)


def sound_reply(reply: Reply) -> Reply:
    """Return an answer with texts that can be sent and stored; see `sound_text`."""
    text, calls = sound_text(reply.text), tuple(map(_sound_call, reply.tool_calls))
    return reply if (text, calls) == (reply.text, reply.tool_calls) else replace(reply, text=text, tool_calls=calls)


def _sound_call(call: ToolCall) -> ToolCall:
    text = call.arguments
    arguments = read_arguments(text) if "\\ud" in text.lower() else sound_text(text)
    return ToolCall(call.id, sound_text(call.name), arguments)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a tool gave back."""

    text: str
    """As it goes over the wire; an error begins as the bench begins it."""
    error: bool = False
    arguments: str = "{}"
    """The arguments as the bench read them, as JSON: what is sent back to the model as its call."""
    unreadable: bool = False
    """Whether the arguments could not be parsed at all."""
    flag: str = ""
    """Which bound of ours the call ran into: `arguments`, `calculation`, `time`; see `docs/fidelity.md`."""

    def sound(self) -> Observation:
        """Return it with a text that can be sent and stored; see `sound_text`."""
        text = sound_text(self.text)
        return self if text is self.text else replace(self, text=text)

    @classmethod
    def too_large(cls, reason: str) -> Observation:
        """Return the answer to a call whose arguments no tool is given."""
        return cls(f"Error: {reason}", error=True, unreadable=True, flag="arguments")


@dataclass(frozen=True, slots=True)
class Reward:
    """The scorer's answer."""

    value: float
    info: Mapping[str, Any]
    """The parts that the task scores. `db`: bool, `different`: entities that differ from the expected ones.
    `communicate`: bool, `missing_info`. `assertions`: each of the environment as text and whether it is `met`.
    `missing_actions`: required ones that neither side called."""

    @classmethod
    def of_database(cls, different: Sequence[str], missing: Sequence[str], **more: Any) -> Reward:
        """Return 1 when no entity differs and no information is missing, else 0."""
        info = {"db": not different, "communicate": not missing, "missing_info": missing, "different": different}
        return cls(0.0 if different or missing else 1.0, info | more)


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
    that was refused, of either party; what the agent writes next to a call counts as said."""
    max_errors: int | None = None
    """The bench's own limit on errors; the lower of it and the run's counts."""


@dataclass(frozen=True, slots=True)
class Expert:
    """A model that an orchestrating agent can hand its turn to."""

    name: str
    description: str = ""
    """What the agent reads about it."""
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
    """Those that the agent can call under the strategy `experts`."""
    persona: Persona | None = None
    """What is added to the customer's system prompt; None when nothing is."""


class AskModel(Protocol):
    """One model request of a participant, counted and recorded by the loop; raises what ends the conversation."""

    async def __call__(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] | None = None,
        *,
        purpose: str = "chat",
        expert: str = "",
    ) -> Reply:
        """Ask the participant's own model, or the expert of that name."""


class Participant(ABC):
    """One side of a conversation: its history as its model sees it, system prompt first, and how it takes a turn."""

    def __init__(self, system_prompt: str) -> None:
        self.messages: list[Message] = [{"role": "system", "content": system_prompt}]

    def add_persona(self, text: str) -> None:
        """Append `text` to the system prompt, whenever that is made, or show it to the person who plays.

        Raises
        ------
        PersonaError
            When there is no system prompt to append it to.
        """
        first = self.messages[0] if self.messages else {}
        if first.get("role") != "system":
            raise PersonaError(
                f"The persona {text.strip()[:80]!r} cannot be attached: the customer has no system prompt.",
                evidence=f"Its first message is {first!r:.200}." if first else "It has no message yet.",
                next_step="Run it without --persona, or report how this customer's prompt is made.",
            )
        self.messages[0] = {**first, "content": f"{first['content']}{text}"}

    def receive(self, text: str) -> None:
        """Take in what the other participant said."""
        self.messages.append({"role": "user", "content": text})

    @abstractmethod
    async def next_turn(self, ask: AskModel) -> Turn:
        """Decide on the next turn, with as many requests as that takes."""

    @abstractmethod
    def observe(self, turn: Turn, observations: Sequence[Observation]) -> None:
        """Take in the turn and what its calls gave back, in their order; a turn without calls gets none."""


class EnvState(Protocol):
    """One conversation's database behind the bench's own tools."""

    async def call(self, name: str, arguments: str, requestor: str = "assistant") -> Observation:
        """Run a tool with its arguments as JSON text, through the bench's own validation and coercion.

        `requestor` is `assistant` or, where the simulated customer has tools of its own, `user`.

        Unknown tools, unparsable JSON, schema violations and the tool's own refusals come back as observations with the
        package's own error texts; they are never exceptions.
        """

    def reward(self, agent_texts: Sequence[str]) -> Reward:
        """Score the state reached and what the agent said to the user, by the bench's rules."""

    def changes(self) -> Changes:
        """Return what the conversation has changed in the database so far."""


class Domain(ABC):
    """One env of a source, loaded once per process."""

    ref: BenchRef
    """The env and where it was loaded from, every field filled in."""
    strategies: Sequence[Strategy]
    user_strategies: Sequence[UserStrategy] = (UserStrategy.LLM,)
    tasks: Mapping[str, Task]
    """By id, in the benchmark's order."""
    tools: Sequence[ToolSpec]
    user_tools: Sequence[ToolSpec] = ()
    """What the simulated customer can call itself; empty in most envs."""
    policy: str
    agent_system: str
    """The agent's system prompt under tool calling, as the bench writes it."""
    reward_basis: str
    """What the reward rests on, such as `DB+COMMUNICATE`."""
    protocol: ConversationProtocol
    prompts: Mapping[str, str]
    """Name to sha256 of every text that models are shown."""

    def __init__(self) -> None:
        self._expected: dict[str, Changes | None] = {}

    def expected(self, task: Task) -> Changes | None:
        """Return what the reference actions change; None when there is no reference to compare with."""
        if task.id not in self._expected:
            self._expected[task.id] = self._expected_changes(task)
        return self._expected[task.id]

    @abstractmethod
    def _expected_changes(self, task: Task) -> Changes | None: ...

    @abstractmethod
    def env_state(self, task: Task) -> EnvState:
        """Return a fresh state for one conversation of `task`."""

    def play_reference(self, task: Task) -> tuple[EnvState, list[Observation]]:
        """Return the state after the reference's calls and what each gave back; they pass the bench's validation."""
        state = self.env_state(task)
        results = [
            run_without_loop(state.call(action.name, json.dumps(dict(action.arguments)), action.requestor))
            for action in task.reference
        ]
        return state, results

    @abstractmethod
    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""

    @abstractmethod
    def agent(self, approach: Approach, seed: int) -> Participant:
        """Return the agent of one conversation; `seed` is the conversation's."""

    @abstractmethod
    def user(self, task: Task, approach: Approach) -> Participant:
        """Return the customer of one conversation, who has received the opening message if there is one."""

    @abstractmethod
    def instructions(self, approach: Approach) -> Mapping[str, str]:
        """Return the sha256 of each text that models are shown under an approach, those of `prompts` included."""


class Source(ABC):
    """A place that benchmark tasks come from."""

    name: str
    version: str
    default_split = "base"
    takes: Sequence[str] = ()
    """Which of `path` and `python` name where it is, for its function `find`, whose result it is made of."""

    def __init__(self) -> None:
        self._domains: dict[tuple[str, str], Domain] = {}

    @abstractmethod
    def envs(self) -> Sequence[str]:
        """Return the names of the envs."""

    @abstractmethod
    def _split_names(self, env: str) -> Iterable[str]: ...

    @abstractmethod
    def _load(self, env: str, split: str) -> Domain: ...

    def splits(self, env: str) -> Sequence[str]:
        """Return the names of the splits of an env, the default one first."""
        check_known("env", env, self.envs())
        return sorted(self._split_names(env), key=lambda name: (name != self.default_split, name))

    def domain(self, env: str, split: str | None = None) -> Domain:
        """Return an env with the tasks of a split, loaded once.

        Raises
        ------
        BenchError
            When there is no such env or split (it names those that exist), or the package is not as expected.
        """
        known = self.splits(env)
        split = check_known("split", split or next(iter(known), self.default_split), known, of=env)
        if (env, split) not in self._domains:
            self._domains[env, split] = self._load(env, split)
        return self._domains[env, split]


def different_entities(expected: Changes, actual: Changes) -> list[str]:
    """Return, as `table/key`, the entities in which two sets of changes differ."""
    missing = object()
    both = sorted(expected.keys() | actual.keys())
    return ["/".join(place) for place in both if expected.get(place, missing) != actual.get(place, missing)]


def call_text(by: str, name: str, arguments: Mapping[str, Any]) -> str:
    """Return a call as one line of text."""
    return f"{by}: {name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def run_without_loop(call: Coroutine[Any, Any, T]) -> T:
    """Run a tool's coroutine to its end without an event loop, so that this works inside one too.

    Raises
    ------
    BenchError
        When it awaits something, which no benchmark's tool does so far.
    """
    try:
        call.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    call.close()
    raise BenchError(
        "A tool of the benchmark awaits something.",
        next_step="Replay it in an event loop instead; please report this bench and source.",
    )


@contextlib.contextmanager
def as_bench_error(problem: str, next_step: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn an error of these kinds into a `BenchError` with it as evidence."""
    try:
        yield
    except kinds as error:
        raise BenchError(problem, evidence=f"{type(error).__name__}: {error}", next_step=next_step) from error


def text_hashes(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the sha256 of each text, by its name."""
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def check_known(kind: str, name: str, known: Collection[str], *, of: str = "") -> str:
    """Return `name` if it is known, else raise `BenchError`; `kind` and `of` say in messages what is named, of what."""
    if name not in known:
        raise unknown_name(BenchError, kind, name, known, of=of and f"of {of}")
    return name
