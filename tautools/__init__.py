"""tautools: launch and verify model servers, run tau-bench sweeps, read the results.

::

    import tautools as tt

    servers = tt.launch("sim-large", "sim-user").wait_ready()
    tt.run(env="retail", strategy="fc", server="sim-large", user_server="sim-user", limit=2)
    tt.report()

The verbs are `launch verify servers run plan status report import_results show doctor`: each has help in Python
(`help(tt.run)`), and docs/api.md shows them all. Importing this package does nothing else: no network, no folder, no
log handler. A verb, and the packages that it needs, load when it is used.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_VERBS = ("doctor", "import_results", "launch", "plan", "report", "run", "servers", "show", "status", "verify")


class _Package(ModuleType):
    """The package as users see it: `tt.run` is the verb, though there is also a package `tautools.run`."""

    def __getattr__(self, name: str) -> Any:
        if name in _VERBS:
            return getattr(importlib.import_module("tautools.verbs"), name)
        raise AttributeError(f"module 'tautools' has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _VERBS:  # importing `tautools.run` would put the package in the verb's place
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_VERBS})


sys.modules[__name__].__class__ = _Package
