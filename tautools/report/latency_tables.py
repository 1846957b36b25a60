"""The tables of the report on latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.report.numbers import count, measured, percent
from tautools.report.table import Column, Table
from tautools.report.timings import METRICS
from tautools.stats import PERCENTILES, SLA_S, summarize

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from tautools.report.cells import ReportCell
    from tautools.report.table import Entry
    from tautools.report.timings import CallGroup
    from tautools.stats import LatencySummary

__all__ = ["call_source_table", "cell_table", "latency_table", "token_table", "turn_table"]

_EMPTY = "n = 0: no model call was recorded."
_TURNS = (
    "From the first request of a turn to the end of its last: tool calls, retries and waits between are in it. "
    "Finished conversations only."
)
_ROWS = (
    "Rows of calls/*.jsonl of the planned tasks with a trial below trials and a role of the conversation; figures take "
    "those without a fault."
)
_WORDS = ("role", "model")
_FIGURES = (Column("n"), *(Column(f"p{percent_}") for percent_ in PERCENTILES), Column(f"under {SLA_S:g} s"))


def latency_table(groups: Sequence[CallGroup]) -> Table:
    """Return every metric of every role and model with its percentiles and the share under 5 s."""
    rows: list[tuple[Entry, ...]] = [
        (
            _who(group),
            (_short(group.model), "SIMULATED" if group.simulated else ""),
            f"{timing.metric.name} [{timing.metric.unit}]",
            tuple(timing.source.split(", ")),
            *_figures(timing.summary, timing.metric.scale),
        )
        for group in groups
        for timing in group.timings
        if timing.summary.n or not timing.metric.server
    ]
    used = [metric for metric in METRICS if any(group.timing(metric.column).summary.n for group in groups)]
    return Table(
        "Latency by role and model",
        (*(Column(name, number=False) for name in (*_WORDS, "what", "source")), *_FIGURES),
        tuple(rows),
        (
            *(["; ".join(f"{metric.name}: {metric.meaning}" for metric in used) + "."] if used else []),
            (
                "Source: `streamed` was measured here chunk by chunk, `wall` around a whole answer (no first token), "
                "`server` is the server's own word. Calls that failed enter no figure; n = 0 means never measured."
            ),
        ),
        _EMPTY,
    )


def turn_table(turns: pd.DataFrame) -> Table:
    """Return what a customer waits for: user's message to the agent's next words, tool loops included."""
    rows: list[tuple[Entry, ...]] = [
        (
            _marked(_short(str(model)), part),
            *_figures(summarize(part["turn_s"].tolist()), 1.0),
            measured(float(part["requests"].mean())),
        )
        for model, part in turns.groupby("agent_model")
    ]
    return Table(
        "What a customer waits for: one turn of the agent [s]",
        (Column("agent model", number=False), *_FIGURES, Column("requests a turn")),
        tuple(rows),
        (_TURNS,),
        "n = 0: no turn of a finished conversation was recorded.",
    )


def cell_table(calls: pd.DataFrame) -> Table:
    """Return the agent's E2E for every env, strategy and model."""
    agent = calls[(calls["role"] == "agent") & (calls["fault"] == "")]
    found = [
        (str(env), str(strategy), _short(str(model)), str(setting_id), part)
        for (env, strategy, model, setting_id), part in agent.groupby(["env", "strategy", "agent_model", "setting_id"])
    ]
    named = [each[:3] for each in found]
    rows: list[tuple[Entry, ...]] = [
        (
            env,
            strategy,
            _marked(model if named.count((env, strategy, model)) == 1 else f"{model} [{setting_id[:8]}]", part),
            *_figures(summarize(part["e2e_s"].dropna().tolist()), 1.0),
        )
        for env, strategy, model, setting_id, part in found
    ]
    return Table(
        "The agent's requests by setting: E2E [s]",
        (*(Column(name, number=False) for name in ("env", "strategy", "model")), *_FIGURES),
        tuple(rows),
        (),
        _EMPTY,
    )


def token_table(groups: Sequence[CallGroup]) -> Table:
    """Return token totals, answered calls and faults of every role and model."""
    rows = [
        (
            _who(group),
            (_short(group.model), "SIMULATED" if group.simulated else ""),
            count(group.answered),
            count(group.tokens.prompt),
            _cached(group),
            count(group.tokens.output),
            count(group.tokens.calls_without_usage),
            ", ".join(f"{fault} {count(number)}" for fault, number in group.faults.items()) or "0",
        )
        for group in groups
    ]
    names = ("calls answered", "prompt tokens", "of them cached", "output tokens", "without usage", "calls failed")
    return Table(
        "Tokens by role and model",
        (*(Column(name, number=False) for name in _WORDS), *(Column(name) for name in names)),
        tuple(rows),
        ("Totals over answered calls, those of conversations that did not finish among them.",),
        _EMPTY,
    )


def call_source_table(cells: Sequence[ReportCell], calls: pd.DataFrame) -> Table:
    """Return which folders the calls come from and how many of their rows were used."""
    used = calls["folder"].value_counts()
    rows = [
        (cell.place, str(cell.num_trials), str(len(cell.tasks)), count(int(used.get(str(cell.folder), 0))))
        for cell in cells
    ]
    return Table(
        "Folders and rows",
        (Column("folder", number=False), Column("trials"), Column("tasks"), Column("calls used")),
        tuple(rows),
        (_ROWS,),
        _EMPTY,
    )


def _figures(summary: LatencySummary, scale: float) -> tuple[str, ...]:
    """Write a summary in units of 1/scale s; only what is told in seconds is held against the promise."""
    found = (summary.percentiles_s.get(each) for each in PERCENTILES)
    values = (measured(None if value is None else value * scale) for value in found)
    promised = percent(summary.share_under) if scale == 1.0 else "–"
    return count(summary.n), *values, promised


def _who(group: CallGroup) -> str | tuple[str, str]:
    """Write whose calls they are: the role, and an expert's name under it."""
    return (group.role, group.expert) if group.expert else group.role


def _marked(name: str, part: pd.DataFrame) -> tuple[str, str]:
    """Write a model's name, marked when any of its rows is simulated."""
    return name, "SIMULATED" if part["simulated"].any() else ""


def _cached(group: CallGroup) -> str | tuple[str, str]:
    tokens = group.tokens
    if group.answered and tokens.calls_without_cached == group.answered:
        return "not reported"
    return count(tokens.cached), percent(tokens.cached / tokens.prompt if tokens.prompt else None)


def _short(model: str) -> str:
    return model.rstrip("/").rsplit("/", 1)[-1]
