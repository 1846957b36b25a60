"""The report on latency: what `31_latency.ipynb` shows, one property a cell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.report.cells import find_cells, pools
from tautools.report.draw_latency import draw_calls, draw_turns
from tautools.report.frames import call_frame, turn_frame
from tautools.report.latency_tables import call_source_table, cell_table, latency_table, token_table, turn_table
from tautools.report.latency_words import latency_opening
from tautools.report.picture import Gallery
from tautools.report.saving import save
from tautools.report.timings import call_groups
from tautools.stats import SLA_S, histogram, summarize

if TYPE_CHECKING:
    import pandas as pd

    from tautools.report.cells import ReportCell
    from tautools.report.opening import Opening
    from tautools.report.picture import Picture
    from tautools.report.saving import Saved
    from tautools.report.table import Table
    from tautools.report.timings import CallGroup, Timing
    from tautools.stats import LatencySummary

__all__ = ["LatencyReport", "latency_report"]


@dataclass(frozen=True)
class LatencyReport:
    """Latencies of cells' model calls, ready to be shown and saved."""

    workspace: Path
    sweep: str
    cells: tuple[ReportCell, ...]
    """Those that are not nested: each call counts once."""
    calls: pd.DataFrame
    """Every attempt at a model request, for questions of your own."""
    turns: pd.DataFrame
    """Every turn of the agent in a finished conversation."""
    groups: tuple[CallGroup, ...]

    @property
    def simulated(self) -> bool:
        """Whether a simulated model answered any call."""
        return any(group.simulated for group in self.groups)

    @property
    def opening(self) -> Opening:
        """Two sentences: how long requests take, and what a customer waits for."""
        return latency_opening(self.calls, self.turns, str(self.workspace))

    @property
    def by_role(self) -> Table:
        """Percentiles of every metric by role and model."""
        return latency_table(self.groups)

    @property
    def turn_times(self) -> Table:
        """What a customer waits for, by agent model."""
        return turn_table(self.turns)

    @property
    def by_setting(self) -> Table:
        """The agent's E2E by env, strategy and model."""
        return cell_table(self.calls)

    @property
    def tokens(self) -> Table:
        """Token totals by role and model."""
        return token_table(self.groups)

    @property
    def sources(self) -> Table:
        """Where the figures come from."""
        return call_source_table(self.cells, self.calls)

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables, in the order of the report."""
        return self.by_role, self.turn_times, self.by_setting, self.tokens, self.sources

    @cached_property
    def histograms(self) -> Gallery:
        """One picture for each role and model."""
        return Gallery(draw_calls(group) for group in self.groups)

    @cached_property
    def turn_figure(self) -> Picture:
        """Histograms of what customers wait for."""
        return draw_turns(self.turns, simulated=self.simulated)

    def to_json(self) -> dict[str, Any]:
        """Return every figure with the rows it was computed from."""
        return {
            "report": "latency",
            "workspace": str(self.workspace),
            "sweep": self.sweep,
            "simulated": self.simulated,
            "opening": [self.opening.first, self.opening.second],
            "share_threshold_s": SLA_S,
            "groups": [_group_json(group) for group in self.groups],
            "turns": _turns_json(self.turns),
            "rows": [_rows_json(cell, self.calls) for cell in self.cells],
            "tables": [table.to_markdown() for table in self.tables],
        }

    def save(self, out: str | Path = "") -> Saved:
        """Write `profile_analysis.json` and the figures into `out`; nothing when it is empty."""
        return save(out, "profile_analysis.json", self.to_json(), (*self.histograms, self.turn_figure))


def latency_report(*, workspace: str | Path = ".", sweep: str = "") -> LatencyReport:
    """Read the model calls of a workspace and compute their latencies; no calls make an empty report.

    Parameters
    ----------
    workspace : str or Path
        The folder that holds `results/`.
    sweep : str
        Name or path of a sweep file; empty for everything under `results/`.

    Raises
    ------
    ParamsError, BenchError, RunError
        A sweep that does not exist or cannot be planned; results that cannot be read.
    """
    place = Path(workspace)
    cells = tuple(pools(find_cells(place, sweep or None)))
    calls = call_frame(cells)
    return LatencyReport(place, sweep, cells, calls, turn_frame(calls, cells), tuple(call_groups(calls)))


def _group_json(group: CallGroup) -> dict[str, Any]:
    return {
        "role": group.role,
        "expert": group.expert,
        "model": group.model,
        "simulated": group.simulated,
        "answered": group.answered,
        "where": f"role = {group.role} and {_expert(group)}model = {group.model} and fault is empty",
        "metrics": {each.metric.column: _timing_json(each) for each in group.timings},
        "tokens": asdict(group.tokens),
        "faults": dict(group.faults),
    }


def _expert(group: CallGroup) -> str:
    return f"expert = {group.expert} and " if group.expert else ""


def _timing_json(timing: Timing) -> dict[str, Any]:
    found = timing.histogram
    return {
        **_summary_json(timing.summary),
        "source": timing.source,
        "histogram": None if found is None else asdict(found),
    }


def _summary_json(summary: LatencySummary) -> dict[str, Any]:
    percentiles = {f"p{place}_s": value for place, value in summary.percentiles_s.items()}
    return {"n": summary.n, **percentiles, "mean_s": summary.mean_s, "share_under_5_s": summary.share_under}


def _turns_json(turns: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "agent_model": str(model),
            **_summary_json(summarize(part["turn_s"].tolist())),
            "histogram": asdict(histogram(part["turn_s"].tolist())),
        }
        for model, part in turns.groupby("agent_model")
    ]


def _rows_json(cell: ReportCell, calls: pd.DataFrame) -> dict[str, Any]:
    return {
        "files": sorted(str(path) for path in (cell.folder / "calls").glob("*.jsonl")),
        "where": f"setting_id = {cell.setting_id} and trial < {cell.num_trials}",
        "tasks": list(cell.tasks),
        "used": int((calls["setting_id"] == cell.setting_id).sum()),
    }
