"""A workspace whose servers are all gone when the test ends."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tautools.servers import Registry
from tautools.shell import group_members, stop_group

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def tiny_model(vllm_command: str, tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Path:
    """A random model of half a megabyte that often calls tools."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    python = Path(vllm_command).with_name("python")
    maker = repo / "tests" / "support" / "make_tiny_model.py"
    subprocess.run([python, maker, folder, "--first", "<tool_call>=0.6"], check=True, capture_output=True)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "work space"
    folder.mkdir()
    yield folder
    for record in Registry(folder).list():
        if record.pid is not None and record.pid_started_at is not None:
            stop_group(record.pid, record.pid_started_at, term_s=0.0)
            assert group_members(record.pid, record.pid_started_at) == []
