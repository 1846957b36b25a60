"""The source: envs, splits, tasks, and clear words about what does not exist."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from inspect_oracle import samples_of

from tautools.bench import build_setting, open_source, select_tasks
from tautools.bench.types import Approach, Domain
from tautools.errors import BenchError
from tautools.params.models import RunParams, TaskParams
from tautools.records import ModelConfig, Setting, Strategy


def test_the_tasks_are_the_packages_in_its_order_with_its_prompts(domain: Domain) -> None:
    samples = samples_of(domain.ref.env)
    assert list(domain.tasks) == list(samples)
    for name, task in domain.tasks.items():
        assert task.user_system == samples[name].input[0].text
        criteria = samples[name].metadata["task"]["evaluation_criteria"]
        assert [(found.name, found.arguments) for found in task.reference] == [
            (found["name"], found["arguments"]) for found in criteria["actions"] or []
        ]
        assert list(task.communicate) == (criteria["communicate_info"] or [])


@pytest.mark.parametrize(
    ("env", "split", "tasks"),
    [
        ("airline", None, 50),
        ("airline", "train", 30),
        ("airline", "test", 20),
        ("retail", "base", 114),
        ("retail", "train", 74),
        ("retail", "test", 40),
        ("telecom", None, 114),
        ("telecom", "small", 20),
        ("telecom", "train", 74),
        ("telecom", "test", 40),
    ],
)
def test_splits(env: str, split: str | None, tasks: int) -> None:
    domain = open_source().domain(env, split)
    assert len(domain.tasks) == tasks
    assert split == "small" or set(domain.tasks) <= set(open_source().domain(env).tasks)
    assert domain.ref.split == (split or "base")


def test_the_default_split_comes_first() -> None:
    assert open_source().splits("retail") == ["base", "test", "train"]


def test_an_env_and_a_source_are_loaded_once() -> None:
    assert open_source() is open_source("tau2", "inspect-evals", None)
    assert open_source().domain("retail") is open_source().domain("retail", "base")


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: open_source("tau3"), ["no benchmark 'tau3'", "`tau2`"]),
        (lambda: open_source("tau2", "inspect_evals"), ["no source 'inspect_evals'", "`inspect-evals`"]),
        (lambda: open_source("tau2", "inspect-evals", "/somewhere"), ["takes no path", "/somewhere"]),
        (lambda: open_source().domain("retial"), ["no env 'retial'", "airline, retail", "Did you mean `retail`?"]),
        (lambda: open_source().domain("zzz"), ["no env 'zzz'", "Choose one of those"]),
        (lambda: open_source().domain("retail", "tests"), ["no split 'tests'", "base, test, train", "`test`"]),
        (lambda: open_source().splits("retial"), ["no env 'retial'"]),
        (
            lambda: open_source().domain("banking"),
            ["does not play tau2's banking", "knowledge base", "retail"],
        ),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(ask: Any, words: list[str]) -> None:
    with pytest.raises(BenchError) as caught:
        ask()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ({"ids": ["7", 3, "7"]}, ["7", "3"]),
        ({"start_index": 2, "end_index": 5}, ["2", "3", "4"]),
        ({"start_index": 112}, ["112", "113"]),
        ({"end_index": 999, "limit": 2}, ["0", "1"]),
        ({"ids": ["5", "6"], "start_index": 50, "limit": 1}, ["5"]),
    ],
)
def test_tasks_are_chosen_by_ids_or_range_and_then_limited(
    retail: Domain, wanted: dict[str, Any], chosen: list[str]
) -> None:
    assert [task.id for task in select_tasks(retail, TaskParams(**wanted))] == chosen


def test_all_tasks_are_chosen_by_default(retail: Domain) -> None:
    assert len(select_tasks(retail, TaskParams())) == 114


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            {"ids": ["0", "114"]},
            ["no task '114' of retail", "Known: 114, the first '0'", "Did you mean `14`"],
        ),
        ({"start_index": 200}, ["No task of retail is selected", "114 tasks", "'start_index': 200"]),
        ({"start_index": 5, "end_index": 5}, ["No task of retail is selected"]),
        ({"ids": []}, ["No task of retail is selected"]),
    ],
)
def test_a_choice_of_no_task_or_an_unknown_one_is_refused(
    retail: Domain, wanted: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(BenchError) as caught:
        select_tasks(retail, TaskParams(**wanted))
    for word in words:
        assert word in str(caught.value)


def setting_of(domain: Domain, **params: Any) -> Setting:
    """Return the setting of a run with two fixed models."""
    run = RunParams(env=domain.ref.env, agent={"model": "a"}, user={"model": "u"}, **params)
    approach = Approach(run.strategy, run.user_strategy)
    parties = {"agent": ModelConfig(model="a"), "user": ModelConfig(model="u")}
    return build_setting(run, domain, open_source(), approach, parties=parties, simulated=False)


def test_a_setting_holds_what_makes_conversations_comparable(retail: Domain) -> None:
    setting = setting_of(retail, seed=4)
    assert (setting.bench, setting.source, setting.source_version) == ("tau2", "inspect-evals", open_source().version)
    assert (setting.protocol, setting.reward_basis) == ("inspect-tau2", "DB+COMMUNICATE")
    assert (setting.env, setting.split, setting.seed, setting.loop_version) == ("retail", "base", 4, 1)
    assert set(setting.prompts) == {"agent_system", "policy", "tasks", "tools", "user_guidelines", "user_opening"}


def test_a_strategys_own_prompt_is_part_of_its_setting(retail: Domain) -> None:
    act, react = (setting_of(retail, strategy=strategy) for strategy in (Strategy.ACT, Strategy.REACT))
    assert "act-v1" in act.prompts
    assert "react-v1" in react.prompts
    assert "agent_system" not in act.prompts
    assert len({act.id, react.id, setting_of(retail).id}) == 3


def test_envs_and_splits_are_different_settings(retail: Domain) -> None:
    ids = {
        setting_of(open_source().domain(env, split)).id for env in ("airline", "retail") for split in ("base", "test")
    }
    assert len(ids) == 4


def test_the_room_is_light_until_it_is_used() -> None:
    heavy = ["inspect_ai", "inspect_evals", "jsonschema", "pandas", "litellm", "matplotlib", "aiohttp", "httpx"]
    code = f"import sys, json, tautools.bench; print(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(found.stdout) == []


def test_a_package_that_is_not_as_it_was_is_told_from_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "inspect_evals").mkdir()
    (tmp_path / "inspect_evals" / "__init__.py").touch()
    code = (
        "from tautools.bench import open_source; from tautools.errors import BenchError\n"
        "try: open_source().domain('retail')\n"
        "except BenchError as error: print(error)"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert "is not the package that tautools knows" in found.stdout
    assert "No module named 'inspect_evals.tau2'" in found.stdout
    assert "Next: Install the versions" in found.stdout


def test_loading_an_env_loads_no_other_evaluation_and_leaves_the_event_loop_alone() -> None:
    code = (
        "import sys, asyncio; before = asyncio.run, sys.excepthook\n"
        "from tautools.bench import open_source; open_source().domain('retail')\n"
        "others = [m for m in sys.modules if m.startswith('inspect_evals.') and m.count('.') == 1]\n"
        "print(sorted(others), (asyncio.run, sys.excepthook) == before)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.split("\n")[0].endswith(" True")
    assert "agentharm" not in found.stdout
