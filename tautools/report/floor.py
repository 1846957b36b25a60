"""The do-nothing floor: what an agent that does nothing scores on the same tasks, by the benchmark's own scorer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.bench import do_nothing_floor
from tautools.errors import TautoolsError
from tautools.run import SettingFolder, read_setting
from tautools.run.benchmark import domain_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.records import Setting

__all__ = ["Floor", "Floors"]


@dataclass(frozen=True, slots=True)
class Floor:
    """A floor, or why there is none."""

    value: float | None
    """Mean over the cell's tasks, in [0, 1]; the same for every k, as doing nothing gives the same every time."""
    tasks: int
    why_not: str = ""


class Floors:
    """Computes floors, each env once for a report."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str, str, str], Mapping[str, float] | str] = {}

    def of(self, setting: Setting, tasks: Sequence[str], folder: Path) -> Floor:
        """Return the floor of `tasks` under a setting's bench, env and split, from where its results were loaded."""
        floors = self._all(read_setting(folder) or SettingFolder(folder, setting.id, setting, {}))
        if isinstance(floors, str):
            return Floor(None, len(tasks), floors)
        missing = [task for task in tasks if task not in floors]
        if missing or not tasks:
            why = f"{setting.env} has no task {missing[0]}" if missing else "no task is planned"
            return Floor(None, len(tasks), why)
        return Floor(sum(floors[task] for task in tasks) / len(tasks), len(tasks))

    def _all(self, folder: SettingFolder) -> Mapping[str, float] | str:
        setting, place = folder.setting, str(folder.provenance.get("benchmark"))
        key = (setting.bench, setting.source, setting.env, setting.split, place)
        if key not in self._known:
            try:
                self._known[key] = do_nothing_floor(domain_of(folder))
            except TautoolsError as error:  # the results can be read without the benchmark they came from
                self._known[key] = error.problem
        return self._known[key]
