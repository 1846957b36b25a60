"""Writes what a plan keeps, through the ledger's own writer: a kill leaves whole rows, which a repeat completes."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import tautools
from tautools.adopt.plan import plan_adoption
from tautools.adopt.read import read_files
from tautools.records import Event
from tautools.run.folder import claim_folder
from tautools.run.ledger import read_events, read_ledger
from tautools.run.plan import check_writable
from tautools.run.view import write_view
from tautools.run.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tautools.adopt.plan import Adoption, Group, Place
    from tautools.adopt.settle import Wish

__all__ = ["adopt", "carry_out"]


def adopt(paths: Sequence[Path], wish: Wish, *, dry_run: bool = False) -> Adoption:
    """Adopt files and folders of results.

    Parameters
    ----------
    paths : sequence of Path
        Files and folders.
    wish : Wish
        The workspace, the flags that tell what files do not, and whether the rows compare with conversations held here.
    dry_run : bool
        Whether only to say what would be adopted.

    Returns
    -------
    Adoption
        What was kept and why the rest was not; it prints itself.

    Raises
    ------
    ParamsError
        Before anything is written: a file that is not there or of no known format, something that nobody tells, or a
        contradiction.
    BenchError, RunError, FilesError
        As in `plan_adoption` and `carry_out`.
    """
    files, refused = read_files(paths)
    adoption = plan_adoption(files, wish, refused)
    if not dry_run:
        carry_out(adoption, wish.workspace)
    return adoption


def carry_out(adoption: Adoption, workspace: Path, on_row: Callable[[], None] = lambda: None) -> list[Path]:
    """Write what is kept, and the faults; return the views, one for each setting.

    Parameters
    ----------
    adoption : Adoption
        The plan, which has validated every row.
    workspace : Path
        The folder of `results/`.
    on_row : callable
        Called after each conversation that is on the disk.

    Raises
    ------
    RunError, FilesError
        When the disk does not take it; what it took is adopted, and a repeat adopts the rest.
    """
    for group in adoption.groups:
        check_writable(group.folder.parent)
    return [_enter(group, workspace, on_row) for group in adoption.groups]


def _enter(group: Group, workspace: Path, on_row: Callable[[], None]) -> Path:
    folder = claim_folder(workspace / "results", group.setting, _provenance(group))
    told = list(read_events(folder))
    with contextlib.closing(Writer(folder)) as writer:
        known = {_mark(event.data.get("adopted")) for event in told if event.kind == "fault"}
        for place in group.lost:
            if _mark(_origin(place)) not in known:
                writer.event(_fault(group, place))
        for taken in group.kept:
            writer.commit(taken.conversation, taken.counts)
            on_row()
        recorded = {event.data.get("sha256") for event in told if event.kind == "adopted"}
        for file in group.files:
            kept = [each for each in group.kept if _from(each.conversation.adopted, file.sha256)]
            if kept or file.sha256 not in recorded:
                data = {"file": str(file.path), "sha256": file.sha256, "format": file.format, "kept": len(kept)}
                message = f"{len(kept)} conversations adopted from {file.path.name}"
                writer.event(_event(group, "adopted", message, data))
    rows = [row for row in read_ledger(folder).values() if row.setting_id == group.setting.id]
    order = list(group.settled.domain.tasks) if group.settled.domain else group.tasks
    return write_view(folder, rows, num_trials=group.num_trials, order=order)


def _provenance(group: Group) -> dict[str, Any]:
    domain = group.settled.domain
    place = (("path", domain.path), ("python", domain.python)) if domain else ()
    files = [{"file": each.path.name, "sha256": each.sha256, "format": each.format} for each in group.files]
    return {
        "tautools": tautools.__version__,
        "adopted": files,
        "benchmark": {name: text for name, text in place if text},
    }


def _origin(place: Place) -> dict[str, Any]:
    file, found = place
    return {"file": file.path.name, "sha256": file.sha256, "format": file.format, "row": found.row}


def _mark(origin: Any) -> tuple[Any, Any] | None:
    return (origin.get("sha256"), origin.get("row")) if isinstance(origin, dict) else None


def _from(adopted: Any, sha256: str) -> bool:
    return adopted is not None and adopted.sha256 == sha256


def _fault(group: Group, place: Place) -> Event:
    """Return the event of a conversation that was lost: reports count it under v1's convention, and it stays owed."""
    _, found = place
    message = f"{found.fate.value}: {found.why}" if found.why else found.fate.value
    return _event(group, "fault", message, {"fault": "adopted", "adopted": _origin(place)}).model_copy(
        update={"task_id": found.task_id, "trial": found.trial}
    )


def _event(group: Group, kind: str, message: str, data: dict[str, Any]) -> Event:
    return Event(kind=kind, at=time.time(), setting_id=group.setting.id, message=message, data=data)
