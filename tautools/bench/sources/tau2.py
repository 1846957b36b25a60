"""What both sources of tau2 share: how its envs are played, and its tasks and prompts in the form of every source."""

from collections.abc import Mapping
from typing import Any

from tautools.bench.agents import ToolCallingParticipant
from tautools.bench.agents.experts import Orchestrator, expert_prompt_hashes
from tautools.bench.agents.text import TEXT_PROMPTS_VERSION, TextAgent, text_prompts, text_system_prompt
from tautools.bench.types import Approach, Domain, Participant, ReferenceAction, Task, call_text, text_hashes
from tautools.records import Strategy, canonical_json

STRATEGIES = (Strategy.FC, Strategy.ACT, Strategy.REACT, Strategy.EXPERTS)


class Tau2Domain(Domain):
    """An env of tau2: it calls tools as the benchmark does, and plays by text and with experts by our own prompts."""

    strategies = STRATEGIES

    def agent(self, approach: Approach, seed: int) -> Participant:  # noqa: ARG002 - nothing is drawn here
        """Return the agent of one conversation."""
        if approach.strategy is Strategy.FC:
            return ToolCallingParticipant(self.agent_system, self.tools)
        if approach.strategy is Strategy.EXPERTS:
            return Orchestrator(self.agent_system, self.tools, approach.experts)
        return TextAgent(text_system_prompt(self, approach.strategy))

    def user(self, task: Task, approach: Approach) -> Participant:  # noqa: ARG002 - there is one way only
        """Return the customer of one conversation: the bench's guidelines and scenario, and the message that opens."""
        names = task.user_tools
        tools = [tool for tool in self.user_tools if names is None or tool["function"]["name"] in names]
        user = ToolCallingParticipant(task.user_system, tools)
        opening = self.protocol.user_opening or self.protocol.agent_opening
        if opening:
            user.receive(opening)
        return user

    def instructions(self, approach: Approach) -> dict[str, str]:
        """Return the hashes of the texts that models are shown."""
        prompts, strategy = dict(self.prompts), approach.strategy
        if strategy is Strategy.EXPERTS:
            return prompts | expert_prompt_hashes(approach.experts)
        if strategy in text_prompts():
            del prompts["agent_system"]
            prompts |= text_hashes({f"{strategy}-v{TEXT_PROMPTS_VERSION}": text_prompts()[strategy]})
        return prompts

    def _hash_prompts(self, **others: str) -> dict[str, str]:
        """Return the hashes of the env's texts, and of others that a source has."""
        texts = {
            "agent_system": self.agent_system,
            "policy": self.policy,
            "tasks": canonical_json({task.id: task.user_system for task in self.tasks.values()}),
            "tools": canonical_json(self.tools),
        }
        return text_hashes(texts | others)


def read_tau2_task(data: Mapping[str, Any], user_system: str, source_task: Any) -> Task:
    """Return a task from the JSON of tau2's own `Task`."""
    criteria = data.get("evaluation_criteria") or {}
    return Task(
        id=str(data["id"]),
        user_system=user_system,
        reference=tuple(
            ReferenceAction(
                each["name"], each["arguments"], each.get("requestor") or "assistant", each.get("compare_args")
            )
            for each in criteria.get("actions") or ()
        ),
        communicate=tuple(criteria.get("communicate_info") or ()),
        assertions=tuple(criteria.get("nl_assertions") or ()),
        reward_basis=tuple(criteria.get("reward_basis") or ()),
        source_task=source_task,
    )


def checked_assertion(assertion: Mapping[str, Any], *, met: bool) -> dict[str, Any]:
    """Return an assertion about the environment as a reward's info has it, from the JSON of tau2's `EnvAssertion`."""
    text = call_text(assertion["env_type"], assertion["func_name"], assertion["arguments"])
    wanted = assertion.get("assert_value", True)
    return {"assertion": text if wanted else f"{text} is {wanted}", "met": met}
