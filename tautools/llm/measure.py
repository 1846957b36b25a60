"""The record of one attempt, made from what arrived and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tautools.records import CallRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.errors import ModelCallError
    from tautools.llm.incoming import Incoming, Said
    from tautools.llm.types import CallTag, Endpoint

__all__ = ["failed", "finished", "gap_summary"]


def finished(tag: CallTag, endpoint: Endpoint, incoming: Incoming, said: Said, **further: Any) -> CallRecord:
    """Return the record of a call that succeeded.

    Parameters
    ----------
    tag : CallTag
        The request's place in its conversation.
    endpoint : Endpoint
        Who was asked.
    incoming : Incoming
        What arrived, and when.
    said : Said
        What it says; of its thinking only the length [characters] is kept.
    **further
        `keep_itl`: whether each gap between chunks [s] is kept, not only their summary; and fields of the record that
        the caller knows: `started_at`, `queue_s`, `attempt`.
    """
    return _record(
        tag, endpoint, incoming, finish_reason=said.finish_reason, thinking_chars=len(said.thinking), **further
    )


def failed(tag: CallTag, endpoint: Endpoint, incoming: Incoming, error: ModelCallError, **further: Any) -> CallRecord:
    """Return the record of a call that failed, with what had arrived by then.

    Parameters
    ----------
    tag, endpoint, incoming, **further
        As in `finished`.
    error : ModelCallError
        Why it failed; its status counts before the one that arrived.
    """
    told: dict[str, Any] = {
        "fault": error.fault.value,
        "status": error.status or incoming.status,
        "error": error.problem,
    }
    return _record(tag, endpoint, incoming, **told, **further)


def gap_summary(gaps: Sequence[float]) -> dict[str, float]:
    """Return mean, p50, p99 (linear between ranks) and maximum of the gaps [s]; nothing for no gaps."""
    if not gaps:
        return {}
    ranked = sorted(gaps)
    return {
        "itl_mean_s": sum(ranked) / len(ranked),
        "itl_p50_s": _percentile(ranked, 0.50),
        "itl_p99_s": _percentile(ranked, 0.99),
        "itl_max_s": ranked[-1],
    }


def _percentile(ranked: Sequence[float], share: float) -> float:
    at = share * (len(ranked) - 1)
    below = int(at)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (ranked[above] - ranked[below]) * (at - below)


def _record(tag: CallTag, endpoint: Endpoint, incoming: Incoming, *, keep_itl: bool, **further: Any) -> CallRecord:
    return CallRecord(
        role=tag.role,
        expert=tag.expert,
        env=tag.env,
        task_id=tag.task_id,
        trial=tag.trial,
        turn=tag.turn,
        step=tag.step,
        purpose=tag.purpose,
        setting_id=tag.setting_id,
        endpoint=endpoint.base_url or endpoint.provider,
        model=endpoint.model,
        simulated=endpoint.simulated or incoming.fingerprint.startswith("SIMULATED"),
        itl_s=list(incoming.gaps) if keep_itl else None,
        source=incoming.source,
        cost_usd=incoming.cost_usd,
        **_times(incoming),
        **_tokens(incoming.usage),
        **_told_by_server(incoming.metrics),
        **{"status": incoming.status, **further},
    )


def _times(incoming: Incoming) -> dict[str, Any]:
    times: dict[str, Any] = {"chunks": incoming.chunks, **gap_summary(incoming.gaps)}
    if incoming.first is not None:
        times["ttft_s"] = incoming.first - incoming.started
        times["decode_s"] = incoming.last - incoming.first
    if incoming.ended is not None:
        times["e2e_s"] = incoming.ended - incoming.started
    return times


def _tokens(usage: dict[str, Any]) -> dict[str, Any]:
    details = usage.get("prompt_tokens_details") or {}
    return {
        "prompt_tokens": _count(usage.get("prompt_tokens")),
        "cached_tokens": _count(details.get("cached_tokens")) if isinstance(details, dict) else None,
        "output_tokens": _count(usage.get("completion_tokens")),
    }


def _told_by_server(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return vLLM's own times of this request, which it tells with `--enable-per-request-metrics`."""
    names = {
        "server_queue_s": "queue_time_ms",
        "server_ttft_s": "time_to_first_token_ms",
        "server_generation_s": "generation_time_ms",
    }
    return {ours: _seconds(metrics.get(theirs)) for ours, theirs in names.items()}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _seconds(milliseconds: Any) -> float | None:
    return milliseconds / 1000 if isinstance(milliseconds, int | float) else None
