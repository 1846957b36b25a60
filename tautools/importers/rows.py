"""The rows of a result file, and tolerant JSON reading: gzip, lists joined end to end, torn files, NaN."""

import datetime
import gzip
import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import Any, TypeGuard

from tautools.records import Outcome, Sampling, SeedRule, TrajectoryAction, canonical_json


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

    def but(self, status: RowStatus, why: str = "") -> "SourceRow":
        """Return the row with another status."""
        return replace(self, status=status, why=why)


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What a file says about how its conversations were made."""

    harness: str = ""
    """Who wrote the conversations: `tau-bench`, `tau2-bench`, `inspect-evals`, `tautools`."""
    protocol: str = ""
    source_version: str = "unknown"
    reward_basis: str = "unknown"
    num_trials: int | None = None
    seed: int | None = None
    seed_rule: SeedRule = SeedRule.NONE
    """What their requests carried."""
    setting_id: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    """Params of the run that made them, by dotted name; None where it says nothing. Without `env` it differs by row."""


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

    @property
    def origin(self) -> dict[str, str]:
        """What records and events say of the file."""
        return {"file": self.path.name, "sha256": self.sha256, "format": self.format}


_PASSED_FROM = 1 - 1e-6
LOCAL_PREFIXES = ("openai/", "hosted_vllm/", "vllm/", "openai-api/")
"""What other programs write before the name of a model on an OpenAI-compatible server."""
_HOSTED_PROVIDERS = {
    *("anthropic", "azure", "bedrock", "deepseek", "gemini", "groq", "mistral", "ollama", "ollama_chat"),
    *("openrouter", "together_ai", "vertex_ai", "xai"),
}


def identify(index: int, value: Any, *, trial: int | None = None) -> SourceRow:
    """Return a row with its task and trial, `trial` where it names none; an unreadable one when it has none."""
    row = SourceRow(index)
    if not isinstance(value, dict):
        return row.but(RowStatus.UNREADABLE, "no JSON object")
    task_id, number = task_id_text(value.get("task_id")), whole_number(value.get("trial", trial))
    if task_id is None or number is None:
        return row.but(RowStatus.UNREADABLE, "no task_id" if task_id is None else "no trial")
    return replace(row, task_id=task_id, trial=number)


def part(value: Any, name: str) -> dict[str, Any]:
    """Return the object that an object of a file has under a name; an empty one where there is none."""
    inside = value.get(name) if isinstance(value, dict) else None
    return inside if isinstance(inside, dict) else {}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def task_id_text(value: Any) -> str | None:
    """Return a task's id as text; None when it is none."""
    task_id = value.strip() if isinstance(value, str) else whole_number(value)
    return None if task_id in {None, ""} else str(task_id)


def whole_number(value: Any) -> int | None:
    """Return a number that counts things from 0; None for anything else."""
    counts = _is_number(value) and math.isfinite(value) and value >= 0 and value == int(value)
    return int(value) if counts else None


def outcome_of_reward(value: Any) -> tuple[Outcome, float] | None:
    """Return what a reward says; None for what is no reward between 0 and 1."""
    if not _is_number(value) or not 0 <= value <= 1:
        return None
    return (Outcome.PASSED if value >= _PASSED_FROM else Outcome.FAILED), float(value)


def row_times(start: Any, end: Any) -> dict[str, Any]:
    """Return a row's times, given as ISO or unix time; none of them unless both can be read."""
    times = {"started_at": _unix_time(start), "finished_at": _unix_time(end)}
    return {} if None in times.values() else times


def _unix_time(value: Any) -> float | None:
    """Return an ISO time as unix time [s]; one without a zone is this machine's local time."""
    if _is_number(value):
        return float(value)
    try:
        return datetime.datetime.fromisoformat(str(value)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def model_params(
    role: str, name: Any, settings: Any = None, *, prefixes: Sequence[str] = LOCAL_PREFIXES
) -> dict[str, Any]:
    """Return a role's model and how it was asked as params, from its name in litellm's or inspect's way of writing."""
    if not isinstance(name, str) or not name.strip():
        return {}
    name = name.strip()
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    owner, _, rest = name.partition("/")
    hosted = owner in _HOSTED_PROVIDERS and rest
    given = settings if isinstance(settings, dict) else {}
    try:
        sampling = Sampling(**{key: given.get(key) for key in ("temperature", "top_p", "top_k", "max_tokens")})
    except ValueError:
        sampling = Sampling()
    model = {"model": rest, "provider": owner} if hosted else {"model": name, "provider": "openai"}
    return {f"{role}.{key}": value for key, value in (model | sampling.model_dump(exclude_defaults=True)).items()}


def are_messages(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Whether this is a list of messages, each with its role."""
    return isinstance(value, list) and all(isinstance(each, dict) and each.get("role") for each in value)


def plain_messages(value: Any) -> list[dict[str, Any]] | None:
    """Return messages in OpenAI's form, without empty fields; None when they are not messages."""
    if not are_messages(value):
        return None
    plain = [
        {name: each for name, each in message.items() if each is not None and each != [] and name != "name"}
        | {"content": message.get("content")}
        for message in value
    ]
    functions = [part(call, "function") for message in plain for call in message.get("tool_calls", ())]
    readable = all(each.get("name") and isinstance(each.get("arguments"), str) for each in functions)
    return plain if readable else None


def arguments_text(arguments: Any) -> str:
    """Return the arguments of a call as the JSON text that models write."""
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments if arguments is not None else {}, ensure_ascii=False)


def tool_call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    """Return a tool call in OpenAI's form."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments_text(arguments)}}


def actions_text(actions: Any, arguments: str) -> str | None:
    """Return reference actions, whose arguments have that name, as canonical JSON; None when there are none to read."""
    if not isinstance(actions, list) or not all(isinstance(each, dict) for each in actions):
        return None
    return canonical_json([[each.get("name"), each.get(arguments)] for each in actions])


def tau2_reference(task: Any) -> str | None:
    """Return the same of a task in tau2-bench's form."""
    criteria = part(task, "evaluation_criteria")
    return actions_text(criteria.get("actions") or [], "arguments") if isinstance(task, dict) else None


def verdict_parts(original: Any, db: Any, informed: Iterable[tuple[str, Any]] | None) -> dict[str, Any]:
    """Return another program's verdict by the names of ours; the original is kept alongside.

    `db` says whether the database was as it should be, `informed` what the user had to be told, each with whether it
    was; None where the file does not say.
    """
    parts: dict[str, Any] = {"original": original}
    if db is not None:
        parts["db"] = bool(db)
    if informed is not None:
        parts["missing_info"] = [text for text, communicated in informed if not communicated]
        parts["communicate"] = not parts["missing_info"]
    return parts


_GZIP = b"\x1f\x8b"
_VALUE_START = re.compile(r"[^\s,\[\]\0\ufeff]")
_ROW_START = re.compile(r'\{\s*"(?:task_id"\s*:|id"\s*:\s*"[^"]*"\s*,\s*"(?:task_id|reward_info)"\s*:)')
"""How a row of v1 and a simulation of tau2-bench begin; tool calls have an id too."""
_DECODER = json.JSONDecoder(strict=False, parse_constant=lambda _: None)
"""Takes line breaks inside strings; NaN and infinities, which are not JSON, become null."""


def unzipped(raw: bytes) -> tuple[bytes, list[str]]:
    """Return the bytes of a gzip file, as far as they can be read, and notes on what is wrong with it."""
    if not raw.startswith(_GZIP):
        return raw, []
    data = bytearray()
    try:
        with gzip.open(BytesIO(raw)) as stream:
            while piece := stream.read1():
                data += piece
    except EOFError:
        return bytes(data), ["the gzip data ends too early"]
    except (zlib.error, gzip.BadGzipFile) as error:
        return bytes(data), [f"the gzip data is damaged ({error})"]
    return bytes(data), []


def read_loosely(raw: bytes) -> tuple[Any, list[str]]:
    """Read JSON text, with notes on what was odd: as one document, else object by object.

    Of objects read one by one it returns a list, in which None stands for a piece that cannot be read; of nothing None.
    """
    text = raw.decode("utf-8-sig", errors="replace")
    try:
        return _DECODER.decode(text), []
    except (ValueError, RecursionError):
        pass
    head = _torn_tau2_results(text)
    if head is not None:
        return head, ["cut off within its simulations"]
    rows, broken = _one_by_one(text)
    joined = len(re.findall(r"\]\s*\[\s*\{", text))
    notes = [f"{joined + 1} lists joined end to end"] if joined else []
    return rows or None, notes + ([f"{broken} pieces cannot be read"] if broken else [])


def _one_by_one(text: str) -> tuple[list[Any], int]:
    """Return the objects of a text, and how many pieces of it cannot be read."""
    rows: list[Any] = []
    broken = at = 0
    while start := _VALUE_START.search(text, at):
        value, at = _decode(text, start.start())
        rows.append(value)
        if not at:
            broken += 1
            following = _ROW_START.search(text, start.start() + 1)
            at = following.start() if following else len(text)
    return rows, broken


def _decode(text: str, at: int) -> tuple[Any, int]:
    """Return the value that begins here and where it ends, 0 when it cannot be read."""
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, 0


def _torn_tau2_results(text: str) -> dict[str, Any] | None:
    """Return what is left of a tau2-bench file that ends too early: its head and the simulations before the end."""
    if not text.lstrip().startswith("{"):
        return None
    results: dict[str, Any] = {}
    for name in ("info", "tasks"):
        if start := re.search(rf'"{name}"\s*:\s*(?=[\[{{])', text):
            results[name], _ = _decode(text, start.end())
    start = re.search(r'"simulations"\s*:\s*(?=\[)', text)
    if not start or not isinstance(results.get("info"), dict):
        return None
    return results | {"simulations": _one_by_one(text[start.end() :])[0]}
