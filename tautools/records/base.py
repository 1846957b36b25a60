"""What all records share, and the words they are made of: roles, strategies, outcomes."""

import json
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from tautools.errors import OldWorkspaceError

SCHEMA_VERSION = 2
"""Version of the records on disk; raised when an older file can no longer be read."""


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces, the form in which things are hashed and compared."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Value(BaseModel):
    """A value that does not change; a field that it does not know is ignored."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class StrictValue(Value):
    """A value that refuses a field that it does not know."""

    model_config = ConfigDict(extra="forbid")


class Record(Value):
    """A value that goes to disk."""

    schema_version: int = SCHEMA_VERSION

    @field_validator("schema_version")
    @classmethod
    def _is_not_older(cls, value: int) -> int:
        if value < SCHEMA_VERSION:
            raise OldWorkspaceError(
                f"This workspace was written by an older tautools: its records have version {value}, "
                f"this tautools reads version {SCHEMA_VERSION}.",
                next_step="Name a new workspace with --workspace FOLDER. Results can be taken along: copy their "
                "num_trials-*.json out of the old one and run `tautools import FILE`.",
            )
        return value


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

    @classmethod
    def _missing_(cls, value: object) -> "Strategy | None":
        """Understand tau-bench's own word for `fc`."""
        return cls.FC if value == "tool-calling" else None


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
    """How a model is switched between thinking and not."""

    TEMPLATE = "template"
    """A variable of its chat template, sent as `chat_template_kwargs`."""
    NO_THINK = "no_think"
    """Qwen3's `/no_think` and `/think` at the end of each user message."""
    REASONING_EFFORT = "reasoning_effort"
    """The field of that name, for models that always think: `low` for off."""
    NONE = "none"
    """Nothing is sent: it does as it is asked anyway."""


class SeedRule(StrEnum):
    """Which seed a request carries."""

    REQUEST = "request"
    """One of its own, from the conversation's seed, the role and the step; no two of a conversation share it."""
    CONVERSATION = "conversation"
    """The conversation's, the same in all its requests, as tau2-bench sends it."""
    NONE = "none"
    """None, as in tau-bench v1 and inspect."""


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
