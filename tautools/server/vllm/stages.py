"""How far a start has come, read from vLLM's own log lines. A progress bar and nothing more: the probe decides."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Stage", "plain_lines", "read_stage"]

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Stage:
    """What a starting server is doing, and the share of the start that lies behind it, in [0, 100]."""

    name: str
    percent: int


@dataclass(frozen=True, slots=True)
class _Marker:
    """A line that opens a stage; with a counter (`done`, `of`, or `share`) the per cent move within the stage."""

    pattern: re.Pattern[str]
    name: str
    start: int
    end: int


def _marker(pattern: str, name: str, start: int, end: int) -> _Marker:
    return _Marker(re.compile(pattern), name, start, end)


# In the order of a start. The warm-up counter is the Gaudi plugin's; it is most of a start there.
_MARKERS = (
    _marker(r"vLLM.* version|non-default args", "reading options", 3, 5),
    _marker(r"Initializing a V\d LLM engine|Resolved architecture", "configuring the engine", 8, 10),
    _marker(r"Starting to load model|Loading weights|Loading safetensors", "loading weights", 12, 12),
    _marker(r"Loading [\w ]*checkpoint shards:\s+(?P<share>\d+)%", "loading weights", 12, 50),
    _marker(r"Loading weights took|Model loading took", "weights loaded", 50, 50),
    _marker(r"Dynamo bytecode transform|torch\.compile takes|Compiling a graph", "compiling", 55, 60),
    _marker(r"Free device memory|GPU KV cache size|CPU KV cache|KV cache memory", "sizing the KV cache", 60, 60),
    _marker(r"Generated \d+ (prompt|decode) buckets", "planning the warm-up", 62, 62),
    _marker(r"\[Warmup\]\[[^\]]*[Pp]rompt[^\]]*\]\[(?P<done>\d+)/(?P<of>\d+)\]", "warming up prompts", 62, 77),
    _marker(r"\[Warmup\]\[[^\]]*[Dd]ecode[^\]]*\]\[(?P<done>\d+)/(?P<of>\d+)\]", "warming up decoding", 77, 92),
    _marker(r"Capturing (CUDA|cudagraph)[\w ()=,.-]*:\s+(?P<share>\d+)%", "capturing graphs", 62, 92),
    _marker(r"Warmup finished|Graph capturing finished|init engine .* took", "warmed up", 93, 93),
    _marker(r"Starting vLLM (API )?server", "opening the API", 96, 96),
    _marker(r"Application startup complete", "answering soon", 99, 99),
)


def plain_lines(lines: Iterable[str]) -> list[str]:
    """Return the lines without colours, and with each redraw of a progress bar as a line of its own."""
    return [part for line in lines for part in _COLOUR.sub("", line).split("\r") if part.strip()]


def read_stage(lines: Iterable[str]) -> Stage:
    """Return the furthest stage that the log shows; lines may come from several files in any order."""
    furthest = Stage("starting the process", 1)
    for line in plain_lines(lines):
        for marker in _MARKERS:
            found = marker.pattern.search(line)
            if found:
                percent = marker.start + round((marker.end - marker.start) * _share(found.groupdict()))
                if percent >= furthest.percent:
                    furthest = Stage(marker.name, percent)
    return furthest


def _share(counter: dict[str, str | None]) -> float:
    share, done, of = counter.get("share"), counter.get("done"), counter.get("of")
    if share is not None:
        return min(int(share), 100) / 100
    if done is not None and of is not None and int(of) > 0:
        return min(int(done) / int(of), 1.0)
    return 0.0
