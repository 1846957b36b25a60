"""Latencies as numbers: percentiles, the share under a promise, histograms. Seconds everywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tautools.errors import StatsError

PERCENTILES = (10, 25, 40, 50, 75, 90, 95, 99)
SLA_S = 5.0
"""The promise that shares are counted under [s]."""


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """What a set of latencies looks like; of nothing it says n = 0 and no figure."""

    n: int
    percentiles_s: Mapping[int, float]
    """Percent to seconds; empty when n is 0."""
    mean_s: float | None
    share_under: float | None
    """Share below `threshold_s`, in [0, 1]; None when n is 0."""
    threshold_s: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges."""

    edges_s: tuple[float, ...]
    """One more than there are counts, rising [s]."""
    counts: tuple[int, ...]


def time_per_output_token_s(decode_s: float | None, output_tokens: int | None) -> float | None:
    """Return a request's TPOT [s]: decode time over output tokens less one.

    As vLLM defines it (`mean_time_per_output_token` in `vllm/v1/metrics/stats.py`, 0.32): from the first token to the
    last, over the steps between them. The end token is the last one: the server counts it, so its time must be in
    `decode_s` too. None where the decode time or the count is not known, or there was one token.
    """
    return decode_s / (output_tokens - 1) if decode_s is not None and output_tokens and output_tokens > 1 else None


def summarize(values_s: Sequence[float], *, threshold_s: float = SLA_S) -> LatencySummary:
    """Return n, the percentiles of `PERCENTILES`, the mean and the share strictly under `threshold_s`.

    Raises
    ------
    StatsError
        When a value is negative or not a number.
    """
    import numpy as np

    values = np.asarray(values_s, dtype=float)
    if len(values) == 0:
        return LatencySummary(0, {}, None, None, threshold_s)
    if not np.isfinite(values).all() or (values < 0).any():
        raise StatsError("A latency is negative or not a number.", next_step="Look at the call records' clocks.")
    percentiles = np.percentile(values, PERCENTILES)
    return LatencySummary(
        n=len(values),
        percentiles_s={percent: float(value) for percent, value in zip(PERCENTILES, percentiles, strict=True)},
        mean_s=float(values.mean()),
        share_under=float((values < threshold_s).mean()),
        threshold_s=threshold_s,
    )


def histogram(values_s: Sequence[float], *, bins: int = 30) -> Histogram:
    """Return counts in `bins` equal steps of the logarithm, or in one bin when all values are alike.

    Latencies spread over orders of magnitude, so equal steps of the logarithm show both the bulk and the tail. Values
    below 0.1 ms are counted as 0.1 ms.

    Raises
    ------
    StatsError
        When there are no values.
    """
    import numpy as np

    if len(values_s) == 0:
        raise StatsError("A histogram of nothing (n = 0).", next_step="Check that calls were recorded.")
    values = np.maximum(np.asarray(values_s, dtype=float), 1e-4)
    low, high = float(values.min()), float(values.max())
    if high <= low * 1.001:
        return Histogram((low * 0.95, high * 1.05), (len(values),))
    edges = np.geomspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high  # the logarithm's rounding must not push the ends out
    counts, _ = np.histogram(values, bins=edges)
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))
