"""A workspace whose jobs are all gone when the test ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tautools.servers import Registry
from tautools.slurm.client import Slurm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def workspace(tmp_path: Path, slurm: Path) -> Iterator[Path]:
    folder = tmp_path / "work space"
    folder.mkdir()
    yield folder
    for record in Registry(folder).list():
        Slurm().cancel(record.job_id)
