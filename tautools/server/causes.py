"""Why a start failed: the first cause in the log, and what to do about it.

The last traceback is nearly always a wrapper ("Engine core initialization failed. See root cause above"); the cause is
above it, in the lines of another process. So wrappers and harmless lines are dropped first, then a known cause is
looked for from the top, then the engine's own first error line, then the last error of a traceback.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.server.stages import plain_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Diagnosis", "diagnose"]

_PREFIX = re.compile(r"^(\([\w:. ]*pid=\d+\)\s*)?((DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+[\d:. -]+\s*\[[^\]]*\]\s*)?")
_ENGINE_ERROR = re.compile(r"^\(\w*(EngineCore|Worker)[^)]*pid=\d+\)\s*ERROR")
_ERROR = re.compile(r"^(?:[\w.]+\.)?(?P<kind>\w*(?:Error|Exception|Exit|Interrupt))\b:?\s*(?P<text>.*)$")
_WRAPPERS = ("Engine core initialization failed", "Engine process failed to start", "EngineDeadError")
_HARMLESS = ("Failed to import from vllm._C", "Pin memory is not supported", "was not warmed-up!")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a server failed."""

    kind: str
    """A word for programs, such as `port_in_use`; `unknown` when no rule knows the cause."""
    cause: str
    """One sentence, with the log's own words."""
    remedy: str
    """What to do, in the imperative."""
    evidence: str = ""
    """The line of the log it was read from."""


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: str
    pattern: re.Pattern[str]
    cause: str
    remedy: str


def _rule(kind: str, pattern: str, cause: str, remedy: str) -> _Rule:
    return _Rule(kind, re.compile(pattern), cause, remedy)


_RULES = (
    _rule(
        "port_in_use",
        r"(?i)address already in use",
        "The port is taken by another process.",
        "Start it again without a fixed port, or stop what listens there.",
    ),
    _rule(
        "unknown_flag",
        r"error: unrecognized arguments: (?P<what>.+)",
        "This vLLM does not know {what}.",
        "Remove or rename the flag in the server file; `vllm serve --help=all` lists what this version knows.",
    ),
    _rule(
        "bad_value",
        r"error: argument (?P<what>--?[\w/, -]+): (?P<why>.+)",
        "vLLM refuses the value of {what}: {why}.",
        "Correct the value in the server file.",
    ),
    _rule(
        "unknown_tool_parser",
        r"invalid tool call parser: (?P<what>[^\s(]+)",
        "This vLLM has no tool parser named {what}.",
        "Choose one that the log line lists; Qwen3 and Hermes models use `hermes`.",
    ),
    _rule(
        "unknown_reasoning_parser",
        r"invalid reasoning parser: (?P<what>[^\s(]+)",
        "This vLLM has no reasoning parser named {what}.",
        "Choose one that the log line lists, or leave `reasoning_parser` out.",
    ),
    _rule(
        "no_tool_parser",
        r"--enable-auto-tool-choice requires",
        "Tool calls were switched on without a parser that reads them.",
        "Set `tool_call_parser` in the server file (`hermes` for Qwen3).",
    ),
    _rule(
        "no_such_model",
        r"HFValidationError|Invalid repository ID or local directory|Repo id must be",
        "The model is neither a folder on this machine nor a name that the hub could have.",
        "Check `model` in the server file; a folder of weights is given by its whole path.",
    ),
    _rule(
        "not_cached",
        r"LocalEntryNotFoundError|outgoing traffic has been disabled|couldn't connect to 'https://huggingface|"
        r"Cannot find an appropriate cached snapshot",
        "The model is not in the local cache, and the hub cannot be reached from here.",
        "Download it first on a machine with network into the same HF_HOME, then start again.",
    ),
    _rule(
        "gated",
        r"Cannot access gated repo|access a gated repo|401 Client Error",
        "The hub does not let this account have the model.",
        "Accept its licence on the hub and set HF_TOKEN, or use a cached copy.",
    ),
    _rule(
        "length_above_model",
        r"max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len[^\d]*(?P<most>\d+)?",
        "max_model_len {asked} is more than the model was made for ({most}).",
        "Lower `max_model_len` in the server file to {most}.",
    ),
    _rule(
        "kv_cache_too_small",
        r"To serve at least one request with the models?'?s? max seq len",
        "The KV cache cannot hold one request of max_model_len tokens.",
        "Lower `max_model_len`, raise `gpu_memory_utilization`, or spread the model over more cards.",
    ),
    _rule(
        "no_memory_for_kv",
        r"No available memory for the cache blocks",
        "The weights leave no memory for the KV cache.",
        "Raise `gpu_memory_utilization` or `tensor_parallel_size`, or lower `max_model_len`.",
    ),
    _rule(
        "card_held",
        r"Free memory on device .* less than desired|Device acquire failed|synStatus=8",
        "Another process holds the card.",
        "Look at the cards with nvidia-smi or hl-smi, and stop your own process there or take another card.",
    ),
    _rule(
        "out_of_memory",
        r"CUDA out of memory|torch\.OutOfMemoryError|PT_DEVMEM Allocation failed",
        "The card's memory is not enough.",
        "Use more cards (`tensor_parallel_size`), a shorter `max_model_len` or a smaller model.",
    ),
    _rule(
        "heads_not_divisible",
        r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size",
        "The model's {heads} attention heads cannot be shared evenly by the cards.",
        "Choose a `tensor_parallel_size` that divides {heads}.",
    ),
    _rule(
        "no_device",
        r"Failed to infer device type|No platform detected",
        "This vLLM finds no device it was built for.",
        "Start it in the site's own environment; for Gaudi the plugin must be installed there.",
    ),
    _rule(
        "module_missing",
        r"No module named '?(?P<what>[\w.]+)'?",
        "The environment of the server lacks the module {what}.",
        "Install it there, or point `serve_command` at the right environment.",
    ),
    _rule(
        "disk_full",
        r"No space left on device|Disk quota exceeded",
        "The disk is full.",
        "Free space, or set VLLM_CACHE_ROOT, TMPDIR and HF_HOME to a larger disk.",
    ),
)


def diagnose(lines: Sequence[str], *, exit_code: int | None = None) -> Diagnosis:
    """Return the first cause that a failed server's log shows.

    Parameters
    ----------
    lines : sequence of str
        The log, output and errors, each in its own order.
    exit_code : int, optional
        Exit status of the process; negative is the signal that ended it.
    """
    told = [line for line in plain_lines(lines) if not any(mark in line for mark in (*_WRAPPERS, *_HARMLESS))]
    return _known(told) or _engine_error(told) or _last_error(told) or _by_exit(told, exit_code)


def _known(lines: list[str]) -> Diagnosis | None:
    for line in lines:
        for rule in _RULES:
            if found := rule.pattern.search(line):
                words = {name: (value or "its own length").strip() for name, value in found.groupdict().items()}
                return Diagnosis(rule.kind, rule.cause.format(**words), rule.remedy.format(**words), _bare(line))
    return None


def _engine_error(lines: list[str]) -> Diagnosis | None:
    errors = [_bare(line) for line in lines if _ENGINE_ERROR.match(line)]
    return _first_error(errors)


def _last_error(lines: list[str]) -> Diagnosis | None:
    return _first_error(reversed([_bare(line) for line in lines]))


def _first_error(lines: Iterable[str]) -> Diagnosis | None:
    for line in lines:
        if _ERROR.match(line):
            return Diagnosis("unknown", line, "Read the log around this line with `tautools server logs`.", line)
    return None


def _by_exit(lines: list[str], exit_code: int | None) -> Diagnosis:
    last = _bare(lines[-1]) if lines else ""
    if exit_code is not None and exit_code < 0:
        cause = f"It was ended by signal {-exit_code}."
    elif exit_code is not None:
        cause = f"It ended with status {exit_code}."
    else:
        cause = "Its process is gone."
    return Diagnosis("unknown", cause, "Read its log with `tautools server logs`.", last)


def _bare(line: str) -> str:
    return _PREFIX.sub("", line).strip()
