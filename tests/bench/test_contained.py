"""Nothing that a model writes stops a run: wild calls and answers over every source, others beside them undisturbed."""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import v1_original
from scripted_client import ScriptedClient
from stand_in import changed_copy, stand_in
from wild_words import ANSWERS, ENDLESS, wild_calls

from tautools.bench import open_source, run_conversation
from tautools.bench.sources.bounds import (
    MAX_DEPTH,
    MAX_VALUES,
    bounded_eval,
    noting_flags,
    shown_arguments,
    why_too_large,
)
from tautools.bench.types import Approach, Domain, run_without_loop
from tautools.records import Conversation, Limits, Outcome, Strategy

TAU2_PATH = os.environ.get("TAUTOOLS_TAU2_BENCH_PATH")
TAU2_PYTHON = os.environ.get("TAUTOOLS_TAU2_BENCH_PYTHON")
_NOTHING: tuple[Any, ...] = ({"__builtins__": None}, {})
_CALCULATE_V1 = """

class Calculate(Tool):
    @staticmethod
    def invoke(data: dict[str, Any], expression: str) -> str:
        try:
            return str(round(float(eval(expression, {"__builtins__": None}, {})), 2))
        except Exception as error:
            return f"Error: {error}"

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described("calculate", "Do sums.", expression=TEXT)


ALL_TOOLS.append(Calculate)
"""
_CALCULATE_TAU2 = '''    def calculate(self, expression: str) -> str:
        """Do sums."""
        return str(float(eval(expression, {"__builtins__": None}, {})))

    def spin(self) -> None:
        """Never end."""
        while True:
            pass

    def measure(self, book_id: str, copies: Any) -> Any:
        """Write what cannot be written down."""
        self.db.books[book_id].copies = copies * 10**4299
        return "Done."

    def leave('''
_TOOLKIT = "src/tau2/environment/toolkit.py"


def _python_says(evaluate: Any, expression: str) -> str:
    try:
        return str(round(float(evaluate(expression, *_NOTHING)), 2))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


PLAIN = [
    *("1+1", "(100.5 + 23) * 2", "", " ", " 1", "\t1", "1 2", "1.1.", "007", "0x1", "1e5", "...", "()", "()()", "1()"),
    *("1(**2)", "1(*2)", "*1", "(**1)", "1**(*2)", "()*9**9", "(1)*()", "-()", "...(1)", "1/0", "1//0", "0**-1"),
    *("2**-1", "(-8)**0.5", "10**400", "1/10**4000", "10**4000*0", "10.0**400", "9**9**5", "1**9**9**3", "0**9**9**2"),
    *("(-1)**9**9**3", "9" * 4300 + "+1", "9" * 4301, "(" * 150 + "1" + ")" * 150, "(" * 199, "(1+" * 190),
    *("-" * 900 + "1", "1+" * 2500 + "1", "1+" * 4900 + "1", "-" * 9000 + "1", "()" * 1000, "1 " * 4000),
]


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_a_calculation_has_pythons_own_result_and_its_own_errors() -> None:
    rng = random.Random(9)
    tokens = ["1", "2", "3.5", "10", "0", "7", "99", "+", "-", "*", "/", "//", "**", "(", ")", " ", "."]
    drawn = ["".join(rng.choice(tokens) for _ in range(rng.randint(1, 9))) for _ in range(20_000)]
    for expression in PLAIN + drawn:
        with noting_flags() as flags:
            ours = _python_says(bounded_eval, expression)
        if not flags:
            assert ours == _python_says(builtins.eval, expression), expression[:80]
        elif expression in PLAIN:
            pytest.fail(f"{expression[:80]} was not calculated")


@pytest.mark.parametrize("expression", ENDLESS, ids=lambda each: each[:12])
def test_a_calculation_without_end_is_told_in_pythons_words_and_flagged(expression: str) -> None:
    with noting_flags() as flags:
        assert _python_says(bounded_eval, expression) == "OverflowError: int too large to convert to float"
    assert flags == ["calculation"]


@pytest.mark.parametrize("expression", ["print**1", "(1).real**1", "'a'*9**9", "[1]**2", "(lambda: 1)()**1", "1<2**2"])
def test_what_is_no_arithmetic_is_not_evaluated(expression: str) -> None:
    assert _python_says(bounded_eval, expression) == "ValueError: only arithmetic can be evaluated"


def test_arguments_are_measured_by_depth_number_and_length() -> None:
    deep, many = '{"a": ' * MAX_DEPTH + "1" + "}" * MAX_DEPTH, json.dumps({"a": [1] * (MAX_VALUES - 2)})
    for text in (deep, many, '{"a": "' + "[{" * 5000 + '"}', "{", "", '{"a": "' + "x" * 5_000_000 + '"}'):
        assert why_too_large(text) == "", text[:40]
    assert "nested" in why_too_large(f'{{"a": {deep}}}')
    assert "nested" in why_too_large("[" * 100_000)
    assert "more than 10000 values" in why_too_large(many.replace("[1", "[1, 1"))
    assert "longer than" in why_too_large('{"a": "' + "x" * 11_000_000 + '"}')


def test_arguments_that_no_tool_was_given_are_shown_as_their_text() -> None:
    deep = '{"a": ' * 500 + "1" + "}" * 500
    assert [shown_arguments(each) for each in ('{"a": 1}', "", "{", deep)] == [{"a": 1}, {}, "{", deep]


def _v1(folder: Path) -> Domain:
    copy = Path(shutil.copytree(v1_original.STAND_IN, folder / "v1", ignore=shutil.ignore_patterns("__pycache__")))
    tools = copy / "tau_bench" / "envs" / "retail" / "tools" / "__init__.py"
    tools.write_text(tools.read_text() + _CALCULATE_V1)
    return open_source("tau-bench", path=str(copy)).domain("retail")


def _checkout(variable: str) -> str:
    path = os.environ.get(variable) or {"TAUTOOLS_TAU_BENCH_PATH": v1_original.CHECKOUT}.get(variable) or TAU2_PATH
    if not path:
        pytest.skip(f"{variable} names no checkout")
    return path


@pytest.fixture(
    params=["retail", "airline", "telecom", "v1", "v1 checkout", "tau2", "tau2 visit", "tau2 checkout"],
)
def played(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Domain]:
    """An env of every source, each with a tool that calculates where the source has one."""
    kind = request.param
    if kind in {"v1", "v1 checkout"}:
        checkout = kind == "v1 checkout" and _checkout("TAUTOOLS_TAU_BENCH_PATH")
        yield open_source("tau-bench", path=checkout).domain("airline") if checkout else _v1(tmp_path)
    elif kind.startswith("tau2"):
        if kind == "tau2 checkout":
            source, env = stand_in(Path(_checkout("TAUTOOLS_TAU2_BENCH_PATH")), TAU2_PYTHON or sys.executable), "retail"
        else:
            source = stand_in(changed_copy(tmp_path, {_TOOLKIT: ("    def leave(", _CALCULATE_TAU2)}))
            env = "visit" if "visit" in kind else "library"
        yield source.domain(env)
        source.process.close()
    else:
        yield open_source().domain(kind)


_UNKIND = {"crash", "sleep", "spin", "measure"}
"""Tools of the stand-in that end its program, wait for ever, or have a test of their own."""


async def _held(domain: Domain, client: ScriptedClient, strategy: Strategy = Strategy.FC) -> Conversation:
    task = next(iter(domain.tasks.values()))
    limits = Limits(max_errors=1000, max_steps=1000)
    return await run_conversation(
        domain, task, approach=Approach(strategy), client=client, limits=limits, trial=0, seed=0
    )


def _good(domain: Domain) -> ScriptedClient:
    """An agent that makes the reference's calls and says what must be said."""
    task = next(iter(domain.tasks.values()))
    calls = [(each.name, json.dumps(dict(each.arguments))) for each in task.reference if each.requestor == "assistant"]
    said = " ".join(["Done.", *task.communicate])
    return ScriptedClient([*([call] for call in calls), said], ["Hello.", "###STOP###"], slow_s=0.001)


async def test_wild_calls_end_in_a_score_and_others_go_on(played: Domain) -> None:
    alone = await _held(played, _good(played))
    calls = [call for call in wild_calls(played.tools, seed=11) if call[0] not in _UNKIND]
    groups = [calls[at : at + 20] for at in range(0, len(calls), 20)]
    users = ["Hello \ud800.", "###STOP###"]
    wild = [_held(played, ScriptedClient([*([call] for call in group), "Bye \udc00."], users)) for group in groups]
    ended = await asyncio.gather(*wild, *(_held(played, _good(played)) for _ in range(4)))
    for conversation in ended:
        assert conversation.outcome.scored
        Conversation.model_validate_json(conversation.model_dump_json())
        json.dumps(conversation.messages, ensure_ascii=False).encode()
    assert {(each.outcome, each.reward) for each in ended[-4:]} == {(alone.outcome, alone.reward)}
    flags = {action.flag for conversation in ended for action in conversation.actions} - {""}
    assert {"arguments"} <= flags <= {"arguments", "calculation"}
    if any(tool["function"]["name"] == "calculate" for tool in played.tools) and played.ref.source != "inspect-evals":
        assert "calculation" in flags, "inspect's own calculator has a bound of its own"


@pytest.mark.parametrize("strategy", [Strategy.ACT, Strategy.EXPERTS])
async def test_wild_answers_end_in_an_outcome(played: Domain, strategy: Strategy) -> None:
    for answer in ANSWERS:
        client = ScriptedClient([answer, "Bye."], ["Hello.", answer or "Well.", "###STOP###"])
        conversation = await _held(played, client, strategy)
        assert conversation.outcome.scored or conversation.outcome is Outcome.USER_ERROR
        Conversation.model_validate_json(conversation.model_dump_json())


@pytest.mark.parametrize(
    ("call", "flag"), [(("spin", "{}"), "time"), (("measure", '{"book_id": "b1", "copies": 100}'), "")]
)
async def test_what_the_checkouts_program_cannot_do_is_the_agents_and_its_other_conversations_go_on(
    tmp_path: Path, call: tuple[str, str], flag: str
) -> None:
    source = stand_in(changed_copy(tmp_path, {_TOOLKIT: ("    def leave(", _CALCULATE_TAU2)}))
    domain = source.domain("library")
    pid = source.process.pid
    bad, good = await asyncio.gather(_held(domain, ScriptedClient([[call], "Bye."])), _held(domain, _good(domain)))
    assert bad.actions[1].flag == flag
    assert (bad.outcome, bad.reward, good.outcome.scored) == (Outcome.FAILED, 0.0, True)
    assert source.process.pid == pid
    source.process.close()


def test_a_state_that_cannot_be_written_down_differs_from_every_other(tmp_path: Path) -> None:
    domain = _v1(tmp_path)
    task = next(iter(domain.tasks.values()))
    state: Any = domain.env_state(task)
    order = next(iter(state.data["orders"]))
    state.data["orders"][order]["total"] = 10**5000
    assert f"orders/{order}" in state.reward([]).info["different"]
    assert f"orders/{order}" in {"/".join(place) for place in state.changes()}
    assert run_without_loop(state.call("think", '{"thought": "x"}')).text == ""
