"""The sources of benchmark tasks: a package, a tau-bench checkout, a tau2-bench checkout."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import TYPE_CHECKING

from tautools.bench.types import check_known
from tautools.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tautools.bench.sources.tau2_checkout import Tau2Checkout
    from tautools.bench.types import Domain, Source
    from tautools.records import BenchRef

IMPORTED_PREFIX = "imported:"
"""Before the name of the program that made imported results: their settings never mix with those of a source."""

_SOURCES = {
    "tau2": {"inspect-evals": "inspect_tau2.InspectTau2", "tau2-bench": "tau2_bench.Tau2Bench"},
    "tau-bench": {"tau-bench": "tau_bench.TauBench"},
}
"""Module and class of each benchmark's sources, the usual one first; imported when it is opened."""


def open_source(
    bench: str = "tau2", source: str | None = None, path: str | None = None, python: str | None = None
) -> Source:
    """Return the source of a benchmark's tasks; the same one each time.

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
    sources = _SOURCES[check_known("benchmark", bench, _SOURCES)]
    made_by = (source or "").removeprefix(IMPORTED_PREFIX)
    if made_by != source and not any(made_by in names for names in _SOURCES.values()):
        made_by = ""  # results of a program that is no source are run by the usual one
    source = check_known("source", made_by or next(iter(sources)), sources, of=bench)
    module, name = sources[source].split(".")
    source_class = getattr(import_module(f"tautools.bench.sources.{module}"), name)
    takes = source_class.takes
    given = {name: value for name, value in (("path", path), ("python", python)) if value is not None}
    for name, value in given.items():
        if name not in takes:
            raise BenchError(
                f"The source {source} {'runs in this process' if takes else 'is a package'} and takes no {name}.",
                evidence=f"{name}: {value}",
                next_step=f"Leave `{name}` out.",
            )
    return _open(source_class, *([source_class.find(**given)] if takes else []))


@functools.cache
def _open(source_class: Callable[..., Source], *checkout: Tau2Checkout | Path) -> Source:
    return source_class(*checkout)


def open_ref(ref: BenchRef) -> Source:
    """Return the source of a reference, as `open_source` does."""
    return open_source(ref.bench, ref.source or None, ref.path or None, ref.python or None)


def open_domain(ref: BenchRef) -> Domain:
    """Return the env of a reference, loaded once, as `open_source` and `Source.domain` do."""
    return open_ref(ref).domain(ref.env, ref.split or None)
