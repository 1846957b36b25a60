"""The record of one attempt at a request: whose it was, and what arrived when."""

from collections.abc import Sequence
from typing import Any

from tautools.llm.answers import answer_flags, said_first
from tautools.llm.faults import excerpt
from tautools.llm.stream import StreamParser, token_counts
from tautools.llm.types import REFUSAL_CHECK, CallTag, Completion, Endpoint, Message, ToolSpec
from tautools.records import CallRecord, Role

_FLAGGED_CHARS = 300

_FROM_TAG = ("role", "expert", "task_id", "trial", "turn", "step", "purpose", "setting_id")

_SERVER_TIMES = {
    "server_queue_s": "queue_time_ms",
    "server_prefill_s": "time_to_first_token_ms",
    "server_generation_s": "generation_time_ms",
}
"""vLLM's own times of a request, which it sends with `--enable-per-request-metrics`, by our names.

Its `time_to_first_token_ms` runs from scheduling (`build_per_request_timing_metrics` in 0.32), so it is the prefill
time of its histograms and leaves out what its `time_to_first_token_seconds` has: the way to the engine and the queue.
"""


def call_record(
    tag: CallTag, endpoint: Endpoint, parser: StreamParser, *, keep_itl: bool, **further: Any
) -> CallRecord:
    """Return the record of one attempt: what arrived and when, and `further` fields that the caller knows."""
    server = {ours: parser.metrics.get(theirs) for ours, theirs in _SERVER_TIMES.items()}
    return CallRecord(
        env=tag.ref.env,
        **{name: getattr(tag, name) for name in _FROM_TAG},
        endpoint=endpoint.base_url or endpoint.provider,
        model=endpoint.model,
        simulated=endpoint.simulated or parser.fingerprint.startswith("SIMULATED"),
        itl_s=list(parser.gaps) if keep_itl else None,
        source=parser.source,
        cost_usd=parser.cost_usd,
        **_times(parser),
        **token_counts(parser.usage),
        **{name: ms / 1000 for name, ms in server.items() if isinstance(ms, int | float) and 0 <= ms < 1e12},
        **{"status": parser.status, **further},
    )


def answer_fields(
    answer: Completion, tag: CallTag, messages: Sequence[Message], tools: Sequence[ToolSpec] | None
) -> dict[str, Any]:
    """Return what the record of an attempt says of its answer: how it ended, and what looks wrong in it."""
    fields: dict[str, Any] = {
        "finish_reason": answer.finish_reason,
        "thinking_chars": len(answer.thinking),
        "tool_calls": len(answer.tool_calls),
    }
    if tag.purpose == REFUSAL_CHECK:
        return fields
    # What a customer's model says about its own draft is no part of the conversation.
    role = Role.JUDGE if tag.purpose == "check" and tag.role is Role.USER else tag.role
    if flags := answer_flags(answer, tools, messages, role):
        fields |= {"flags": flags, "flagged_text": excerpt(said_first(answer), _FLAGGED_CHARS)}
    return fields


def _times(parser: StreamParser) -> dict[str, Any]:
    times: dict[str, Any] = {"chunks": parser.chunks}
    if parser.gaps:
        ranked = sorted(parser.gaps)
        times["itl_mean_s"] = sum(ranked) / len(ranked)
        times["itl_p50_s"] = _percentile(ranked, 0.50)
        times["itl_p99_s"] = _percentile(ranked, 0.99)
        times["itl_max_s"] = ranked[-1]
    if parser.first is not None:
        times["ttft_s"] = parser.first - parser.started
        times["decode_s"] = parser.last - parser.first
    if parser.ended is not None:
        times["e2e_s"] = parser.ended - parser.started
    return times


def _percentile(ranked: Sequence[float], share: float) -> float:
    """Return a percentile of sorted values, linear between ranks; numpy would cost more than the whole call."""
    at = share * (len(ranked) - 1)
    below = int(at)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (ranked[above] - ranked[below]) * (at - below)
