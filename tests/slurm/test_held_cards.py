"""A job whose node's cards are held by others is submitted again elsewhere, by itself when that was asked for."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from serving import FAKE_VLLM
from slurm_site import site_with

from tautools.cli.server import server_command
from tautools.servers import Registry

pytestmark = [pytest.mark.slurm]

HL_SMI = """#!/bin/bash
# The first node that asks has held cards, all others are idle.
[ -s {held} ] || echo "$SLURMD_NODENAME" > {held}
used=768; [ "$(cat {held})" = "$SLURMD_NODENAME" ] && used=60000
for index in 0 1 2 3 4 5 6 7; do echo "$index, $index, $used"; done
"""


@pytest.fixture
def held(workspace: Path, tmp_path: Path) -> Path:
    """Write site and server files, and the stand-in for hl-smi that the jobs find; return where it notes the node."""
    folder, note = tmp_path / "bin", tmp_path / "held"
    folder.mkdir()
    (folder / "hl-smi").write_text(HL_SMI.format(held=shlex.quote(str(note))))
    (folder / "hl-smi").chmod(0o755)
    site = site_with(device="gaudi", activate=[f"export PATH={shlex.quote(str(folder))}:$PATH"])
    server = {"name": "fake", "model": "org/Some-4B", "serve_command": [sys.executable, str(FAKE_VLLM)]}
    server |= {"vllm": {"max_model_len": 4096, "tool_call_parser": "hermes"}}
    for kind, name, tree in (("sites", "here", site.model_dump(mode="json")), ("servers", "fake", server)):
        path = workspace / "params" / kind / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump(tree))
    return note


def test_a_job_on_a_node_with_held_cards_is_submitted_again_without_it(workspace: Path, held: Path) -> None:
    words = ["up", "fake", "--site", "here", "--resubmit", "1", "--workspace", str(workspace)]

    done = CliRunner().invoke(server_command, words)

    assert done.exit_code == 0, done.output
    node, record = held.read_text().strip(), Registry(workspace).get("fake")
    assert f"the cards of {node} are held by others; submitted again without it, job {record.job_id} (1 of 1)" in (
        done.stderr
    )
    assert record.host not in {"", node}
    assert record.site["exclude"] == [node]
    assert record.changes == [f"site.exclude: not set -> {node}"]


def test_without_it_the_job_fails_and_a_restart_leaves_the_node_of_its_log_out(workspace: Path, held: Path) -> None:
    at = ["--workspace", str(workspace)]
    assert CliRunner().invoke(server_command, ["up", "fake", "--site", "here", *at]).exit_code == 1

    done = CliRunner().invoke(server_command, ["restart", "fake", *at, "--exclude"])

    assert done.exit_code == 0, done.output
    assert f"site.exclude: not set -> {held.read_text().strip()}" in done.output
    assert Registry(workspace).get("fake").host not in {"", held.read_text().strip()}


@pytest.mark.parametrize("words", [["--no-wait", "--site", "here"], ["--site", "local"]])
def test_nobody_submits_again_without_waiting_or_without_slurm(workspace: Path, held: Path, words: list[str]) -> None:
    done = CliRunner().invoke(server_command, ["up", "fake", "--resubmit", "1", *words, "--workspace", str(workspace)])

    assert done.exit_code == 2
    assert "--resubmit" in done.output
    assert not held.exists()
