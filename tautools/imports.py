"""Imports of other packages that cost less than they would."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without_iri_grammar() -> Iterator[None]:
    """Import jsonschema in a tenth of a second in place of one and a half.

    It builds a grammar for IRIs whenever it is imported, for a format check that neither notebooks nor the benchmark's
    tools ask for, and is ready for the grammar's package not to be there. So imports in the block find none; afterwards
    it can be imported as before. Nothing changes when jsonschema is loaded already.
    """
    grammar = "rfc3987_syntax"
    if "jsonschema" in sys.modules or grammar in sys.modules:
        yield
        return
    sys.modules[grammar] = None  # type: ignore[assignment]  # None is Python's word for "cannot be imported"
    try:
        yield
    finally:
        del sys.modules[grammar]
