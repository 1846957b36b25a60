"""Tasks."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel


class RewardType(StrEnum):
    DB = "DB"
    COMMUNICATE = "COMMUNICATE"
    ENV_ASSERTION = "ENV_ASSERTION"
    NL_ASSERTION = "NL_ASSERTION"


class Action(BaseModel):
    requestor: str = "assistant"
    name: str
    arguments: dict[str, Any] = {}


class EnvAssertion(BaseModel):
    env_type: str = "user"
    func_name: str
    arguments: dict[str, Any] = {}


class EvaluationCriteria(BaseModel):
    actions: list[Action] | None = None
    env_assertions: list[EnvAssertion] | None = None
    communicate_info: list[str] | None = None
    nl_assertions: list[str] | None = None
    reward_basis: list[RewardType] = [RewardType.DB, RewardType.COMMUNICATE]


class InitialState(BaseModel):
    initialization_data: None = None
    initialization_actions: list[Action] | None = None
    message_history: list[dict[str, Any]] | None = None


class Task(BaseModel):
    id: str
    user_scenario: str
    initial_state: InitialState | None = None
    evaluation_criteria: EvaluationCriteria | None = None
    user_tools: list[str] | None = None
