"""What both reports share: a JSON file with every figure, and the pictures beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.files import ensure_folder, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tautools.report.figures import ReportFigure


class SavedFiles(tuple[Path, ...]):
    """Paths that were written; says so in a notebook."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self:
            return "Nothing was written: no folder was given."
        return "\n".join(["Written:", *(path.name for path in self)])


def save_files(out: str | Path, json_name: str, data: dict[str, Any], pictures: Iterable[ReportFigure]) -> SavedFiles:
    """Write `data` and the pictures into the folder `out`; with an empty `out` write nothing.

    Parameters
    ----------
    out : str or Path
        The folder; it is made when it is not there.
    json_name : str
        Name of the JSON file in it.
    data : dict
        Every figure of the report, in what JSON can hold.
    pictures : iterable of Picture
        Each goes to `<name>.png`; those without a PNG are left out.

    Returns
    -------
    Saved
        The paths that were written, the JSON file first.

    Raises
    ------
    FilesError
        When the folder cannot be made or written.
    """
    if not str(out):
        return SavedFiles()
    folder = ensure_folder(Path(out))
    written = [folder / json_name]
    write_atomic(written[0], json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    for picture in pictures:
        if picture.png:
            written.append(folder / f"{picture.name}.png")
            write_atomic(written[-1], picture.png)
    return SavedFiles(written)
