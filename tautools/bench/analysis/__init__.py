"""What finished conversations did, read from a replay without asking a model: failures, rules, baselines."""

from __future__ import annotations

from tautools.bench.analysis.failures import (
    ActionMatch,
    ActionStatus,
    FailureAnalysis,
    FieldDifference,
    analyze_failure,
)

__all__ = ["ActionMatch", "ActionStatus", "FailureAnalysis", "FieldDifference", "analyze_failure"]
