"""What the program writes: settings, finished conversations, commit rows, model calls, events, servers.

Every record has a `schema_version` and ignores fields it does not know, so that an older tautools can still read a
newer file. A *setting* is everything chosen that makes conversations comparable; its id is a hash over the fields that
differ from their defaults, so a field added later, with a default, keeps old ids. What is only observed (a server's
version, its served length) is provenance and does not enter the id.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Adopted",
    "CallRecord",
    "Certificate",
    "CommitRow",
    "Conversation",
    "ConversationPlace",
    "Deed",
    "Event",
    "Limits",
    "Outcome",
    "Party",
    "Record",
    "Role",
    "Rung",
    "Sampling",
    "ServerRecord",
    "Setting",
    "Strategy",
    "Thinking",
    "ThinkingSwitch",
    "UserStrategy",
    "canonical_json",
    "setting_id",
]

LOOP_VERSION = 1
"""Version of the conversation loop; raised when its behaviour changes what scores mean."""


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces, the form in which things are hashed and compared."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Role(StrEnum):
    """Who speaks to a model."""

    AGENT = "agent"
    USER = "user"
    JUDGE = "judge"
    EXPERT = "expert"
    PROBE = "probe"


class Strategy(StrEnum):
    """How the agent is prompted and read."""

    FC = "fc"
    ACT = "act"
    REACT = "react"
    FEW_SHOT = "few-shot"
    """Tool calling with solved examples in the system prompt; tau-bench v1's own."""
    EXPERTS = "experts"
    """An orchestrating model that calls expert models as tools."""


class UserStrategy(StrEnum):
    """How the customer is played; all but `llm` come from tau-bench v1."""

    LLM = "llm"
    REACT = "react"
    """A thought before each answer, which the agent does not see."""
    VERIFY = "verify"
    """Drafts, judged by the same model until one is satisfactory."""
    REFLECTION = "reflection"
    """As verify, with a reflection on what was wrong before the next draft."""
    HUMAN = "human"
    """A person answers."""


class Thinking(StrEnum):
    """What is asked of a model that can think before it answers."""

    DEFAULT = "default"
    ON = "on"
    OFF = "off"


class ThinkingSwitch(StrEnum):
    """How a model is told to think or not to."""

    TEMPLATE = "template"
    """A variable of its chat template, sent as `chat_template_kwargs`."""
    NO_THINK = "no_think"
    """Qwen3's `/no_think` and `/think` at the end of each user message."""
    REASONING_EFFORT = "reasoning_effort"
    """The field of that name, for models that always think: `low` for off."""
    NONE = "none"
    """Nothing is sent: it does as it is asked anyway."""


class Outcome(StrEnum):
    """How a conversation ended; the table of DESIGN decision 3."""

    PASSED = "passed"
    FAILED = "failed"
    STEP_LIMIT = "step_limit"
    TIME_LIMIT = "time_limit"
    CONTEXT_OVERFLOW = "context_overflow"
    AGENT_ERROR = "agent_error"
    USER_ERROR = "user_error"
    INFRA = "infra"

    @property
    def scored(self) -> bool:
        """Whether the outcome carries a reward."""
        return self not in {Outcome.USER_ERROR, Outcome.INFRA}


class Record(BaseModel):
    """A value that goes to disk."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    schema_version: int = 1


class Sampling(BaseModel):
    """What a role sends with each request; `None` leaves it to the server's default."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    max_tokens: int | None = Field(None, ge=1)
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request body, sent as they are."""


class Party(BaseModel):
    """A role's model and how it is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str
    provider: str = "openai"
    """`openai` is any OpenAI-compatible server (vLLM); other names are litellm's."""
    sampling: Sampling = Sampling()
    thinking: Thinking = Thinking.DEFAULT
    thinking_switch: ThinkingSwitch = ThinkingSwitch.TEMPLATE
    """How it is told what `thinking` asks of it."""


class Limits(BaseModel):
    """Where a conversation ends if nobody ends it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_rounds: int = Field(100, ge=1)
    """User-and-agent rounds; inspect's tau2 has 100."""
    max_steps: int = Field(200, ge=1)
    """Agent requests over the whole conversation; tau2-bench has 200 steps."""
    max_errors: int = Field(10, ge=1)
    """Unusable agent answers (empty, or a call that cannot be read) before the conversation is an agent_error."""
    max_user_calls: int = Field(50, ge=1)
    """Answers of a customer with tools that are calls, in a row without a word, before it is a user_error."""
    time_s: float | None = Field(None, gt=0)
    """Seconds of wall time for one conversation."""


class Setting(Record):
    """Everything chosen that makes conversations comparable."""

    bench: str = "tau2"
    source: str
    """Where the benchmark was loaded from, such as `inspect-evals`."""
    source_version: str
    protocol: str
    """The rules of the conversation, such as `inspect-tau2`: who opens, what ends it, what is counted."""
    reward_basis: str
    """Such as `DB+COMMUNICATE`."""
    env: str
    split: str = "base"
    strategy: Strategy
    agent: Party
    user: Party
    user_strategy: UserStrategy = UserStrategy.LLM
    experts: dict[str, Party] = Field(default_factory=dict)
    """The expert models by name, for the strategy `experts`."""
    judge: Party | None = None
    """Who decides natural-language assertions; without one they are not part of the reward."""
    prompts: dict[str, str] = Field(default_factory=dict)
    """Name of a prompt to the sha256 of its text: policy, guidelines, agent instructions."""
    limits: Limits = Limits()
    seed: int = 0
    persona: str | None = None
    """The customer's persona, such as `anger` or, at another intensity than its usual one, `anger-strong`."""
    intensity: str | None = None
    """Of the persona; its text is in `prompts` by its hash."""
    simulated: bool = False
    """Whether any model of it is simulated; such figures are marked SIMULATED everywhere."""
    loop_version: int = 1

    @property
    def id(self) -> str:
        """First 16 hex digits of the hash over the non-default fields."""
        return setting_id(self)


def setting_id(setting: Setting) -> str:
    """Return the setting id: sha256 over the canonical JSON of the fields that differ from their defaults."""
    chosen = setting.model_dump(mode="json", exclude_defaults=True, exclude={"schema_version"})
    return hashlib.sha256(canonical_json(chosen).encode()).hexdigest()[:16]


class ConversationPlace(BaseModel):
    """Where a finished conversation lies, and what its bytes must hash to."""

    model_config = ConfigDict(frozen=True)

    file: str
    """Name within `conversations/`."""
    offset: int
    length: int
    sha256: str


class Deed(BaseModel):
    """One thing that was done in a conversation and that its score rests on: a tool call, or words for the user."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    by: Literal["assistant", "user"] = "assistant"
    call: str = ""
    """Name of the tool that was called; empty for words."""
    arguments: str = ""
    """Of the call, as its model wrote them."""
    error: bool = False
    """Whether the tool refused the call."""
    said: str = ""
    """What the agent said to the user."""


class Adopted(BaseModel):
    """Where a conversation comes from that was not held here: a row of another program's file."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    file: str
    """Name of the file."""
    sha256: str
    """Of the file's bytes as they lay there."""
    format: str
    """Such as `tau-bench`, `tau2-bench`, `inspect`, `tautools`."""
    row: int
    """Place in the file, from 0."""
    at: float
    """Unix time at which it was adopted [s]."""
    timed: bool = False
    """Whether the file says when the conversation was held; if not, its times are those of its adoption."""


class Conversation(Record):
    """One finished (task, trial) under one setting, with its messages."""

    setting_id: str
    env: str
    task_id: str
    trial: int
    outcome: Outcome
    reward: float | None
    reward_info: dict[str, Any] = Field(default_factory=dict)
    """The scorer's parts: `db`, `communicate`, explanations, touched entities that differ."""
    messages: list[dict[str, Any]]
    """The whole conversation in the order it happened, OpenAI roles seen from the agent; tool results included."""
    user_messages: list[dict[str, Any]] = Field(default_factory=list)
    """The same conversation as the user model saw it, system prompt first."""
    deeds: list[Deed] = Field(default_factory=list)
    """The calls of both sides and the agent's words to the user, as they happened: enough to score it again."""
    seed: int
    started_at: float
    """Unix time [s]."""
    finished_at: float
    error: str = ""
    simulated: bool = False
    adopted: Adopted | None = None
    """Where it was adopted from; None when it was held here."""


class CommitRow(Record):
    """The ledger's row: a conversation is finished if and only if such a row can be read."""

    setting_id: str
    env: str
    task_id: str
    trial: int
    outcome: Outcome
    reward: float | None
    started_at: float
    finished_at: float
    agent_calls: int = 0
    user_calls: int = 0
    expert_calls: int = 0
    judge_calls: int = 0
    tool_calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    place: ConversationPlace
    writer: str
    error: str = ""
    simulated: bool = False
    adopted: Adopted | None = None

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
        """Wall time of the conversation [s]; None when it was adopted from a file that does not tell."""
        if self.adopted is not None and not self.adopted.timed:
            return None
        return self.finished_at - self.started_at


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
    """From sending the request to the first token, thinking tokens included [s]."""
    decode_s: float | None = None
    """From the first token to the last [s]."""
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
    finish_reason: str = ""
    fault: str = ""
    """A `CallFault`, empty when the call succeeded."""
    status: int | None = None
    error: str = ""
    server_queue_s: float | None = None
    server_ttft_s: float | None = None
    server_generation_s: float | None = None
    source: str = "streamed"
    """Where the times come from: `streamed` (measured here per chunk) or `wall` (one answer, no first token)."""
    cost_usd: float | None = None
    simulated: bool = False


class Event(Record):
    """Something that happened to a run: starts, stops, faults, server metrics."""

    kind: str
    """`start`, `stop`, `fault`, `retry`, `user_error`, `interrupted`, `done`, `metrics`."""
    at: float
    setting_id: str = ""
    task_id: str = ""
    trial: int | None = None
    message: str = ""
    data: dict[str, Any] = Field(default_factory=dict)


class Rung(BaseModel):
    """One probe of the verification ladder."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    number: int
    name: str
    passed: bool | None
    """`None`: not applicable or not asked for."""
    detail: str = ""
    took_s: float = 0.0


class Certificate(Record):
    """Proof that an address was the right server in working order, at one moment."""

    server: str
    base_url: str
    model: str
    alias: str = ""
    issued_at: float
    rungs: list[Rung]
    versions: dict[str, str] = Field(default_factory=dict)
    flags: list[str] = Field(default_factory=list)
    """The command that started the server, word by word, when it is ours; values of secrets are hidden."""
    env: dict[str, str] = Field(default_factory=dict)
    """Variables that its params set; values of secrets are hidden."""
    cards: dict[str, str] = Field(default_factory=dict)
    """The server's cards at its launch, by index: their module id on Gaudi, else their UUID or index."""
    max_model_len: int | None = None
    simulated: bool = False

    @property
    def passed(self) -> bool:
        """Whether no rung failed."""
        return all(rung.passed is not False for rung in self.rungs)


class ServerRecord(Record):
    """What the registry knows of one server."""

    name: str
    how: str = "local"
    """`local` or `attach`; `slurm` and `ssh` fit the same record."""
    engine: str = "vllm"
    model: str
    """The served model name that requests carry."""
    alias: str = ""
    """A name given to this one launch and served beside the model name: proof of identity."""
    base_url: str
    """Ends in `/v1`."""
    key_file: str = ""
    """Path of the file that holds the key, mode 0600; empty for a server without one."""
    pid: int | None = None
    pid_started_at: float | None = None
    """Start time of the process [s since the epoch]; with the pid it names one process for ever."""
    host: str = ""
    job_id: str = ""
    """The Slurm job, of a server that is one."""
    shares_job: bool = False
    """Whether that job holds several servers, so that one of them may end while the job goes on."""
    log_out: str = ""
    log_err: str = ""
    argv: list[str] = Field(default_factory=list)
    cards: dict[str, str] = Field(default_factory=dict)
    """Cards that the launch gave it, by index, as in its certificate."""
    spec: dict[str, Any] = Field(default_factory=dict)
    site: dict[str, Any] = Field(default_factory=dict)
    """The site it was started on, so that it can be started again; empty: this machine as it is."""
    changes: list[str] = Field(default_factory=list)
    """What a relaunch changed of the server file, each as `name: old -> new`, with the cause."""
    started_at: float = 0.0
    certificate: Certificate | None = None
    simulated: bool = False
    owner: str = ""
