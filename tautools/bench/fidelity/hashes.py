"""What the original once asked and returned, as hashes that are kept, so that ours can be compared without it."""

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
    from collections.abc import Mapping

    from tautools.bench.fidelity.traces import Trace

SHIPPED_HASHES = Path(__file__).with_name("hashes.json")
"""The hashes that come with the package: of every task of every env."""
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass
class ConversationHashes:
    """The hashes of one row, conversation by conversation."""

    hashes: dict[str, str] = field(default_factory=dict)
    """Case to the number of requests, whether the end is hashed too, and the sha256 of both."""
    requests: int = 0

    def add(self, trace: Trace, requests: int, *, end: bool) -> None:
        """Hash the first requests of a conversation and, if `end`, its reward and end too."""
        asked = [[each.role, each.messages, each.tools, each.rest] for each in trace.requests[:requests]]
        ended = [trace.end, trace.reward, trace.db, dict(trace.outputs), trace.messages] if end else []
        digest = _sha256([trace.case, asked, ended])
        self.hashes[trace.case] = f"{requests}{'' if end else ' requests only'} {digest[:16]}"
        self.requests += requests

    @property
    def sha256(self) -> str:
        """One hash over all of them."""
        return _sha256(self.hashes)


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class HashFile:
    """A file of hashes."""

    path: Path
    version: str = ""
    """Of the original's files."""
    python: str = ""
    """Version of Python by which they were made: some of its own error texts are what tools answer."""
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> HashFile:
        """Read a file; one that is not there has no hashes.

        Raises
        ------
        BenchError
            When it is not such a file.
        """
        if not path.exists():
            return cls(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, content["version"], content["python"], content["rows"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(
                f"{path} is not a file of hashes of the original.",
                evidence=f"{type(error).__name__}: {error}",
                next_step="Write it again: `tautools fidelity --path CHECKOUT --write`.",
            ) from error

    def is_for(self, version: str) -> bool:
        """Whether the hashes were made of these files, by this version of Python."""
        return self.version == version and self.python == _PYTHON

    def verdict(self, name: str, hashes: ConversationHashes) -> str:
        """Return whether a row is as it was kept: `same`, `differs`, or empty where none was kept."""
        kept = self.rows.get(name)
        return "" if kept is None else "same" if kept["sha256"] == hashes.sha256 else "differs"

    def write(self, version: str, rows: Mapping[str, ConversationHashes], command: str, *, single: bool) -> None:
        """Write the file with these rows in it; other rows of the same version stay.

        Parameters
        ----------
        version : str
            Of the original's files.
        rows : mapping of str to ConversationHashes
            By the row's name.
        command : str
            What makes the file again.
        single : bool
            Keep the hash of each conversation, not only one for the row.
        """
        old = dict(self.rows) if self.is_for(version) else {}
        new = {
            name: {
                "conversations": row.hashes if single else len(row.hashes),
                "requests": row.requests,
                "sha256": row.sha256,
            }
            for name, row in rows.items()
        }
        content = {
            "what": "Hashes of what tau-bench's own agents and users ask, and of the rewards, for the scripts of "
            "tautools.bench.fidelity.scripts",
            "command": command,
            "version": version,
            "python": _PYTHON,
            "written": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "rows": dict(sorted({**old, **new}.items())),
        }
        write_atomic(self.path, json.dumps(content, indent=1) + "\n")
