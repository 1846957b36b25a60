"""Many cells: plan, servers, papermill, status."""

from tautools.sweep.cells import SweepCell, expand, open_cell, parse_indices
from tautools.sweep.outline import SweepOutline, outline_sweep
from tautools.sweep.plan import SweepPlan, plan_sweep
from tautools.sweep.result import SweepEvent, SweepResult, require_finished
from tautools.sweep.servers import ServerNeed, server_needs, serving
from tautools.sweep.status import CellStatus, SweepStatus, sweep_status
from tautools.sweep.work import run_sweep

__all__ = [
    "CellStatus",
    "ServerNeed",
    "SweepCell",
    "SweepEvent",
    "SweepOutline",
    "SweepPlan",
    "SweepResult",
    "SweepStatus",
    "expand",
    "open_cell",
    "outline_sweep",
    "parse_indices",
    "plan_sweep",
    "require_finished",
    "run_sweep",
    "server_needs",
    "serving",
    "sweep_status",
]
