"""The envs, loaded once for all tests of this room."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path

import inspect_oracle
import pytest

from tautools.bench import open_source
from tautools.bench.types import Domain

ENVS = ("airline", "retail")


@pytest.fixture(params=ENVS)
def domain(request: pytest.FixtureRequest) -> Domain:
    """One env after the other."""
    return open_source().domain(request.param)


@pytest.fixture(scope="session")
def retail() -> Domain:
    """The retail env."""
    return open_source().domain("retail")


@pytest.fixture
def bearable_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The package without the costs that change no result; what it unpacks goes where pytest cleans up.

    Hundreds of databases of 100 000 objects each are two thirds cheaper without the search for cycles among them.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    inspect_oracle.make_bearable(monkeypatch)
    gc.disable()
    yield
    gc.enable()
