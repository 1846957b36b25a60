"""The model client: one call in, one reply out; routed, retried where that may help, recorded whatever happens.

A conversation stays on the replica where its prefix is cached, a new one goes to the least loaded. A replica that
cannot be connected to, refuses the key or does not have the model is marked down, and its conversations move to another
one; it is tried again later, at growing intervals, with the next request. When none is left, the client's `resolve` is
asked again, at once, so that a server that has ended is named by its own state.
"""

import asyncio
import contextlib
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any, Self

from tautools.errors import CallFault, ModelCallError, NoServerError, TautoolsError, VerifyError
from tautools.http import ConnectError
from tautools.http_stream import StreamHttp
from tautools.llm.faults import NEXT_STEPS
from tautools.llm.hosted import ask_hosted
from tautools.llm.recording import answer_fields, call_record
from tautools.llm.request import affinity_headers, chat_body
from tautools.llm.stream import StreamParser, Timeouts, ask_server
from tautools.llm.types import CallTag, CallUnderWay, Endpoint, Message, Reply, Resolve, ToolSpec
from tautools.records import CallRecord, ModelConfig, Thinking

_DOWN_S = 30.0
_DOWN_AT_MOST_S = 600.0
_NOT_DRAWN = {CallFault.UNREACHABLE, CallFault.OVERLOADED}
"""Faults before the model drew anything; after others another attempt has a seed of its own, or a model whose answer
broke its server would break it each time."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a request is made, and the waits between: doubling, with jitter, never shorter than the server asks."""

    attempts: int = 5
    """Requests in all, the first one included."""
    first_wait_s: float = 1.0
    most_wait_s: float = 30.0
    """Longest wait of our own back-off."""
    most_asked_wait_s: float = 120.0
    """Longest wait that a server's `Retry-After` may ask for."""
    jitter: float = 0.25
    """A wait is longer by up to this share of itself, drawn at random."""

    def wait_s(self, attempt: int, error: ModelCallError, draw: Callable[[], float] = random.random) -> float:
        """Return the seconds to wait after attempt number `attempt` (from 0) ended with `error`."""
        own = min(self.most_wait_s, self.first_wait_s * 2.0**attempt) * (1 + self.jitter * draw())
        return max(own, min(error.retry_after_s or 0.0, self.most_asked_wait_s))


class _AddressLoad:
    """The requests in flight at one address, for all roles together."""

    def __init__(self, max_in_flight: int | None) -> None:
        self.in_flight = 0
        """Those that wait for a slot included."""
        self.sent = 0
        self.warm = False
        """Whether the server there has answered a run; one that cannot be connected to may be another one later."""
        self._slots = asyncio.Semaphore(max_in_flight) if max_in_flight else contextlib.nullcontext()

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait until one more request may be sent there."""
        self.in_flight += 1
        try:
            async with self._slots:
                self.sent += 1
                try:
                    yield
                finally:
                    self.sent -= 1
        finally:
            self.in_flight -= 1


class _Replica:
    """One endpoint of a role."""

    def __init__(self, endpoint: Endpoint, load: _AddressLoad) -> None:
        self.endpoint = endpoint
        self.load = load
        self.conversations = 0
        self.down_until = 0.0
        self.next_down_s = _DOWN_S
        self.refused_length = False
        """Whether the server, whose context nobody knows, refused the default length of an answer."""

    @property
    def alive(self) -> bool:
        """Whether requests are sent there."""
        return time.monotonic() >= self.down_until

    def mark_down(self) -> None:
        """Send nothing there for a while, longer each time."""
        self.load.warm = False
        if self.alive:
            self.down_until = time.monotonic() + self.next_down_s
            self.next_down_s = min(2 * self.next_down_s, _DOWN_AT_MOST_S)


class _ReplicaPool:
    """The endpoints of one part; `resolve` is called in a thread, since it may ask the network."""

    def __init__(self, part: str, resolve: Resolve, load_of: Callable[[Endpoint], _AddressLoad]) -> None:
        self._part = part
        self._resolve = resolve
        self._load_of = load_of
        self._replicas: list[_Replica] = []
        self._sticky: dict[str, _Replica] = {}
        self._resolving = asyncio.Lock()
        self._asked = 0
        self._problem: ModelCallError | None = None

    @property
    def has_alive(self) -> bool:
        """Whether there is a replica that is not marked down."""
        return self.alive > 0

    @property
    def alive(self) -> int:
        """Replicas that are not marked down."""
        return sum(replica.alive for replica in self._replicas)

    @contextlib.asynccontextmanager
    async def replica_for(self, conversation: str) -> AsyncIterator[_Replica]:
        """Choose a replica for one request and wait for a slot there; it counts as in flight inside the block."""
        while True:
            replica = self._choose(conversation)
            if replica is None:
                await self._ask_again()
                continue
            async with replica.load.slot():
                if replica.alive:
                    yield replica
                    return

    def _choose(self, conversation: str) -> _Replica | None:
        sticky = self._sticky.get(conversation)
        if sticky is not None and sticky.alive and sticky in self._replicas:
            return sticky
        alive = [replica for replica in self._replicas if replica.alive]
        if not alive:
            return None
        replica = min(alive, key=lambda replica: (replica.load.in_flight, replica.conversations))
        if conversation:
            replica.conversations += 1
            self._sticky[conversation] = replica
        return replica

    async def why_lost(self, error: ModelCallError) -> ModelCallError:
        """Ask for the endpoints again after the last one was lost; return what that says, else the error itself."""
        try:
            await self._ask_again()
        except ModelCallError as found:
            return found
        return error

    async def _ask_again(self) -> None:
        """Ask for the endpoints while none is alive; requests that wait share the answer, a problem too."""
        before = self._asked
        async with self._resolving:
            if self.has_alive:
                return
            if self._problem is None or self._asked == before:
                self._asked, self._problem = self._asked + 1, None
                try:
                    await self._renew()
                except ModelCallError as error:
                    self._problem = error
            if self._problem is not None:
                raise self._problem

    async def _renew(self) -> None:
        """Ask for the endpoints again; a replica that is still among them keeps its conversations."""
        try:
            endpoints = await asyncio.to_thread(self._resolve, self._part)
        except ModelCallError:
            raise
        except TautoolsError as error:
            fault = CallFault.SERVER_GONE if isinstance(error, NoServerError | VerifyError) else CallFault.UNREACHABLE
            raise ModelCallError(
                error.problem, fault=fault, evidence=error.evidence, next_step=error.next_step
            ) from error
        if not endpoints:
            fault = CallFault.UNREACHABLE
            raise ModelCallError(f"There is no server for the {self._part}.", fault=fault, next_step=NEXT_STEPS[fault])
        known = {replica.endpoint: replica for replica in self._replicas}
        loads = [self._load_of(each) for each in endpoints]
        self._replicas = [known.get(each) or _Replica(each, load) for each, load in zip(endpoints, loads, strict=True)]
        for replica in self._replicas:
            replica.down_until = 0.0


@dataclass(eq=False)
class ModelClient:
    """The one way to models, an async context manager.

    Every attempt that came to an end is passed to `on_call`, failed ones too; a call that is cancelled (an interrupt, a
    conversation's time limit) leaves no record.

    Parameters
    ----------
    resolve : Callable[[str], Sequence[Endpoint]]
        Gives the endpoints of a part, which `CallTag.part` names; called in a thread, and again when none of them can
        be reached any more.
    models : Mapping[str, ModelConfig]
        How the model of each part is asked.
    on_call : Callable[[CallRecord], None], optional
        Takes the record of each attempt.
    on_retry : Callable[[CallTag, float, ModelCallError], None], optional
        Called before a wait with the call's tag, the seconds to wait and the fault. The wait is 0 when another replica
        takes over.
    retry : Retry
        How often a transient fault is answered by asking again.
    timeouts : Timeouts
        How long to wait for an answer.
    keep_itl : bool
        Keep every gap between chunks in the records.
    max_in_flight : int, optional
        Requests at a time for one address; further ones wait, and their wait is recorded as `queue_s`.
    """

    resolve: Resolve = field(repr=False)
    models: Mapping[str, ModelConfig]
    _: KW_ONLY
    on_call: Callable[[CallRecord], None] | None = None
    on_retry: Callable[[CallTag, float, ModelCallError], None] | None = None
    retry: Retry = field(default_factory=Retry)
    timeouts: Timeouts = field(default_factory=Timeouts)
    keep_itl: bool = False
    max_in_flight: int | None = None

    def __post_init__(self) -> None:
        self._http = StreamHttp(connect_timeout_s=self.timeouts.connect_s)
        self._pools: dict[str, _ReplicaPool] = {}
        self._loads: dict[str, _AddressLoad] = {}
        self._under_way: dict[StreamParser, CallTag] = {}

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
            When cancelled; its cause is the fault of the attempt before, or how long the server has said nothing.
        """
        config = self.models.get(tag.part)
        if config is None:
            raise ModelCallError(
                f"No model is given for the {tag.part}.",
                fault=CallFault.REFUSED,
                next_step=f"Give the {tag.part} a model in the params.",
            )
        if tag.part not in self._pools:
            self._pools[tag.part] = _ReplicaPool(tag.part, self.resolve, self._load_of)
        faults: list[ModelCallError] = []
        try:
            return await self._ask_until_answered(self._pools[tag.part], _Request(tag, messages, tools, config), faults)
        except asyncio.CancelledError as cancelled:
            if not faults:
                raise
            raise cancelled from faults[-1]

    def under_way(self) -> list[CallUnderWay]:
        """Return the requests that were sent and are not answered yet."""
        now = time.perf_counter()
        return [CallUnderWay(tag, p.where, now - p.started, p.chunks) for p, tag in self._under_way.items()]

    async def _ask_until_answered(self, pool: _ReplicaPool, request: "_Request", faults: list[ModelCallError]) -> Reply:
        """Ask again while that may help; `faults` gets the fault of each attempt that failed."""
        began = time.perf_counter()
        failures = 0
        while True:
            lost_s = time.perf_counter() - began if faults else 0.0
            try:
                drawn = sum(fault.fault not in _NOT_DRAWN for fault in faults)
                tag = replace(request.tag, repeat=request.tag.repeat + drawn) if drawn else request.tag
                reply = await self._attempt(pool, replace(request, tag=tag), len(faults))
                return replace(reply, lost_s=lost_s) if faults else reply
            except _DefaultRefusedError:
                request = replace(request, config=_without_default(request.config))
                continue
            except ModelCallError as error:
                lost = _is_lost(error)
                moves = lost and pool.has_alive
                fault = await pool.why_lost(error) if lost and not moves else error
                fault.part = request.tag.part
                faults.append(fault)
                if not moves and (not fault.fault.transient or failures + 1 >= self.retry.attempts):
                    if fault is error:
                        raise
                    raise fault from error
                wait_s = 0.0 if moves else self.retry.wait_s(failures, fault)
                failures += not moves
                if self.on_retry:
                    self.on_retry(request.tag, wait_s, fault)
            await asyncio.sleep(wait_s)

    async def _attempt(self, pool: _ReplicaPool, request: "_Request", attempt: int) -> Reply:
        started_at, wanted = time.time(), time.perf_counter()
        async with pool.replica_for(request.tag.conversation) as replica:
            endpoint = replica.endpoint
            config = _without_default(request.config) if replica.refused_length else request.config
            body = chat_body(endpoint, config, request.tag, request.messages, request.tools)
            parser = StreamParser(f"{endpoint.name} at {endpoint.base_url}".removeprefix(" at ") or endpoint.provider)
            load = {"cold": not replica.load.warm, "in_flight": replica.load.sent, "replicas": pool.alive}
            record = partial(
                call_record,
                request.tag,
                endpoint,
                parser,
                keep_itl=self.keep_itl,
                attempt=attempt,
                started_at=started_at,
                queue_s=parser.started - wanted,
                **load,
            )
            self._under_way[parser] = request.tag
            try:
                await self._send(endpoint, body, parser, affinity_headers(endpoint, request.tag))
                completion = parser.finish(asked_to_think=request.config.thinking is Thinking.ON)
            except ModelCallError as error:
                parser.ended = parser.ended or time.perf_counter()
                if _is_lost(error):
                    replica.mark_down()
                status = error.status or parser.status
                self._emit(record(seed=body.get("seed"), fault=error.fault.value, status=status, error=error.problem))
                if config.default_max_tokens and _refuses_length(error, body.get("max_tokens")):
                    replica.refused_length = endpoint.max_model_len is None  # it would refuse each call
                    raise _DefaultRefusedError from error
                raise
            except asyncio.CancelledError as cancelled:
                raise cancelled from _silence(parser)
            finally:
                del self._under_way[parser]
            replica.next_down_s = _DOWN_S
            replica.load.warm = True
        said = answer_fields(completion, request.tag, request.messages, request.tools)
        made = record(seed=body.get("seed"), **said)
        self._emit(made)
        return Reply(completion.text, completion.tool_calls, completion.finish_reason, completion.thinking, made)

    async def _send(
        self, endpoint: Endpoint, body: dict[str, Any], parser: StreamParser, headers: dict[str, str]
    ) -> None:
        if endpoint.provider == "openai":
            await ask_server(self._http, endpoint, body, parser, self.timeouts, headers)
        else:
            await ask_hosted(endpoint, body, parser, self.timeouts, headers)

    def _emit(self, record: CallRecord) -> None:
        if self.on_call:
            self.on_call(record)

    def _load_of(self, endpoint: Endpoint) -> _AddressLoad:
        load = self._loads.setdefault(endpoint.base_url or endpoint.provider, _AddressLoad(self.max_in_flight))
        load.warm = load.warm or endpoint.warm or not endpoint.base_url  # a provider's servers are never ours to warm
        return load


@dataclass(frozen=True, slots=True)
class _Request:
    tag: CallTag
    messages: Sequence[Message]
    tools: Sequence[ToolSpec] | None
    config: ModelConfig


def _silence(parser: StreamParser) -> ModelCallError:
    """Return what a call that is cancelled waits for: the first word, or the next one."""
    silent_s = time.perf_counter() - (parser.started if parser.first is None else parser.last)
    error = ModelCallError(f"{parser.where} had said nothing for {silent_s:.0f} s.", fault=CallFault.TIME_OUT)
    error.silent_s = silent_s
    return error


class _DefaultRefusedError(Exception):
    """The server refuses the answer's default length beside this prompt; it is asked again without."""


def _without_default(config: ModelConfig) -> ModelConfig:
    return config.model_copy(update={"default_max_tokens": None})


def _refuses_length(error: ModelCallError, max_tokens: int | None) -> bool:
    """Whether a refusal names the length that was asked for: the prompt itself may still fit."""
    refused = error.fault in {CallFault.CONTEXT_OVERFLOW, CallFault.REFUSED}
    return refused and re.search(rf"\b{max_tokens}\b", error.evidence) is not None


def _is_lost(error: ModelCallError) -> bool:
    """Whether the server at an address is gone, for now or for ever, or is another one than it was."""
    return isinstance(error, ConnectError) or error.fault in {CallFault.AUTH, CallFault.NOT_FOUND}
