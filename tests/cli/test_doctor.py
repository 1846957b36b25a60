"""`tautools doctor` says what a session has and lacks, each finding with its remedy."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from command_line import called, listing

from tautools.params import load_site
from tautools.session import DoctorFinding, DoctorReport, FindingStatus, doctor
from tautools.session.checks import compare_requirement


def _by_name(diagnosis: DoctorReport) -> dict[str, DoctorFinding]:
    return {finding.name: finding for finding in diagnosis.findings}


def _command(folder: Path, name: str, says: str = "") -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable}\nprint({says!r})\n")
    path.chmod(0o755)


def test_this_session_can_do_the_local_work(tmp_path: Path) -> None:
    result = called("doctor", "--workspace", str(tmp_path))
    assert result.code == 0
    assert "0 fail; site local" in result.out
    assert listing(tmp_path) == {}


def test_json_has_every_finding_with_status_and_remedy(tmp_path: Path) -> None:
    told = json.loads(called("doctor", "--workspace", str(tmp_path), "--json").out)
    names = {finding["name"] for finding in told["findings"]}
    expected = {"python", "tautools", "dependencies", "workspace", "disk", "processors", "memory", "cards", "vllm"}
    assert expected | {"hub cache", "slurm", "proxies", "chromium"} <= names
    assert told["worst"] in {"ok", "warn"}
    assert all(finding["next_step"] for finding in told["findings"] if finding["status"] != "ok")


def test_a_missing_workspace_fails_with_the_command_that_makes_it(tmp_path: Path) -> None:
    result = called("doctor", "--workspace", str(tmp_path / "none"))
    assert result.code == 1
    assert f"tautools init {tmp_path / 'none'} --site local" in result.out


def test_a_workspace_that_takes_no_files_fails() -> None:
    finding = _by_name(doctor("/proc", environ={}))["workspace"]
    assert finding.status is FindingStatus.FAIL
    assert "Choose a folder" in finding.next_step


def test_a_cluster_site_without_slurm_fails(tmp_path: Path) -> None:
    diagnosis = doctor(tmp_path, site="sol-gaudi", environ={"PATH": str(tmp_path)}, sweeps=[])
    found = _by_name(diagnosis)
    assert diagnosis.worst is FindingStatus.FAIL
    assert found["slurm"].found == "not on PATH: sbatch, squeue, sacct, scancel"
    assert found["vllm"].status is FindingStatus.WARN
    assert "module load mamba/latest; source activate gaudi-pytorch-vllm" in found["vllm"].next_step
    assert found["cards"].status is FindingStatus.WARN


def test_what_is_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = tmp_path / "bin"
    for name in ("sbatch", "squeue", "sacct", "scancel", "vllm"):
        _command(commands, name)
    _command(commands, "hl-smi", "0, 3, 768 MiB, 98304 MiB, HL-225, 01P4-HL2080A0-15-TNBS92-18-05-07")
    monkeypatch.setenv("PATH", str(commands))
    found = _by_name(doctor(tmp_path, site="sol-gaudi", environ={"PATH": str(commands)}, sweeps=[]))
    assert found["slurm"].status is FindingStatus.OK
    assert found["vllm"].found == str(commands / "vllm")
    assert found["cards"].found == "gaudi 0 HL-225: 768 of 98304 MiB, idle"


def test_a_driver_that_does_not_answer_is_told_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = tmp_path / "bin"
    _command(commands, "hl-smi")
    (commands / "hl-smi").write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no driver')\n")
    monkeypatch.setenv("PATH", str(commands))
    finding = _by_name(doctor(tmp_path, site="sol-gaudi", environ={"PATH": str(commands)}, sweeps=[]))["cards"]
    assert finding.status is FindingStatus.FAIL
    assert "no driver" in finding.found
    assert "by hand" in finding.next_step


def test_the_hub_cache_is_the_one_that_servers_use(tmp_path: Path) -> None:
    (tmp_path / "xdg" / "huggingface" / "hub" / "models--a--b").mkdir(parents=True)
    found = _by_name(doctor(tmp_path, environ={"PATH": "", "XDG_CACHE_HOME": str(tmp_path / "xdg")}))
    assert f"{tmp_path / 'xdg' / 'huggingface' / 'hub'}: 1 models" in found["hub cache"].found


def test_the_job_of_the_session_is_compared_with_the_site(tmp_path: Path) -> None:
    environ = {
        "PATH": "",
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_PARTITION": "gaudi",
        "SLURM_JOB_QOS": "public",
        "SLURM_JOB_END_TIME": str(int(time.time()) + 600),
    }
    found = _by_name(doctor(tmp_path, site="sol-gaudi", environ=environ, sweeps=[]))
    assert found["job"].status is FindingStatus.WARN
    assert "qos is public, the site says class_gaudi" in found["job"].found
    assert found["time left"].status is FindingStatus.WARN


def _site_with_environment(tmp_path: Path, *, vllm: bool = True, extra: str = "") -> dict[str, str]:
    """Write a site `mine` whose environment has other packages than this one; return the session's variables."""
    env = tmp_path / "env"
    for name, version in (("litellm", "1.41.0"), ("tokenizers", "0.15.0")):
        (env / "lib" / f"{name}-{version}.dist-info").mkdir(parents=True)
        (env / "lib" / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    (env / "bin").mkdir()
    python = env / "bin" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={env / "lib"} exec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    if vllm:
        _command(env / "bin", "vllm")
    (tmp_path / "activate").write_text(f"export PATH={env / 'bin'}:$PATH\n{extra}\n")
    site = tmp_path / "params" / "sites" / "mine.yaml"
    site.parent.mkdir(parents=True)
    site.write_text(
        f"device: cuda\nactivate: ['. {tmp_path / 'activate'}']\npins: [litellm==1.41.0, 'tokenizers>=0.21', nowhere]\n"
    )
    return {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}


def test_pins_are_compared_with_the_sites_own_environment_and_never_changed(tmp_path: Path) -> None:
    environ = _site_with_environment(tmp_path)
    found = _by_name(doctor(tmp_path, environ=environ))
    assert found["pins"].status is FindingStatus.WARN
    assert found["pins"].found == (
        "in the site's environment tokenizers is 0.15.0, asked for >=0.21; nowhere is missing (any version)"
    )
    assert "nothing is changed here" in found["pins"].next_step
    assert found["vllm"].found == str(tmp_path / "env" / "bin" / "vllm")


def test_an_environment_that_cannot_be_activated_here_is_named_and_not_guessed(tmp_path: Path) -> None:
    environ = _site_with_environment(tmp_path, extra="echo no such module >&2; false")
    found = _by_name(doctor(tmp_path, environ=environ))
    assert found["pins"].status is FindingStatus.WARN
    assert f"`. {tmp_path / 'activate'}` fails here: no such module" in found["pins"].found
    assert found["vllm"].status is FindingStatus.WARN


@pytest.mark.parametrize("vllm", [True, False])
def test_a_sweep_that_needs_a_vllm_that_is_not_there_fails(tmp_path: Path, vllm: bool) -> None:
    environ = _site_with_environment(tmp_path, vllm=vllm)
    folder = tmp_path / "params" / "sweeps"
    folder.mkdir()
    text = "grid: {env: [airline], strategy: [fc], agent: [qwen3-8b], num_trials: [1]}\nuser: sim-user\nsite: SITE\n"
    (folder / "there.yaml").write_text(text.replace("SITE", "mine"))
    (folder / "elsewhere.yaml").write_text(text.replace("SITE", "local"))
    (folder / "simulated.yaml").write_text(text.replace("SITE", "mine").replace("qwen3-8b", "sim-large"))
    found = _by_name(doctor(tmp_path, environ=environ))
    expected = FindingStatus.OK if vllm else FindingStatus.FAIL
    assert found["sweep there"].status is expected, found["sweep there"]
    assert found["sweep elsewhere"].found == "its server qwen3-8b needs vLLM, and the site local has no `vllm`"
    assert found["sweep simulated"].status is FindingStatus.OK


@pytest.mark.parametrize(
    ("requirement", "says"),
    [
        ("click>=8", ""),
        ("click>=999", "asked for >=999"),
        ("no-such-package-here>=1", "no-such-package-here is missing"),
        ("no-such-package-here>=1; python_version < '3'", ""),
        ("not a requirement!", "is not a requirement"),
    ],
)
def test_a_requirement_is_compared_with_what_is_installed(requirement: str, says: str) -> None:
    assert says in compare_requirement(requirement)
    assert bool(says) == bool(compare_requirement(requirement))


def test_secrets_and_passwords_do_not_show(tmp_path: Path) -> None:
    environ = {"PATH": "", "http_proxy": "http://me:hunter22@proxy:3128", "HF_TOKEN": "hf_verysecret",
               "HF_HOME": str(tmp_path / "hf_verysecret")}  # fmt: skip
    diagnosis = doctor(tmp_path, environ=environ)
    for text in (str(diagnosis), json.dumps(diagnosis.as_json()), diagnosis._repr_html_()):
        assert "hunter22" not in text
        assert "hf_verysecret" not in text
    assert _by_name(diagnosis)["proxies"].found == "http_proxy=http://(hidden)@proxy:3128"


def test_a_sweep_that_cannot_run_is_found_before_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "params" / "sweeps"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("grdi: 3\n")
    text = (
        "grid: {env: [airline], strategy: [fc], agent: [{model: m, api_key_env: MY_KEY}], num_trials: [1]}\n"
        "user: sim-user\n"
    )
    (folder / "keyless.yaml").write_text(text)
    (folder / "serverless.yaml").write_text(text.replace("{model: m, api_key_env: MY_KEY}", "sim-smal"))
    found = _by_name(doctor(tmp_path, environ={"PATH": ""}))
    assert "unknown key `grdi`. Did you mean `grid`?" in found["sweep broken"].found
    assert found["sweep keyless"].next_step == "Set MY_KEY before tautools starts."
    assert "There is no server 'sim-smal'" in found["sweep serverless"].found
    assert _by_name(doctor(tmp_path, environ={"MY_KEY": "secret-key"}))["sweep keyless"].status is FindingStatus.OK


def test_the_120_cells_without_a_checkout_are_told(tmp_path: Path) -> None:
    found = _by_name(doctor(tmp_path, environ={}, sweeps=["sol-gaudi-120"]))["sweep sol-gaudi-120"]
    assert found.status is FindingStatus.FAIL
    assert "--set path=FOLDER" in found.next_step


def test_the_only_site_of_a_workspace_is_the_one_that_is_meant(tmp_path: Path) -> None:
    called("init", str(tmp_path), "--site", "sol-gaudi")
    assert doctor(tmp_path, environ={"PATH": ""}).site == load_site("sol-gaudi").name


def test_a_diagnosis_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    page = DoctorReport(
        "local", str(tmp_path), (DoctorFinding("x", FindingStatus.FAIL, "<b>", "mend & try"),)
    )._repr_html_()
    assert "&lt;b&gt;" in page
    assert "mend &amp; try" in page
