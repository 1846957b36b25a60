from __future__ import annotations

import numpy as np
import pytest

from tautools.errors import StatsError
from tautools.stats import TaskCounts, spread

PUBLISHED = [TaskCounts(4, passed) for passed, tasks in enumerate((14, 12, 10, 4, 10)) for _ in range(tasks)]


def test_the_published_counts_give_the_reference_spread() -> None:
    result = spread(PUBLISHED)
    assert result.clustered_se == pytest.approx(0.052216, abs=5e-7)
    assert result.icc == pytest.approx(0.40458, abs=5e-6)
    assert result.flips == pytest.approx(0.52)


def test_the_intraclass_correlation_of_unequal_trials_finds_the_true_one() -> None:
    rng = np.random.default_rng(5)
    solves = rng.beta(0.75, 0.75, 4000)  # its true correlation is 1 / (0.75 + 0.75 + 1) = 0.4
    counts = [
        TaskCounts(n, int(rng.binomial(n, p))) for n, p in zip(rng.integers(2, 6, 4000).tolist(), solves, strict=True)
    ]
    assert spread(counts).icc == pytest.approx(0.4, abs=0.03)


def test_what_the_counts_do_not_allow_is_none() -> None:
    alone = spread([TaskCounts(4, 2)])
    assert (alone.clustered_se, alone.icc, alone.flips) == (None, None, 1.0)
    assert spread([TaskCounts(1, 1), TaskCounts(1, 0)]).icc is None
    assert spread([TaskCounts(3, 3), TaskCounts(3, 3)]).icc is None
    with pytest.raises(StatsError, match="n = 0"):
        spread([])


def test_single_trials_tell_nothing_about_flips() -> None:
    assert spread([TaskCounts(1, 1), TaskCounts(1, 0)]).flips is None
    assert spread([TaskCounts(1, 1), TaskCounts(2, 1)]).flips == 1.0
