"""What goes to a model and what comes back: messages, tags, endpoints, replies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from tautools.records import BenchRef, CallRecord, Role, SeedRule

_NO_ENV = BenchRef()

Message: TypeAlias = dict[str, Any]
"""One message in OpenAI's chat format, as it goes over the wire."""

ToolSpec: TypeAlias = dict[str, Any]
"""One tool in OpenAI's format: `{"type": "function", "function": {name, description, parameters}}`."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that answers for one role."""

    base_url: str
    """Ends in `/v1`; empty for hosted providers, whose address litellm knows."""
    model: str
    """The served model name."""
    key: str = field(default="", repr=False)
    provider: str = "openai"
    name: str = ""
    """The server's name in the registry, when it has one."""
    simulated: bool = False
    max_model_len: int | None = None
    affinity_header: str = ""
    """Header that tells a router which conversation a request is of; empty for none."""
    warm: bool = field(default=False, compare=False)
    """Whether this launch is known to have answered a run before."""


Resolve: TypeAlias = "Callable[[str], Sequence[Endpoint]]"
"""Returns the endpoints of a part (`CallTag.part`); asked again after a server was lost."""


REFUSAL_CHECK = "refusal check"
"""Purpose of a request that only asks whether the server takes it: short, and no part of the conversation."""

REFUSAL_CHECK_TOKENS = 16


@dataclass(frozen=True, slots=True)
class CallTag:
    """Which conversation a request belongs to, and where in it."""

    role: Role
    ref: BenchRef = _NO_ENV
    """The benchmark's env; a simulated server opens the same one."""
    task_id: str = ""
    trial: int = 0
    turn: int = 0
    step: int = 0
    strategy: str = ""
    setting_id: str = ""
    purpose: str = "chat"
    conversation: str = ""
    """Key of the conversation; requests with the same key stay on one replica."""
    seed: int | None = None
    """The conversation's; which one a request carries follows from it by `seed_rule`."""
    seed_rule: SeedRule = SeedRule.CONVERSATION
    repeat: int = 0
    """How often before something was drawn here that could not be used; a repeat is drawn anew."""
    expert: str = ""
    """Which expert, for the role `expert`."""

    @property
    def part(self) -> str:
        """Whose model is asked: the role's name, and for an expert `expert:<name>`."""
        return f"{self.role.value}:{self.expert}" if self.expert else self.role.value


@dataclass(frozen=True, slots=True)
class CallUnderWay:
    """One request that was sent and is not answered yet."""

    tag: CallTag
    where: str
    seconds: float
    """Since it was sent."""
    chunks: int
    """With tokens, so far."""

    def __str__(self) -> str:
        came = f"{self.chunks} chunks so far" if self.chunks else "no token yet"
        tag = self.tag
        return f"{tag.part}, task {tag.task_id} trial {tag.trial}, {self.where}: {self.seconds:.0f} s, {came}"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call of an answer, with its arguments as the model wrote them."""

    id: str
    name: str
    arguments: str
    """JSON text, unchecked."""

    def as_message(self, arguments: str | None = None) -> Message:
        """Return the call as an assistant message carries it, with other `arguments` where they are given."""
        function = {"name": self.name, "arguments": self.arguments if arguments is None else arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Completion:
    """The content of an answer, with what the model only thought apart from it."""

    text: str
    """Thinking removed."""
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str
    thinking: str


@dataclass(frozen=True, slots=True)
class Reply(Completion):
    """An answer and the record of its call."""

    record: CallRecord
    lost_s: float = 0.0
    """Time lost to failed attempts and to the waits after them [s]."""

    @property
    def message(self) -> Message:
        """The assistant message as it enters the history: no thinking, tool calls when there are any."""
        message: Message = {"role": "assistant", "content": self.text}
        if self.tool_calls:
            message["tool_calls"] = [call.as_message() for call in self.tool_calls]
        return message


class CompletionClient(Protocol):
    """What the conversation loop needs of a model client; `tautools.llm.ModelClient` is the real one."""

    async def complete(
        self, tag: CallTag, messages: Sequence[Message], tools: Sequence[ToolSpec] | None = None
    ) -> Reply:
        """Ask the role's model once, retrying transient faults; raise `ModelCallError` for those that stay."""
        ...
