"""The two sentences that open the report on latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.report.numbers import measured, percent, plural
from tautools.report.opening import Opening
from tautools.stats import SLA_S, summarize

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["latency_opening"]


def latency_opening(calls: pd.DataFrame, turns: pd.DataFrame, workspace: str) -> Opening:
    """Say how long the agent's requests take and what a customer waits for."""
    if calls.empty:
        return Opening(
            f"There are no model calls under {workspace}/results.",
            "Next: run a cell (`tautools run --help` shows how) or a sweep (`tautools sweep run NAME`).",
        )
    return Opening(_requests(calls), _turns(turns), bool(calls["simulated"].any()))


def _requests(calls: pd.DataFrame) -> str:
    answered = calls[calls["fault"] == ""]
    failed = len(calls) - len(answered)
    lost = f"{plural(failed, 'further call')} failed and {'is' if failed == 1 else 'are'} left out"
    agent = answered.loc[answered["role"] == "agent", "e2e_s"].dropna()
    models = answered.loc[answered["role"] == "agent", "model"].nunique()
    if agent.empty:
        return f"No request of an agent was answered (n = 0); {lost}."
    found = summarize(agent.tolist())
    over = f"{plural(models, 'agent model')}, " if models > 1 else ""
    return (
        f"The agent's requests took {measured(found.percentiles_s[50])} s at the median and "
        f"{measured(found.percentiles_s[99])} s at the 99th percentile ({over}{plural(found.n, 'request')}, "
        f"{percent(found.share_under)} under {SLA_S:g} s); {lost if failed else 'no call failed'}."
    )


def _turns(turns: pd.DataFrame) -> str:
    if turns.empty:
        return "What a customer waits for is not known: no conversation is finished (n = 0)."
    found = summarize(turns["turn_s"].tolist())
    return (
        f"A customer waited {measured(found.percentiles_s[50])} s for the agent's next words at the median and "
        f"{measured(found.percentiles_s[90])} s at the 90th percentile, tool calls included "
        f"({plural(found.n, 'turn')}, {percent(found.share_under)} under {SLA_S:g} s)."
    )
