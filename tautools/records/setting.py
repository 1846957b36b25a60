"""Settings: everything chosen that makes conversations comparable, and the id that follows from it."""

import hashlib
from typing import Any, NamedTuple

from pydantic import Field

from tautools.records.base import (
    Record,
    SeedRule,
    Strategy,
    StrictValue,
    Thinking,
    ThinkingSwitch,
    UserStrategy,
    canonical_json,
)

LOOP_VERSION = 1
"""Version of the conversation loop; raised when its behaviour changes what scores mean."""


class BenchRef(NamedTuple):
    """One env of a benchmark and where it is loaded from; an empty field means the usual."""

    bench: str = ""
    """`tau2`, or `tau-bench`, which is v1."""
    env: str = ""
    split: str = ""
    source: str = ""
    """Where the benchmark is loaded from, such as `inspect-evals`."""
    path: str = ""
    """Folder of a checkout, for sources that are one."""
    python: str = ""
    """Interpreter of the checkout's own environment, for sources that run in one."""

    @property
    def location(self) -> dict[str, str]:
        """The fields that hold on one machine only, as provenance keeps them: `path` and `python` where given."""
        return {name: value for name, value in (("path", self.path), ("python", self.python)) if value}


class Sampling(StrictValue):
    """What a role sends with each request; `None` leaves it to the server's default."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    max_tokens: int | None = Field(None, ge=1)
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request body, sent as they are."""


class ModelConfig(StrictValue):
    """A role's model and how it is asked."""

    model: str
    provider: str = "openai"
    """`openai` is any OpenAI-compatible server (vLLM); other names are litellm's."""
    sampling: Sampling = Sampling()
    thinking: Thinking = Thinking.DEFAULT
    thinking_switch: ThinkingSwitch = ThinkingSwitch.TEMPLATE
    """How the model learns what `thinking` asks of it."""
    default_max_tokens: int | None = Field(None, ge=1)
    """Longest answer where `sampling` names none [tokens], lowered to what the context leaves; None for none."""


class Limits(StrictValue):
    """Limits at which a conversation ends."""

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
    agent: ModelConfig
    user: ModelConfig
    user_strategy: UserStrategy = UserStrategy.LLM
    experts: dict[str, ModelConfig] = Field(default_factory=dict)
    """The expert models by name, for the strategy `experts`."""
    judge: ModelConfig | None = None
    """Who decides natural-language assertions; without one they are not part of the reward."""
    prompts: dict[str, str] = Field(default_factory=dict)
    """Name of a prompt to the sha256 of its text: policy, guidelines, agent instructions."""
    limits: Limits = Limits()
    seed: int = 0
    seed_rule: SeedRule = SeedRule.CONVERSATION
    """Which seed requests carry; settings that do not say are older, and their requests carried the conversation's."""
    persona: str | None = None
    """The customer's persona, such as `anger` or, at another intensity than its usual one, `anger-strong`."""
    intensity: str | None = None
    """Of the persona; its text is in `prompts` by its hash."""
    simulated: bool = False
    """Whether any model of it is simulated; such figures are marked SIMULATED everywhere."""
    loop_version: int = 1

    @property
    def ref(self) -> BenchRef:
        """The env and its source, without the location, which is provenance."""
        return BenchRef(self.bench, self.env, self.split, self.source)

    @property
    def id(self) -> str:
        """First 16 hex digits of the sha256 over the canonical JSON of the fields that differ from their defaults."""
        chosen = self.model_dump(mode="json", exclude_defaults=True, exclude={"schema_version"})
        return hashlib.sha256(canonical_json(chosen).encode()).hexdigest()[:16]
