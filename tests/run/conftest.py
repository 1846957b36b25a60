from __future__ import annotations

import contextlib

import pytest

from tautools.run.ledger import ResultsWriter
from tautools.run.worker import Claims


@pytest.fixture
def open_writer():
    """Opens writers that are closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda folder: stack.enter_context(contextlib.closing(ResultsWriter(folder)))


@pytest.fixture
def open_claims():
    """Opens claims that are given up at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda folder, name: stack.enter_context(contextlib.closing(Claims(folder, name)))
