"""Job scripts of servers: what a person wrote reaches the server as it is, and no shell ever reads it."""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from slurm_site import site_with

from tautools.cli.server import server_command
from tautools.errors import ParamsError
from tautools.params import load_server, load_site
from tautools.params.models import ServerParams, SiteParams
from tautools.servers import Registry
from tautools.servers.backends.slurm import job_script_text
from tautools.servers.placement import LaunchRequest, plan_one_job


def script_of(params: ServerParams, *, workspace: Path, site: SiteParams) -> str:
    return job_script_text([LaunchRequest(params, site, params.name)], workspace=workspace)


HOSTILE = st.one_of(
    st.sampled_from(
        [
            "$(touch pwned)",
            "`touch pwned`",
            "'; touch pwned; '",
            '"; touch pwned; "',
            "x\ntouch pwned\n",
            "PYTHON\ntouch pwned",
            "../../pwned",
            "${HOME}",
            "~",
            "~;nobody",
            "*",
            "--port",
            "$port",
            "%j",
            "-rf",
            "a\\",
            " ",
            "!!",
            "é\u2028ü",
            "\t",
            "#SBATCH --qos=mine",
        ]
    ),
    st.text(alphabet="'\"\\$`(){}[]<>|&;*?!#~% \n\t=-aé/.", min_size=1, max_size=30),
)
TELL = "import json,os,sys; print('TOLD'+json.dumps([sys.argv[1:], os.environ['HOSTILE']]))"


def run_by_bash(text: str) -> subprocess.CompletedProcess[str]:
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=20, check=False)
    assert checked.returncode == 0, checked.stderr
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "SLURM_JOB_ID": "4711", "SLURMD_NODENAME": "gaudi001"}
    return subprocess.run(["bash"], input=text, capture_output=True, text=True, env=env, timeout=30, check=False)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(model=HOSTILE, value=HOSTILE, argument=HOSTILE, word=HOSTILE)
def test_hostile_words_reach_the_server_unchanged_and_no_shell(
    model: str, value: str, argument: str, word: str
) -> None:
    with tempfile.TemporaryDirectory(prefix="work $(touch pwned) 'q\" ") as folder:
        workspace = Path(folder).resolve()
        params = ServerParams.model_validate(
            {
                "name": "server",
                "model": f"./{model}",
                "served_model_name": f"served {model}",
                "serve_command": [sys.executable, "-c", TELL, word],
                "env": {"HOSTILE": value},
                "vllm": {"args": {"some_flag": argument}},
            }
        )
        text = script_of(params, workspace=workspace, site=site_with())

        done = run_by_bash(text)

        assert done.returncode == 0, done.stderr
        argv, told = json.loads(done.stdout.rpartition("TOLD")[2])
        assert told == value
        note = json.loads((workspace / "servers" / "launches" / "server.address").read_text())
        port = note["base_url"].removeprefix("http://127.0.0.1:").removesuffix("/v1")
        assert argv[:6] == [word, f"./{model}", "--host", "127.0.0.1", "--port", port]
        assert argv[6:8] == ["--served-model-name", f"served {model}"]
        assert argv[-2:] == ["--some-flag", argument]
        assert not [path for path in workspace.rglob("*") if path.name.startswith("pwned")]
        assert Registry(workspace).get("server").spec["model"] == f"./{model}"
        assert Registry(workspace).exit_code(Registry(workspace).get("server")) == 0


def test_the_script_is_what_the_notes_ask_for(tmp_path: Path) -> None:
    workspace = tmp_path.resolve()
    text = script_of(
        load_server("qwen3-32b", workspace=workspace),
        workspace=workspace,
        site=load_site("sol-gaudi", workspace=workspace),
    )

    directives = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert directives == [
        "--job-name=qwen3-32b",
        "--account=class_class59827694spring_2026",
        "--partition=gaudi",
        "--qos=class_gaudi",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=20",
        "--mem=40G",
        "--gres=gpu:hl225:2",
        "--time=0-08:00:00",
        f"--output={workspace}/logs/qwen3-32b_%j.out",
        f"--error={workspace}/errors/qwen3-32b_%j.err",
        "--no-requeue",
    ]
    lines = text.splitlines()
    assert lines.index("module load mamba/latest || exit 1") < lines.index("source activate gaudi-pytorch-vllm")
    assert '  --port "$port" \\' in lines
    assert list(workspace.iterdir()) == []


def test_the_log_begins_with_node_model_and_address(tmp_path: Path) -> None:
    params = ServerParams.model_validate({"name": "user", "model": "Qwen/Qwen3-32B", "serve_command": ["true"]})

    done = run_by_bash(script_of(params, workspace=tmp_path.resolve(), site=site_with(host="0.0.0.0")))

    lines = done.stdout.splitlines()
    assert lines[0] == lines[-1] == "=" * 36
    assert lines[1:3] == ["Starting vllm server user on node: gaudi001", "Model: Qwen/Qwen3-32B"]
    assert lines[3].startswith("Server base: http://")
    assert lines[3].endswith("/v1")


def test_the_key_is_private_and_not_in_the_script(tmp_path: Path) -> None:
    tell_key = [sys.executable, "-c", "import os; print('KEY', os.environ['VLLM_API_KEY'])"]
    params = ServerParams.model_validate({"name": "s", "model": "m", "serve_command": tell_key})
    text = script_of(params, workspace=tmp_path.resolve(), site=site_with())

    key = run_by_bash(text).stdout.rpartition("KEY ")[2].strip()

    assert len(key) >= 24
    assert key not in text
    assert (tmp_path / "servers" / "s.key").read_text() == f"{key}\n"
    assert (tmp_path / "servers" / "s.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "servers").stat().st_mode & 0o077 == 0


def test_an_asked_for_port_that_is_taken_ends_the_job_in_words(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        params = ServerParams.model_validate({"name": "s", "model": "m", "port": taken.getsockname()[1]})

        done = run_by_bash(script_of(params, workspace=tmp_path.resolve(), site=site_with()))

    assert done.returncode == 1
    assert "Address already in use" in done.stderr


@pytest.mark.parametrize(
    ("fields", "site"),
    [
        ({"env": {"A=B;touch pwned": "x"}}, {}),
        ({"env": {"X": "a\0b"}}, {}),
        ({}, {"account": "a\n#SBATCH --qos=b"}),
        ({"vllm": {"args": {"api_key": "secret"}}}, {}),
    ],
)
def test_what_no_quoting_carries_is_refused(tmp_path: Path, fields: dict[str, object], site: dict[str, object]) -> None:
    params = ServerParams.model_validate({"name": "s", "model": "m"} | fields)

    with pytest.raises(ParamsError):
        script_of(params, workspace=tmp_path, site=site_with(**site))
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_that_slurm_cannot_write_logs_to_is_refused(tmp_path: Path) -> None:
    workspace = tmp_path / "back\\slash"
    workspace.mkdir()

    with pytest.raises(ParamsError, match="backslash"):
        script_of(ServerParams(name="s", model="m"), workspace=workspace, site=site_with())


def test_replicas_have_a_script_each_under_their_own_name(tmp_path: Path) -> None:
    words = ["script", "qwen3-8b", "--site", "sol-gaudi", "--replicas", "3", "--workspace", str(tmp_path)]

    shown = CliRunner().invoke(server_command, words)
    written = CliRunner().invoke(server_command, [*words, "-o", str(tmp_path / "agent.sh")])

    names = ["qwen3-8b-0", "qwen3-8b-1", "qwen3-8b-2"]
    assert shown.exit_code == written.exit_code == 0, shown.output + written.output
    assert re.findall(r"--job-name=(\S+)", shown.stdout) == names
    files = [tmp_path / f"agent-{number}.sh" for number in range(3)]
    assert [re.findall(r"--job-name=(\S+)", file.read_text()) for file in files] == [[name] for name in names]
    assert [f"sbatch {file}" in written.stdout for file in files] == [True] * 3
    assert CliRunner().invoke(server_command, [*words, "-o", str(tmp_path / "agent.sh")]).exit_code == 2


def test_a_dry_run_shows_each_replica_with_its_port(tmp_path: Path) -> None:
    words = ["up", "sim-small", "--replicas", "2", "--start-port", "47310", "--dry-run", "--workspace", str(tmp_path)]

    shown = CliRunner().invoke(server_command, words)

    assert shown.exit_code == 0, shown.output
    assert re.findall(r"--port (\d+)", shown.stdout) == ["47310", "47311"]
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(model=HOSTILE, value=HOSTILE, word=HOSTILE, store=HOSTILE, module=HOSTILE)
def test_hostile_words_reach_the_servers_of_one_job_unchanged_and_no_shell(
    model: str, value: str, word: str, store: str, module: str
) -> None:
    with tempfile.TemporaryDirectory(prefix="work $(touch pwned) 'q\" ") as folder:
        workspace = Path(folder).resolve()
        for name in ("logs", "errors"):
            (workspace / name).mkdir()
        one, two = (
            ServerParams.model_validate(
                {
                    "name": name,
                    "model": f"./{model}",
                    "serve_command": [sys.executable, "-c", TELL, word],
                    "env": {"HOSTILE": value},
                    "stagger": 0,
                }
            )
            for name in ("one", "two")
        )
        site = site_with(device="gaudi", recipe_store=f"{workspace}/{store}", env={"SITE": module})
        places = plan_one_job([one, two], workspace=workspace, site=site).require_job()
        text = job_script_text(places, workspace=workspace)

        done = run_by_bash(text)

        assert done.returncode == 0, done.stderr
        for name in ("one", "two"):
            argv, told = json.loads((workspace / "logs" / f"{name}_4711.out").read_text().rpartition("TOLD")[2])
            assert (argv[:2], told) == ([word, f"./{model}"], value)
            assert Registry(workspace).get(name).shares_job
        assert not [path for path in workspace.rglob("*") if path.name.startswith("pwned")]


def test_compiled_graphs_lie_on_the_nodes_disk_by_software_and_go_to_the_store(tmp_path: Path) -> None:
    workspace, installed = tmp_path / "ws", tmp_path / "site-packages"
    workspace.mkdir()
    for name, version in (("vllm", "0.21.0"), ("vllm_gaudi", "0.21.0"), ("habana_torch_plugin", "1.24.0.5")):
        (installed / f"{name}-{version}.dist-info").mkdir(parents=True)
        (installed / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    store = tmp_path / "my store"
    named = "1.24.0.5-0.21.0-0.21.0-tp2-bfloat16"
    (store / named).mkdir(parents=True)
    (store / named / "old.recipe").write_text("old")
    compiles = (
        'd=${PT_HPU_RECIPE_CACHE_CONFIG%%,*}; ls "$d"; echo "cfg $PT_HPU_RECIPE_CACHE_CONFIG"; touch "$d/new.recipe"'
    )
    params = ServerParams.model_validate(
        {
            "name": "s",
            "model": "m",
            "serve_command": ["bash", "-c", compiles],
            "vllm": {"tensor_parallel_size": 2, "dtype": "bfloat16"},
        }
    )
    activate = [f"export PYTHONPATH={shlex.quote(str(installed))}"]
    fields = {"device": "gaudi", "node_disk": str(tmp_path / "disk"), "recipe_store": str(store), "activate": activate}

    done = run_by_bash(script_of(params, workspace=workspace.resolve(), site=site_with(**fields)))

    assert done.returncode == 0, done.stderr
    folder = f"{tmp_path}/disk/tautools-{getpass.getuser()}/recipes/{named}"
    assert done.stdout.endswith(f"old.recipe\ncfg {folder},false,16384\n")
    assert sorted(path.name for path in (store / named).iterdir()) == ["new.recipe", "old.recipe"]
    assert Registry(workspace).exit_code(Registry(workspace).get("s")) == 0


def test_without_a_vllm_in_the_jobs_environment_no_graphs_are_kept(tmp_path: Path) -> None:
    tells = {"serve_command": ["bash", "-c", 'echo "cfg ${PT_HPU_RECIPE_CACHE_CONFIG:-none}"']}
    params = ServerParams.model_validate({"name": "s", "model": "m"} | tells)
    site = site_with(device="gaudi", node_disk=str(tmp_path / "disk"), activate=["export PATH=/usr/bin:/bin"])

    done = run_by_bash(script_of(params, workspace=tmp_path.resolve(), site=site))

    assert done.stdout.endswith("cfg none\n"), done.stderr
    assert not (tmp_path / "disk").exists()


def hostile_of(field: str, value: str) -> object:
    """Return a hostile value of the field's kind; None for a field that holds no text."""
    kind = str(SiteParams.model_fields[field].annotation)
    if "Literal" in kind or "str" not in kind:
        return None
    return {"HOSTILE": value} if "dict" in kind else [value] if "list" in kind else value


# `activate` is shell by its nature: its lines are taken as they are, and the docs say so.
FIELDS = [name for name in SiteParams.model_fields if name != "activate" and hostile_of(name, "x") is not None]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", ["$(touch pwned)", "'; touch pwned; '", "`touch pwned`\n#SBATCH --qos=x", 'a" b\\'])
def test_no_text_of_a_site_file_reaches_the_shell_of_a_job(tmp_path: Path, field: str, value: str) -> None:
    params = ServerParams.model_validate({"name": "s", "model": "m", "serve_command": ["true"]})
    plain = site_with(device="gaudi")
    try:
        site = SiteParams.model_validate(plain.model_dump() | {field: hostile_of(field, value)})
        text = script_of(params, workspace=tmp_path.resolve(), site=site)
    except (ParamsError, ValidationError):
        return

    run_by_bash(text)

    def directives(script: str) -> set[str]:
        head = script.partition("\n\n")[0].splitlines()
        return {line.partition("=")[0] for line in head if line.startswith("#SBATCH")}

    assert directives(text) - directives(script_of(params, workspace=tmp_path, site=plain)) <= {
        f"#SBATCH --{field}".replace("_", "-")
    }
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith("pwned")]
    assert not Path("pwned").exists()
