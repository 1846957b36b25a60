from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from made_conversations import made_setting

from tautools.errors import RunError
from tautools.records import ModelConfig
from tautools.run.folder import claim_folder, find_folder, model_slug, read_setting, results_of

SETTING = made_setting()
OTHER = made_setting(seed=5)
THIRD = made_setting(seed=6)


@pytest.mark.parametrize(
    ("model", "slug"),
    [
        ("Qwen/Qwen3-4B-Instruct-2507", "4B"),
        ("Qwen/Qwen3-32B", "32B"),
        ("Qwen/Qwen3-0.6B", "0.6B"),
        ("Qwen/Qwen3-30B-A3B", "30B"),
        ("openai/gpt-oss-20b", "20B"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "8x7B"),
        ("google/gemma-3-270m", "270M"),
        ("/scratch/me/models/Qwen3-8B/", "8B"),
        ("gpt-4o", "gpt-4o"),
        ("meta-llama/Llama-Best", "meta-llama-Llama-Best"),
        ("../../etc/passwd", "etc-passwd"),
        ("4bit-model", "4bit-model"),
        ("...", "model"),
    ],
)
def test_a_slug_is_the_size_when_the_name_has_one_else_the_name_made_safe(model, slug):
    assert model_slug(model) == slug


def test_finding_makes_nothing_and_claiming_makes_the_folder_with_its_setting(tmp_path):
    path = find_folder(tmp_path, SETTING).path
    assert path == tmp_path / "retail" / "fc" / "4B"
    assert list(tmp_path.iterdir()) == []
    assert claim_folder(tmp_path, SETTING, {"tautools": "1.0"}).path == path
    stored = json.loads((path / "setting.json").read_text())
    assert stored["id"] == SETTING.id
    assert read_setting(path).setting == SETTING
    assert read_setting(path).provenance == {"tautools": "1.0"}
    assert [each.name for each in path.parent.iterdir()] == ["4B"]


def test_another_setting_that_would_meet_it_gets_its_id_behind_the_slug(tmp_path):
    first = claim_folder(tmp_path, SETTING, {}).path
    second = claim_folder(tmp_path, OTHER, {}).path
    assert (first.name, second.name) == ("4B", f"4B-{OTHER.id[:8]}")
    assert claim_folder(tmp_path, SETTING, {}).path == first
    assert find_folder(tmp_path, OTHER).path == second


def test_models_of_one_size_do_not_share_a_folder(tmp_path):
    claim_folder(tmp_path, SETTING, {})
    other = made_setting(agent=ModelConfig(model="meta/Llama-4B"))
    assert claim_folder(tmp_path, other, {}).path.name == f"4B-{other.id[:8]}"


def test_a_persona_is_part_of_the_name(tmp_path):
    assert find_folder(tmp_path, made_setting(persona="angry customer")).path.name == "4B+angry-customer"


def test_a_folder_of_somebody_else_is_never_written_to(tmp_path):
    theirs = tmp_path / "retail" / "fc" / "4B" / "num_trials-1.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("[]")
    path = claim_folder(tmp_path, SETTING, {}).path
    assert path.name == f"4B-{SETTING.id[:8]}"
    assert [each.name for each in theirs.parent.iterdir()] == ["num_trials-1.json"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "retail" / "fc" / "4B").mkdir(parents=True)
    assert claim_folder(tmp_path, SETTING, {}).path.name == "4B"


def test_a_setting_that_cannot_be_read_stops_with_the_next_step(tmp_path):
    path = claim_folder(tmp_path, SETTING, {}).path / "setting.json"
    path.write_text('{"setting": {')
    with pytest.raises(RunError, match=r"setting.json cannot be read(.|\n)*Next: Put the file back"):
        find_folder(tmp_path, SETTING)


def test_many_that_start_at_the_same_moment_agree(tmp_path):
    settings = [SETTING, OTHER, THIRD] * 8
    with ThreadPoolExecutor(len(settings)) as pool:
        paths = list(pool.map(lambda setting: claim_folder(tmp_path, setting, {}).path, settings))
    of = {
        setting.id: {path for path, each in zip(paths, settings, strict=True) if each is setting}
        for setting in settings
    }
    assert [len(found) for found in of.values()] == [1, 1, 1]
    assert len(set.union(*of.values())) == 3
    assert sum(path.name == "4B" for path in set(paths)) == 1
    assert len(list((tmp_path / "retail" / "fc").iterdir())) == 3, "nothing half-made is left"


def test_results_of_a_workspace_lists_every_setting(tmp_path):
    assert results_of(tmp_path) == []
    for setting in (SETTING, OTHER):
        claim_folder(tmp_path / "results", setting, {})
    assert {folder.id for folder in results_of(tmp_path)} == {SETTING.id, OTHER.id}
