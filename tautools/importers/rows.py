"""The rows of a result file, and tolerant JSON reading: gzip, lists joined end to end, torn files, NaN."""

from __future__ import annotations

import datetime
import json
import math
import re
import zlib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tautools.records import ModelConfig, Outcome, Sampling, canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from tautools.records import Strategy, TrajectoryAction, UserStrategy


class RowStatus(StrEnum):
    """What becomes of a row, in the words that a person reads."""

    KEPT = "kept"
    ALREADY = "already in the ledger"
    DUPLICATE = "duplicate of an earlier row"
    ERROR = "error row"
    INFRA = "infrastructure error"
    NO_SCORE = "without a score"
    OTHER_ENV = "of another env"
    UNKNOWN_TASK = "unknown task"
    OTHER_TASK = "task of another version"
    UNREADABLE = "unreadable"


LOST = frozenset({RowStatus.ERROR, RowStatus.INFRA, RowStatus.NO_SCORE})
"""A conversation was begun and lost: not imported, and pending."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of a file."""

    index: int
    """Position in the file, from 0."""
    status: RowStatus = RowStatus.KEPT
    why: str = ""
    """More about the status: the error's text, what cannot be read."""
    env: str = ""
    task_id: str = ""
    trial: int = 0
    outcome: Outcome | None = None
    reward: float | None = None
    reward_info: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[dict[str, Any]] = ()
    actions: Sequence[TrajectoryAction] = ()
    started_at: float | None = None
    """Unix time [s]; None when the file does not say."""
    finished_at: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    """Calls and tokens by the names of `CommitRow`, counted from the messages."""
    reference: str | None = None
    """The task's reference actions as canonical JSON; None when the file does not say."""
    error: str = ""
    seed: int = 0
    simulated: bool = False

    def but(self, status: RowStatus, why: str = "") -> SourceRow:
        """Return the row with another status."""
        return replace(self, status=status, why=why)


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What a file says about how its conversations were made; None where it says nothing."""

    bench: str
    harness: str
    """Who wrote the conversations: `tau-bench`, `tau2-bench`, `inspect-evals`, `tautools`."""
    protocol: str
    source_version: str = "unknown"
    reward_basis: str = "unknown"
    env: str | None = None
    """Of all rows; None when it differs by row or is not said."""
    split: str | None = None
    strategy: Strategy | None = None
    agent: ModelConfig | None = None
    user: ModelConfig | None = None
    user_strategy: UserStrategy | None = None
    num_trials: int | None = None
    seed: int | None = None
    setting_id: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SourceFile:
    """One file as read; not yet compared with the benchmark or the ledger."""

    path: Path
    sha256: str
    format: str
    facts: SourceFacts
    rows: Sequence[SourceRow]
    notes: Sequence[str] = ()
    """What was odd about it."""


_PASSED_FROM = 1 - 1e-6
_LOCAL_PREFIXES = ("openai/", "hosted_vllm/", "vllm/", "openai-api/")
"""What other programs write before the name of a model on an OpenAI-compatible server."""
_HOSTED_PROVIDERS = {
    *("anthropic", "azure", "bedrock", "deepseek", "gemini", "groq", "mistral", "ollama", "ollama_chat"),
    *("openrouter", "together_ai", "vertex_ai", "xai"),
}


def identify(index: int, value: Any, *, trial: Any = None) -> SourceRow:
    """Return a row with its task and trial; an unreadable one when it has none.

    Parameters
    ----------
    index : int
        Position in the file.
    value
        The row as the file has it.
    trial : int, optional
        The trial of rows that do not name one.
    """
    row = SourceRow(index)
    if not isinstance(value, dict):
        return row.but(RowStatus.UNREADABLE, "no JSON object")
    task_id, number = task_id_text(value.get("task_id")), whole_number(value.get("trial", trial))
    if task_id is None or number is None:
        return row.but(RowStatus.UNREADABLE, "no task_id" if task_id is None else "no trial")
    return replace(row, task_id=task_id, trial=number)


def task_id_text(value: Any) -> str | None:
    """Return a task's id as text; None when it is none."""
    if isinstance(value, str):
        return value.strip() or None
    number = whole_number(value)
    return None if number is None else str(number)


def whole_number(value: Any) -> int | None:
    """Return a number that counts things from 0; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if value >= 0 and value == int(value) else None


def outcome_of_reward(value: Any) -> tuple[Outcome, float] | None:
    """Return what a reward says; None for what is no reward between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return (Outcome.PASSED if value >= _PASSED_FROM else Outcome.FAILED), float(value)


def unix_time(value: Any) -> float | None:
    """Return an ISO time as unix time [s]; one without a zone is this machine's local time."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        return datetime.datetime.fromisoformat(str(value)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def parse_model(model: Any, settings: Any = None) -> ModelConfig | None:
    """Return a model as it was asked, from its name in litellm's or inspect's way of writing."""
    if not isinstance(model, str) or not model.strip():
        return None
    name, provider = model.strip(), "openai"
    for prefix in _LOCAL_PREFIXES:
        name = name.removeprefix(prefix)
    first, _, rest = name.partition("/")
    if first in _HOSTED_PROVIDERS and rest:
        name, provider = rest, first
    given = settings if isinstance(settings, dict) else {}
    known = {key: given[key] for key in ("temperature", "top_p", "top_k", "max_tokens") if given.get(key) is not None}
    try:
        sampling = Sampling(**known)
    except ValueError:
        sampling = Sampling()
    return ModelConfig(model=name, provider=provider, sampling=sampling)


def plain_messages(value: Any) -> list[dict[str, Any]] | None:
    """Return messages in OpenAI's form, without empty fields; None when they are not messages."""
    if not isinstance(value, list) or not all(isinstance(each, dict) and each.get("role") for each in value):
        return None
    plain = [_plain_message(each) for each in value]
    return plain if all(each is not None for each in plain) else None  # type: ignore[return-value]


def _plain_message(message: Mapping[str, Any]) -> dict[str, Any] | None:
    kept = {name: value for name, value in message.items() if value is not None and value != [] and name != "name"}
    kept["content"] = message.get("content")
    for call in kept.get("tool_calls", ()):
        function = call.get("function") if isinstance(call, dict) else None
        if not (isinstance(function, dict) and function.get("name") and isinstance(function.get("arguments"), str)):
            return None
    return kept


def arguments_text(arguments: Any) -> str:
    """Return the arguments of a call as the JSON text that models write."""
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments if arguments is not None else {}, ensure_ascii=False)


def tool_call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    """Return a tool call in OpenAI's form."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments_text(arguments)}}


def count_by_role(messages: Iterable[Mapping[str, Any]], role: str) -> int:
    """Return how many messages a role has."""
    return sum(message["role"] == role for message in messages)


def actions_text(actions: Any, arguments: str) -> str | None:
    """Return reference actions as canonical JSON, to be compared; None when the file does not have them.

    Parameters
    ----------
    actions : list of dict
        As the file has them.
    arguments : str
        The name under which it keeps the arguments.
    """
    if not isinstance(actions, list) or not all(isinstance(each, dict) for each in actions):
        return None
    return canonical_json([[each.get("name"), each.get(arguments)] for each in actions])


_GZIP = b"\x1f\x8b"
_SEPARATORS = re.compile(r"[\s,\[\]\0\ufeff]*")
_ROW_START = re.compile(r'\{\s*"(?:task_id"\s*:|id"\s*:\s*"[^"]*"\s*,\s*"(?:task_id|reward_info)"\s*:)')
"""How a row of v1 and a simulation of tau2-bench begin; tool calls have an id too."""
_DECODER = json.JSONDecoder(strict=False, parse_constant=lambda _: None)
"""Takes line breaks inside strings; NaN and infinities, which are not JSON, become null."""


@dataclass(frozen=True, slots=True)
class LooseJson:
    """What a text has: one document, or the objects that could be read one by one."""

    whole: Any = None
    """The document, when it is one; None else."""
    rows: tuple[Any, ...] = ()
    """The objects of lists that were joined, torn or damaged; None stands for a piece that cannot be read."""
    notes: tuple[str, ...] = ()


def unzipped(raw: bytes) -> tuple[bytes, str]:
    """Return the bytes of a gzip file, as far as they can be read, and what is wrong with it."""
    if not raw.startswith(_GZIP):
        return raw, ""
    data, rest = b"", raw
    while rest.startswith(_GZIP):
        stream = zlib.decompressobj(wbits=31)
        try:
            data += stream.decompress(rest)
        except zlib.error as error:
            return data, f"the gzip data is damaged ({error})"
        if not stream.eof:
            return data, "the gzip data ends too early"
        rest = stream.unused_data
    return data, ""


def read_loosely(raw: bytes) -> LooseJson:
    """Read JSON text: as one document if it is one, else object by object, going on behind what cannot be read."""
    text = raw.decode("utf-8-sig", errors="replace")
    try:
        return LooseJson(whole=_DECODER.decode(text))
    except (ValueError, RecursionError):
        pass
    head = _torn_tau2_results(text)
    return LooseJson(whole=head, notes=("cut off within its simulations",)) if head is not None else _one_by_one(text)


def _one_by_one(text: str) -> LooseJson:
    rows: list[Any] = []
    broken = 0
    at = _skip_separators(text, 0)
    while at < len(text):
        value, end = _decode(text, at)
        if end is None:
            broken += 1
            rows.append(None)
            following = _ROW_START.search(text, at + 1)
            at = following.start() if following else len(text)
            continue
        rows.extend(value if isinstance(value, list) else [value])
        at = _skip_separators(text, end)
    joined = len(re.findall(r"\]\s*\[\s*\{", text))
    notes = [f"{joined + 1} lists joined end to end"] if joined else []
    notes += [f"{broken} pieces cannot be read"] if broken else []
    return LooseJson(rows=tuple(rows), notes=tuple(notes))


def _decode(text: str, at: int) -> tuple[Any, int | None]:
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, None


def _skip_separators(text: str, at: int) -> int:
    match = _SEPARATORS.match(text, at)
    return match.end() if match else at


def _torn_tau2_results(text: str) -> dict[str, Any] | None:
    """Return what is left of a tau2-bench file that ends too early: its head and the simulations before the end."""
    if not text.lstrip().startswith("{"):
        return None
    results: dict[str, Any] = {}
    for name in ("info", "tasks"):
        start = re.search(rf'"{name}"\s*:\s*(?=[\[{{])', text)
        value, end = _decode(text, start.end()) if start else (None, None)
        if end is not None:
            results[name] = value
    start = re.search(r'"simulations"\s*:\s*(?=\[)', text)
    if not start or not isinstance(results.get("info"), dict):
        return None
    results["simulations"] = list(_one_by_one(text[start.end() :]).rows)
    return results
