"""tautools: launch and verify model servers, sweep tau-bench, read the results.

Importing this package does nothing else: no network, no folder, no log handler; heavy packages load when used.
"""

from __future__ import annotations

__version__ = "0.1.0"
