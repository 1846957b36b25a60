"""The doors to the benchmarks, one module per place they are kept."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from tautools.bench.sources.naming import choose
from tautools.errors import BenchError

if TYPE_CHECKING:
    from tautools.bench.types import Source

__all__ = ["benchmarks", "open_source"]

_SOURCES = {"tau2": ("inspect-evals",)}
"""The places of each benchmark, the usual one first."""


def benchmarks() -> tuple[str, ...]:
    """Return the benchmarks that this version can play."""
    return tuple(_SOURCES)


def open_source(
    bench: str = "tau2", source: str | None = None, path: str | None = None, python: str | None = None
) -> Source:
    """Return the place that a benchmark's tasks come from; the same one each time.

    Parameters
    ----------
    bench : str
        `tau2`.
    source : str, optional
        `inspect-evals`, the PyPI package; the benchmark's usual place when not given.
    path : str, optional
        Folder of a checkout, for sources that are one.
    python : str, optional
        Interpreter of the checkout's own environment, for sources that run in one.

    Raises
    ------
    BenchError
        When there is no such bench or source, or the source is not installed.
    """
    choose("benchmark", bench, _SOURCES)
    source = choose("source", source or _SOURCES[bench][0], _SOURCES[bench], of=bench)
    given = {name: value for name, value in (("path", path), ("python", python)) if value is not None}
    if given:
        raise BenchError(
            f"The source {source} is a package and takes no {next(iter(given))}.",
            evidence=", ".join(f"{name}: {value}" for name, value in given.items()),
            next_step=f"Leave `{next(iter(given))}` out.",
        )
    return _inspect_tau2()


@functools.cache
def _inspect_tau2() -> Source:
    from tautools.bench.sources.inspect_tau2 import InspectTau2

    return InspectTau2()
