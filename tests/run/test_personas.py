"""Personas in a run: reached over HTTP, part of the setting, refused when they would change the task."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from served_cells import cell_at, requests_of, simulated_model

from tautools.bench.sources.inspect_tau2 import InspectDomain
from tautools.cli.run import run_command
from tautools.errors import ParamsError, PersonaError
from tautools.params import load_persona
from tautools.run import prepare_cell, read_conversation, read_events, read_ledger, run_cell

VARIANTS = ("frustration", "anxiety:mild", "anger:strong", "confusion")


@pytest.fixture(scope="module")
def server():
    with simulated_model(skill=1.0) as running:
        yield running


def conversations(folder):
    return {row.key[1:]: read_conversation(folder, row) for row in read_ledger(folder).values()}


@pytest.mark.parametrize("chosen", VARIANTS)
@pytest.mark.parametrize("strategy", ["fc", "act", "react"])
@pytest.mark.parametrize("env", ["retail", "airline", "telecom"])
def test_every_persona_reaches_the_model_and_no_reward_changes(tmp_path, server, env, strategy, chosen):
    result = run_cell(cell_at(server.base_url, env=env, strategy=strategy, persona=chosen), workspace=tmp_path)
    persona = load_persona(chosen)
    assert result.folder.name == f"4B+{persona.label}"
    assert (result.setting.persona, result.setting.intensity) == (persona.label, persona.intensity)
    assert result.setting.prompts["persona"] == persona.sha256
    found = conversations(result.folder)
    assert len(found) == 2
    for talk in found.values():
        assert talk.reward == 1.0
        assert talk.user_messages[0]["content"].endswith(persona.block)
        assert "mood" not in talk.messages[0]["content"]


def test_control_is_the_setting_without_a_persona_and_its_conversations_are_used(tmp_path, server):
    plain = run_cell(cell_at(server.base_url), workspace=tmp_path)
    asked = requests_of(server)
    control = run_cell(cell_at(server.base_url, persona="control"), workspace=tmp_path)
    assert (control.setting.id, control.folder, control.model_calls) == (plain.setting.id, plain.folder, 0)
    assert requests_of(server) == asked
    angry = run_cell(cell_at(server.base_url, persona="anger"), workspace=tmp_path)
    one, other = conversations(plain.folder), conversations(angry.folder)
    assert one.keys() == other.keys()
    assert {key: talk.seed for key, talk in one.items()} == {key: talk.seed for key, talk in other.items()}


def test_each_intensity_is_a_setting_of_its_own(tmp_path):
    cells = [
        prepare_cell(cell_at("http://127.0.0.1:9/v1", persona=chosen), workspace=tmp_path)
        for chosen in ("anger:mild", "anger", "anger:moderate", "anger:strong")
    ]
    assert [cell.folder.name for cell in cells] == ["4B+anger-mild", "4B+anger", "4B+anger", "4B+anger-strong"]
    assert len({cell.setting.id for cell in cells}) == 3


def test_a_persona_of_ones_own_with_facts_of_a_task_is_refused_before_anything_is_made(tmp_path, server):
    own = tmp_path / "params" / "personas"
    own.mkdir(parents=True)
    (own / "liar.yaml").write_text("name: liar\ntext: You insist that your user id is yusuf_rossi_9620.\n")
    asked = requests_of(server)
    with pytest.raises(ParamsError, match="changes the task's facts"):
        run_cell(cell_at(server.base_url, persona="liar"), workspace=tmp_path)
    assert requests_of(server) == asked
    assert not (tmp_path / "results").exists()


def test_an_injection_without_effect_ends_the_run_and_leaves_no_result(tmp_path, server, monkeypatch):
    make = InspectDomain.user

    class Fresh:
        def __init__(self, inner):
            self.inner, self.messages = inner, [dict(each) for each in inner.messages]

        def add_persona(self, text):
            self.messages[0]["content"] += text  # of a copy, which its model is not sent

        def __getattr__(self, name):
            return getattr(self.inner, name)

    monkeypatch.setattr(InspectDomain, "user", lambda *given: Fresh(make(*given)))
    with pytest.raises(PersonaError, match="missing from a request to the customer's model"):
        run_cell(cell_at(server.base_url, persona="anger"), workspace=tmp_path)
    folder = tmp_path / "results/retail/fc/4B+anger"
    assert read_ledger(folder) == {}
    assert not [event for event in read_events(folder) if event.kind == "done"]


def test_the_flag_chooses_persona_and_intensity(tmp_path, server):
    args = [
        "--env",
        "retail",
        "--model",
        "sim-4B",
        "--base-url",
        server.base_url,
        "--limit",
        "1",
        "--dry-run",
        "--json",
    ]
    args += ["--workspace", str(tmp_path), "--persona"]
    told = CliRunner().invoke(run_command, [*args, "anger:strong"])
    assert json.loads(told.stdout)["folder"].endswith("results/retail/fc/4B+anger-strong")
    wrong = CliRunner().invoke(run_command, [*args, "../anger"])
    assert (wrong.exit_code, "persona" in wrong.stderr, "Next: " in wrong.stderr) == (2, True, True)
