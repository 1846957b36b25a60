"""Show what the package logs. Importing tautools installs no handler; a notebook calls `show_log` once."""

import logging
import sys


class _StdoutHandler(logging.Handler):
    """Writes to whatever standard output is when a line is written: a notebook's changes with each cell."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(f"{self.format(record)}\n")
        sys.stdout.flush()


def show_log(level: str = "INFO") -> None:
    """Print what tautools logs from now on, one line each with the time; calling it again changes the level only.

    Parameters
    ----------
    level : str
        `DEBUG`, `INFO`, `WARNING` or `ERROR`.
    """
    logger = logging.getLogger("tautools")
    if not any(isinstance(handler, _StdoutHandler) for handler in logger.handlers):
        handler = _StdoutHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    logger.setLevel(level)
