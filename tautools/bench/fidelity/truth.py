"""What the original once asked and gave, as hashes that are kept, so that ours can be held to it without it."""

from __future__ import annotations

import datetime
import hashlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.errors import BenchError
from tautools.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["SHIPPED", "Kept", "Truth", "this_python"]

SHIPPED = Path(__file__).with_name("hashes.json")
"""The hashes that come with the package: of every task of every env."""


@dataclass
class Kept:
    """The hashes of one row, conversation by conversation."""

    hashes: dict[str, str] = field(default_factory=dict)
    """Case to the number of requests, whether the end is hashed too, and the sha256 of both."""
    requests: int = 0

    def keep(self, case: str, requests: int, digest: str, *, end: bool) -> None:
        """Add a conversation."""
        self.hashes[case] = f"{requests}{'' if end else ' requests only'} {digest[:16]}"
        self.requests += requests

    @property
    def sha256(self) -> str:
        """One hash over all of them."""
        return hashlib.sha256(json.dumps(self.hashes, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Truth:
    """A file of hashes."""

    path: Path
    version: str = ""
    """Of the original's files."""
    python: str = ""
    """Version of Python by which they were made: some of its own error texts are what tools answer."""
    written: str = ""
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Truth:
        """Read a file; one that is not there holds no hashes.

        Raises
        ------
        BenchError
            When it is not such a file.
        """
        if not path.exists():
            return cls(path)
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, told["version"], told["python"], told["written"], told["rows"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(
                f"{path} is not a file of hashes of the original.",
                evidence=f"{type(error).__name__}: {error}",
                next_step="Write it anew: `tautools fidelity --path CHECKOUT --write`.",
            ) from error

    def speaks_of(self, version: str) -> bool:
        """Whether the hashes were made of these files, by such a Python."""
        return self.version == version and self.python == this_python()

    def verdict(self, name: str, found: Kept) -> str:
        """Return whether a row is as it was kept: `same`, `differs`, or empty where none was kept."""
        kept = self.rows.get(name)
        if kept is None:
            return ""
        return "same" if kept["sha256"] == found.sha256 else "differs"

    def conversations(self, name: str) -> dict[str, tuple[int, bool]]:
        """Return, for each conversation kept by itself, how many requests are hashed, and whether its end is."""
        told = {case: text.split() for case, text in self._each(name).items()}
        return {case: (int(words[0]), len(words) == 2) for case, words in told.items()}

    def differing(self, name: str, found: Kept) -> list[str]:
        """Return the conversations that are not as they were kept, where each was kept by itself."""
        kept = self._each(name)
        return [case for case in kept | found.hashes if kept.get(case) != found.hashes.get(case)]

    def _each(self, name: str) -> dict[str, str]:
        kept = self.rows.get(name, {}).get("conversations", {})
        return kept if isinstance(kept, dict) else {}

    def write(self, version: str, rows: Iterable[tuple[str, Kept]], command: str, *, each: bool) -> None:
        """Write the file with these rows in it; rows of the same version that were not made anew stay."""
        old = dict(self.rows) if self.speaks_of(version) else {}
        new = {
            name: {
                "conversations": kept.hashes if each else len(kept.hashes),
                "requests": kept.requests,
                "sha256": kept.sha256,
            }
            for name, kept in rows
        }
        told = {
            "what": "Hashes of what tau-bench's own agents and users ask, and of the rewards, for the scripts of "
            "tautools.bench.fidelity.scripts",
            "command": command,
            "version": version,
            "python": this_python(),
            "written": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "rows": dict(sorted({**old, **new}.items())),
        }
        write_atomic(self.path, json.dumps(told, indent=1) + "\n")


def this_python() -> str:
    """Return major and minor version of the running Python."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
