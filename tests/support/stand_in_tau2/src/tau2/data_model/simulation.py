"""What was played and what it was worth."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from tau2.data_model.message import AssistantMessage, ToolMessage, UserMessage
from tau2.data_model.tasks import EnvAssertion


class TerminationReason(StrEnum):
    USER_STOP = "user_stop"


class SimulationRun(BaseModel):
    id: str
    task_id: str
    start_time: str
    end_time: str
    duration: float
    termination_reason: TerminationReason
    messages: list[ToolMessage | AssistantMessage | UserMessage]


class DBCheck(BaseModel):
    db_match: bool


class EnvAssertionCheck(BaseModel):
    env_assertion: EnvAssertion
    met: bool


class CommunicateCheck(BaseModel):
    info: str
    met: bool


class RewardInfo(BaseModel):
    reward: float
    db_check: DBCheck | None = None
    env_assertions: list[EnvAssertionCheck] | None = None
    communicate_checks: list[CommunicateCheck] | None = None
    reward_breakdown: dict[str, Any] | None = None
