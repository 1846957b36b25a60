"""A setting's id: what it depends on, and that a later version keeps it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from tautools.errors import CallFault, ModelCallError, OldWorkspaceError, ParamsError, TautoolsError
from tautools.records import Conversation, Limits, ModelConfig, Outcome, Sampling, SeedRule, Setting, Strategy, Thinking
from tautools.run import results_of
from tautools.servers.registry import Registry


def setting(**chosen: Any) -> Setting:
    plain = {
        "source": "inspect-evals",
        "source_version": "0.26.0",
        "protocol": "inspect-tau2",
        "reward_basis": "DB+COMMUNICATE",
        "env": "retail",
        "strategy": Strategy.FC,
        "agent": ModelConfig(model="Qwen/Qwen3-4B", sampling=Sampling(temperature=0.6)),
        "user": ModelConfig(model="Qwen/Qwen3-32B"),
    }
    return Setting.model_validate(plain | chosen)


def test_the_id_is_the_one_that_results_on_disk_were_written_under() -> None:
    assert setting().id == "e3875b840f26ec89"


def test_a_field_that_a_later_version_adds_with_a_default_keeps_the_id() -> None:
    class LaterParty(ModelConfig):
        voice: str = "plain"

    class LaterSetting(Setting):
        agent: LaterParty
        mood: str | None = None

    now = setting()
    later = LaterSetting.model_validate(now.model_dump())
    assert later.id == now.id
    assert later.model_copy(update={"mood": "angry"}).id != now.id


def test_writing_and_reading_a_setting_keeps_its_id() -> None:
    chosen = setting(simulated=True, limits=Limits(time_s=60), prompts={"policy": "ab"})
    assert Setting.model_validate_json(chosen.model_dump_json()).id == chosen.id


def test_a_default_that_is_written_out_is_the_same_setting() -> None:
    assert setting(limits=Limits(max_steps=200), seed=0, split="base", simulated=False).id == setting().id


@pytest.mark.parametrize(
    "chosen",
    [
        {"bench": "tau-bench"},
        {"source": "checkout"},
        {"source_version": "0.27.0"},
        {"protocol": "tau2-bench"},
        {"reward_basis": "DB+NL"},
        {"env": "airline"},
        {"split": "train"},
        {"strategy": Strategy.REACT},
        {"agent": ModelConfig(model="Qwen/Qwen3-4B", sampling=Sampling(temperature=0.0))},
        {"agent": ModelConfig(model="Qwen/Qwen3-4B", sampling=Sampling(temperature=0.6), thinking=Thinking.OFF)},
        {"user": ModelConfig(model="Qwen/Qwen3-14B")},
        {"prompts": {"policy": "another"}},
        {"limits": Limits(max_rounds=50)},
        {"seed": 1},
        {"seed_rule": SeedRule.REQUEST},
        {"seed_rule": SeedRule.NONE},
        {"persona": "angry"},
        {"simulated": True},
        {"loop_version": 2},
    ],
    ids=lambda chosen: next(iter(chosen)),
)
def test_whatever_is_chosen_is_part_of_the_id(chosen: dict[str, Any]) -> None:
    assert setting(**chosen).id != setting().id


def test_a_record_of_a_newer_version_is_read_without_what_is_not_known() -> None:
    conversation = Conversation(
        setting_id="s", env="retail", task_id="1", trial=0, outcome=Outcome.PASSED, reward=1.0, messages=[], seed=3,
        started_at=1.0, finished_at=2.0,
    )  # fmt: skip
    newer = conversation.model_dump(mode="json") | {"schema_version": 3, "mood": "angry"}
    read = Conversation.model_validate(newer)
    assert (read.task_id, read.reward, read.schema_version) == ("1", 1.0, 3)


@pytest.mark.parametrize("kind", ["results", "servers"])
def test_a_workspace_of_an_older_version_is_one_clear_error(tmp_path: Path, kind: str) -> None:
    if kind == "results":
        path = tmp_path / "results" / "retail" / "fc" / "4B" / "setting.json"
        old = {"id": setting().id, "setting": setting().model_dump(mode="json") | {"schema_version": 1}}
    else:
        path = tmp_path / "servers" / "old.json"
        old = {"schema_version": 1, "name": "old", "how": "local", "model": "m", "base_url": "http://x/v1"}
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(old))
    with pytest.raises(OldWorkspaceError, match="records have version 1, this tautools reads version 2") as error:
        _ = results_of(tmp_path) if kind == "results" else Registry(tmp_path).list()
    assert error.value.evidence == str(path)
    assert "tautools import FILE" in error.value.next_step


@pytest.mark.parametrize(
    "error",
    [
        ParamsError("The file is wrong.", evidence="line 3", next_step="Mend it."),
        ModelCallError("Busy.", fault=CallFault.OVERLOADED, status=503, retry_after_s=2.0, next_step="Wait."),
    ],
    ids=["plain", "with a fault"],
)
def test_errors_cross_a_process_boundary_whole(error: TautoolsError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
