"""Show what the package logs. Importing tautools installs no handler; a notebook calls `show_log` once."""

from __future__ import annotations

import logging
import sys
from typing import TextIO


class _StdoutHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever standard output is when a line is written: a notebook's changes with each cell."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))

    @property
    def stream(self) -> TextIO:
        return sys.stdout

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """There is none to set."""


def show_log(level: str = "INFO") -> None:
    """Print what tautools logs from now on, one line each with the time; calling it again changes the level only.

    Parameters
    ----------
    level : str
        `DEBUG`, `INFO`, `WARNING` or `ERROR`.
    """
    logger = logging.getLogger("tautools")
    if not any(isinstance(handler, _StdoutHandler) for handler in logger.handlers):
        logger.addHandler(_StdoutHandler())
    logger.setLevel(level)
