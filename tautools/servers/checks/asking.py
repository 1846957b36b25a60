"""How the checks ask a model: with the benchmark's own client, several questions at the same moment."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tautools.errors import ModelCallError
from tautools.llm.types import Endpoint, Message, Reply, ToolSpec
from tautools.records import ModelConfig, Role, Sampling
from tautools.redaction import redacted


def ask(endpoint: Endpoint, messages: Sequence[Message], **request: Any) -> Reply:
    """Ask one question, twice where a fault may pass, and return the answer; as `ask_all`, and its error is raised."""
    (reply,) = ask_all(endpoint, [messages], attempts=2, **request)
    if isinstance(reply, ModelCallError):
        raise reply
    return reply


def ask_all(
    endpoint: Endpoint,
    questions: Sequence[Sequence[Message]],
    *,
    tools: Sequence[ToolSpec] | None = None,
    max_tokens: int = 512,
    attempts: int = 1,
    **extra: Any,
) -> list[Reply | ModelCallError]:
    """Ask all questions at the same moment, at temperature 0, and return the answers; a failed one is its error."""
    config = ModelConfig(
        model=endpoint.model, sampling=Sampling(temperature=0, max_tokens=max_tokens, extra_body=extra)
    )
    return ask_with(config, endpoint, questions, tools=tools, attempts=attempts)


def ask_with(
    config: ModelConfig,
    endpoint: Endpoint,
    questions: Sequence[Sequence[Message]],
    *,
    tools: Sequence[ToolSpec] | None = None,
    attempts: int = 1,
    seed: int | None = 0,
) -> list[Reply | ModelCallError]:
    """Ask all questions at the same moment, as `config` says, and return the answers; a failed one is its error."""
    from tautools.llm import ModelClient, Retry
    from tautools.llm.types import CallTag

    tag = CallTag(role=Role.PROBE, purpose="probe", seed=seed)

    async def one(client: ModelClient, messages: Sequence[Message]) -> Reply | ModelCallError:
        try:
            return await client.complete(tag, messages, tools)
        except ModelCallError as error:
            return error

    async def all_of_them() -> list[Reply | ModelCallError]:
        async with ModelClient(lambda _role: [endpoint], {Role.PROBE: config}, retry=Retry(attempts)) as client:
            return await asyncio.gather(*(one(client, messages) for messages in questions))

    # A thread with a loop of its own, so that it works inside a notebook's running loop too.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, all_of_them()).result()


def short(text: str, limit: int = 80) -> str:
    """Return `text` in one line and in quotes, cut to `limit` characters."""
    flat = " ".join(redacted(text).split())
    return repr(flat if len(flat) <= limit else flat[: limit - 1] + "…")
