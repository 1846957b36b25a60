"""Many cells: plan, servers, papermill, status."""

from tautools.sweep.cells import SweepCell, expand, open_cell, parse_indices
from tautools.sweep.plan import SweepPlan, outline_sweep, plan_sweep
from tautools.sweep.run import run_sweep
from tautools.sweep.servers import serving
from tautools.sweep.status import CellStatus, SweepEvent, SweepResult, SweepStatus, require_finished, sweep_status
