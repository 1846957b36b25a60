"""The score: the database, what was said, what holds."""

from enum import StrEnum
from typing import Any

from tau2.data_model.message import AssistantMessage
from tau2.data_model.simulation import CommunicateCheck, DBCheck, EnvAssertionCheck, RewardInfo, SimulationRun
from tau2.data_model.tasks import RewardType, Task
from tau2.registry import registry


class EvaluationType(StrEnum):
    ALL = "all"


def evaluate_simulation(
    simulation: SimulationRun, task: Task, evaluation_type: EvaluationType, solo_mode: bool, domain: str
) -> RewardInfo:
    criteria = task.evaluation_criteria
    if criteria is None:
        return RewardInfo(reward=1.0)
    if RewardType.NL_ASSERTION in criteria.reward_basis:
        raise RuntimeError("A judge would be asked, and there is none.")
    start = task.initial_state.initialization_actions if task.initial_state else None
    reached, wanted = registry.get_env_constructor(domain)(), registry.get_env_constructor(domain)()
    reached.set_state(None, start, simulation.messages)
    wanted.set_state(None, start, [])
    for action in criteria.actions or ():
        wanted.make_tool_call(action.name, action.requestor, **action.arguments)
    same = _state(reached) == _state(wanted)
    said = [m.content or "" for m in simulation.messages if isinstance(m, AssistantMessage)]
    heard = [CommunicateCheck(info=i, met=any(i in text for text in said)) for i in criteria.communicate_info or ()]
    holds = [EnvAssertionCheck(env_assertion=a, met=_holds(reached, a)) for a in criteria.env_assertions or ()]
    parts: dict[RewardType, Any] = {
        RewardType.DB: same,
        RewardType.COMMUNICATE: all(check.met for check in heard),
        RewardType.ENV_ASSERTION: all(check.met for check in holds),
    }
    return RewardInfo(
        reward=float(all(parts[basis] for basis in criteria.reward_basis)),
        db_check=DBCheck(db_match=same),
        env_assertions=holds,
        communicate_checks=heard,
        reward_breakdown={basis.value: float(parts[basis]) for basis in criteria.reward_basis},
    )


def _state(environment: Any) -> list[str]:
    kits = (environment.tools, environment.user_tools)
    return [kit.get_db_hash() for kit in kits if kit is not None]


def _holds(environment: Any, assertion: Any) -> bool:
    return bool(environment.user_tools.db.desk.visitor == assertion.arguments["visitor"])
