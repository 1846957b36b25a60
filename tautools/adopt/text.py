"""JSON as it is found on shared disks: gzipped or not, lists joined end to end, torn, with NaN in it."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from typing import Any

__all__ = ["Loose", "read_loosely", "unzipped"]

_GZIP = b"\x1f\x8b"
_BETWEEN = re.compile(r"[\s,\[\]\0\ufeff]*")
_ROW_START = re.compile(r'\{\s*"(?:task_id"\s*:|id"\s*:\s*"[^"]*"\s*,\s*"(?:task_id|reward_info)"\s*:)')
"""How a row of v1 and a simulation of tau2-bench begin; tool calls have an id too."""
_DECODER = json.JSONDecoder(strict=False, parse_constant=lambda _: None)
"""Takes line breaks inside strings; NaN and infinities, which are no JSON, become null."""


@dataclass(frozen=True, slots=True)
class Loose:
    """What a text holds: one document, or the objects that could be read one by one."""

    whole: Any = None
    """The document, when it is one; None else."""
    rows: tuple[Any, ...] = ()
    """The objects of lists that were joined, torn or damaged; None stands for a piece that cannot be read."""
    notes: tuple[str, ...] = ()


def unzipped(raw: bytes) -> tuple[bytes, str]:
    """Return the bytes that a gzip file holds, as far as they can be had, and what is wrong with it."""
    if not raw.startswith(_GZIP):
        return raw, ""
    found, rest = b"", raw
    while rest.startswith(_GZIP):
        stream = zlib.decompressobj(wbits=31)
        try:
            found += stream.decompress(rest)
        except zlib.error as error:
            return found, f"the gzip data is damaged ({error})"
        if not stream.eof:
            return found, "the gzip data ends too early"
        rest = stream.unused_data
    return found, ""


def read_loosely(raw: bytes) -> Loose:
    """Read JSON text: as one document if it is one, else object by object, going on behind what cannot be read."""
    text = raw.decode("utf-8-sig", errors="replace")
    try:
        return Loose(whole=_DECODER.decode(text))
    except (ValueError, RecursionError):
        pass
    head = _torn_results(text)
    return Loose(whole=head, notes=("cut off within its simulations",)) if head is not None else _one_by_one(text)


def _one_by_one(text: str) -> Loose:
    rows: list[Any] = []
    broken = 0
    at = _skip(text, 0)
    while at < len(text):
        value, end = _decode(text, at)
        if end is None:
            broken += 1
            rows.append(None)
            following = _ROW_START.search(text, at + 1)
            at = following.start() if following else len(text)
            continue
        rows.extend(value if isinstance(value, list) else [value])
        at = _skip(text, end)
    joined = len(re.findall(r"\]\s*\[\s*\{", text))
    notes = [f"{joined + 1} lists joined end to end"] if joined else []
    notes += [f"{broken} pieces cannot be read"] if broken else []
    return Loose(rows=tuple(rows), notes=tuple(notes))


def _decode(text: str, at: int) -> tuple[Any, int | None]:
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, None


def _skip(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return found.end() if found else at


def _torn_results(text: str) -> dict[str, Any] | None:
    """Return what is left of a tau2-bench file that ends too early: its head and the simulations before the end."""
    if not text.lstrip().startswith("{"):
        return None
    found: dict[str, Any] = {}
    for name in ("info", "tasks"):
        place = re.search(rf'"{name}"\s*:\s*(?=[\[{{])', text)
        value, end = _decode(text, place.end()) if place else (None, None)
        if end is not None:
            found[name] = value
    start = re.search(r'"simulations"\s*:\s*(?=\[)', text)
    if not start or not isinstance(found.get("info"), dict):
        return None
    found["simulations"] = list(_one_by_one(text[start.end() :]).rows)
    return found
