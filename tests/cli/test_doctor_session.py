"""`tautools doctor` compares the site with what Slurm, the environment, files and ports of this session are."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import called
from hypothesis import example, given
from hypothesis import strategies as st

from tautools.session import DoctorFinding, FindingStatus, doctor
from tautools.session.check_slurm import scontrol_fields
from tautools.session.findings import anonymise

_PARTITION = "PartitionName=gaudi AllowAccounts=ALL AllowQos=ALL MaxTime=7-00:00:00 Nodes=gaudi[001-010] State=UP"
_JOB = (
    "JobId=77 JobName=x Account=class_class59827694spring_2026 QOS=class_gaudi TimeLimit=08:00:00 Partition=gaudi "
    "NumCPUs=20 TRES=cpu=20,mem=40G,node=1 TresPerNode=gres:gpu:hl225:1"
)
_NODES = "152|1000000+|gpu:hl225:8(S:0-1)|mixed|10"
_ASSOC = "class_class59827694spring_2026||class_gaudi,public|class_gaudi"


@pytest.fixture
def slurm_says(tmp_path: Path) -> Any:
    """Return a PATH whose Slurm commands answer as told, by the first words they are asked with."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def says(**answers: str) -> dict[str, str]:
        told = {"scontrol": _PARTITION, "sinfo": _NODES, "sacctmgr": _ASSOC, "squeue": "5:00", "job": _JOB} | answers
        for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo", "sacctmgr"):
            answer = told.get(name, "")
            text = f"print({answer!r})"
            if name == "scontrol":
                text = f"import sys\nprint({told['job']!r} if 'job' in sys.argv else {answer!r})"
            path = folder / name
            path.write_text(f"#!{sys.executable}\n{text}\n")
            path.chmod(0o755)
        return {"PATH": str(folder), "USER": "mgarcia"}

    return says


def found(workspace: Path, environ: dict[str, str], site: str = "sol-gaudi") -> dict[str, DoctorFinding]:
    return {each.name: each for each in doctor(workspace, site=site, environ=environ, sweeps=[]).findings}


def test_a_site_that_fits_the_cluster_is_fine(tmp_path: Path, slurm_says: Any) -> None:
    seen = found(tmp_path, slurm_says() | {"SLURM_JOB_ID": "77"})

    assert [seen[name].status for name in ("partition", "account", "job")] == [FindingStatus.OK] * 3
    assert seen["job"].found == "job 77 in gaudi, 20 cores, 40 GiB, gpu:hl225:1, time limit 08:00:00"
    assert seen["time left"].found == "5 min of this job"
    assert seen["time left"].status is FindingStatus.WARN


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"scontrol": _PARTITION.replace("State=UP", "State=DOWN")}, "it is DOWN"),
        ({"scontrol": _PARTITION.replace("AllowQos=ALL", "AllowQos=public")}, "class_gaudi is not among its Qos"),
        ({"scontrol": _PARTITION.replace("7-00", "0-04")}, "time_limit 0-08:00:00 is above its 0-04:00:00"),
        ({"sinfo": "8|1000000|gpu:hl225:8|idle|1"}, "cores 20 is above the 8"),
        ({"sinfo": "152|20480|gpu:hl225:8|idle|1"}, "memory_gib 40 is above the 20"),
        ({"sinfo": "152|1000000|gpu:a100:8|idle|1"}, "gres gpu:hl225:1 is on none of its nodes, which have gpu:a100:8"),
        ({"sinfo": "152|1000000|(null)|idle|1"}, "gres gpu:hl225:1 is on none"),
    ],
)
def test_what_the_partition_does_not_have_fails(
    tmp_path: Path, slurm_says: Any, answers: dict[str, str], said: str
) -> None:
    finding = found(tmp_path, slurm_says(**answers))["partition"]

    assert finding.status is FindingStatus.FAIL
    assert said in finding.found
    assert "params/sites/sol-gaudi.yaml" in finding.next_step


def test_a_partition_that_is_not_there_fails_with_those_that_are(tmp_path: Path, slurm_says: Any) -> None:
    finding = found(tmp_path, slurm_says(scontrol="", sinfo="htc\ngeneral"))["partition"]

    assert finding.status is FindingStatus.FAIL
    assert "general, htc" in finding.next_step


def test_a_controller_that_is_down_is_named_and_account_and_partition_are_not_blamed(
    tmp_path: Path, slurm_says: Any
) -> None:
    environ = slurm_says(scontrol="", sinfo="", sacctmgr="")
    down = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    (tmp_path / "bin" / "squeue").write_text(f"#!{sys.executable}\nimport sys\nsys.exit({down!r})\n")
    seen = found(tmp_path, environ)

    assert seen["slurm"].status is FindingStatus.FAIL
    assert seen["slurm"].found == f"the controller does not answer: {down}"
    assert "scontrol ping" in seen["slurm"].next_step
    assert not {"partition", "account"} & seen.keys()


@pytest.mark.parametrize(
    ("assoc", "status", "remedy"),
    [
        ("other||class_gaudi|", FindingStatus.FAIL, "other with class_gaudi"),
        ("class_class59827694spring_2026||public|", FindingStatus.FAIL, "class_class59827694spring_2026 with public"),
        ("class_class59827694spring_2026|htc|class_gaudi|", FindingStatus.FAIL, "a pair that is yours"),
        ("", FindingStatus.WARN, "sacctmgr show assoc"),
    ],
)
def test_an_account_or_qos_of_others_is_told_with_ones_own(
    tmp_path: Path, slurm_says: Any, assoc: str, status: FindingStatus, remedy: str
) -> None:
    finding = found(tmp_path, slurm_says(sacctmgr=assoc))["account"]

    assert (finding.status, remedy in finding.next_step) == (status, True), finding


def test_the_environment_of_the_site_is_compared_with_the_active_one(tmp_path: Path) -> None:
    active = {"PATH": "", "CONDA_DEFAULT_ENV": "gaudi-pytorch-vllm", "LOADEDMODULES": "slurm/23:mamba/2.1"}
    assert found(tmp_path, active)["environment"].status is FindingStatus.OK
    by_path = active | {"CONDA_DEFAULT_ENV": "/packages/envs/gaudi-pytorch-vllm"}
    assert found(tmp_path, by_path)["environment"].status is FindingStatus.OK
    wrong = found(tmp_path, {"PATH": "", "CONDA_DEFAULT_ENV": "base"})["environment"]
    assert wrong.status is FindingStatus.WARN
    assert "module mamba/latest is not loaded; gaudi-pytorch-vllm is not active" in wrong.found


def test_key_files_that_others_may_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    key, token = tmp_path / "servers" / "x.key", tmp_path / "hf" / "token"
    token.parent.mkdir()
    for path in (key, token):
        path.write_text("secret")
        path.chmod(0o600)
    environ = {"PATH": "", "HF_HOME": str(tmp_path / "hf")}
    assert found(tmp_path, environ, "local")["key files"].status is FindingStatus.OK
    token.chmod(0o644)
    finding = found(tmp_path, environ, "local")["key files"]
    assert finding.status is FindingStatus.WARN
    assert f"chmod 600 {token}" in finding.next_step


def test_scripts_of_an_agent_project_that_cannot_run_are_told_and_left_alone(tmp_path: Path) -> None:
    for folder in ("logs", "errors"):
        (tmp_path / folder).mkdir()
    for name, mode in (("tau-experiment.sh", 0o644), ("user-server.sh", 0o757)):
        (tmp_path / name).write_text("#!/bin/bash\n")
        (tmp_path / name).chmod(mode)
    finding = found(tmp_path, {"PATH": ""}, "local")["scripts"]
    assert finding.status is FindingStatus.WARN
    assert "anyone may change: user-server.sh" in finding.found
    assert "chmod u+x,o-w" in finding.next_step
    assert (tmp_path / "tau-experiment.sh").stat().st_mode & 0o777 == 0o644


def test_a_port_that_a_server_file_asks_for_and_another_has_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "params" / "servers"
    folder.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (folder / "mine.yaml").write_text(f"name: mine\nengine: simulate\nmodel: m\nport: {port}\n")
        assert f"taken: {port} of mine" in found(tmp_path, {"PATH": ""}, "local")["ports"].found
    assert found(tmp_path, {"PATH": ""}, "local")["ports"].status is not FindingStatus.FAIL


def test_a_quota_that_is_nearly_used_up_is_told(tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    quota = commands / "quota"
    quota.write_text(f"#!{sys.executable}\nprint('Filesystem blocks quota limit\\n/dev/home 960 1000 1100 5 0 0')\n")
    quota.chmod(0o755)
    assert found(tmp_path, {"PATH": str(commands)}, "local")["quota"].status is FindingStatus.WARN
    quota.write_text(quota.read_text().replace("960", "100"))
    assert found(tmp_path, {"PATH": str(commands)}, "local")["quota"].status is FindingStatus.OK


def test_the_text_to_paste_holds_no_secret_and_no_name(tmp_path: Path) -> None:
    home = tmp_path / "home" / "mgarcia"
    workspace = home / "mgarcia_project"
    workspace.mkdir(parents=True)
    environ = {
        "PATH": "",
        "HOME": str(home),
        "USER": "mgarcia",
        "OPENAI_API_KEY": "abcd1234",
        "http_proxy": "http://mgarcia:abcd1234@proxy:3128",
        "https_proxy": "http://proxy/?contact=m.garcia@uni.edu&t=hf_abcdefgh",
    }
    text = doctor(workspace, environ=environ, sweeps=[]).shareable(environ)

    assert "workspace ~/<user>_project" in text
    for secret in ("mgarcia", "abcd1234", "m.garcia@uni.edu", "hf_abcdefgh", str(home)):
        assert secret not in text
    assert text.startswith("```text\ntautools ")


@given(st.text(alphabet="abc/-_. @=:", max_size=40), st.text(alphabet="xyz0189", min_size=6, max_size=20))
def test_a_secret_value_never_shows_wherever_it_stands(around: str, secret: str) -> None:
    shown = anonymise(f"{around}{secret}{around} {secret}", {"HF_TOKEN": secret})

    assert secret not in shown


def test_doctor_paste_prints_the_block(tmp_path: Path) -> None:
    out = called("doctor", "--paste", "--workspace", str(tmp_path)).out

    assert out.startswith("```text")
    assert out.rstrip().endswith("```")


@given(st.text(max_size=200))
@example("= =x a=b=c")
def test_whatever_slurm_says_is_read_without_failing(text: str) -> None:
    found = scontrol_fields([text])
    assert all(found)
    assert all(f"{name}={value}" in text for name, value in found.items())


@pytest.mark.slurm
@pytest.mark.slow
def test_on_a_real_slurm_the_shipped_site_fits(tmp_path: Path, slurm: Path) -> None:
    seen = found(tmp_path, {"PATH": os.environ["PATH"], "SLURM_CONF": str(slurm), "USER": "root"})

    assert seen["partition"].status is FindingStatus.OK, seen["partition"]
    assert seen["account"].status is FindingStatus.OK, seen["account"]
