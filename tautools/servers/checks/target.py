"""The server that is checked, and the checks of which one it is: its process, port, models, key; they cost little."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from tautools.errors import ModelCallError, nearest
from tautools.http import http_get
from tautools.llm.types import Endpoint, Message, Reply, ToolSpec
from tautools.records import Check, Demand, ModelConfig, Role, Sampling, ServerRecord, Thinking
from tautools.redaction import redacted
from tautools.servers.ports import listeners
from tautools.shell import group_members, process_alive

MODEL_LIST = "model list"
"""What a certificate says that a server is without."""
_CONNECTIONS = 16
"""Connections by which a server on another node is asked whether it is alone on its port."""


@dataclass(frozen=True, slots=True)
class ModelList:
    """The answer of `/v1/models`."""

    status: int
    """HTTP status; 0 when there was no answer."""
    lengths: Mapping[str, int | None] = field(default_factory=dict)
    """`max_model_len` of each model [tokens], where the server reports it; by name."""
    simulated: bool = False
    """Whether the server says that it only simulates a model."""
    detail: str = ""
    """Why there is no answer, or the beginning of an answer that is not what it should be."""

    @property
    def names(self) -> tuple[str, ...]:
        """The models that it serves."""
        return tuple(self.lengths)

    @property
    def absent(self) -> bool:
        """Whether something answers that has no model list: 404, or an answer that is none, such as slime's `ok`."""
        return self.status in {200, 404, 405, 501} and not self.names

    @property
    def refuses_key(self) -> bool:
        """Whether the server answers and does not accept the key."""
        return self.status in {401, 403}


def ask_models(base_url: str, *, key: str, timeout_s: float = 3.0) -> ModelList:
    """Ask `/v1/models` of an address that ends in `/v1` and return the answer, whatever it is; never raises."""
    try:
        answer = http_get(f"{base_url}/models", key=key, timeout_s=timeout_s)
    except ModelCallError as error:
        return ModelList(0, detail=error.evidence or error.problem)
    if answer.status != 200:
        return ModelList(answer.status, detail=redacted(answer.text)[:300])
    try:
        entries = {str(entry.get("id", "")): entry for entry in answer.json()["data"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return ModelList(answer.status, detail=f"not a list of models: {redacted(answer.text)[:300]}")
    lengths = {name: entry.get("max_model_len") for name, entry in entries.items()}
    lengths = {name: length if isinstance(length, int) else None for name, length in lengths.items()}
    simulated = any(entry.get("owned_by") == "tautools-simulate" for entry in entries.values())
    return ModelList(answer.status, lengths, simulated=simulated)


def root_of(base_url: str) -> str:
    """Return the address without its `/v1`: `/health` and `/version` lie there."""
    return base_url.rstrip("/").removesuffix("/v1")


@dataclass(frozen=True, slots=True)
class CheckTarget:
    """The server to check, and what is expected of it."""

    base_url: str
    model: str = ""
    """Empty: the first name that the server lists."""
    key: str = field(default="", repr=False)
    alias: str = ""
    max_model_len: int | None = None
    """The context length that was asked for [tokens]."""
    process: tuple[int, float] | None = None
    """Its process on this machine as pid and start time; None for a server elsewhere."""
    thinking: Thinking = Thinking.DEFAULT
    """What was asked for; without it the check of thinking is left out."""
    concurrency: int = 0
    """Simultaneous chats that it must answer; 0 leaves out the checks that load a server."""
    demand: Demand = field(default_factory=lambda: Demand(tool_calls=True))
    """What the run will ask of it; a run's defaults where there is none."""
    max_batched_tokens: int | None = None
    """Longest prompt that it computes in one chunk [tokens], where it is known."""


def target_of(record: ServerRecord, key: str, *, concurrency: int = 0) -> CheckTarget:
    """Return what must hold for a registered server with its key, and how many chats at once it must answer."""
    engine = record.spec.get(record.spec.get("engine", "")) or {}
    chunk = {name.replace("-", "_"): value for name, value in (engine.get("args") or {}).items()}
    batched = chunk.get("max_num_batched_tokens")
    return CheckTarget(
        record.base_url,
        record.model,
        key=key,
        alias=record.alias,
        max_model_len=engine.get("max_model_len"),
        max_batched_tokens=batched if isinstance(batched, int) else None,
        process=record.process,
        thinking=_requested_thinking(record.spec),
        concurrency=concurrency,
    )


def _requested_thinking(spec: Mapping[str, Any]) -> Thinking:
    """Return what a server's params ask of it: `chat_template_kwargs: {enable_thinking: false}` is `off`."""
    vllm = (spec.get("vllm") or {}) if spec.get("engine", "vllm") == "vllm" else {}
    template_kwargs = vllm.get("chat_template_kwargs") or {}
    for name in ("enable_thinking", "thinking"):  # Qwen's, and Granite's and DeepSeek's
        if isinstance(switch := template_kwargs.get(name), bool):
            return Thinking.ON if switch else Thinking.OFF
    return Thinking.DEFAULT


class CheckFailedError(Exception):
    """A check failed; its text is what was seen and what to do."""


class NotApplicableError(Exception):
    """A check does not apply to this server; its text says why."""


def require(holds: object, otherwise: str) -> None:
    """Fail the check, with what was seen and what to do, where something does not hold."""
    if not holds:
        raise CheckFailedError(otherwise)


@dataclass(slots=True)
class CheckContext:
    """What the checks so far have learned about a server."""

    target: CheckTarget
    model: str = ""
    models: ModelList = field(default_factory=lambda: ModelList(0))
    version: str = ""
    checks: list[Check] = field(default_factory=list)
    without: dict[str, str] = field(default_factory=dict)
    """What it lacks without being broken, such as `tool calls`, with the reason and what to do."""
    demands: list[Demand] = field(default_factory=list)
    """What was sent as a run sends it, and answered."""

    @property
    def endpoint(self) -> Endpoint:
        """The server as the model client knows it."""
        return Endpoint(self.target.base_url, self.model, key=self.target.key, simulated=self.models.simulated)

    @property
    def failed(self) -> str:
        """The name of the first check that failed; empty while none has."""
        return next((check.name for check in self.checks if check.passed is False), "")

    @property
    def max_model_len(self) -> int | None:
        """The context length that the server reports [tokens]."""
        return self.models.lengths.get(self.model)

    @property
    def process(self) -> tuple[int, float]:
        """The server's process on this machine; a check that needs one does not apply without."""
        if self.target.process is None:
            raise NotApplicableError("no process of ours to look at")
        return self.target.process


def check_process(context: CheckContext) -> str:
    """Check 0: the process that was started still runs."""
    pid, started_at = context.process
    require(process_alive(pid, started_at), f"process {pid} has ended")
    return f"process {pid}"


def check_port(context: CheckContext) -> str:
    """Check 1: that process, or a worker of it, and no other one listens on the port."""
    process, port = context.process, urlsplit(context.target.base_url).port
    holders = listeners(port) if port is not None else []
    require(holders, f"nothing listens on port {port}")
    ours = set(group_members(*process))
    strangers = [holder for holder in holders if holder not in ours]
    who = ", ".join("another user" if holder is None else f"process {holder}" for holder in strangers)
    relation = "shared with" if len(strangers) < len(holders) else "held by"
    require(not strangers, f"port {port} is {relation} {who}; stop this server and start it on another port")
    return f"port {port} is held by this server alone"


def check_health(context: CheckContext) -> str:
    """Check 2: it says that it is well, and which version it is."""
    root = root_of(context.target.base_url)
    answer = http_get(f"{root}/health", timeout_s=5.0)
    if answer.status in {404, 405} and context.target.process is None:
        raise NotApplicableError("it has no /health, as hosted gateways often have none")
    require(answer.status == 200, f"{root}/health answers {answer.status}: {redacted(answer.text)[:200]}")
    with contextlib.suppress(ModelCallError, ValueError, KeyError, TypeError):
        version = http_get(f"{root}/version", timeout_s=5.0)
        context.version = str(version.json()["version"]) if version.status == 200 else ""
    return f"version {context.version}" if context.version else "answers"


def check_identity(context: CheckContext) -> str:
    """Check 3: it serves the model, under the name that only this launch has, with the context asked for."""
    target = context.target
    context.models = models = ask_models(target.base_url, key=target.key, timeout_s=10.0)
    what = "the key is not the server's" if target.key else "the server wants a key: give it with --key-env NAME"
    require(not models.refuses_key, f"{models.status}: {what}")
    answer = f"answers {models.status}" if models.status else "does not answer"
    if models.absent and target.model and not target.alias:
        context.model = target.model
        context.without[MODEL_LIST] = f"/v1/models {answer}: {models.detail}"
        raise NotApplicableError(f"it has no model list; {target.model!r} is taken on your word and tried")
    hint = "; name its model (--model), then its answers are tried instead" if models.absent else ""
    require(models.status == 200 and models.names, f"/v1/models {answer}: {models.detail}{hint}")
    context.model = target.model or models.names[0]
    for name in filter(None, (context.model, target.alias)):
        near = nearest(name, models.names) if name == context.model and name not in models.names else []
        hint = f"; did you mean {near[0]!r}?" if near else ""
        require(name in models.names, f"it serves {', '.join(models.names)}, not {name!r}{hint}")
    if target.process is None and (target.alias or target.key):
        _require_one_server(context, models)
    length, asked = context.max_model_len, target.max_model_len
    require(None in {asked, length} or length == asked, f"it serves {length} tokens of context, {asked} were asked for")
    own_name = " and this launch's own name" if target.alias else ""
    return f"serves {context.model}{own_name}" + (f", {length} tokens of context" if length else "")


def _require_one_server(context: CheckContext, first: ModelList) -> None:
    """Fail when another server shares the port on a node whose listeners cannot be seen from here.

    The kernel divides new connections among them, and each question opens one: with half of them each, the other server
    stays unseen once in thousands of checks. Only an answer counts; a busy server may let a question time out.
    """
    ask = partial(ask_models, key=context.target.key, timeout_s=10.0)
    with ThreadPoolExecutor(max_workers=_CONNECTIONS) as pool:
        answers = list(pool.map(ask, [context.target.base_url] * _CONNECTIONS))
    others = ["refuses the key" for models in answers if models.refuses_key]
    names = [models.names for models in answers if models.status == 200 and models.names != first.names]
    if others := others + [f"serves {', '.join(each) or 'nothing'}" for each in names]:
        raise CheckFailedError(
            f"another server shares its port: one answer of {_CONNECTIONS} {others[0]}; start it again on another port"
        )


def check_key(context: CheckContext) -> str:
    """Check 4: the server refuses a request without its key and one with a wrong key."""
    if not context.target.key:
        raise NotApplicableError("no key was given, so none is tested")
    if MODEL_LIST in context.without:
        raise NotApplicableError("it has no model list to ask without a key")
    for which, key in {"without a key": "", "with a wrong key": secrets.token_urlsafe(24)}.items():
        answer = ask_models(context.target.base_url, key=key)
        require(answer.status, f"it did not answer a question {which}: {answer.detail}")
        require(answer.refuses_key, f"the server is open: it answers {which}; start it again with a key")
    return "refused without a key and with a wrong one"


FIRST_CHECKS: Sequence[tuple[str, Callable[[CheckContext], str]]] = (
    ("process alive", check_process),
    ("port is ours", check_port),
    ("health", check_health),
    ("identity", check_identity),
    ("key", check_key),
)
"""By their numbers; each returns what it saw, or raises `CheckFailedError` or `NotApplicableError`."""


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
