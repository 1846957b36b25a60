"""Read vLLM's log: how far a start is, its messages without prefixes, and requests that met a cold shape."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class StartupStage:
    """What a starting server is doing, and the share of the start that lies behind it, in [0, 100]."""

    name: str
    percent: int


@dataclass(frozen=True, slots=True)
class _StageMarker:
    """A line that opens a stage; with a counter (`done`, `of`, or `share`) the per cent move within the stage."""

    pattern: re.Pattern[str]
    name: str
    start: int
    end: int


def _stage_marker(pattern: str, name: str, start: int, end: int) -> _StageMarker:
    return _StageMarker(re.compile(pattern), name, start, end)


# In the order of a start. The warm-up counter is the Gaudi plugin's; it is most of a start there.
_STAGE_MARKERS = (
    _stage_marker(r"vLLM.* version|non-default args", "reading options", 3, 5),
    _stage_marker(r"Initializing a V\d LLM engine|Resolved architecture", "configuring the engine", 8, 10),
    _stage_marker(r"Starting to load model|Loading weights|Loading safetensors", "loading weights", 12, 12),
    _stage_marker(r"Loading [\w ]*checkpoint shards:\s+(?P<share>\d+)%", "loading weights", 12, 50),
    _stage_marker(r"Loading weights took|Model loading took", "weights loaded", 50, 50),
    _stage_marker(r"Dynamo bytecode transform|torch\.compile takes|Compiling a graph", "compiling", 55, 60),
    _stage_marker(r"Free device memory|GPU KV cache size|CPU KV cache|KV cache memory", "sizing the KV cache", 60, 60),
    _stage_marker(r"Generated \d+ (prompt|decode) buckets", "planning the warm-up", 62, 62),
    _stage_marker(r"\[Warmup\]\[[^\]]*[Pp]rompt[^\]]*\]\[(?P<done>\d+)/(?P<of>\d+)\]", "warming up prompts", 62, 77),
    _stage_marker(r"\[Warmup\]\[[^\]]*[Dd]ecode[^\]]*\]\[(?P<done>\d+)/(?P<of>\d+)\]", "warming up decoding", 77, 92),
    _stage_marker(r"Capturing (CUDA|cudagraph)[\w ()=,.-]*:\s+(?P<share>\d+)%", "capturing graphs", 62, 92),
    _stage_marker(r"Warmup finished|Graph capturing finished|init engine .* took", "warmed up", 93, 93),
    _stage_marker(r"Starting vLLM (API )?server", "opening the API", 96, 96),
    _stage_marker(r"Application startup complete", "answering soon", 99, 99),
)


def plain_lines(lines: Iterable[str]) -> list[str]:
    """Return the lines without colours, and with each redraw of a progress bar as a line of its own."""
    return [part for line in lines for part in _COLOUR.sub("", line).split("\r") if part.strip()]


def read_startup_stage(lines: Iterable[str]) -> StartupStage:
    """Return the furthest stage that the log shows; lines may come from several files in any order."""
    furthest = StartupStage("starting the process", 1)
    for line in plain_lines(lines):
        for marker in _STAGE_MARKERS:
            found = marker.pattern.search(line)
            if found:
                percent = marker.start + round((marker.end - marker.start) * _stage_share(found.groupdict()))
                if percent >= furthest.percent:
                    furthest = StartupStage(marker.name, percent)
    return furthest


def _stage_share(counter: dict[str, str | None]) -> float:
    share, done, of = counter.get("share"), counter.get("done"), counter.get("of")
    if share is not None:
        return min(int(share), 100) / 100
    if done is not None and of is not None and int(of) > 0:
        return min(int(done) / int(of), 1.0)
    return 0.0


_PROCESS_PREFIX = re.compile(r"^\((?P<who>[A-Za-z][\w:. ]*?)(?: (?:pid|rank)=\d+)+\)\s?")
_LEVEL_PREFIX = re.compile(r"^(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+[\d:., /-]+\s*\[[^\]]*\]\s?")
_RANK_PREFIX = re.compile(r"^\[rank\d+\]:?\s?")
_TRACEBACK = "Traceback (most recent call last):"


@dataclass(frozen=True, slots=True)
class LogMessage:
    """One message."""

    text: str
    process: str = ""
    """Which of the server's processes wrote it, such as `EngineCore`; empty when the line does not tell."""
    level: str = ""


def read_messages(lines: Iterable[str]) -> list[LogMessage]:
    """Return the messages of a log in their order.

    Left out are frames and code of tracebacks (they quote the text of errors that were not raised), and what another
    worker has said already in the same words.
    """
    inside: set[str] = set()
    said: set[str] = set()
    found = []
    for raw in plain_lines(lines):
        line, tag = _split_prefix(raw)
        if line.text.startswith(_TRACEBACK):
            inside.add(tag)
            continue
        if tag in inside and _is_frame(line.text):
            continue
        inside.discard(tag)
        text = line.text.strip()
        if text and text not in said:
            said.add(text)
            found.append(LogMessage(text, line.process, line.level))
    return found


def _split_prefix(raw: str) -> tuple[LogMessage, str]:
    """Return the message, and a tag of the process that wrote it, so that mixed tracebacks are kept apart."""
    text, process, level, tag = raw, "", "", ""
    if found := _PROCESS_PREFIX.match(text):
        process, tag, text = found["who"].strip(), found[0].strip(), text[found.end() :]
    if found := _LEVEL_PREFIX.match(text):
        level, text = found["level"], text[found.end() :]
    if found := _RANK_PREFIX.match(text):
        tag, text = tag or found[0].strip(), text[found.end() :]
    return LogMessage(text, process, level), tag


def _is_frame(text: str) -> bool:
    """Whether a line within a traceback is a frame or its code, not the error's own message."""
    return text.startswith(('  File "', "    ")) or not text.strip()


_COLD_SHAPE = re.compile(r"Configuration: \((?P<shape>[^)]*)\).*was not warmed-up!")
_SHAPE_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class ColdShapes:
    """Shapes of one server that were not warmed up."""

    counts: Mapping[tuple[str, int, int, int], int] = field(default_factory=dict)
    """By phase, batch size, query length and context blocks: how often."""

    @property
    def total(self) -> int:
        """How many requests were slow by it."""
        return sum(self.counts.values())

    def proposed(self) -> dict[str, str]:
        """Return the variables of buckets that reach as far as what was seen, rounded up to a power of two."""
        found: dict[str, int] = {}
        for phase, batch, query, blocks in self.counts:
            asked = (
                {"BS": batch, "QUERY": query, "CTX": blocks} if phase == "PROMPT" else {"BS": batch, "BLOCK": blocks}
            )
            for part, size in asked.items():
                name = f"VLLM_{phase}_{part}_BUCKET_MAX"
                found[name] = max(found.get(name, 1), size)
        return {name: str(1 << (size - 1).bit_length()) for name, size in sorted(found.items())}


def read_cold_shapes(lines: Iterable[str]) -> ColdShapes:
    """Return the shapes that a server's log tells."""
    counts: Counter[tuple[str, int, int, int]] = Counter()
    for line in lines:
        if match := _COLD_SHAPE.search(line):
            numbers = [int(each) for each in _SHAPE_NUMBER.findall(match["shape"])][:3]
            phase = "DECODE" if "decode" in match["shape"].lower() else "PROMPT"
            batch, query, blocks = [*numbers, 1, 1, 1][:3]
            counts[phase, max(1, batch), max(1, query), max(1, blocks)] += 1
    return ColdShapes(counts)
