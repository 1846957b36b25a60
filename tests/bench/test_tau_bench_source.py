"""v1 as a source: the checkout's own data, tools and texts, and nothing of it left behind in the process."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from v1_original import ROOTS, STAND_IN, Original

from tautools.bench import open_source
from tautools.bench.sources.tau_bench import TauBenchDomain, TauBenchState
from tautools.bench.sources.tau_bench_checkout import PrivateImport, fake_litellm
from tautools.bench.types import Approach, Task, run_without_loop
from tautools.errors import BenchError, NotInstalledError
from tautools.records import Strategy, UserStrategy

CALLS_A_WALK = 40
MISSING = "Error: CancelPendingOrder.invoke() missing 1 required positional argument: 'order_id'"


def source_of(root: Path) -> Any:
    return open_source("tau-bench", path=str(root))


def known_values(domain: TauBenchDomain, task: Task) -> list[Any]:
    """Return values that calls are made of: those of the references, keys of the database, and wrong ones."""
    keys = [key for table in domain.loaded.data.values() for key in list(table)[:40]]
    used = [value for each in domain.tasks.values() for action in each.reference for value in action.arguments.values()]
    return [*keys, *used, "", 2, 2.0, "nobody", None, ["a"], {}]


def random_call(
    domain: TauBenchDomain, task: Task, values: list[Any], chance: random.Random
) -> tuple[str, dict[str, Any]]:
    if task.reference and chance.random() < 0.4:
        action = chance.choice(task.reference)
        return action.name, json.loads(json.dumps(dict(action.arguments)))
    tool = chance.choice(domain.tools)["function"]
    if tool["name"] == "calculate":  # a random expression may take for ever
        return "calculate", {"expression": chance.choice(["2 * (3 + 4)", "1 / 0", "x"])}
    names = list(tool["parameters"]["properties"])
    return tool["name"], {name: chance.choice(values) for name in names if chance.random() < 0.97}


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("env", ["retail", "airline"])
def test_random_walks_read_and_leave_what_the_original_does(root: Path, env: str) -> None:
    domain = source_of(root).domain(env)
    base = Original(root).package.module("tau_bench.envs.base")
    before = base.consistent_hash(base.to_hashable(domain.loaded.data))
    changed = 0
    for seed in range(12):
        chance = random.Random(seed)
        task = chance.choice(list(domain.tasks.values()))
        original = Original(root).env(env, "test", int(task.id))
        env_state = domain.env_state(task)
        values = known_values(domain, task)
        for _ in range(CALLS_A_WALK):
            name, arguments = random_call(domain, task, values, chance)
            wire = json.dumps(arguments)
            seen = run_without_loop(env_state.call(name, wire))
            assert seen.text == observed(original, name, json.loads(wire)), (name, arguments)
        assert base.consistent_hash(base.to_hashable(env_state.data)) == original.get_data_hash()
        changed += bool(env_state.changes())
        equal = original.get_data_hash() == _reference_hash(original, base)
        assert env_state.reward([]).info["r_actions"] == float(equal)
    assert changed
    assert base.consistent_hash(base.to_hashable(domain.loaded.data)) == before, "the shared database was touched"


def observed(original: Any, name: str, arguments: dict[str, Any]) -> str:
    """Return what the original's env answers, without ending the conversation."""
    tool = original.tools_map.get(name)
    if tool is None:
        return f"Unknown action {name}"
    try:
        return str(tool.invoke(data=original.data, **arguments))
    except Exception as error:
        return f"Error: {error}"


def _reference_hash(original: Any, base: Any) -> str:
    data = original.data_load_func()
    for action in original.task.actions:
        if action.name not in original.terminate_tools and action.name in original.tools_map:
            try:
                original.tools_map[action.name].invoke(data=data, **action.kwargs)
            except Exception:
                continue
    return str(base.consistent_hash(base.to_hashable(data)))


@pytest.mark.parametrize("root", ROOTS)
def test_tasks_tools_and_policy_are_the_checkouts_own(root: Path) -> None:
    source = source_of(root)
    assert (source.envs(), source.splits("retail"), source.splits("airline")) == (
        ["airline", "retail"],
        ["test", "dev", "train"],
        ["test"],
    )
    for env, split in (("retail", "test"), ("retail", "train"), ("retail", "dev"), ("airline", "test")):
        domain, original = source.domain(env, split), Original(root).env(env, split, 0)
        assert [task.source_task.model_dump() for task in domain.tasks.values()] == [
            task.model_dump() for task in original.tasks
        ]
        assert (domain.tools, domain.policy) == (original.tools_info, original.wiki)
        assert domain.protocol.terminal_tools == ("transfer_to_human_agents",)


def test_an_equal_number_of_another_kind_is_another_database() -> None:
    domain = source_of(STAND_IN).domain("retail", "train")
    for amount, right in (("2", 1.0), ("2.0", 0.0)):
        env_state = domain.env_state(domain.tasks["0"])
        run_without_loop(env_state.call("pay_refund", f'{{"order_id": "#T102", "amount": {amount}}}'))
        assert env_state.reward([]).info["r_actions"] == right
    assert env_state.reward([]).info["different"] == ["orders/#T102"]


@pytest.mark.parametrize(
    ("name", "arguments", "text", "unreadable"),
    [
        ("get_order_details", '{"order_id": "#T1"}', "Error: no such order", False),
        ("cancel_pending_order", '{"order_id": "#T1"}', "Error: '#T1'", False),
        ("cancel_pending_order", "{}", MISSING, False),
        ("no_tool", "{}", "Unknown action no_tool", False),
        ("get_order_details", '{"order_id": ', "Error: Expecting value: line 1 column 14 (char 13)", True),
        ("get_order_details", "[]", "Error: the arguments are not a JSON object", True),
        ("list_all_product_types", "", '["Black Tea", "Cup", "Green Tea", "Tea Pot"]', False),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_call_is_told_in_the_tools_own_words(
    name: str, arguments: str, text: str, unreadable: bool
) -> None:
    domain = source_of(STAND_IN).domain("retail")
    seen = run_without_loop(domain.env_state(domain.tasks["0"]).call(name, arguments))
    assert (seen.text, seen.unreadable) == (text, unreadable)
    assert seen.arguments == ("{}" if unreadable or not arguments else arguments)
    assert (
        run_without_loop(domain.env_state(domain.tasks["0"]).call(name, arguments, "user")).text
        == f"Unknown action {name}"
    )


def test_what_must_be_said_may_stand_in_any_answer_and_commas_do_not_count() -> None:
    domain = source_of(STAND_IN).domain("retail")
    env_state: TauBenchState = domain.env_state(domain.tasks["2"])
    assert env_state.reward(["The BLACK, TEA."]).info["outputs"] == {"Black Tea": True}
    assert env_state.reward(["Black", "Tea"]).info["missing_info"] == ["Black Tea"]
    price = domain.env_state(domain.tasks["1"])
    assert price.reward(["It is 1,200."]).info["r_outputs"] == 1.0
    assert price.reward(["It is 1,200."]).value == 0.0


def test_two_checkouts_live_side_by_side_and_the_process_has_seen_neither(tmp_path: Path) -> None:
    shutil.copytree(STAND_IN, tmp_path / "other")
    wiki = tmp_path / "other/tau_bench/envs/retail/wiki.md"
    wiki.write_text("Give everything away.\n")
    paths = [str(STAND_IN), str(tmp_path / "other")]
    code = (
        "import sys\n"
        "from tautools.bench import open_source, null_baseline\n"
        "from tautools.bench.types import Approach\n"
        "from tautools.records import Strategy, UserStrategy\n"
        f"ours, other = (open_source('tau-bench', path=each) for each in {paths})\n"
        "before = list(sys.path)\n"
        "for source in (ours, other):\n"
        "    for env in source.envs():\n"
        "        domain = source.domain(env)\n"
        "        null_baseline(domain)\n"
        "        for strategy in domain.strategies:\n"
        "            for user in domain.user_strategies:\n"
        "                domain.instructions(Approach(strategy, user))\n"
        "print(ours.domain('retail').policy[:10], other.domain('retail').policy[:10], ours.version == other.version)\n"
        "print([name for name in sys.modules if 'tau_bench' in name and not name.startswith('tautools')])\n"
        "print('litellm' in sys.modules, sys.path == before)\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert output.stdout.splitlines() == ["# How the  Give every False", "[]", "False True"], output.stderr


def test_a_git_checkout_has_its_commit_as_version_and_says_when_it_was_changed(tmp_path: Path) -> None:
    root = tmp_path / "tau-bench"
    shutil.copytree(STAND_IN, root, ignore=shutil.ignore_patterns("__pycache__"))

    def git(*words: str) -> str:
        names = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        return subprocess.run(
            ["git", "-C", str(root), *names, *words], capture_output=True, text=True, check=True
        ).stdout

    assert source_of(root).version.startswith("files-")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    commit = git("rev-parse", "--short=12", "HEAD").strip()
    assert _fresh(root).version == commit
    with (root / "tau_bench/envs/retail/wiki.md").open("a") as file:
        file.write("More.\n")
    assert _fresh(root).version.startswith(f"{commit}+")


def _fresh(root: Path) -> Any:
    from tautools.bench.sources.tau_bench import TauBench

    return TauBench(root)


def test_the_settings_of_two_ways_to_play_differ() -> None:
    domain = source_of(STAND_IN).domain("retail")
    ways = [Approach(strategy, user) for strategy in domain.strategies for user in domain.user_strategies]
    assert len({json.dumps(dict(domain.instructions(way)), sort_keys=True) for way in ways}) >= 4 * 3
    few = domain.instructions(Approach(Strategy.FEW_SHOT))
    assert few == domain.instructions(Approach(Strategy.FEW_SHOT)), "displays are drawn again, their file is the same"


def test_displays_are_drawn_by_the_conversations_seed() -> None:
    domain = source_of(STAND_IN).domain("retail")
    prompts = [domain.agent(Approach(Strategy.FEW_SHOT), seed).messages[0]["content"] for seed in (1, 1, 2)]
    assert prompts[0] == prompts[1] != prompts[2]
    assert prompts[0].count("Case ") == 5


def test_a_constructor_of_the_checkout_that_asks_a_model_is_left_there() -> None:
    domain = source_of(STAND_IN).domain("retail")
    for strategy in UserStrategy:
        assert domain.user(domain.tasks["0"], Approach(Strategy.FC, strategy)) is not None


def test_a_model_is_never_asked_outside_of_a_conversation() -> None:
    with pytest.raises(BenchError, match="asks a model outside of a conversation"):
        fake_litellm().completion(messages=[])


def test_an_installed_package_is_found_and_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(STAND_IN)
    assert open_source("tau-bench") is source_of(STAND_IN)
    assert "tau_bench" not in sys.modules


def test_no_checkout_no_variable_and_nothing_installed_is_told_as_such() -> None:
    with pytest.raises(NotInstalledError, match="tau-bench is not here"):
        open_source("tau-bench")


def test_imports_inside_functions_and_relative_ones_are_found(tmp_path: Path) -> None:
    package = tmp_path / "shop" / "deep"
    package.mkdir(parents=True)
    (tmp_path / "shop/__init__.py").write_text("NAME = 'shop'\n")
    (package / "__init__.py").write_text("from .. import NAME\nfrom . import leaf\n")
    (package / "leaf.py").write_text("def late():\n    import shop.other as other\n    return other.VALUE\n")
    (tmp_path / "shop/other.py").write_text("import json\nVALUE = json.dumps(1)\n")
    (tmp_path / "shop/broken.py").write_text("import shop.nowhere\n")
    mine = PrivateImport(tmp_path, "shop", {})
    deep = mine.module("shop.deep")
    assert (deep.NAME, deep.leaf.late()) == ("shop", "1")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="nowhere"):
            mine.module("shop.broken")
    assert not [name for name in sys.modules if name.startswith("shop")]
