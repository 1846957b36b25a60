"""What `server up` says of profile, environment and options before anything runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from serving import FAKE_VLLM

from tautools.cli.server import server_command
from tautools.servers import Registry


@pytest.fixture
def call(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call a command on a workspace with a Gaudi site and the stand-in for vLLM."""
    monkeypatch.setenv("TAUTOOLS_WORKSPACE", str(workspace))
    site = {"name": "cards", "device": "gaudi", "env": {"HF_TOKEN": "hf_secret", "PT_HPU_LAZY_MODE": "1"}}
    server = {"name": "s", "model": "Qwen/Qwen3-8B", "serve_command": [sys.executable, str(FAKE_VLLM)]}
    for kind, params in (("sites", site), ("servers", server)):
        file = workspace / "params" / kind / f"{params['name']}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(yaml.safe_dump(params))

    def tautools(*words: str, status: int = 0) -> Result:
        done = CliRunner().invoke(server_command, words)
        assert done.exit_code == status, done.output
        return done

    return tautools


def test_a_dry_run_shows_profile_environment_and_command_and_starts_nothing(workspace: Path, call: Any) -> None:
    done = call("up", "s", "--site", "cards", "--dry-run", "--set", "vllm.max_num_seqs=4")

    assert "s: profile gaudi" in done.stderr
    assert "VLLM_DECODE_BS_BUCKET_MAX=4" in done.stderr
    assert "PT_HPU_LAZY_MODE=1" in done.stderr
    assert "hf_secret" not in done.output
    assert "--max-num-seqs 4" in done.stdout
    assert Registry(workspace).list() == []


def test_a_missing_tool_parser_is_told_before_the_start(call: Any) -> None:
    assert "`hermes` for this family" in call("up", "s", "--dry-run").stderr
    assert "family" not in call("up", "s", "--dry-run", "--set", "vllm.tool_call_parser=hermes").stderr


def test_a_flag_that_the_engine_does_not_know_ends_a_start_as_bad_input(workspace: Path, call: Any) -> None:
    done = call("up", "s", "--site", "local", "--set", "vllm.args.swap_space=4", status=2)

    assert "does not know `--swap-space`" in done.stderr
    assert "Only Habana's fork" in done.stderr
    assert Registry(workspace).list() == []
