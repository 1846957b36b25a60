"""A workspace whose servers are all gone when the test ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tautools.server import Registry
from tautools.shell import group_members, stop_group

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "work space"
    folder.mkdir()
    yield folder
    for record in Registry(folder).list():
        if record.pid is not None and record.pid_started_at is not None:
            stop_group(record.pid, record.pid_started_at, term_s=0.0)
            assert group_members(record.pid, record.pid_started_at) == []
