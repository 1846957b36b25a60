"""Import results of other programs: tau-bench v1, tau2-bench, inspect, and `num_trials-<n>.json` of our own."""

from __future__ import annotations

from tautools.importers.importing import import_results, read_files, write_import
from tautools.importers.plan import ImportPlan, ImportRequest, plan_import
from tautools.importers.rows import RowStatus, SourceFacts, SourceFile, SourceRow

__all__ = [
    "ImportPlan",
    "ImportRequest",
    "RowStatus",
    "SourceFacts",
    "SourceFile",
    "SourceRow",
    "import_results",
    "plan_import",
    "read_files",
    "write_import",
]
