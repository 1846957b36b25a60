"""Statistics as arithmetic: arrays and counts in, numbers out; touches nothing else.

The sampling unit is the task: trials of one task are alike, so nothing here pools trials over tasks. A figure that has
nothing to be computed from is a `StatsError` or says n = 0; it is never 0.
"""

from tautools.stats.intervals import (
    Interval,
    binomial_tail,
    exact_interval,
    interval,
    intervals,
)
from tautools.stats.latency import (
    PERCENTILES,
    SLA_S,
    Histogram,
    LatencySummary,
    histogram,
    summarize,
    time_per_output_token_s,
)
from tautools.stats.pass_k import TaskCounts, largest_k, mean_over_tasks, pass_at_k, pass_hat_k, task_values
from tautools.stats.variance import PairedEffect, Spread, paired_effect, spread
