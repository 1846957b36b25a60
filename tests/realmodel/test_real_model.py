"""A real small model through a real vLLM: what random weights and scripts cannot show.

One server for all tests. TAUTOOLS_TEST_VLLM names the `vllm` command, TAUTOOLS_TEST_MODEL the model's folder, as
`examples/real_model/smollm2.py` makes it. The model solves nothing; what is real is everything around it.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from tautools.cli import cli
from tautools.llm import ModelClient
from tautools.llm.types import CallTag
from tautools.params import load_server
from tautools.records import ModelConfig, Outcome, Role, Sampling, SeedRule
from tautools.run.folder import results_of
from tautools.run.ledger import read_calls, read_conversation, read_ledger
from tautools.servers import State, launch, open_server
from tauwidgets import ServerPanel, SweepBoard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tautools.records import CallRecord
    from tautools.run.folder import SettingFolder

pytestmark = [pytest.mark.realmodel, pytest.mark.vllm, pytest.mark.slow, pytest.mark.xdist_group("realmodel")]

MODEL = "SmolLM2-135M-Instruct"
SWEEP: dict[str, Any] = {
    "name": "real",
    "site": "local",
    "grid": {
        "env": ["airline"],
        "strategy": ["act", "fc"],
        "agent": [{"server": "smollm2", "max_tokens": 48}],
        "num_trials": [1],
    },
    "user": {"server": "smollm2", "max_tokens": 32},
    "tasks": {"limit": 2},
    "limits": {"max_steps": 3},
    "concurrency": 2,
}
NOT_THE_MODELS = {Outcome.INFRA, Outcome.TIME_LIMIT}
"""Ends of a conversation that so weak a model does not bring about: they would be the machine's or ours."""


def tautools(*words: str | Path) -> str:
    """Run a command that ends well and return what it prints."""
    done = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def workspace(
    real_model: Path, vllm_command: str, repo: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A workspace whose one server, verified, serves the real model."""
    folder = tmp_path_factory.mktemp("real") / "work space"
    tautools("init", folder)
    python = Path(vllm_command).with_name("python")
    maker = repo / "examples" / "real_model" / "smollm2.py"
    file = folder / "params" / "servers" / "smollm2.yaml"
    subprocess.run([python, maker, real_model, "--server-file", file], check=True, capture_output=True)
    (folder / "params" / "sweeps" / "real.yaml").write_text(yaml.safe_dump(SWEEP))
    server = launch(load_server("smollm2", workspace=folder), workspace=folder)
    try:
        server.wait_ready()
        yield folder
    finally:
        server.stop()


@pytest.fixture(scope="module")
def swept(workspace: Path) -> list[SettingFolder]:
    """Two tasks of act and of fc, each cell by the run-cell notebook."""
    tautools("sweep", "run", "real", "--workspace", workspace)
    return sorted(results_of(workspace), key=lambda each: each.setting.strategy)


def _calls(folder: SettingFolder) -> list[CallRecord]:
    return list(read_calls(folder.path))


def test_act_and_fc_are_run_by_the_notebook_and_end_as_the_models_own_doing(swept: list[SettingFolder]) -> None:
    assert [each.setting.strategy.value for each in swept] == ["act", "fc"]
    for folder in swept:
        rows = read_ledger(folder.path)
        assert {row.task_id for row in rows.values()} == {"0", "1"}
        assert not {row.outcome for row in rows.values()} & NOT_THE_MODELS
        assert all((row.reward is not None) == row.outcome.scored for row in rows.values())


def test_every_call_has_its_times_and_tokens_and_none_is_simulated(swept: list[SettingFolder]) -> None:
    calls = [call for folder in swept for call in _calls(folder)]
    assert {call.role.value for call in calls} == {"agent", "user"}
    for call in calls:
        assert (call.model, call.simulated, call.fault, call.source) == (MODEL, False, "", "streamed")
        assert call.finish_reason in {"stop", "length", "tool_calls"}
        assert 0 < (call.output_tokens or 0) <= 48
        assert (call.prompt_tokens or 0) > 0
        if call.chunks:
            assert 0 < (call.ttft_s or 0) <= (call.e2e_s or 0)


def test_the_agents_later_prompts_come_out_of_the_prefix_cache(swept: list[SettingFolder]) -> None:
    later = [call for folder in swept for call in _calls(folder) if call.role == "agent" and call.step > 0]
    assert later
    assert all((call.cached_tokens or 0) > 0.5 * (call.prompt_tokens or 0) for call in later)


@pytest.mark.parametrize(("rule", "same"), [(SeedRule.REQUEST, False), (SeedRule.CONVERSATION, True)])
async def test_one_seed_for_all_turns_draws_an_answer_with_the_noise_of_the_one_before(
    workspace: Path, rule: SeedRule, *, same: bool
) -> None:
    endpoint = open_server("smollm2", workspace=workspace).endpoint()
    sampling = Sampling(temperature=1.0, max_tokens=24)
    messages = [{"role": "user", "content": "Tell me a short story."}]
    models = {"agent": ModelConfig(model=MODEL, sampling=sampling)}
    async with ModelClient(lambda _part: [endpoint], models) as client:
        first, second = [
            await client.complete(CallTag(Role.AGENT, step=step, seed=7, seed_rule=rule), messages) for step in (0, 1)
        ]
    assert (first.text == second.text) is same


def test_a_persona_reaches_the_customers_model(workspace: Path, swept: list[SettingFolder]) -> None:
    before = {each.path for each in swept}
    words = ("run", "--env", "airline", "--strategy", "act", "--server", "smollm2", "--user-server", "smollm2")
    limits = ("limits.max_steps=3", "agent.max_tokens=48", "user.max_tokens=32")
    settings = [word for limit in limits for word in ("--set", limit)]
    tautools(*words, "--limit", "1", "--persona", "anger:strong", *settings, "--workspace", workspace)
    (folder,) = [each for each in results_of(workspace) if each.path not in before]
    assert folder.setting.persona == "anger-strong"
    (row,) = read_ledger(folder.path).values()
    assert row.outcome not in NOT_THE_MODELS
    plain = next(each for each in swept if each.setting.strategy == "act")
    plain_row = next(row for row in read_ledger(plain.path).values() if row.task_id == "0")
    said, plainly = (read_conversation(each.path, of).messages for each, of in ((folder, row), (plain, plain_row)))
    assert said != plainly


def test_the_panel_and_the_board_show_what_is_there(workspace: Path, swept: list[SettingFolder]) -> None:
    assert len(swept) == 2
    panel = ServerPanel(workspace)
    try:
        snapshot = panel.snapshot()
        assert [(row.name, row.state) for row in snapshot.rows] == [("smollm2", State.READY)]
        assert MODEL in panel.render(snapshot).text
    finally:
        panel.close()
    board = SweepBoard("real", workspace)
    try:
        assert [cell.state for cell in board.snapshot().cells] == ["done", "done"]
    finally:
        board.close()


def test_the_report_is_of_a_real_model(workspace: Path, swept: list[SettingFolder]) -> None:
    assert len(swept) == 2
    tautools("report", "--sweep", "real", "--workspace", workspace)
    (folder,) = (workspace / "reports" / "real").iterdir()
    for page in ("pass_k.html", "latency.html"):
        text = (folder / page).read_text()
        assert MODEL in text
        assert "SIMULATED" not in text
    profile = json.loads((folder / "profile_analysis.json").read_text())
    assert MODEL in json.dumps(profile)
