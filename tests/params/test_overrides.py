"""Default < file < flag; and every value tells where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tautools.errors import ParamsError
from tautools.params import Resolved, load_sweep, resolve, resolve_run
from tautools.params.models import ServerParams, SweepParams


def _origins(resolved: Resolved[Any]) -> dict[str, tuple[Any, str, str]]:
    return {row.key: (row.value, row.origin.kind.value, row.origin.place) for row in resolved.rows()}


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("env: retail\nagent: {model: M, temperature: 0.5}\nconcurrency: 3\n")
    resolved = resolve_run({"concurrency": 5}, workspace=tmp_path, file=path, overrides=["agent.temperature=0.2"])
    rows = _origins(resolved)
    assert rows["concurrency"] == (5, "flag", "--concurrency")
    assert rows["agent.temperature"] == (0.2, "flag", "--set agent.temperature=0.2")
    assert rows["agent.model"] == ("M", "file", f"{path}:2:9")
    assert rows["seed"] == (0, "default", "")
    assert resolved.params.agent.temperature == 0.2


def test_the_last_of_two_overrides_wins(tmp_path: Path) -> None:
    assert load_sweep("demo", workspace=tmp_path, overrides=["seed=1", "seed=2"]).seed == 2


def test_an_override_reaches_every_agent_of_a_grid(tmp_path: Path) -> None:
    sweep = load_sweep("demo", workspace=tmp_path, overrides=["agent.temperature=0.2", "grid.agent.0.top_p=0.5"])
    assert [agent.temperature for agent in sweep.grid.agent] == [0.2, 0.2]
    assert [agent.top_p for agent in sweep.grid.agent] == [0.5, None]


def test_part_of_a_role_given_by_name_can_be_overridden(tmp_path: Path) -> None:
    rows = _origins(resolve(SweepParams, "demo", workspace=tmp_path, overrides=["user.temperature=0"]))
    assert rows["user.server"][0] == "sim-user"
    assert rows["user.server"][1] == "file"
    assert rows["user.temperature"] == (0.0, "flag", "--set user.temperature=0")


def test_a_whole_axis_can_be_replaced(tmp_path: Path) -> None:
    sweep = load_sweep("demo", workspace=tmp_path, overrides=["grid.env=[retail]", "grid.agent=[sim-large]"])
    assert sweep.grid.env == ["retail"]
    assert [agent.server for agent in sweep.grid.agent] == ["sim-large"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("agent.temprature=0.2", "--set agent.temprature=0.2: unknown key `temprature`"),
        ("agent.temprature=0.2", "Did you mean `temperature`?"),
        ("sede=3", "Did you mean `seed`?"),
        ("seed", "this does not read `key=value`"),
        ("=3", "this does not read `key=value`"),
        ("a..b=3", "this does not read `key=value`"),
        ("seed=[1", "this is not YAML"),
        ("seed=1.5", "`seed` is 1.5; it must be a whole number"),
        ("concurrency=0", "it must be a whole number at least 1"),
        ("seed.x=1", "`seed` is 7 and has no `x`"),
        ("grid.agent.7.top_p=1", "'7' is not a place in a list of 2"),
        ("user.extra_body={a: yes}", "is a bare `yes`"),
        ("grid.env=['..', '/']", "Also: --set grid.env"),
    ],
)
def test_a_wrong_override_is_named_as_it_was_typed(tmp_path: Path, override: str, says: str) -> None:
    with pytest.raises(ParamsError) as error:
        load_sweep("demo", workspace=tmp_path, overrides=[override])
    assert says in str(error.value)
    assert error.value.next_step
    assert list(tmp_path.iterdir()) == []


def test_the_same_mistake_in_every_agent_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as error:
        load_sweep("demo", workspace=tmp_path, overrides=["agent.temprature=0.2"])
    assert str(error.value).count("unknown key") == 1


def test_a_run_needs_no_file_and_the_agent_plays_the_customer_too(tmp_path: Path) -> None:
    flags = {"env": "retail", "strategy": "fc", "agent.model": "M", "agent.temperature": 0.3, "tasks.limit": 2}
    resolved = resolve_run(flags, workspace=tmp_path)
    rows = _origins(resolved)
    assert resolved.params.user.model == "M"
    assert resolved.params.user.temperature is None
    assert rows["user.model"] == ("M", "default", "the agent's")
    assert rows["tasks.limit"] == (2, "flag", "--limit")


def test_a_user_of_its_own_is_not_mixed_with_the_agent(tmp_path: Path) -> None:
    flags = {"env": "retail", "agent.model": "M", "agent.base_url": "http://x/v1", "user.model": "U"}
    user = resolve_run(flags, workspace=tmp_path).params.user
    assert (user.model, user.base_url) == ("U", None)


def test_a_run_without_env_or_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="`env` is missing"):
        resolve_run({"agent.model": "M"}, workspace=tmp_path)
    with pytest.raises(ParamsError, match="No model was named for the agent"):
        resolve_run({"env": "retail"}, workspace=tmp_path)


def test_negative_trials_are_refused_by_the_name_of_the_option(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"--num-trials: `num_trials` is -1; it must be a whole number at least 1"):
        resolve_run({"env": "retail", "agent.model": "M", "num_trials": -1}, workspace=tmp_path)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("model: m\nenv: {HF_TOKEN: hf_abc, HF_HOME: /x}\nvllm: {args: {proxy: 'http://me:pw@host'}}\n")
    shown = str(resolve(ServerParams, path, workspace=tmp_path).as_json())
    assert "hf_abc" not in shown
    assert "pw@" not in shown
    assert "/x" in shown
