"""What a run leaves behind: model calls, finished conversations, their commit rows, events."""

from typing import Any, Literal

from pydantic import Field

from tautools.records.base import Outcome, Record, Role, Value


class CallRecord(Record):
    """One attempt at one model request, whether it succeeded or not."""

    role: Role
    expert: str = ""
    """Which expert, for the role `expert`."""
    env: str = ""
    task_id: str = ""
    trial: int = 0
    turn: int = 0
    """Rounds of user and agent before this call, from 0."""
    step: int = 0
    """Requests of this role in this conversation before this call, from 0."""
    attempt: int = 0
    seed: int | None = None
    """The seed that was sent; None when none was, or it was not recorded yet."""
    purpose: str = "chat"
    setting_id: str = ""
    endpoint: str = ""
    """Base URL, without a key."""
    model: str = ""
    started_at: float = 0.0
    """Unix time at which the call was wanted [s]; waiting for a free slot comes after it."""
    queue_s: float = 0.0
    """Wait for a free slot on our side before the request was sent [s]."""
    ttft_s: float | None = None
    """From sending the request to the first token, thinking tokens included [s].

    Of an answer that begins with a tool call: to its first chunk, since servers hold the first tokens of a call back.
    """
    decode_s: float | None = None
    """From the first token to the last [s]; the last one is the end token, which comes with the finish reason."""
    e2e_s: float | None = None
    """From sending the request to the end of the answer [s]."""
    itl_mean_s: float | None = None
    itl_p50_s: float | None = None
    itl_p99_s: float | None = None
    itl_max_s: float | None = None
    itl_s: list[float] | None = None
    """Every gap between chunks [s]; kept on request only."""
    chunks: int = 0
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    thinking_chars: int = 0
    tool_calls: int = 0
    """Calls of tools in the answer, as the server parsed them."""
    flags: tuple[str, ...] = ()
    """What looks wrong in the answer, by names of `tautools.llm.answers`, such as `unparsed_call:hermes`."""
    flagged_text: str = ""
    """How the answer begins, at most 300 characters, where it has flags."""
    finish_reason: str = ""
    fault: str = ""
    """A `CallFault`, empty when the call succeeded."""
    status: int | None = None
    error: str = ""
    server_queue_s: float | None = None
    server_prefill_s: float | None = None
    """From its scheduling to its first token [s]: what vLLM calls `time_to_first_token_ms` for a single request."""
    server_generation_s: float | None = None
    source: str = "streamed"
    """Where the times come from: `streamed` (measured here per chunk) or `wall` (one answer, no first token)."""
    cost_usd: float | None = None
    cold: bool = False
    """Whether this launch of the server had not answered a run yet when the request was sent (`docs/running.md`)."""
    in_flight: int | None = None
    """Requests of this run under way at that address when it was sent, itself included."""
    replicas: int | None = None
    """Addresses of its role that were not marked down when it was sent."""
    simulated: bool = False


class ConversationLocation(Value):
    """Where a finished conversation is stored, and what its bytes must hash to."""

    file: str
    """Name within `conversations/`."""
    offset: int
    length: int
    sha256: str


class TrajectoryAction(Value):
    """One action of a conversation that its score depends on: a tool call, or a text for the user."""

    by: Literal["assistant", "user"] = "assistant"
    call: str = ""
    """Name of the tool that was called; empty for a text."""
    arguments: str = ""
    """Of the call, as its model wrote them."""
    error: bool = False
    """Whether the tool refused the call."""
    flag: str = ""
    """Which bound of ours the call ran into: `arguments`, `calculation`, `time`; empty for nearly all."""
    text: str = ""
    """What the agent wrote to the user."""


class ImportedFrom(Value):
    """Where an imported conversation comes from: a row of another program's file."""

    file: str
    """Name of the file."""
    sha256: str
    """Of the file's bytes as they were."""
    format: str
    """Such as `tau-bench`, `tau2-bench`, `inspect`, `tautools`."""
    row: int
    """Position in the file, from 0."""
    at: float
    """Unix time at which it was imported [s]."""
    timed: bool = False
    """Whether the file says when the conversation took place; if not, its times are those of the import."""


class FinishedConversation(Record):
    """What a conversation and its row in the ledger both say."""

    setting_id: str
    env: str
    task_id: str
    trial: int
    outcome: Outcome
    reward: float | None
    started_at: float
    """Unix time [s]."""
    finished_at: float
    error: str = ""
    simulated: bool = False
    imported: ImportedFrom | None = None
    """Where it was imported from; None when it was run here."""


class Conversation(FinishedConversation):
    """One finished (task, trial) under one setting, with its messages."""

    reward_info: dict[str, Any] = Field(default_factory=dict)
    """The scorer's parts: `db`, `communicate`, explanations, touched entities that differ."""
    messages: list[dict[str, Any]]
    """The whole conversation in the order it happened, OpenAI roles seen from the agent; tool results included."""
    user_messages: list[dict[str, Any]] = Field(default_factory=list)
    """The same conversation as the user model saw it, system prompt first."""
    actions: list[TrajectoryAction] = Field(default_factory=list)
    """The calls of both sides and the agent's texts to the user, as they happened: enough to score it again."""
    seed: int


class CommitRow(FinishedConversation):
    """The ledger's row: a conversation is finished if and only if such a row can be read."""

    agent_calls: int = 0
    user_calls: int = 0
    expert_calls: int = 0
    judge_calls: int = 0
    tool_calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    flags: dict[str, int] = Field(default_factory=dict)
    """How many of its answers have a flag, by role and flag, such as `agent unparsed_call:hermes`."""
    location: ConversationLocation
    writer: str

    @property
    def key(self) -> tuple[str, str, int]:
        """Setting id, task id, trial: what is counted once."""
        return (self.setting_id, self.task_id, self.trial)

    @property
    def model_calls(self) -> int:
        """Answered requests to models of every role."""
        return self.agent_calls + self.user_calls + self.expert_calls + self.judge_calls

    @property
    def duration_s(self) -> float | None:
        """Wall time of the conversation [s]; None when it was imported from a file that does not say."""
        if self.imported is not None and not self.imported.timed:
            return None
        return self.finished_at - self.started_at


class Event(Record):
    """Something that happened to a run: starts, stops, faults, server metrics."""

    kind: str
    """`start`, `stop`, `fault`, `retry`, `user_error`, `interrupted`, `done`, `metrics`; `waiting` is not stored."""
    at: float
    setting_id: str = ""
    task_id: str = ""
    trial: int | None = None
    message: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
