"""The doors to the benchmarks, one module per place they are kept."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from tautools.bench.sources.tau2_checkout import TAU2_PATH_VARIABLE, TAU2_PYTHON_VARIABLE
from tautools.bench.types import check_known
from tautools.errors import BenchError

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.bench.types import Domain, Source
    from tautools.records import BenchRef

__all__ = ["IMPORTED_PREFIX", "open_domain", "open_ref", "open_source", "playing_source"]

IMPORTED_PREFIX = "imported:"
"""Before the name of who made results that were imported: such settings never mix with those of a source."""

_SOURCES = {"tau2": ("inspect-evals", "tau2-bench"), "tau-bench": ("tau-bench",)}
"""The places of each benchmark, the usual one first."""


def playing_source(source: str) -> str | None:
    """Return the source that can run what a name stands for; for imported results, that of their benchmark, if any."""
    if not source.startswith(IMPORTED_PREFIX):
        return source
    made_by = source.removeprefix(IMPORTED_PREFIX)
    return made_by if any(made_by in names for names in _SOURCES.values()) else None


def open_source(
    bench: str = "tau2", source: str | None = None, path: str | None = None, python: str | None = None
) -> Source:
    """Return the place that a benchmark's tasks come from; the same one each time.

    Parameters
    ----------
    bench : str
        `tau2`, or `tau-bench`, which is v1.
    source : str, optional
        For tau2 `inspect-evals`, the PyPI package, or `tau2-bench`, a checkout; the usual place when not given.
    path : str, optional
        Folder of a checkout, for sources that are one; for tau-bench, else TAUTOOLS_TAU_BENCH_PATH or where the package
        `tau_bench` is installed, for tau2-bench, else TAUTOOLS_TAU2_BENCH_PATH.
    python : str, optional
        Interpreter of the checkout's own environment, for sources that run in one: tau2-bench, else
        TAUTOOLS_TAU2_BENCH_PYTHON or the checkout's `.venv`.

    Raises
    ------
    BenchError
        When there is no such bench or source, or the source is not installed.
    """
    check_known("benchmark", bench, _SOURCES)
    source = None if source is None else playing_source(source)
    source = check_known("source", source or _SOURCES[bench][0], _SOURCES[bench], of=bench)
    if source == "tau2-bench":
        return _tau2_bench(path or os.environ.get(TAU2_PATH_VARIABLE), python or os.environ.get(TAU2_PYTHON_VARIABLE))
    if source == "tau-bench":
        from tautools.bench.sources.tau_bench_checkout import find_tau_bench

        _refuse_unused(f"The source {source} runs in this process", python=python)
        return _tau_bench(find_tau_bench(path))
    _refuse_unused(f"The source {source} is a package", path=path, python=python)
    return _inspect_tau2()


def open_ref(ref: BenchRef) -> Source:
    """Return the source of a reference, as `open_source` does."""
    return open_source(ref.bench, ref.source or None, ref.path or None, ref.python or None)


def open_domain(ref: BenchRef) -> Domain:
    """Return the env of a reference, loaded once.

    Raises
    ------
    BenchError
        When there is no such bench, source, env or split, or the source is not installed.
    """
    return open_ref(ref).domain(ref.env, ref.split or None)


def _refuse_unused(what: str, **given: str | None) -> None:
    """Refuse what a source has no use for."""
    for name, value in given.items():
        if value is not None:
            raise BenchError(
                f"{what} and takes no {name}.", evidence=f"{name}: {value}", next_step=f"Leave `{name}` out."
            )


@functools.cache
def _tau_bench(root: Path) -> Source:
    from tautools.bench.sources.tau_bench import TauBench

    return TauBench(root)


@functools.cache
def _inspect_tau2() -> Source:
    from tautools.bench.sources.inspect_tau2 import InspectTau2

    return InspectTau2()


@functools.cache
def _tau2_bench(path: str | None, python: str | None) -> Source:
    from tautools.bench.sources.tau2_bench import Tau2Bench

    return Tau2Bench(path, python)
