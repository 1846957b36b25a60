"""inspect's logs of its tau2, `.eval` or `.json`, read by inspect's own reader.

A sample's own messages are the customer's side; the agent's side lies in the sample's store. inspect's tau2 goes on
when a request fails and scores what is left, so a dead server leaves samples that were "correct" without any message: a
sample with a failed request in it is a fault here, not a score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.errors import ParamsError
from tautools.importers.rows import (
    LOCAL_PREFIXES,
    RowStatus,
    SourceFacts,
    SourceFile,
    SourceRow,
    model_params,
    outcome_of_reward,
    row_times,
    tau2_reference,
    tool_call,
)
from tautools.records import Outcome, SeedRule, Strategy

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.model import ChatMessage


_STOP_WORDS = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")
_LETTERS = {"C": 1.0, "I": 0.0}
_TASK = "tau2_"
_PROVIDERS = (*LOCAL_PREFIXES, "vllm/", "wire/", "mockllm/", "hf/", "sglang/")
"""What inspect writes before a model's own name; one of them may be the reader's own."""


def read_log(path: Path, sha256: str) -> SourceFile:
    """Read a log of inspect's tau2.

    Raises
    ------
    ParamsError
        When it is none, or of another evaluation.
    """
    log = _open_log(path)
    facts = _log_facts(log)
    rows = [_read_sample(index, sample, facts.params["env"]) for index, sample in enumerate(log.samples or ())]
    notes = [] if log.status == "success" else [f"inspect's status of it is {log.status}"]
    return SourceFile(path, sha256, "inspect", facts, rows, notes)


def _open_log(path: Path) -> EvalLog:
    from inspect_ai.log import read_eval_log

    try:
        log = read_eval_log(str(path))
    except Exception as error:  # whatever inspect's reader meets in a damaged file
        raise ParamsError(
            f"{path} is no log that inspect can read.",
            evidence=f"{type(error).__name__}: {error}"[:500],
            next_step="Leave it out, or repair it with `inspect log recover`.",
        ) from error
    if not log.eval.task.rsplit("/", 1)[-1].startswith(_TASK):
        raise ParamsError(
            f"{path} is inspect's log of {log.eval.task}.",
            evidence="Known are its tau2 tasks: tau2_airline, tau2_retail, tau2_telecom.",
            next_step="Leave it out.",
        )
    return log


def _log_facts(log: EvalLog) -> SourceFacts:
    task = log.eval
    own = task.model_generate_config.temperature
    asked = (task.model, {"temperature": log.plan.config.temperature if own is None else own})
    user = (task.model_roles or {}).get("user")
    heard = (user.model, {"temperature": user.config.temperature}) if user else asked
    params = {"bench": "tau2", "tasks.split": "base", "strategy": Strategy.FC.value}
    return SourceFacts(
        harness="inspect-evals",
        protocol="inspect-tau2",
        source_version=str(task.packages.get("inspect_evals") or "unknown"),
        reward_basis="DB+COMMUNICATE",
        num_trials=task.config.epochs or 1,
        seed=task.model_generate_config.seed,
        seed_rule=SeedRule.NONE if task.model_generate_config.seed is None else SeedRule.CONVERSATION,
        params=params
        | {"env": task.task.rsplit("/", 1)[-1].removeprefix(_TASK)}
        | model_params("agent", *asked, prefixes=_PROVIDERS)
        | model_params("user", *heard, prefixes=_PROVIDERS),
    )


def _read_sample(index: int, sample: EvalSample, env: str) -> SourceRow:
    named = SourceRow(index, env=env, task_id=str(sample.id), trial=sample.epoch - 1)  # epochs count from 1
    if sample.error:
        return named.but(RowStatus.ERROR, sample.error.message[:300])
    failed = next((each.error for each in sample.events if each.event == "model" and each.error), None)
    if failed:
        return named.but(RowStatus.ERROR, f"a request failed and inspect went on: {failed[:200]}")
    heard = [each for each in sample.messages if each.role == "assistant"]
    if not heard:
        return named.but(RowStatus.ERROR, "nothing was said")
    scores = list((sample.scores or {}).values())
    value = scores[0].value if scores else None
    judged = outcome_of_reward(_LETTERS.get(value, value) if isinstance(value, str) else value)
    if judged is None:
        return named.but(RowStatus.NO_SCORE, "no score between 0 and 1")
    stopped = any(word in heard[-1].text for word in _STOP_WORDS)
    limit = str(sample.limit.type) if sample.limit else "rounds"
    at_limit = Outcome.TIME_LIMIT if limit in {"time", "working"} else Outcome.STEP_LIMIT
    outcome, reward = judged if stopped else (at_limit, 0.0)
    original = [{"value": each.value, "explanation": each.explanation} for each in scores]
    messages = [_message(each) for each in _agent_messages(sample)]
    return replace(
        named,
        outcome=outcome,
        reward=reward,
        reward_info={"original": original} | ({} if stopped else {"scorer_reward": judged[1]}),
        messages=messages,
        counts=_counts(sample, messages),
        reference=tau2_reference(sample.metadata.get("task")),
        error="" if stopped else f"ended by a limit: {limit}",
        **row_times(sample.started_at, sample.completed_at),
    )


def _agent_messages(sample: EvalSample) -> Sequence[ChatMessage]:
    from inspect_ai.model import ChatMessage
    from pydantic import TypeAdapter, ValidationError

    kept = [each for name, each in sample.store.items() if re.fullmatch(r"StoredAgentState:.*:messages", name)]
    try:
        return TypeAdapter(list[ChatMessage]).validate_python(kept[0] if kept else [])
    except ValidationError:
        return []


def _message(message: ChatMessage) -> dict[str, Any]:
    converted: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.role == "tool":
        failure = message.error.message if message.error else ""
        converted |= {"content": message.text or failure, "tool_call_id": message.tool_call_id or ""}
    if message.role == "assistant" and message.tool_calls:
        converted["tool_calls"] = [tool_call(call.id, call.function, call.arguments) for call in message.tool_calls]
    return converted


def _counts(sample: EvalSample, messages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    asked = [each for each in sample.events if each.event == "model"]
    usage = [each.output.usage for each in asked if each.output.usage]
    users, tools = sum(each.role == "user" for each in asked), sum(each["role"] == "tool" for each in messages)
    counts = {"agent_calls": len(asked) - users, "user_calls": users, "tool_calls": tools}
    if usage:
        counts["prompt_tokens"] = sum(each.input_tokens for each in usage)
        counts["output_tokens"] = sum(each.output_tokens for each in usage)
    return counts
