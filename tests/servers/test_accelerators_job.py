"""The lines of a job script that choose Gaudi cards, run by a shell beside a stand-in for hl-smi."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_cards import FakeCards
from serving import fake_vllm, simulated

from tautools.errors import ServerError
from tautools.params.models import SiteParams
from tautools.records import ServerRecord
from tautools.servers.accelerators.assignment import cards_needed, gres_for, job_card_lines
from tautools.servers.backends.slurm import job_script_text
from tautools.servers.placement import LaunchRequest
from tautools.servers.start import Restart, exclude_node, held_node

SITE = SiteParams(name="g", scheduler="slurm", device="gaudi")


def card_lines(params: Any, site: SiteParams = SITE) -> list[str]:
    return job_card_lines(cards_needed(params, site), site, asked=params.cards)


def run(
    tmp_path: Path, params: Any, used: list[int | list[int]] | None, **env: str
) -> subprocess.CompletedProcess[str]:
    cards = FakeCards(tmp_path / "bin", "gaudi", used or [])
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    if used is None:
        (tmp_path / "bin" / "hl-smi").unlink()
    script = "\n".join([*card_lines(params), 'echo "${HABANA_VISIBLE_MODULES-all of them}"'])
    return subprocess.run(
        ["bash"], input=script, env={"PATH": cards.path} | env, capture_output=True, text=True, check=False, timeout=30
    )


def model(across: int, **fields: Any) -> Any:
    return fake_vllm(vllm={"tensor_parallel_size": across}, **fields)


def job_record(log: Path, **site: Any) -> ServerRecord:
    spec, own_site = model(2).model_dump(mode="json"), SITE.model_copy(update=site).model_dump(mode="json")
    return ServerRecord(
        name="fake", backend="slurm", model="m", base_url="", log_err=str(log), spec=spec, site=own_site
    )


@pytest.mark.parametrize(
    ("params", "env", "modules"),
    [
        (model(2), {"SLURM_JOB_GPUS": "1,3"}, "6,7"),
        (model(1), {"SLURM_JOB_GPUS": "1,3", "SLURM_STEP_GPUS": "3"}, "7"),
        (model(2), {}, "2,6"),
        (model(1), {"SLURM_JOB_GPUS": "2,3"}, "7"),
        (model(2, cards=[3, 0]), {}, "2,7"),
    ],
)
def test_a_job_shows_its_server_the_modules_of_its_idle_cards(
    tmp_path: Path, params: Any, env: dict[str, str], modules: str
) -> None:
    done = run(tmp_path, params, [768, 768, 60000, 768], **env)

    assert (done.returncode, done.stdout.strip()) == (0, modules), done.stderr


def test_a_job_whose_cards_are_in_use_ends_before_the_engine_and_names_the_node_to_leave_out(tmp_path: Path) -> None:
    done = run(tmp_path, model(2), [768, 60000, 768], SLURM_JOB_GPUS="0,1", SLURMD_NODENAME="gaudi003")

    assert (done.returncode, done.stdout) == (1, "")
    assert "ERROR: 2 idle cards are needed" in done.stderr
    assert "1 of 2 are idle; in use: card 1 (60000 MiB)" in done.stderr
    assert "--exclude=gaudi003" in done.stderr


def test_the_node_to_leave_out_is_read_from_the_jobs_log_and_joins_those_left_out_before(tmp_path: Path) -> None:
    done = run(tmp_path, model(2), [768, 60000], SLURM_JOB_GPUS="0,1", SLURMD_NODENAME="gaudi003")
    (tmp_path / "job.err").write_text(f"before\n{done.stderr}after\n")
    record = job_record(tmp_path / "job.err", exclude=["gaudi001"])

    plan = exclude_node(Restart(record))

    assert held_node(record) == "gaudi003"
    assert plan.record.site["exclude"] == ["gaudi001", "gaudi003"]
    assert plan.changes == ["site.exclude: gaudi001 -> gaudi001,gaudi003"]
    assert exclude_node(plan, "gaudi001").changes == plan.changes
    request = LaunchRequest(model(2), SiteParams.model_validate(plan.record.site), "m")
    script = job_script_text([request], workspace=tmp_path)
    assert "#SBATCH --exclude=gaudi001,gaudi003\n" in script


@pytest.mark.parametrize(("node", "said"), [("", "names no node"), ("a b", "cannot be the name"), ("-x", "cannot be")])
def test_a_node_that_is_not_known_or_no_name_is_refused(tmp_path: Path, node: str, said: str) -> None:
    (tmp_path / "job.err").write_text("ERROR: something else\n")
    record = job_record(tmp_path / "job.err")

    assert held_node(record) is None
    with pytest.raises(ServerError, match=said):
        exclude_node(Restart(record), node)
    with pytest.raises(ServerError, match="no job of Slurm"):
        exclude_node(Restart(record.model_copy(update={"backend": "local"})), "gaudi003")


def test_a_node_without_hl_smi_is_left_as_it_is(tmp_path: Path) -> None:
    assert run(tmp_path, model(1), None).stdout == "all of them\n"


def test_only_gaudi_servers_without_chosen_modules_get_the_lines() -> None:
    assert card_lines(simulated()) == []
    assert card_lines(model(1, env={"HABANA_VISIBLE_MODULES": "3"})) == []
    assert card_lines(model(1), SiteParams(name="c", scheduler="slurm", device="cuda")) == []
    assert os.linesep.join(card_lines(model(2))).count("python3 - 2 ''") == 1


def test_a_job_given_fewer_cards_than_the_server_takes_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, model(2), [768, 768], SLURM_JOB_GPUS="1")

    assert done.returncode == 1
    assert "2 cards are needed and this job was given 1" in done.stderr


@pytest.mark.parametrize(
    ("gres", "across", "asked"),
    [
        ("gpu:hl225:1", 2, "gpu:hl225:2"),
        ("gpu:hl225:4", 2, "gpu:hl225:4"),
        ("gpu:1", 8, "gpu:8"),
        ("shard:1", 2, "shard:1"),
        (None, 2, None),
    ],
)
def test_a_job_asks_for_as_many_cards_as_its_server_takes(gres: str | None, across: int, asked: str | None) -> None:
    assert gres_for(SITE.model_copy(update={"gres": gres}), cards_needed(model(across), SITE)) == asked
