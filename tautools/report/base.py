"""What both reports share: one JSON file with every figure, and the pictures next to it."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tautools.files import ensure_folder, write_atomic
from tautools.report.figures import ReportFigure
from tautools.report.formatting import Summary, Table

NOTHING_NEXT = "Next: run a cell (`tautools run --help` shows how) or a sweep (`tautools sweep run NAME`)."


class SavedFiles(tuple[Path, ...]):
    """Paths that were written; says so in a notebook."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self:
            return "Nothing was written: no folder was given."
        return "\n".join(["Written:", *(path.name for path in self)])


@dataclass(frozen=True)
class Report(ABC):
    """Figures of cells, ready to be shown and saved."""

    workspace: Path
    sweep: str
    """Name or path of a sweep file; empty for everything under `results/`."""
    simulated: bool
    """Whether a simulated model had a part in it."""

    name: ClassVar[str]
    file_name: ClassVar[str]
    """Name of its JSON file."""

    @property
    @abstractmethod
    def summary(self) -> Summary:
        """Two sentences on what the data say."""

    @property
    @abstractmethod
    def tables(self) -> tuple[Table, ...]:
        """All tables, in the order of the report."""

    @property
    @abstractmethod
    def figures(self) -> Sequence[ReportFigure]:
        """All pictures, in the order of the report."""

    @abstractmethod
    def details(self) -> dict[str, Any]:
        """Return every figure with the rows that it was computed from, as JSON can hold it."""

    def to_json(self) -> dict[str, Any]:
        """Return the whole report as JSON can hold it."""
        return {
            "report": self.name,
            "workspace": str(self.workspace),
            "sweep": self.sweep,
            "simulated": self.simulated,
            "summary": [self.summary.first, self.summary.second],
            **self.details(),
            "tables": [table.to_markdown() for table in self.tables],
        }

    def save(self, out: str | Path = "") -> SavedFiles:
        """Write the JSON file and the pictures that have a PNG.

        Parameters
        ----------
        out : str or Path
            The folder; it is made when it is not there. Nothing is written when it is empty.

        Returns
        -------
        SavedFiles
            The paths that were written, the JSON file first.

        Raises
        ------
        FilesError
            When the folder cannot be made or written.
        """
        if not str(out):
            return SavedFiles()
        folder = ensure_folder(Path(out))
        written = [folder / self.file_name]
        write_atomic(written[0], json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n")
        for figure in self.figures:
            if figure.png:
                written.append(folder / f"{figure.name}.png")
                write_atomic(written[-1], figure.png)
        return SavedFiles(written)
