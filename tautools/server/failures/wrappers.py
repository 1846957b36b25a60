"""Lines that repeat another process's failure, and lines that mean nothing bad."""

from __future__ import annotations

from tautools.server.failures.row import failure

__all__ = ["HARMLESS", "WRAPPERS"]

_LOOK_UP = "Look further up in the log (`tautools server logs`) for the first error of a worker."

WRAPPERS = (
    failure(
        "W1",
        "engine_failed",
        r"Engine core initialization failed",
        "The engine did not start, and the log does not tell why.",
        _LOOK_UP,
        part="wrapper",
    ),
    failure(
        "W2",
        "engine_failed",
        r"Engine process failed to start",
        "The engine did not start, and the log does not tell why.",
        _LOOK_UP,
        part="wrapper",
    ),
    failure(
        "W3",
        "engine_died",
        r"(?:Async)?EngineDeadError|EngineCore encountered an issue",
        "The engine died while it served, and the log does not tell why.",
        _LOOK_UP,
        part="wrapper",
    ),
)


HARMLESS = (
    failure(
        "B1",
        "harmless",
        r"Failed to import from vllm\._C",
        "vLLM's CUDA code is not there, which is right without CUDA.",
        "Nothing needs to be done.",
        part="harmless",
    ),
    failure(
        "B2",
        "harmless",
        r"Pin memory is not supported",
        "Pinned memory is a thing of CUDA.",
        "Nothing needs to be done.",
        part="harmless",
    ),
    failure(
        "B3",
        "harmless",
        r"We must use the .?spawn.? multiprocessing|Overriding VLLM_WORKER_MULTIPROC_METHOD|torchvision is not avail|"
        r"No module named '?torchvision|[Ww]orkaround.*device.*memory",
        "The platform sets this by itself, or text models do not need it.",
        "Nothing needs to be done.",
        part="harmless",
    ),
    failure(
        "B5",
        "harmless",
        r"Found ulimit of \d+ and failed to automatically increase",
        "The limit of open files could not be raised; it matters only when it is reached.",
        "Nothing needs to be done.",
        part="harmless",
    ),
    failure(
        "B4",
        "cold_shape",
        r"was not warmed-up!",
        "A request had a shape that was not warmed up, and was slow.",
        "If there are many, widen the buckets; the times of this run are worse than they could be.",
        part="harmless",
    ),
)
