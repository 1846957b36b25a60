"""Import jsonschema in a tenth of a second in place of one and a half.

`jsonschema` builds a grammar for IRIs whenever it is imported, for a format check that must be asked for; neither
notebooks nor the benchmark's tools ask. It is ready for the grammar's package not to be there: so while it is imported,
that package looks as if it were not installed. Each cell of a sweep saves two seconds of CPU in its two processes.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


_GRAMMAR = "rfc3987_syntax"


@contextlib.contextmanager
def without_iri_grammar() -> Iterator[None]:
    """Let imports in the block find no IRI grammar; afterwards it can be imported as before.

    Nothing changes when jsonschema is loaded already.
    """
    if "jsonschema" in sys.modules or _GRAMMAR in sys.modules:
        yield
        return
    sys.modules[_GRAMMAR] = None  # type: ignore[assignment]  # None is Python's word for "cannot be imported"
    try:
        yield
    finally:
        del sys.modules[_GRAMMAR]
