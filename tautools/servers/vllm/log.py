"""Read vLLM's log: how far a start is, and requests that met a cold shape."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from tautools.servers.vllm.messages import plain_lines


@dataclass(frozen=True, slots=True)
class StartupStage:
    """What a starting server is doing, and how far the start is, in [0, 100]; progress only, the checks decide."""

    name: str
    percent: int


# In the order of a start: a line that opens a stage, and the per cent where the stage begins and ends; with a counter
# (`done` of `all`, or `share`) it moves in between. The warm-up counter is the Gaudi plugin's, most of a start there.
_STAGES = (
    (r"vLLM.* version|non-default args", "reading options", 3, 5),
    (r"Initializing a V\d LLM engine|Resolved architecture", "configuring the engine", 8, 10),
    (r"Starting to load model|Loading weights|Loading safetensors", "loading weights", 12, 12),
    (r"Loading [\w ]*checkpoint shards:\s+(?P<share>\d+)%", "loading weights", 12, 50),
    (r"Loading weights took|Model loading took", "weights loaded", 50, 50),
    (r"Dynamo bytecode transform|torch\.compile takes|Compiling a graph", "compiling", 55, 60),
    (r"Free device memory|GPU KV cache size|CPU KV cache|KV cache memory", "sizing the KV cache", 60, 60),
    (r"Generated \d+ (prompt|decode) buckets", "planning the warm-up", 62, 62),
    (r"\[Warmup\]\[[^\]]*[Pp]rompt[^\]]*\]\[(?P<done>\d+)/(?P<all>\d+)\]", "warming up prompts", 62, 77),
    (r"\[Warmup\]\[[^\]]*[Dd]ecode[^\]]*\]\[(?P<done>\d+)/(?P<all>\d+)\]", "warming up decoding", 77, 92),
    (r"Capturing (CUDA|cudagraph)[\w ()=,.-]*:\s+(?P<share>\d+)%", "capturing graphs", 62, 92),
    (r"Warmup finished|Graph capturing finished|init engine .* took", "warmed up", 93, 93),
    (r"Starting vLLM (API )?server", "opening the API", 96, 96),
    (r"Application startup complete", "answering soon", 99, 99),
)


def read_startup_stage(lines: Iterable[str]) -> StartupStage:
    """Return the furthest stage that the log shows; lines may come from several files in any order."""
    furthest = StartupStage("starting the process", 1)
    for line in plain_lines(lines):
        for pattern, name, start, end in _STAGES:
            if match := re.search(pattern, line):
                counter = match.groupdict()
                done, whole = int(counter.get("share") or counter.get("done") or 0), int(counter.get("all") or 100)
                percent = start + round((end - start) * min(done / (whole or 1), 1.0))
                furthest = StartupStage(name, percent) if percent >= furthest.percent else furthest
    return furthest


_COLD_SHAPE = re.compile(r"Configuration: \((?P<shape>[^)]*)\).*was not warmed-up!")


Shape: TypeAlias = tuple[str, int, int, int]
"""Phase, batch size, query length and context blocks."""


def read_cold_shapes(lines: Iterable[str]) -> Counter[Shape]:
    """Return the shapes that were not warmed up, from a Gaudi server's log, with how often each was met.

    The plugin compiles a graph for each bucket of batch size, query length and context before it serves. A shape
    outside of them is compiled when it first comes, and that request is slow; many of them spoil a latency figure.
    """
    counts: Counter[Shape] = Counter()
    for match in filter(None, map(_COLD_SHAPE.search, lines)):
        numbers = [max(1, int(each)) for each in re.findall(r"\d+", match["shape"])]
        batch, query, blocks = [*numbers, 1, 1, 1][:3]
        counts["DECODE" if "decode" in match["shape"].lower() else "PROMPT", batch, query, blocks] += 1
    return counts


def proposed_buckets(shapes: Iterable[Shape]) -> dict[str, str]:
    """Return the variables of buckets that reach as far as the shapes, rounded up to a power of two."""
    limits: dict[str, int] = {}
    for phase, batch, query, blocks in shapes:
        prompt = {"BS": batch, "QUERY": query, "CTX": blocks}
        for part, size in (prompt if phase == "PROMPT" else {"BS": batch, "BLOCK": blocks}).items():
            name = f"VLLM_{phase}_{part}_BUCKET_MAX"
            limits[name] = max(limits.get(name, 1), size)
    return {name: str(1 << (size - 1).bit_length()) for name, size in sorted(limits.items())}
