"""Flags against the installed vLLM, before anything is started; its help is a real process's."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from serving import fake_vllm

from tautools.errors import ParamsError
from tautools.servers import Registry, launch
from tautools.servers.vllm.flags import check_flags, installed_flags, parse_help

NEW = """usage: vllm serve [model_tag] [options]

options:
  --api-server-count API_SERVER_COUNT, -asc API_SERVER_COUNT
                        How many, see --no-such-thing
  --disable-log-stats   Disable logging, not --block-size.
  --enable-auto-tool-choice, --no-enable-auto-tool-choice
  --port PORT           Port. (default: 8000)
  --speculative-config SPECULATIVE_CONFIG, -sc SPECULATIVE_CONFIG
  --tool-call-parser {hermes,openai} or name registered in --tool-parser-plugin
                        Select.
"""


def vllm(folder: Path, *, knows_all: bool = True, text: str = NEW) -> list[str]:
    """Write a `vllm` that answers `--help` as new or as old versions do, and counts how often it is asked."""
    script = folder / "bin" / "vllm"
    script.parent.mkdir(exist_ok=True, parents=True)
    refuse = "" if knows_all else "if sys.argv[-1] == '--help=all': sys.exit('ignored explicit argument')"
    script.write_text(
        f"#!{sys.executable}\nimport sys, pathlib\n"
        f"with open({str(folder / 'asked')!r}, 'a') as file: file.write('x')\n{refuse}\nprint({text!r})\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return [str(script), "serve"]


def check(command: list[str], folder: Path, *words: str) -> None:
    check_flags([*command, "model", *words], command=command, env=os.environ, folder=folder / "flags")


def test_flags_are_read_from_the_heads_of_options_and_not_from_their_descriptions() -> None:
    known = parse_help(NEW)

    assert known.names == {
        "api-server-count",
        "disable-log-stats",
        "enable-auto-tool-choice",
        "no-enable-auto-tool-choice",
        "port",
        "speculative-config",
        "tool-call-parser",
    }
    assert known.tool_parsers == {"hermes", "openai"}


def test_known_flags_pass_also_with_dots_and_equals(tmp_path: Path) -> None:
    check(vllm(tmp_path), tmp_path, "--api-server-count=2", "--speculative-config.method", "x", "--disable-log-stats")


def test_an_unknown_flag_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="does not know `--api-server-cont`") as caught:
        check(vllm(tmp_path), tmp_path, "--api-server-cont", "2")

    assert "Did you mean `api-server-count`?" in caught.value.evidence


@pytest.mark.parametrize(
    ("flag", "why", "instead"),
    [
        ("--enable-reasoning", "removed in vLLM 0.10", "reasoning_parser"),
        ("--num-scheduler-steps", "fork", "Leave it out"),
        ("--device", "fork", "Leave it out"),
        ("--default-chat-template-kwargs", "too old", "extra_body"),
        ("--no-disable-log-stats", "no form that switches it off", "remove"),
    ],
)
def test_a_removed_or_fork_only_flag_is_explained(tmp_path: Path, flag: str, why: str, instead: str) -> None:
    with pytest.raises(ParamsError) as caught:
        check(vllm(tmp_path), tmp_path, flag)

    assert why in caught.value.evidence
    assert instead in caught.value.next_step


def test_an_unknown_tool_parser_is_an_error_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no tool parser 'hermess' of the installed vLLM") as caught:
        check(vllm(tmp_path), tmp_path, "--disable-log-stats", "--tool-call-parser", "hermess")

    assert caught.value.evidence == "Known: hermes, openai."


def test_flags_that_every_version_has_are_not_asked_for(tmp_path: Path) -> None:
    check(vllm(tmp_path), tmp_path, "--port", "1", "--max-model-len", "4096", "--dtype", "auto")

    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(("version", "asked"), [("0.32.0+cpu", False), ("0.31.1", True), ("0.3", True), ("", True)])
def test_flags_of_our_own_files_are_asked_for_unless_that_version_is_known_to_have_them(
    tmp_path: Path, version: str, asked: bool
) -> None:
    command = vllm(tmp_path, text=NEW + "  --default-chat-template-kwargs KWARGS\n  --max-num-seqs N\n")
    if version:
        (tmp_path / "lib" / "python3.11" / "site-packages" / f"vllm-{version}.dist-info").mkdir(parents=True)

    check(command, tmp_path, "--default-chat-template-kwargs", "{}", "--max-num-seqs", "4")

    assert (tmp_path / "asked").exists() is asked


def test_the_answer_is_kept_until_the_environment_changes(tmp_path: Path) -> None:
    command = vllm(tmp_path)
    for _ in range(3):
        check(command, tmp_path, "--disable-log-stats")
    assert (tmp_path / "asked").read_text() == "x"

    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    check(command, tmp_path, "--disable-log-stats")

    assert (tmp_path / "asked").read_text() == "xx"


def test_a_version_that_refuses_help_all_is_asked_for_its_whole_help(tmp_path: Path) -> None:
    known = installed_flags(vllm(tmp_path, knows_all=False), env=os.environ, folder=tmp_path / "flags")

    assert known is not None
    assert "disable-log-stats" in known.names


@pytest.mark.parametrize("text", ["", "Usage: see the website"])
def test_a_vllm_that_lists_nothing_is_not_checked(tmp_path: Path, text: str) -> None:
    check(vllm(tmp_path, text=text), tmp_path, "--whatever")


def test_a_torn_answer_is_asked_for_again(tmp_path: Path) -> None:
    command = vllm(tmp_path)
    check(command, tmp_path, "--disable-log-stats")
    (kept,) = (tmp_path / "flags").iterdir()
    kept.write_text("{")

    check(command, tmp_path, "--disable-log-stats")

    assert (tmp_path / "asked").read_text() == "xx"


def test_nothing_is_started_or_registered_for_a_flag_that_the_engine_does_not_know(workspace: Path) -> None:
    params = fake_vllm(vllm={"max_model_len": 4096, "args": {"swap_space": 16, "maxmodel_len": 2}})

    with pytest.raises(ParamsError, match="does not know `--swap-space`, `--maxmodel-len`"):
        launch(params, workspace=workspace)

    assert Registry(workspace).list() == []
    assert not (workspace / "logs").exists()
