"""What a person writes wrong ends in an error with file and line, what was given and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tautools.errors import ParamsError
from tautools.params import load_server, load_site, load_sweep

SWEEP = """\
name: mine
grid:
  env: [airline]
  strategy: [fc]
  agent: [sim-small]
  num_trials: [1]
user: {server: sim-user}
"""


def _sweep(folder: Path, text: str) -> Path:
    path = folder / "params" / "sweeps" / "mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _refused(folder: Path, text: str) -> ParamsError:
    path = _sweep(folder, text)
    before = sorted(folder.rglob("*"))
    with pytest.raises(ParamsError) as error:
        load_sweep("mine", workspace=folder)
    assert sorted(folder.rglob("*")) == before
    assert str(path) in str(error.value)
    assert error.value.next_step
    return error.value


def test_the_example_itself_is_right(tmp_path: Path) -> None:
    _sweep(tmp_path, SWEEP)
    assert load_sweep("mine", workspace=tmp_path).grid.agent[0].server == "sim-small"


@pytest.mark.parametrize(
    ("line", "replacement", "place", "says"),
    [
        ("user:", "usr:", ":7:1", "unknown key `usr`. Did you mean `user`?"),
        ("{server: sim-user}", "{server: sim-user, temprature: 1}", ":7:26", "`user`. Did you mean `temperature`?"),
        ("[fc]", "[fc, recat]", ":4:18", '"recat"; it must be one of fc, act, react, few-shot, experts. Did you'),
        ("num_trials: [1]", "num_trials: [-1]", ":6:15", "num_trials must be 1 or more"),
        ("num_trials: [1]", "num_trials: 3", ":6:15", "it must be a list"),
        ("{server: sim-user}", "{server: sim-user, temperature: hot}", ":7:39", '"hot"; it must be a number at'),
        ("{server: sim-user}", "{server: sim-user, temperature: true}", ":7:39", "is true; it must be a number"),
        ("{server: sim-user}", "{temperature: 1}", ":7:7", "a role needs `server` or `model`"),
        ("{server: sim-user}", "{server: 7}", ":7:16", 'it must be text. Put it in quotes: "7"'),
        ("[airline]", "['../../etc']", ":3:9", "it must be text of letters, digits"),
        ("name: mine", "name: ../mine", ":1:7", "it must be text of letters, digits"),
        ("name: mine", "bench: tau3\nname: mine", ":1:8", "it must be one of tau2, tau-bench. Did you mean"),
        ("  strategy: [fc]\n", "", ":2:1", "`grid.strategy` is missing"),
        ("name: mine", "site: locl\nname: mine", ":1:7", "There is no site 'locl'. Did you mean `local`?"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(tmp_path: Path, line: str, replacement: str, place: str, says: str) -> None:
    error = _refused(tmp_path, SWEEP.replace(line, replacement))
    assert says in error.problem
    assert f"mine.yaml{place}: " in error.problem


def test_a_bare_off_where_anything_is_allowed_is_an_error(tmp_path: Path) -> None:
    template = "{server: sim-user, extra_body: {chat_template_kwargs: {enable_thinking: off}}}"
    error = _refused(tmp_path, SWEEP.replace("{server: sim-user}", template))
    assert 'is a bare `off`, a boolean to some and text to others. Write true or false, or "off".' in error.problem


def test_thinking_on_and_off_need_no_quotes(tmp_path: Path) -> None:
    _sweep(tmp_path, SWEEP.replace("{server: sim-user}", "{server: sim-user, thinking: off}"))
    assert load_sweep("mine", workspace=tmp_path).user.thinking.value == "off"


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    error = _refused(tmp_path, SWEEP + "concurency: 3\nseed: x\n")
    assert "unknown key `concurency`" in str(error)
    assert '`seed` is "x"; it must be a whole number' in str(error)
    assert "Keys: bench" in error.evidence


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n", "3\n"])
def test_a_file_without_keys_is_an_error(tmp_path: Path, text: str) -> None:
    assert "where keys with values belong" in _refused(tmp_path, text).problem


def test_a_server_and_a_site_are_read_as_strictly(tmp_path: Path) -> None:
    server, site = tmp_path / "s.yaml", tmp_path / "t.yaml"
    server.write_text("model: m\nvllm:\n  max_modle_len: 1024\n")
    site.write_text("partitoin: gaudi\n")
    with pytest.raises(ParamsError, match=r":3:3: unknown key `max_modle_len` in `vllm`. Did you mean `max_model_len`"):
        load_server(server, workspace=tmp_path)
    with pytest.raises(ParamsError, match=r":1:1: unknown key `partitoin`. Did you mean `partition`"):
        load_site(site, workspace=tmp_path)


def test_a_name_left_out_is_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "big-one.yaml"
    path.write_text("model: m\n")
    assert load_server(path, workspace=tmp_path).name == "big-one"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("stagger: soon", '`stagger` is "soon"; it must be a number at least 0 or loaded.\nNext: Correct it'),
        ("port: 0", "it must be a whole number at least 1 and at most 65535"),
        ("vllm: {enforce_eager: 3}", "it must be true or false"),
        ("vllm: {args: {x: on}}", "is a bare `on`"),
        ("env: {A: 3}", 'it must be text. Put it in quotes: "3"'),
    ],
)
def test_what_is_allowed_is_said_in_plain_words(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"model: m\n{line}\n")
    with pytest.raises(ParamsError) as error:
        load_server(path, workspace=tmp_path)
    assert says in str(error.value)


def test_a_name_that_cannot_be_one_is_told_as_such(tmp_path: Path) -> None:
    error = _refused(tmp_path, SWEEP + "experts: {'a b': sim-small}\n")
    assert '`experts.a b` is "a b"; it must be text of letters, digits' in error.problem
