"""When a real Slurm would start a server, what is free now, and what smaller request would start sooner."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner
from slurm_site import ask, site_with, wait_for

from tautools.cli.server import server_command
from tautools.slurm.client import Slurm
from tautools.slurm.jobs import NODE_FORMAT, JobState, parse_nodes

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slurm]


def words(workspace: Path, **site: object) -> list[str]:
    path = workspace / "params" / "sites" / "here.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(site_with(**site).model_dump(mode="json")))
    return ["plan", "sim-small", "--site", "here", "--workspace", str(workspace)]


def test_a_smaller_request_that_starts_sooner_is_named(workspace: Path) -> None:
    asked = words(workspace, cores=40, memory_gib=20)
    hold = ["--account=class_class59827694spring_2026", "--parsable", "--time=60", "--cpus-per-task=10", "--mem=1G"]
    hold += ["--gres=gpu:hl225:3", "--nodes=1", "--output=/dev/null"]
    holders = [
        ask("sbatch", *hold, f"--nodelist=gaudi00{number}", "--wrap", "sleep 300").strip() for number in (1, 2, 3)
    ]
    try:
        wait_for(lambda: all(job.state is JobState.RUNNING for job in Slurm().jobs(holders).values()))

        shown = CliRunner().invoke(server_command, asked)
        told = json.loads(CliRunner().invoke(server_command, [*asked, "--json"]).stdout)
    finally:
        ask("scancel", *holders)

    assert shown.exit_code == 0, shown.output
    assert "gaudi001: mixed, 5 of 8 cards free" in shown.stdout
    assert "Sooner: cores: 20, in the site file." in shown.stdout
    by_name = {each["asks"]: each for each in told["starts"]["sim-small"]}
    assert by_name["as site here asks"]["starts_at"] - by_name["cores: 20"]["starts_at"] > 600
    assert not (workspace / "servers").exists()


def test_a_request_that_is_refused_says_why(workspace: Path) -> None:
    shown = CliRunner().invoke(server_command, words(workspace, cores=64, memory_gib=None))

    assert shown.exit_code == 0, shown.output
    assert "as site here asks: Slurm does not take this job. No node of the partition has so many cores" in shown.stdout
    assert "Sooner: cores: 32, in the site file." in shown.stdout


def test_nodes_are_read_once_each() -> None:
    widths = (64, 24, 128, 128)
    rows = [("n1", "mixed-", "gpu:a:8(S:0-1),shard:4", "gpu:a:3(IDX:0-2)"), ("n2", "idle~", "(null)", "(null)")]
    text = "".join("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + "\n" for row in rows)

    nodes = parse_nodes(text + text)

    assert [(node.name, node.state, node.cards, node.cards_used) for node in nodes] == [
        ("n1", "mixed", 8, 3),
        ("n2", "idle", 0, 0),
    ]
    assert NODE_FORMAT.startswith("NodeList:64,")
