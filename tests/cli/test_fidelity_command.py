"""`tautools fidelity`: what it prints, what it keeps, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import called

from tautools.bench.fidelity.check import REASONS, Deviation
from tautools.bench.sources.tau_bench import TauBenchState
from tautools.bench.types import Reward

STAND_IN = str(Path(__file__).parents[1] / "support" / "stand_in_tau_bench")
FEW = ("--path", STAND_IN, "--env", "airline", "--strategy", "fc", "--user-strategy", "llm")


def test_the_table_and_the_reasons_fit_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = called("fidelity", *FEW, "--limit", "2")
    assert told.code == 0
    row = next(line for line in told.out.splitlines() if line.startswith("airline/test"))
    assert row.split()[:4] == ["airline/test", "fc", "llm", "6"]
    assert row.split()[-1] == "equal"
    assert max(map(len, told.out.splitlines())) <= 80
    assert REASONS[Deviation.CONSTRUCTOR].split(maxsplit=1)[0] in told.out
    assert "airline/test/fc/llm: equal" in told.err


def test_a_difference_is_shown_and_is_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TauBenchState, "reward", lambda *_: Reward(0.5, {"db": True, "outputs": {}}))
    told = called("fidelity", *FEW, "--variant", "solve")
    assert told.code == 1
    assert "DIFFERENT airline/test/fc/llm 0/solve: reward: the original 1.0, ours 0.5" in told.out
    (row,) = json.loads(called("fidelity", *FEW, "--variant", "solve", "--json").out)["rows"]
    assert len(row["differences"]) == 3


def test_hashes_are_kept_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = ("--hashes", str(tmp_path / "hashes.json"))
    assert called("fidelity", *FEW, *hashes, "--write").code == 0
    kept = json.loads((tmp_path / "hashes.json").read_text())
    assert kept["command"].startswith("tautools fidelity --path CHECKOUT --write")
    assert kept["rows"]["airline/test/fc/llm"]["conversations"] == 9
    (row,) = json.loads(called("fidelity", *FEW, *hashes, "--json").out)["rows"]
    assert row["kept_hash"] == "same"
    assert row["sha256"] == kept["rows"]["airline/test/fc/llm"]["sha256"]
    kept["rows"]["airline/test/fc/llm"]["sha256"] = "0" * 64
    (tmp_path / "hashes.json").write_text(json.dumps(kept))
    told = called("fidelity", *FEW, *hashes)
    assert told.code == 1
    assert "differs" in told.out
    # Rows of the same version that were not compared stay.
    other = ("--path", STAND_IN, "--env", "retail", "--split", "dev", "--strategy", "act", *hashes, "--write")
    assert called("fidelity", *other).code == 0
    assert set(json.loads((tmp_path / "hashes.json").read_text())["rows"]) == {
        "airline/test/fc/llm", "retail/dev/act/llm",
    }  # fmt: skip


def test_a_split_alone_means_the_envs_that_have_it() -> None:
    told = called("fidelity", "--path", STAND_IN, "--split", "dev", "--strategy", "act", "--json")
    assert [(row["env"], row["split"]) for row in json.loads(told.out)["rows"]] == [("retail", "dev")]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--env", "spaceline"), "There is no env 'spaceline'"),
        (("--env", "airline", "--split", "train"), "There is no split 'train' of airline"),
        (("--env", "airline", "--task-ids", "77"), "There is no task '77' of airline"),
        (("--limit", "1", "--write"), "Hashes are kept of whole splits only"),
        (("--bench", "tau2"), "compares with tau-bench (v1), not with tau2"),
    ],
)
def test_bad_input_ends_before_anything_is_compared(words: tuple[str, ...], told: str) -> None:
    found = called("fidelity", "--path", STAND_IN, *words)
    assert found.code == 2
    assert told in found.err
    assert "Next:" in found.err
    assert found.out == ""


@pytest.mark.parametrize("words", [("--strategy", "experts"), ("--user-strategy", "human")])
def test_what_no_script_plays_or_v1_has_not_is_no_choice(words: tuple[str, str]) -> None:
    found = called("fidelity", "--path", STAND_IN, *words)
    assert found.code == 2
    assert f"{words[1]!r} is not one of" in found.err


def test_an_interpreter_without_what_the_original_needs_is_told(tmp_path: Path) -> None:
    found = called("fidelity", *FEW, "--limit", "1", "--python", str(tmp_path / "python"))
    assert found.code == 1
    assert "could not be started" in found.err
