"""What is checked, and the cheap question to a server: which models it serves, and whether it accepts our key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tautools.errors import ModelCallError, nearest
from tautools.http import Http
from tautools.llm.types import Endpoint
from tautools.records import Check, Thinking

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tautools.records import ServerRecord


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


def ask_models(base_url: str, *, key: str, timeout_s: float = 3.0) -> ModelList:
    """Ask `/v1/models` of `base_url` (which ends in `/v1`) and return the answer, whatever it is; never raises.

    Parameters
    ----------
    base_url : str
        The address; ends in `/v1`.
    key : str
        Sent as `Authorization: Bearer`; empty sends none.
    timeout_s : float
        For connecting, and for each wait for data [s].

    Returns
    -------
    ModelList
        With status 0 when there was no answer; `detail` says why there are no names.
    """
    try:
        answer = Http().get(f"{base_url}/models", key=key, timeout_s=timeout_s)
    except ModelCallError as error:
        return ModelList(0, detail=error.evidence or error.problem)
    if answer.status != 200:
        return ModelList(answer.status, detail=answer.text[:300])
    try:
        entries = {str(entry.get("id", "")): entry for entry in answer.json()["data"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return ModelList(answer.status, detail=f"not a list of models: {answer.text[:300]}")
    lengths = {name: entry.get("max_model_len") for name, entry in entries.items()}
    lengths = {name: length if isinstance(length, int) else None for name, length in lengths.items()}
    simulated = any(entry.get("owned_by") == "tautools-simulate" for entry in entries.values())
    return ModelList(answer.status, lengths, simulated=simulated)


def root_of(base_url: str) -> str:
    """Return the address without its `/v1`: `/health` and `/version` lie there."""
    return base_url.rstrip("/").removesuffix("/v1")


def nearest_model(name: str, names: tuple[str, ...] | list[str]) -> str:
    """Return the likeliest of `names` for a misspelt one; empty when none is near."""
    return next(iter(nearest(name, names)), "")


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


class CheckFailedError(Exception):
    """A check failed; its text is what was seen and what to do."""


class NotApplicableError(Exception):
    """A check does not apply to this server; its text says why."""


@dataclass(slots=True)
class CheckContext:
    """What the checks so far have learned about a server."""

    target: CheckTarget
    model: str = ""
    models: ModelList | None = None
    version: str = ""
    checks: list[Check] = field(default_factory=list)

    @property
    def endpoint(self) -> Endpoint:
        """The server as the model client knows it."""
        simulated = self.models is not None and self.models.simulated
        return Endpoint(self.target.base_url, self.model, key=self.target.key, simulated=simulated)

    @property
    def failed(self) -> str:
        """The name of the first check that failed; empty while none has."""
        return next((check.name for check in self.checks if check.passed is False), "")

    @property
    def max_model_len(self) -> int | None:
        """The context length that the server reports [tokens]."""
        return self.models.lengths.get(self.model) if self.models is not None else None


def target_of(record: ServerRecord, key: str, *, concurrency: int = 0) -> CheckTarget:
    """Return what must hold for a registered server.

    Parameters
    ----------
    record : ServerRecord
        The launch, or the attached server.
    key : str
        Its key.
    concurrency : int
        Simultaneous chats that it must answer; 0 leaves out the checks that load a server.
    """
    engine = record.spec.get("engine", "")
    pid, started_at = record.pid, record.pid_started_at
    return CheckTarget(
        record.base_url,
        record.model,
        key=key,
        alias=record.alias,
        max_model_len=(record.spec.get(engine) or {}).get("max_model_len"),
        process=None if pid is None or started_at is None else (pid, started_at),
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
