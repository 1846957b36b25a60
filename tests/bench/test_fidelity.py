"""Our loop beside tau-bench's own agents, users and envs: that they are equal, and that a difference would be seen."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kept_hashes import differing_conversations, kept_conversations

from tautools.bench import open_source
from tautools.bench.fidelity.check import (
    APPROACHES,
    REASONS,
    SHIPPED_HASHES,
    Deviation,
    FidelityRow,
    HashFile,
    check_fidelity,
)
from tautools.bench.fidelity.driver import ScriptedMessage
from tautools.bench.fidelity.scripts import (
    BREAKING_CALLS,
    BREAKING_TEXTS,
    ODD_CALLS,
    ODD_CUSTOMER,
    ODD_TEXTS,
    make_cases,
)
from tautools.bench.fidelity.traces import MODELS, Original
from tautools.bench.sources.tau_bench import TauBench, TauBenchDomain, TauBenchState
from tautools.bench.types import Approach, Observation, Reward
from tautools.errors import BenchError
from tautools.records import ModelConfig, Role, Sampling, Strategy, UserStrategy

STAND_IN = Path(__file__).parents[1] / "support" / "stand_in_tau_bench"
HASHES = HashFile.read(Path(__file__).with_name("stand_in_hashes.json"))
CHECKOUT = os.environ.get("TAUTOOLS_TAU_BENCH_PATH")
PLACES = [("airline", "test"), ("retail", "test"), ("retail", "dev"), ("retail", "train")]

needs_checkout = pytest.mark.skipif(not CHECKOUT, reason="TAUTOOLS_TAU_BENCH_PATH names no checkout of tau-bench")


def name_of(approach: Approach) -> str:
    return f"{approach.strategy}-{approach.user_strategy}"


def opened(path: Path | str = STAND_IN) -> TauBench:
    source = open_source("tau-bench", path=str(path))
    assert isinstance(source, TauBench)
    return source


@pytest.fixture
def domain() -> TauBenchDomain:
    """The stand-in's shop."""
    return opened().domain("retail")


@pytest.mark.parametrize("approach", APPROACHES, ids=name_of)
@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_ours_is_what_the_originals_code_was_when_it_was_last_asked(place: tuple[str, str], approach: Approach) -> None:
    assert differing_conversations(HASHES, opened().domain(*place), approach, Original(STAND_IN)) == []
    assert len(kept_conversations(HASHES, "/".join((*place, approach.strategy, approach.user_strategy)))) >= 6


@pytest.mark.parametrize("approach", APPROACHES, ids=name_of)
def test_a_package_that_is_here_is_compared_request_by_request(domain: TauBenchDomain, approach: Approach) -> None:
    row = check_fidelity(Original(STAND_IN), domain, approach)
    assert row.differences == []
    assert row.conversations == 3 * len(domain.tasks)
    assert row.requests > 3 * row.conversations
    assert 0 < row.rewards < row.conversations
    assert row.deviations[Deviation.CONSTRUCTOR] == row.conversations


def test_every_kind_of_oddity_is_heard_by_both_sides() -> None:
    result: Counter[str] = Counter()
    for place in PLACES:
        for approach in APPROACHES:
            variants = ["mixed", "mixed 2", "broken", "broken 2", "broken 3"]
            for case in make_cases(opened().domain(*place), approach, variants):
                result.update(kind for kinds in case.odd.values() for kind in kinds)
    customers = {kind for kinds in ODD_CUSTOMER.values() for kind in kinds}
    assert {*ODD_CALLS, *ODD_TEXTS, *BREAKING_CALLS, *BREAKING_TEXTS, *customers} - result.keys() == set()


def differences(domain: TauBenchDomain, approach: Approach) -> str:
    row = check_fidelity(Original(STAND_IN), domain, approach, tasks=list(domain.tasks.values())[:3])
    return "\n".join(row.differences)


async def _other_answer(self: TauBenchState, name: str, arguments: str, requestor: str = "assistant") -> Observation:
    return Observation("No.", arguments=arguments)


def test_another_answer_of_a_tool_is_seen(domain: TauBenchDomain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TauBenchState, "call", _other_answer)
    text = differences(domain, Approach(Strategy.ACT))
    assert "of the agent: message" in text
    assert '"content":"API output: No."' in text


def test_another_reward_is_seen(domain: TauBenchDomain, monkeypatch: pytest.MonkeyPatch) -> None:
    info = {"db": True, "outputs": {}}
    monkeypatch.setattr(TauBenchState, "reward", lambda *_: Reward(0.5, info))
    assert "reward: the original 1.0, ours 0.5" in differences(domain, Approach(Strategy.FC))


def test_another_temperature_is_seen(domain: TauBenchDomain, monkeypatch: pytest.MonkeyPatch) -> None:
    warm = ModelConfig(model="agent-model", sampling=Sampling(temperature=0.5))
    monkeypatch.setitem(MODELS, Role.AGENT, warm)
    text = differences(domain, Approach(Strategy.FC))
    assert "model and sampling: they part" in text
    assert '"temperature":0.5' in text


def test_an_end_at_another_place_is_seen(domain: TauBenchDomain) -> None:
    domain = TauBench(STAND_IN).domain("retail")
    domain.protocol = replace(domain.protocol, max_steps=3)
    assert "only the original makes it" in differences(domain, Approach(Strategy.FC))


def test_one_request_too_many_is_seen(domain: TauBenchDomain) -> None:
    domain = TauBench(STAND_IN).domain("retail")
    domain.protocol = replace(domain.protocol, stop_words=("never said",))
    assert "once more than the original" in differences(domain, Approach(Strategy.FC))


def test_other_tools_are_seen(domain: TauBenchDomain) -> None:
    domain = TauBench(STAND_IN).domain("retail")
    domain.tools = list(domain.tools)[1:]
    assert "tools: they part at character" in differences(domain, Approach(Strategy.FEW_SHOT))


def test_a_kept_hash_sees_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TauBenchState, "call", _other_answer)
    lost = differing_conversations(HASHES, opened().domain("airline"), Approach(Strategy.FC), Original(STAND_IN))
    assert "0/solve" in lost


def test_an_exception_of_the_original_is_only_expected_where_the_script_has_its_cause(domain: TauBenchDomain) -> None:
    """Without what the script says of its oddities, the same end is a difference."""
    row = FidelityRow("retail", "test", Approach(Strategy.ACT))
    cases = make_cases(domain, row.approach, ["broken"])
    theirs = Original(STAND_IN).play(("retail", "test"), row.approach, cases)
    lost = next((case, trace) for case, trace in zip(cases, theirs, strict=True) if "Error" in trace.end)
    case, trace = lost
    row.add(case, trace, trace)
    assert row.differences == []
    row.add(replace(case, odd={}), trace, replace(trace, end="step_limit"))
    assert "end: the original" in row.differences[0]


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydantic's, of litellm's types
def test_an_answer_enters_a_history_as_litellms_does() -> None:
    import litellm

    call: Any = {"function": {"arguments": "{}", "name": "think"}, "id": "call_0", "type": "function"}
    for answer in ({"content": 'It\'s "you"\n王'}, {"content": None, "tool_calls": [call]}):
        theirs = litellm.Message(role="assistant", **answer)
        assert ScriptedMessage(answer).model_dump() == theirs.model_dump()
    assert str(ScriptedMessage({"content": 'It\'s "you"\n王'})) == str(litellm.Message(content='It\'s "you"\n王'))


def test_a_place_without_an_original_is_told(tmp_path: Path, domain: TauBenchDomain) -> None:
    with pytest.raises(BenchError, match="could not be run") as caught:
        check_fidelity(Original(tmp_path), domain, Approach(Strategy.FC))
    assert "No module named 'tau_bench'" in str(caught.value)


def test_a_foreign_file_of_hashes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hashes.json").write_text('{"rows": []}')
    with pytest.raises(BenchError, match="is not a file of hashes"):
        HashFile.read(tmp_path / "hashes.json")


def test_the_page_on_fidelity_gives_a_reason_for_each_deviation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text(encoding="utf-8")
    assert set(REASONS) == set(Deviation)
    assert {kind for kind in Deviation if f"`{kind.value}`" not in page} == set()


@needs_checkout
@pytest.mark.parametrize("approach", APPROACHES, ids=name_of)
def test_the_hashes_of_the_stand_in_are_those_of_the_originals_code(approach: Approach) -> None:
    """What the tests without a checkout compare with is what the original's code does now."""
    source = opened(CHECKOUT or "")
    original = Original(source.checkout.root, STAND_IN)
    for place in PLACES:
        domain = opened().domain(*place)
        row = check_fidelity(
            original, domain, approach, variants=["solve", "mixed", "mixed 2", "mixed 3", "broken", "broken 2"]
        )
        assert row.differences == []
        assert HASHES.verdict(row.name, row.sha256) == "same"


@needs_checkout
@pytest.mark.parametrize("approach", [*APPROACHES, Approach(Strategy.REACT, UserStrategy.REFLECTION)], ids=name_of)
def test_a_checkout_is_compared_request_by_request(approach: Approach) -> None:
    source = opened(CHECKOUT or "")
    for place in PLACES:
        domain = source.domain(*place)
        row = check_fidelity(Original(source.checkout.root), domain, approach, tasks=list(domain.tasks.values())[:2])
        assert row.differences == []
        assert row.requests > row.conversations


@needs_checkout
def test_the_shipped_hashes_are_of_a_whole_checkout() -> None:
    hashes = HashFile.read(SHIPPED_HASHES)
    source = opened(CHECKOUT or "")
    if not hashes.is_for(f"files-{source.checkout.digest[:12]}"):
        pytest.skip("the checkout is of another version than the shipped hashes, or this is another Python")
    for place in PLACES:
        for approach in APPROACHES:
            row = hashes.rows["/".join((*place, approach.strategy, approach.user_strategy))]
            assert row["conversations"] == 3 * len(source.domain(*place).tasks)
