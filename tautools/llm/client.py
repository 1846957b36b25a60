"""The model client: one call in, one reply out; routed, retried where that may help, recorded whatever happens."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from tautools.errors import CallFault, ModelCallError
from tautools.http import ConnectError, StreamHttp
from tautools.llm.hosted import ask_hosted
from tautools.llm.pool import AddressLoad, ReplicaPool
from tautools.llm.request import chat_body
from tautools.llm.stream import StreamParser, ask_server
from tautools.llm.timeouts import Retry, Timeouts
from tautools.llm.types import CallTag, Endpoint, Message, Reply, Resolve, ToolSpec
from tautools.records import CallRecord, ModelConfig, Thinking

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tautools.llm.stream import Completion
    from tautools.llm.types import CallTag, Endpoint


def success_record(
    tag: CallTag, endpoint: Endpoint, incoming: StreamParser, said: Completion, **further: Any
) -> CallRecord:
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
    return _call_record(
        tag, endpoint, incoming, finish_reason=said.finish_reason, thinking_chars=len(said.thinking), **further
    )


def failure_record(
    tag: CallTag, endpoint: Endpoint, incoming: StreamParser, error: ModelCallError, **further: Any
) -> CallRecord:
    """Return the record of a call that failed, with what had arrived by then.

    Parameters
    ----------
    tag, endpoint, incoming, **further
        As in `success_record`.
    error : ModelCallError
        Why it failed; its status counts before the one that arrived.
    """
    told: dict[str, Any] = {
        "fault": error.fault.value,
        "status": error.status or incoming.status,
        "error": error.problem,
    }
    return _call_record(tag, endpoint, incoming, **told, **further)


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


def _call_record(
    tag: CallTag, endpoint: Endpoint, incoming: StreamParser, *, keep_itl: bool, **further: Any
) -> CallRecord:
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
        **_server_times(incoming.metrics),
        **{"status": incoming.status, **further},
    )


def _times(incoming: StreamParser) -> dict[str, Any]:
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


def _server_times(metrics: dict[str, Any]) -> dict[str, Any]:
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


@dataclass(eq=False)
class ModelClient:
    """The one way to models, an async context manager.

    Every attempt that came to an end is told to `on_call`, failed ones too; a call that is cancelled (an interrupt, a
    conversation's time limit) leaves no record.

    Parameters
    ----------
    resolve : Callable[[str], Sequence[Endpoint]]
        Gives the endpoints of a part, which `CallTag.part` names; called in a thread, and again when none of them can
        be reached any more.
    parties : Mapping[str, Party]
        How the model of each part is asked.
    on_call : Callable[[CallRecord], None], optional
        Takes the record of each attempt.
    on_retry : Callable[[CallTag, float, ModelCallError], None], optional
        Told before a wait: whose call, the seconds to wait, and why. The wait is 0 when another replica takes over.
    retry : Retry
        How often a transient fault is answered by asking again.
    timeouts : Timeouts
        How long answers are waited for.
    keep_itl : bool
        Keep every gap between chunks in the records.
    max_in_flight : int, optional
        Requests at a time for one address; further ones wait, and their wait is recorded as `queue_s`.
    """

    resolve: Resolve = field(repr=False)
    parties: Mapping[str, ModelConfig]
    _: KW_ONLY
    on_call: Callable[[CallRecord], None] | None = None
    on_retry: Callable[[CallTag, float, ModelCallError], None] | None = None
    retry: Retry = field(default_factory=Retry)
    timeouts: Timeouts = field(default_factory=Timeouts)
    keep_itl: bool = False
    max_in_flight: int | None = None

    def __post_init__(self) -> None:
        self._http = StreamHttp(connect_timeout_s=self.timeouts.connect_s)
        self._pools: dict[str, ReplicaPool] = {}
        self._loads: dict[str, AddressLoad] = {}

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.__aexit__()

    async def complete(
        self, tag: CallTag, messages: Sequence[Message], tools: Sequence[ToolSpec] | None = None
    ) -> Reply:
        """Ask the role's model and return its reply.

        Parameters
        ----------
        tag : CallTag
            Whose call it is; requests with the same `tag.conversation` stay on one replica.
        messages : Sequence[Message]
            The prompt, sent as it is.
        tools : Sequence[ToolSpec], optional
            Without any, the request has no `tools` key at all.

        Raises
        ------
        ModelCallError
            When the fault is not transient, or still there after the last attempt.
        asyncio.CancelledError
            When cancelled; its cause is the fault of the attempt before, if there was one.
        """
        party = self._party(tag.part)
        pool = self._pools.get(tag.part) or self._pools.setdefault(
            tag.part, ReplicaPool(tag.part, self.resolve, self._loads, self.max_in_flight)
        )
        question = _Request(tag, messages, tools)
        trouble: list[ModelCallError] = []
        try:
            return await self._ask_until_answered(pool, party, question, trouble)
        except asyncio.CancelledError as cancelled:
            if not trouble:
                raise
            raise asyncio.CancelledError(*cancelled.args) from trouble[-1]

    async def _ask_until_answered(
        self, pool: ReplicaPool, party: ModelConfig, question: _Request, trouble: list[ModelCallError]
    ) -> Reply:
        """Ask again while that may help; `trouble` gets the fault of each attempt that failed."""
        began = time.perf_counter()
        failures = 0
        while True:
            lost_s = time.perf_counter() - began if trouble else 0.0
            try:
                reply = await self._attempt(pool, party, replace(question, attempt=len(trouble)))
                return replace(reply, lost_s=lost_s) if trouble else reply
            except ModelCallError as error:
                trouble.append(error)
                moves = isinstance(error, ConnectError) and pool.has_living
                if not error.fault.transient or (not moves and failures + 1 >= self.retry.attempts):
                    raise
                wait_s = 0.0 if moves else self.retry.wait_s(failures, error)
                failures += not moves
                if self.on_retry:
                    self.on_retry(question.tag, wait_s, error)
            await asyncio.sleep(wait_s)

    def _party(self, part: str) -> ModelConfig:
        try:
            return self.parties[part]
        except KeyError:
            raise ModelCallError(
                f"No model is given for the {part}.",
                fault=CallFault.REFUSED,
                next_step=f"Give the {part} a model in the params.",
            ) from None

    async def _attempt(self, pool: ReplicaPool, party: ModelConfig, question: _Request) -> Reply:
        started_at, wanted = time.time(), time.perf_counter()
        async with pool.seat(question.tag.conversation) as place:
            endpoint = place.endpoint
            incoming = StreamParser(f"{endpoint.name} at {endpoint.base_url}".removeprefix(" at ") or endpoint.provider)
            further = {
                "attempt": question.attempt,
                "started_at": started_at,
                "queue_s": incoming.started - wanted,
                "keep_itl": self.keep_itl,
            }
            try:
                await self._ask(endpoint, party, question, incoming)
                said = incoming.finish(asked_to_think=party.thinking is Thinking.ON)
            except ModelCallError as error:
                incoming.ended = incoming.ended or time.perf_counter()
                _redact(error, endpoint)
                if isinstance(error, ConnectError):
                    place.leave()
                self._tell(failure_record(question.tag, endpoint, incoming, error, **further))
                raise
            place.answered()
        record = success_record(question.tag, endpoint, incoming, said, **further)
        self._tell(record)
        return Reply(said.text, said.tool_calls, said.finish_reason, said.thinking, record)

    async def _ask(self, endpoint: Endpoint, party: ModelConfig, question: _Request, incoming: StreamParser) -> None:
        body = chat_body(endpoint, party, question.tag, question.messages, question.tools)
        if endpoint.provider == "openai":
            await ask_server(self._http, endpoint, body, incoming, self.timeouts)
        else:
            await ask_hosted(endpoint, body, incoming, self.timeouts)

    def _tell(self, record: CallRecord) -> None:
        if self.on_call:
            self.on_call(record)


@dataclass(frozen=True, slots=True)
class _Request:
    tag: CallTag
    messages: Sequence[Message]
    tools: Sequence[ToolSpec] | None
    attempt: int = 0


def _redact(error: ModelCallError, endpoint: Endpoint) -> None:
    """Take keys out of what a server echoed."""
    for key in _secrets(endpoint):
        error.evidence = error.evidence.replace(key, "***")
        error.problem = error.problem.replace(key, "***")
    error.args = (error.problem,)


def _secrets(endpoint: Endpoint) -> list[str]:
    """Return what must not be repeated: the endpoint's key, and what litellm may have taken from the environment."""
    found = [endpoint.key]
    if endpoint.provider != "openai":
        from tautools.params.secrets import names_a_secret  # the params' models and YAML come along, for a fault only

        found += [value for name, value in os.environ.items() if names_a_secret(name)]
    return [key for key in found if len(key) >= 4]
