"""The lean client for OpenAI-compatible servers: one streamed request, a few microseconds for each chunk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson

from tautools.errors import CallFault, ModelCallError
from tautools.llm.faults import excerpt, refusal
from tautools.llm.patience import Patience

if TYPE_CHECKING:
    from tautools.http import StreamAnswer, StreamHttp
    from tautools.llm.incoming import Incoming
    from tautools.llm.patience import Timeouts
    from tautools.llm.types import Endpoint

__all__ = ["ask"]


async def ask(
    http: StreamHttp, endpoint: Endpoint, body: dict[str, Any], incoming: Incoming, timeouts: Timeouts
) -> None:
    """Send `body` and take the whole answer into `incoming`.

    Parameters
    ----------
    http : StreamHttp
        The open session.
    endpoint : Endpoint
        Address and key.
    body : dict
        As `chat_body` makes it.
    incoming : Incoming
        Takes the answer and its times.
    timeouts : Timeouts
        How long each part of the answer is waited for.

    Raises
    ------
    ModelCallError
        With the class of what went wrong; what had arrived by then is in `incoming`.
    """
    url = endpoint.base_url.rstrip("/") + "/chat/completions"
    data = orjson.dumps(body)
    async with Patience(timeouts, incoming.where) as patience:
        incoming.started = time.perf_counter()
        async with http.post(url, data, key=endpoint.key) as answer:
            incoming.status = answer.status
            if answer.status != 200:
                raise refusal(incoming.where, answer.status, await answer.text(), headers=answer.headers)
            if answer.content_type == "application/json":
                incoming.take_whole(await answer.text(2**24), time.perf_counter())
            elif answer.content_type == "text/event-stream":
                await _read(answer, incoming, patience)
            else:
                raise await _no_stream(answer, incoming)
    incoming.ended = incoming.ended or time.perf_counter()


async def _read(answer: StreamAnswer, incoming: Incoming, patience: Patience) -> None:
    read, feed, touch, clock = answer.read, incoming.feed, patience.touch, time.perf_counter
    while data := await read():
        feed(data, clock())
        if incoming.done:
            incoming.ended = clock()
            await answer.linger()
            return
        if incoming.first is not None:
            touch()


async def _no_stream(answer: StreamAnswer, incoming: Incoming) -> ModelCallError:
    text = await answer.text(2048)
    return ModelCallError(
        f"{incoming.where} did not send a stream of events but {answer.content_type}.",
        fault=CallFault.MALFORMED,
        status=answer.status,
        evidence=excerpt(text),
        next_step="See what listens there with `tautools server test URL`; a proxy or a login page may be in between.",
    )
