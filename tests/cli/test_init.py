"""`tautools init` writes a workspace and never overwrites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import called, listing

from tautools.params import load_server, load_site, load_sweep, shipped
from tautools.session import find_agent_project, plan_init, write_workspace


def test_a_workspace_has_params_with_comments_notebooks_and_folders(tmp_path: Path) -> None:
    workspace = tmp_path / "my work"
    result = called("init", str(workspace), "--site", "sol-gaudi")
    assert result.code == 0
    assert "tautools doctor --site sol-gaudi" in result.out
    site = workspace / "params" / "sites" / "sol-gaudi.yaml"
    assert site.read_bytes() == (shipped("params") / "sites" / "sol-gaudi.yaml").read_bytes()
    assert {"logs", "errors", "results"} <= {path.name for path in workspace.iterdir() if path.is_dir()}
    assert load_sweep("sol-gaudi-120", workspace=workspace).site == "sol-gaudi"
    for role in load_sweep("sol-gaudi-120", workspace=workspace).grid.agent:
        assert role.server is not None
        assert (workspace / "params" / "servers" / f"{role.server}.yaml").is_file()
        assert load_server(role.server, workspace=workspace).serves == role.model
    shipped_notebooks = {path.name for path in shipped("notebooks").glob("[0-9]*.ipynb")}
    assert {path.name for path in (workspace / "notebooks").iterdir()} == shipped_notebooks
    assert "tautools sweep run sol-gaudi-120" in (workspace / "README.md").read_text()


def test_the_local_site_brings_its_sweeps_and_every_server_that_they_name(tmp_path: Path) -> None:
    assert called("init", str(tmp_path)).code == 0
    assert load_site("local", workspace=tmp_path).scheduler == "none"
    own = {path.stem for path in (tmp_path / "params" / "servers").iterdir()}
    assert own == {"sim-small", "sim-large", "sim-user"} | {
        "nemotron-orchestrator-8b", "gpt-oss-20b", "qwen3-32b-fp8", "qwen3-next-80b-a3b-fp8"
    }  # fmt: skip
    assert {path.stem for path in (tmp_path / "params" / "sweeps").iterdir()} == {"demo", "demo-full", "oss-tau2"}


def test_the_notebooks_of_a_workspace_use_it_wherever_their_kernel_starts(tmp_path: Path) -> None:
    workspace = tmp_path / 'it\'s my "work"'
    assert called("init", str(workspace)).code == 0
    for copy in (workspace / "notebooks").iterdir():
        before = json.loads((shipped("notebooks") / copy.name).read_text())["cells"]
        after = json.loads(copy.read_text())["cells"]
        changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert [new["metadata"]["tags"] for _, new in changed] == [["parameters"]]
        names: dict[str, object] = {}
        exec("".join(changed[0][1]["source"]), names)
        assert names["workspace"] == str(workspace)


def test_a_second_init_changes_nothing_and_says_so(tmp_path: Path) -> None:
    called("init", str(tmp_path))
    before = listing(tmp_path)
    result = called("init", str(tmp_path))
    assert result.code == 0
    assert "was complete already; nothing was changed" in result.out
    assert listing(tmp_path) == before


def test_what_exists_is_kept_and_named(tmp_path: Path) -> None:
    mine = tmp_path / "params" / "sites" / "local.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("name: local\ndescription: mine\n")
    (tmp_path / "README.md").symlink_to("nowhere")
    result = called("init", str(tmp_path))
    assert mine.read_text() == "name: local\ndescription: mine\n"
    assert (tmp_path / "README.md").is_symlink()
    assert "kept  params/sites/local.yaml" in result.out
    assert "kept  README.md" in result.out
    assert (tmp_path / "params" / "sweeps" / "demo.yaml").is_file()


def test_a_file_that_appears_between_plan_and_writing_is_kept(tmp_path: Path) -> None:
    plan = plan_init(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    made = write_workspace(plan)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert tmp_path / "README.md" in made.kept


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = called("init", str(tmp_path / "w"), "--dry-run")
    assert result.code == 0
    assert "would write  params/sites/local.yaml" in result.out
    assert listing(tmp_path) == {}


def test_json_lists_what_was_written(tmp_path: Path) -> None:
    told = json.loads(called("init", str(tmp_path / "w"), "--json").out)
    assert told["kept"] == []
    assert all(Path(path).is_file() for path in told["written"])


@pytest.mark.parametrize("where", [".", "params", "results", "params/sites"])
def test_a_file_where_a_folder_belongs_is_an_error_before_anything_is_written(tmp_path: Path, where: str) -> None:
    workspace = tmp_path / "w"
    (workspace / where).parent.mkdir(parents=True, exist_ok=True)
    (workspace / where).write_text("")
    before = listing(tmp_path)
    result = called("init", str(workspace))
    assert result.code == 2
    assert "is a file" in result.err
    assert listing(tmp_path) == before


def test_a_disk_that_takes_nothing_is_an_error(tmp_path: Path) -> None:
    result = called("init", "/proc/tautools-workspace")
    assert result.code == 1
    assert "/proc cannot be written to" in result.err
    assert "Next: Choose a folder you can write to" in result.err


@pytest.fixture
def agent_project(tmp_path: Path) -> Path:
    """A folder as the users of the cluster have it."""
    folder = tmp_path / "agent project"
    for name in ("logs", "errors", "results/retail/react/4B", "results/airline/act/4B", "tau-bench/tau_bench"):
        (folder / name).mkdir(parents=True)
    for name in ("assistant-server.sh", "user-server.sh", "user-vllm-job.sh", "tau-experiment.sh"):
        (folder / name).write_text("#!/bin/bash\nexit 1\n")
    (folder / "logs" / "user_vllm_123.out").write_text("Starting USER vLLM server\n")
    (folder / "results" / "retail" / "react" / "4B" / "num_trials-1.json").write_text("[]")
    (folder / "results" / "airline" / "act" / "4B" / "num_trials-3.json").write_text("[]")
    return folder


def test_an_agent_project_is_recognised_and_told_how_it_maps(agent_project: Path) -> None:
    before = listing(agent_project)
    result = called("init", str(agent_project), "--site", "sol-gaudi")
    assert result.code == 0
    assert "is laid out like an agent-project. Nothing of it is changed." in result.out
    assert "tau-experiment.sh: its work is done by `tautools sweep run sol-gaudi-120`" in result.out
    assert f"path {agent_project / 'tau-bench'}" in result.out
    assert "2 num_trials files of 2 settings" in result.out
    after = listing(agent_project)
    files = {name: seen for name, seen in before.items() if (agent_project / name).is_file()}
    assert {name: after[name] for name in files} == files


def test_the_checkout_of_an_agent_project_goes_into_the_sweep(agent_project: Path) -> None:
    called("init", str(agent_project), "--site", "sol-gaudi")
    assert load_sweep("sol-gaudi-120", workspace=agent_project).path == str(agent_project / "tau-bench")


def test_results_are_found_by_env_strategy_and_model(agent_project: Path) -> None:
    found = find_agent_project(agent_project)
    assert found is not None
    assert [each.relative_to(agent_project / "results").as_posix() for each in found.results] == [
        "airline/act/4B/num_trials-3.json",
        "retail/react/4B/num_trials-1.json",
    ]


def test_any_other_folder_is_no_agent_project(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "errors").mkdir()
    assert find_agent_project(tmp_path) is None
