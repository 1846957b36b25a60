"""The verbs from a terminal. Each verb lives in a module of its own, which loads when the verb is called."""

from __future__ import annotations

from tautools.cli.root import cli, main

__all__ = ["cli", "main"]
