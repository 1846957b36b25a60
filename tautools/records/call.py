"""One attempt at one model request."""

from __future__ import annotations

from tautools.records.base import Record
from tautools.records.words import Role

__all__ = ["CallRecord"]


class CallRecord(Record):
    """One attempt at one model request, whether it succeeded or not."""

    role: Role
    expert: str = ""
    """Which expert, for the role `expert`."""
    env: str = ""
    task_id: str = ""
    trial: int = 0
    turn: int = 0
    """Rounds of user and agent before this call, from 0."""
    step: int = 0
    """Requests of this role in this conversation before this call, from 0."""
    attempt: int = 0
    purpose: str = "chat"
    setting_id: str = ""
    endpoint: str = ""
    """Base URL, without a key."""
    model: str = ""
    started_at: float = 0.0
    """Unix time at which the call was wanted [s]; waiting for a free slot comes after it."""
    queue_s: float = 0.0
    """Wait for a free slot on our side before the request was sent [s]."""
    ttft_s: float | None = None
    """From sending the request to the first token, thinking tokens included [s]."""
    decode_s: float | None = None
    """From the first token to the last [s]."""
    e2e_s: float | None = None
    """From sending the request to the end of the answer [s]."""
    itl_mean_s: float | None = None
    itl_p50_s: float | None = None
    itl_p99_s: float | None = None
    itl_max_s: float | None = None
    itl_s: list[float] | None = None
    """Every gap between chunks [s]; kept on request only."""
    chunks: int = 0
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    thinking_chars: int = 0
    finish_reason: str = ""
    fault: str = ""
    """A `CallFault`, empty when the call succeeded."""
    status: int | None = None
    error: str = ""
    server_queue_s: float | None = None
    server_ttft_s: float | None = None
    server_generation_s: float | None = None
    source: str = "streamed"
    """Where the times come from: `streamed` (measured here per chunk) or `wall` (one answer, no first token)."""
    cost_usd: float | None = None
    simulated: bool = False
