"""`tautools config` shows what will be used and where each value came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import called


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _own(folder: Path) -> None:
    path = folder / "params" / "servers" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("model: m\nenv: {HF_TOKEN: hf_secret}\n")


def test_the_table_has_value_and_place(tmp_path: Path) -> None:
    _own(tmp_path)
    rows = [line.split() for line in called("config", "server", "mine").out.splitlines()]
    assert ["model", "m", "params/servers/mine.yaml:1:1"] in rows
    assert ["port", "-", "default"] in rows
    assert ["name", "mine", "the", "file's", "name"] in rows


def test_json_says_the_same_and_hides_secrets(tmp_path: Path) -> None:
    _own(tmp_path)
    result = called("config", "server", "mine", "--json", "--set", "vllm.max_model_len=2048")
    assert "hf_secret" not in result.out
    told = json.loads(result.out)
    by_key = {row["key"]: row for row in told["values"]}
    assert told["file"].endswith("params/servers/mine.yaml")
    assert by_key["vllm.max_model_len"] == {
        "key": "vllm.max_model_len",
        "value": 2048,
        "from": "flag",
        "place": "--set vllm.max_model_len=2048",
    }
    assert by_key["env"]["value"] == {"HF_TOKEN": "(hidden)"}


def test_a_run_is_shown_as_it_would_be_run() -> None:
    words = "config run --env retail --strategy react --model M --task-ids 3,5 --limit 1 --user-model U --json"
    by_key = {row["key"]: row for row in json.loads(called(*words.split()).out)["values"]}
    assert by_key["tasks.ids"] == {"key": "tasks.ids", "value": ["3", "5"], "from": "flag", "place": "--task-ids"}
    assert by_key["user.model"]["value"] == "U"
    assert by_key["strategy"]["place"] == "--strategy"
    assert by_key["bench"]["from"] == "default"


def test_what_can_be_named_is_listed_with_its_place(tmp_path: Path) -> None:
    _own(tmp_path)
    rows = {(row["kind"], row["name"]): row["file"] for row in json.loads(called("config", "list", "--json").out)}
    assert rows["servers", "mine"] == str(tmp_path / "params" / "servers" / "mine.yaml")
    assert ("sweeps", "sol-gaudi-120") in rows
    assert ("sites", "local") in rows
    assert all(
        kind == "sites" for kind in {line.split()[0] for line in called("config", "list", "sites").out.splitlines()}
    )


def test_a_server_is_shown_with_the_profile_of_the_sites_cards() -> None:
    here, cluster = (called("config", "server", "qwen3-8b", *words) for words in ((), ("--site", "sol-gaudi")))

    assert "# qwen3-8b: profile none" in here.err
    assert "# qwen3-8b: profile gaudi" in cluster.err
    assert "PT_HPU_LAZY_MODE=0" in cluster.err
    assert cluster.out == here.out


@pytest.mark.parametrize(
    ("words", "kind", "good"),
    [
        (("sweep", "ls"), "sweeps", "demo"),
        (("persona", "list"), "personas", "anger"),
        (("config", "list"), "servers", "sim-small"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_below_the_list_of_the_others(
    tmp_path: Path, words: tuple[str, ...], kind: str, good: str
) -> None:
    folder = tmp_path / "params" / kind
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("nonsense: 1\n")
    (folder / "für mich.yaml").write_text("{}\n")
    result = called(*words)
    assert result.code == 0
    assert good in result.out
    assert f"params/{kind}/broken.yaml:1:1: unknown key `nonsense`." in result.err
    assert "'für mich.yaml' cannot be used by name: it has 'ü '." in result.err
    rows = {row["name"]: row for row in json.loads(called(*words, "--json").out)}
    assert rows["für mich"]["next_step"] == "Rename it, for example to fur-mich.yaml."
    assert good in rows
