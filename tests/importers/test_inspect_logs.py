from __future__ import annotations

import pytest
from inspect_ai.event import ModelEvent
from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalPlan, EvalSample, EvalSpec, write_eval_log
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    GenerateConfig,
    ModelConfig,
    ModelOutput,
)
from inspect_ai.scorer import Score
from inspect_ai.tool import ToolCall

from tautools.errors import ParamsError
from tautools.importers import RowStatus, read_files
from tautools.records import Outcome

AGENT = [
    ChatMessageSystem(content="<policy>"),
    ChatMessageUser(content="Cancel it."),
    ChatMessageAssistant(content="", tool_calls=[ToolCall(id="c", function="get_user_details", arguments={"a": 1})]),
    ChatMessageTool(content="nobody", tool_call_id="c", function="get_user_details"),
    ChatMessageAssistant(content="Done."),
]


def sample(task="0", epoch=1, *, last="Bye. ###STOP###", value="C", **changes):
    """Return a sample as inspect's tau2 leaves it: the customer's side in its messages, the agent's in its store."""
    user = [ChatMessageSystem(content="<scenario>"), ChatMessageUser(content="Begin.")]
    user += [ChatMessageAssistant(content=said) for said in ([] if last is None else ["Cancel it.", last])]
    kept = [message.model_dump(exclude_none=True) for message in AGENT]
    given = {
        "id": task,
        "epoch": epoch,
        "input": "x",
        "target": "",
        "messages": user,
        "store": {"StoredAgentState:AirlineAgent:messages": kept},
        "scores": {"airline_scorer": Score(value=value)},
        "started_at": "2026-03-08T20:20:00+00:00",
        "completed_at": "2026-03-08T20:21:00+00:00",
        "metadata": {"task": {"evaluation_criteria": {"actions": [{"name": "a", "arguments": {}}]}}},
    }
    return EvalSample(**(given | changes))


def failed_request():
    return ModelEvent(
        model="m",
        input=[],
        tools=[],
        tool_choice="auto",
        config=GenerateConfig(),
        output=ModelOutput(),
        error="Connection refused",
    )


def log_of(path, *samples, task="inspect_evals/tau2_airline"):
    spec = EvalSpec(
        created="2026-03-08T20:20:00+00:00",
        task=task,
        dataset=EvalDataset(name="tasks"),
        model="openai-api/m-4B",
        model_roles={"user": ModelConfig(model="vllm/u-32B", config=GenerateConfig(temperature=0.3))},
        config=EvalConfig(epochs=2),
        packages={"inspect_evals": "0.26.0"},
    )
    plan = EvalPlan(config=GenerateConfig(temperature=0.5))
    write_eval_log(EvalLog(eval=spec, plan=plan, status="success", samples=list(samples)), str(path))
    return path


def read(path):
    (file,), _ = read_files([path])
    return file


@pytest.mark.parametrize("name", ["log.eval", "log.json"])
def test_a_log_gives_the_agents_side_of_each_sample_by_epoch(tmp_path, name):
    file = read(log_of(tmp_path / name, sample("0"), sample("0", epoch=2, value="I")))
    first, second = file.rows
    assert (file.format, file.facts.params["env"], file.facts.num_trials) == ("inspect", "airline", 2)
    assert [(each.task_id, each.trial, each.outcome) for each in file.rows] == [
        ("0", 0, Outcome.PASSED),
        ("0", 1, Outcome.FAILED),
    ]
    assert [message["role"] for message in first.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert first.messages[2]["tool_calls"][0]["function"] == {"name": "get_user_details", "arguments": '{"a": 1}'}
    assert first.messages[3] == {"role": "tool", "content": "nobody", "tool_call_id": "c"}
    assert second.finished_at - second.started_at == 60.0


def test_models_and_how_they_were_asked_are_told(tmp_path):
    facts = read(log_of(tmp_path / "log.eval", sample())).facts
    assert (facts.params["agent.model"], facts.params["agent.temperature"]) == ("m-4B", 0.5)
    assert (facts.params["user.model"], facts.params["user.temperature"]) == ("u-32B", 0.3)
    assert (facts.protocol, facts.source_version) == ("inspect-tau2", "0.26.0")
    assert (facts.seed, facts.seed_rule) == (None, "none")


@pytest.mark.parametrize(
    ("made", "status"),
    [
        (sample(last=None), RowStatus.ERROR),  # a dead server: inspect scores what nobody touched, and calls it correct
        (sample(events=[failed_request()]), RowStatus.ERROR),
        (sample(scores=None), RowStatus.NO_SCORE),
        (sample(value="P"), RowStatus.NO_SCORE),
    ],
)
def test_a_fault_that_inspect_scored_stays_pending(tmp_path, made, status):
    (found,) = read(log_of(tmp_path / "log.eval", made)).rows
    assert (found.status, found.outcome, found.reward) == (status, None, None)


def test_a_talk_that_nobody_ended_is_a_limit_and_what_inspect_scored_stands_beside_it(tmp_path):
    (found,) = read(log_of(tmp_path / "log.eval", sample(last="Go on."))).rows
    assert (found.outcome, found.reward, found.reward_info["scorer_reward"]) == (Outcome.STEP_LIMIT, 0.0, 1.0)


def test_a_log_of_another_evaluation_is_refused(tmp_path):
    with pytest.raises(ParamsError, match="inspect's log of gsm8k"):
        read_files([log_of(tmp_path / "log.eval", sample(), task="gsm8k")])
