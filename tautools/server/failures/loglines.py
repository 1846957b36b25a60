"""A log as the diagnosis reads it: without prefixes and colours, without code of tracebacks, each message once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.server.vllm.stages import plain_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LogLine", "read_lines"]

_PROCESS = re.compile(r"^\((?P<who>[A-Za-z][\w:. ]*?)(?: (?:pid|rank)=\d+)+\)\s?")
_LEVEL = re.compile(r"^(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+[\d:., /-]+\s*\[[^\]]*\]\s?")
_RANK = re.compile(r"^\[rank\d+\]:?\s?")
_TRACEBACK = "Traceback (most recent call last):"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One message."""

    text: str
    process: str = ""
    """Which of the server's processes wrote it, such as `EngineCore`; empty when the line does not tell."""
    level: str = ""


def read_lines(lines: Iterable[str]) -> list[LogLine]:
    """Return the messages of a log in their order.

    Left out are frames and code of tracebacks (they quote the text of errors that were not raised), and what another
    worker has said already in the same words.
    """
    inside: set[str] = set()
    said: set[str] = set()
    found = []
    for raw in plain_lines(lines):
        line, tag = _split(raw)
        if line.text.startswith(_TRACEBACK):
            inside.add(tag)
            continue
        if tag in inside and _is_frame(line.text):
            continue
        inside.discard(tag)
        text = line.text.strip()
        if text and text not in said:
            said.add(text)
            found.append(LogLine(text, line.process, line.level))
    return found


def _split(raw: str) -> tuple[LogLine, str]:
    """Return the message, and a tag of the process that wrote it, so that mixed tracebacks are kept apart."""
    text, process, level, tag = raw, "", "", ""
    if found := _PROCESS.match(text):
        process, tag, text = found["who"].strip(), found[0].strip(), text[found.end() :]
    if found := _LEVEL.match(text):
        level, text = found["level"], text[found.end() :]
    if found := _RANK.match(text):
        tag, text = tag or found[0].strip(), text[found.end() :]
    return LogLine(text, process, level), tag


def _is_frame(text: str) -> bool:
    """Whether a line within a traceback is a frame or its code, not the error's own message."""
    return text.startswith(('  File "', "    ")) or not text.strip()
