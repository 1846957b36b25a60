"""Hosted providers (Gemini, Claude, GPT, …) through litellm, loaded when the first call is made.

Traps of litellm that are handled here: it asks the network while it is imported; given tools it imports the package
`mcp`, which it does not depend on; it prints advice on errors; it ends a stream that was cut short as if it were
complete; it reports a failed connection as "internal server error". Its chunks go through the same parser as those of
the lean client, so thinking, tool calls and times are treated alike.
"""

import asyncio
import os
import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from tautools.errors import CallFault, ModelCallError, unknown_name
from tautools.http import ConnectError
from tautools.llm.faults import NEXT_STEPS, error_in_stream, excerpt, refusal
from tautools.llm.stream import StreamParser, StreamTimeouts, Timeouts
from tautools.llm.types import Endpoint
from tautools.params.keys import read_key
from tautools.redaction import names_a_secret

_NO_CONNECTION = re.compile(
    r"cannot connect to host|connection error|connection refused|name or service not known", re.IGNORECASE
)
_CUT = re.compile(
    r"payload is not completed|peer closed|incomplete chunked|disconnected|connection reset", re.IGNORECASE
)
_OTHER_OWNERS = {"gemini": ("GOOGLE",), "azure_ai": ("AZURE",), "together_ai": ("TOGETHER",), "bedrock": ("AWS",)}
"""How the variables of a provider's keys begin, where not with its own name."""
_NO_KEYS = ("/", "~", "{", "-----BEGIN")
"""How the path of a file or a whole document with credentials begins."""
_SERVES_VLLM = "hosted_vllm"
"""The provider of litellm's behind which the chat template's thinking switch exists."""


def check_hosted_key(provider: str, model: str) -> None:
    """Return when litellm knows the provider and its key is in the environment.

    Raises
    ------
    ModelCallError
        `AUTH`, naming the variable, when the key is missing; `REFUSED` when there is no such provider.
    """
    litellm = _load()
    check_variables(provider)
    known = [str(getattr(each, "value", each)) for each in litellm.provider_list]
    if provider not in known:
        refused = partial(ModelCallError, fault=CallFault.REFUSED)
        see = "Correct `provider`, see litellm's list of providers; vLLM is `openai`."
        raise unknown_name(refused, "provider", provider, known, of="of litellm", next_step=see)
    checked = litellm.validate_environment(model=_full_name(provider, model))
    if not checked["keys_in_environment"]:
        names = checked["missing_keys"] or [f"{provider.upper()}_API_KEY"]
        raise ModelCallError(
            f"The key for {provider}'s model {model} is missing.",
            fault=CallFault.AUTH,
            evidence=f"Not set: {', '.join(names)}.",
            next_step=f"Set it in this shell: export {names[-1]}=…",
        )


async def ask_hosted(
    endpoint: Endpoint,
    body: dict[str, Any],
    parser: StreamParser,
    timeouts: Timeouts,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send `body` (as `chat_body` makes it), with further `headers`, through litellm and take the answer into `parser`.

    An address or key of `endpoint` goes before those that litellm knows; `seed` is taken out of `body` for a provider
    that has none.

    Raises
    ------
    ModelCallError
        With the class of what went wrong; what had arrived by then is in `parser`.
    """
    litellm = await asyncio.to_thread(_load)  # seconds, the first time
    check_variables(endpoint.provider)
    arguments = _arguments(litellm, endpoint, body, timeouts)
    if headers:
        arguments["extra_headers"] = dict(headers)
    async with StreamTimeouts(timeouts, parser.where) as watch:
        parser.started = time.perf_counter()
        try:
            stream = await litellm.acompletion(**arguments)
            async for chunk in stream:
                parser.take(chunk.model_dump(exclude_none=True), time.perf_counter())
                if parser.first is not None:
                    watch.touch()
        except ModelCallError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a provider's code raises, litellm lets through
            raise _fault(parser, error) from None
    parser.ended = time.perf_counter()
    if getattr(stream, "received_finish_reason", "received") is None:
        parser.finish_reason = ""  # litellm made it up
    parser.cost_usd = _cost_usd(litellm, endpoint, parser.usage)


def check_variables(provider: str) -> None:
    """Strip the provider's keys in this process's environment, where litellm reads them; raises as `read_key`."""
    owners = {provider.upper(), *_OTHER_OWNERS.get(provider, ())}
    for name in [name for name in os.environ if names_a_secret(name) and name.startswith(tuple(owners))]:
        value = os.environ[name]
        if value.lstrip().startswith(_NO_KEYS):
            continue
        if key := read_key(value, name):
            os.environ[name] = key
        else:
            del os.environ[name]  # litellm takes any value for a key, also an empty one


def _load() -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # read at import: else it fetches a price list
    import litellm

    litellm.suppress_debug_info = True
    return litellm


def _full_name(provider: str, model: str) -> str:
    return model if model.startswith(f"{provider}/") else f"{provider}/{model}"


def _arguments(litellm: Any, endpoint: Endpoint, body: dict[str, Any], timeouts: Timeouts) -> dict[str, Any]:
    provider = endpoint.provider
    if "chat_template_kwargs" in body and provider != _SERVES_VLLM:
        raise ModelCallError(
            f"Thinking cannot be switched for {provider} in the way it is for vLLM.",
            fault=CallFault.REFUSED,
            next_step="Leave `thinking` at `default` and say it in the provider's words, such as "
            "`extra_body: {reasoning_effort: low}`.",
        )
    supported = litellm.get_supported_openai_params(model=endpoint.model, custom_llm_provider=provider) or []
    if "seed" not in supported:
        body.pop("seed", None)  # a wish, unlike sampling: a provider without seeds is still asked
    arguments = {**body, "model": _full_name(provider, endpoint.model)}
    if endpoint.base_url:
        arguments["api_base"] = endpoint.base_url
    if endpoint.key:
        arguments["api_key"] = read_key(endpoint.key, "this request")
    return {**arguments, "num_retries": 0, "max_retries": 0, "timeout": timeouts.total_s, "_skip_mcp_handler": True}


def _cost_usd(litellm: Any, endpoint: Endpoint, usage: dict[str, Any]) -> float | None:
    """Return what the call cost [USD], where litellm has a price for the model."""
    name = _full_name(endpoint.provider, endpoint.model)
    known = next((each for each in (name, endpoint.model) if each in litellm.model_cost), None)
    if known is None or not usage:
        return None
    priced = litellm.ModelResponse(model=endpoint.model, usage=litellm.Usage(**usage))
    return float(litellm.completion_cost(priced, model=known, custom_llm_provider=endpoint.provider))


def _fault(parser: StreamParser, error: Exception) -> ModelCallError:
    """Classify what litellm raised, by its text too: its classes alone are not enough."""
    where, text = parser.where, f"{type(error).__name__}: {error}"
    kind: type[ModelCallError] = ModelCallError
    step = "Try again later; the provider's status page may say more."
    if isinstance(error, ImportError) or "No module named" in text:
        problem, fault = f"litellm lacks a package for {where}.", CallFault.REFUSED
        step = "Install the package that the evidence names."
    elif type(error).__name__ in {"Timeout", "APITimeoutError"}:
        problem, fault = f"{where} took too long.", CallFault.TIME_OUT
    elif parser.first is not None and _CUT.search(text):
        problem, fault = f"The connection to {where} broke.", CallFault.BROKEN_STREAM
    elif parser.first is None and _NO_CONNECTION.search(text):
        kind, problem, fault = ConnectError, f"{where} cannot be reached.", CallFault.UNREACHABLE
        step = NEXT_STEPS[fault]
    else:
        status = getattr(error, "status_code", None)
        if parser.first is not None:
            return error_in_stream(where, status, text)
        headers = getattr(error, "litellm_response_headers", None) or {}
        return refusal(where, status if isinstance(status, int) else 500, text, headers=headers)
    return kind(problem, fault=fault, evidence=excerpt(text), next_step=step)
