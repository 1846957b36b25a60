"""The folder of a setting's results, `results/<env>/<strategy>/<model slug>/`: what was run, and on which benchmark.

The first setting has the plain slug; another that would meet it gets the first eight digits of its id behind it. A
folder is made whole, with its `setting.json` inside, and moved into place, so of two processes that start at the same
moment one makes it and the other finds it. A folder without `setting.json` that holds anything belongs to another
program and is never written to. A benchmark checkout is looked for where it was when the results were made; when it is
gone from there, where one is named or installed now.
"""

import json
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tautools.bench import open_domain, open_ref
from tautools.bench.types import Domain, Source, Task
from tautools.errors import (
    BenchError,
    FilesError,
    NotInstalledError,
    OldWorkspaceError,
    ParamsError,
    RunError,
    unknown_name,
)
from tautools.files import ensure_folder, write_atomic
from tautools.params.models import RunParams
from tautools.records import CommitRow, Conversation, Setting
from tautools.run.ledger import Ledger, read_conversation

SETTING_FILE = "setting.json"

_SIZE = re.compile(r"(?<![A-Za-z0-9.])((?:\d+x)?\d+(?:\.\d+)?[BbMmTt])(?![A-Za-z0-9])")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class SettingFolder:
    """A folder of results with what its `setting.json` says, or the place where it will be made."""

    path: Path
    id: str
    """The setting's id as its writer computed it; a newer tautools may know fields that this one does not."""
    setting: Setting
    provenance: dict[str, Any]
    """What was observed when the folder was made: versions, git revision, endpoints without keys, served lengths."""
    exists: bool = True

    def rows(self) -> list[CommitRow]:
        """Return the finished conversations, by task and trial; the ledger is read for it."""
        rows = Ledger(self.path).refresh().rows(self.id).values()
        return sorted(rows, key=lambda row: (not row.task_id.isdecimal(), row.task_id.zfill(8), row.trial))

    def conversation(self, row: CommitRow) -> Conversation:
        """Return the conversation of a row; errors as `read_conversation`."""
        return read_conversation(self.path, row)

    @cached_property
    def domain(self) -> Domain:
        """The env, from where it was loaded when the results were made; `BenchError` when it is not there any more."""
        return open_domain(self.setting.ref._replace(**self.benchmark_location))

    @property
    def benchmark_location(self) -> dict[str, str]:
        """What is recorded of the benchmark's place: `path` and `python`, when that path is still there."""
        then = self.provenance.get("benchmark") or {}
        place = {name: str(then[name]) for name in ("path", "python") if name in then}
        return place if Path(place.get("path", "/")).is_dir() else {}

    def task(self, task_id: str) -> Task:
        """Return a task of the env; `BenchError` when the benchmark has no such task any more."""
        if task_id not in self.domain.tasks:
            raise BenchError(
                f"{self.setting.env} has no task {task_id!r}.",
                evidence=f"Its split {self.domain.ref.split!r} has {len(self.domain.tasks)} tasks.",
                next_step="Use the version of the benchmark that the results were made with.",
            )
        return self.domain.tasks[task_id]


def model_slug(model: str) -> str:
    """Return a model's short name for folders: its size when the name has one, else the name made safe.

    Examples
    --------
    >>> model_slug("Qwen/Qwen3-4B-Instruct-2507"), model_slug("gpt-4o")
    ('4B', 'gpt-4o')
    """
    last = model.rstrip("/").rsplit("/", 1)[-1]
    size = _SIZE.search(last)
    return size[1][:-1] + size[1][-1].upper() if size else _safe(model)


def find_folder(results: Path, setting: Setting) -> SettingFolder:
    """Return the folder that holds `setting`, or the one that it would be given; makes nothing.

    `RunError`: a `setting.json` on the way cannot be read, or every name is taken.
    """
    parent, slug = results / _safe(setting.env) / setting.strategy.value, model_slug(setting.agent.model)
    slug += f"+{_safe(setting.persona)}" if setting.persona else ""
    plain, with_id = parent / slug, parent / f"{slug}-{setting.id[:8]}"
    # Others may be making these folders at this moment: `with_id` is looked at again once `plain` is known to be taken.
    for path, may_be_new in ((with_id, False), (plain, True), (with_id, True)):
        folder = _look_at(path, setting)
        if folder is not None and (folder.exists or may_be_new):
            return folder
    raise RunError(
        f"The folder {with_id} belongs to something else.",
        next_step="Move it away, or choose another workspace with --workspace.",
    )


def claim_folder(results: Path, setting: Setting, provenance: dict[str, Any]) -> SettingFolder:
    """Return the folder of `setting`, made with its `setting.json` where it is not there, or raise a `FilesError`."""
    return make_folder(find_folder(results, setting), provenance)


def make_folder(folder: SettingFolder, provenance: dict[str, Any]) -> SettingFolder:
    """Make a folder that `find_folder` has found; errors as `claim_folder`. One that exists is returned as it is."""
    results = folder.path.parents[2]
    for _ in range(8):
        if folder.exists:
            return folder
        if _move_into_place(folder, provenance):
            return replace(folder, provenance=provenance, exists=True)
        folder = find_folder(results, folder.setting)
    raise RunError(f"The folder of setting {folder.id} cannot be made in {results}.", next_step="Run again.")


def read_setting(folder: Path) -> SettingFolder | None:
    """Return what a folder's `setting.json` says, None when there is none, `RunError` when it cannot be read."""
    path = folder / SETTING_FILE
    try:
        stored = json.loads(path.read_bytes())
        setting = Setting.model_validate(stored["setting"])
        return SettingFolder(folder, str(stored["id"]), setting, dict(stored.get("provenance", {})))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OldWorkspaceError as error:
        raise OldWorkspaceError(error.problem, evidence=str(path), next_step=error.next_step) from None
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise RunError(
            f"{path} cannot be read.",
            evidence=str(error),
            next_step="Put the file back from a copy, or move the whole folder away.",
        ) from error


def results_of(workspace: Path) -> list[SettingFolder]:
    """Return every folder of results in a workspace, sorted by path; unreadable ones raise `RunError`."""
    paths = sorted((workspace / "results").glob(f"*/*/*/{SETTING_FILE}"))
    found = (read_setting(path.parent) for path in paths if not path.parent.name.startswith("."))
    return [folder for folder in found if folder is not None]


def _look_at(path: Path, setting: Setting) -> SettingFolder | None:
    """Return the setting's folder at `path`, existing or still to be made; None when the place is taken."""
    stored = read_setting(path)
    if stored is None and _is_free(path):
        return SettingFolder(path, setting.id, setting, {}, exists=False)
    stored = stored or read_setting(path)  # another process may have moved it there just now
    return stored if stored is not None and stored.id == setting.id else None


def _is_free(path: Path) -> bool:
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def _move_into_place(folder: SettingFolder, provenance: dict[str, Any]) -> bool:
    """Make the folder next to its place and move it there; False when another process was faster."""
    path = folder.path
    made = ensure_folder(path.parent / f".{path.name}.{secrets.token_hex(4)}.part")
    content = {"id": folder.id, "setting": folder.setting.model_dump(mode="json"), "provenance": provenance}
    try:
        write_atomic(made / SETTING_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        made.rename(path)
    except OSError as error:
        if _is_free(path):  # nobody was faster: the disk refused
            raise FilesError(
                f"The folder {path} cannot be made.", evidence=str(error), next_step="Check the folder's permissions."
            ) from error
        return False
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return True


def _safe(name: str) -> str:
    return _UNSAFE.sub("-", name).strip("-.")[:80] or "model"


def open_recorded_source(run: RunParams, workspace: Path) -> Source:
    """Return the benchmark of a run whose results are only looked at: where it says, else where any were made."""
    try:
        return open_ref(run.ref)
    except NotInstalledError:
        for folder in results_of(workspace):
            location = folder.benchmark_location
            if folder.setting.bench == run.bench and "path" in location:
                return open_ref(run.ref._replace(**location))
        raise


def choose_folders(
    workspace: Path, *, env: str | None = None, strategy: str | None = None, model: str | None = None
) -> list[SettingFolder]:
    """Return the folders of results that fit; a model fits by its name or by its folder's name.

    Parameters
    ----------
    workspace : Path
        Whose results are looked through.
    env, strategy, model : str, optional
        What a folder must be of; None fits all. A setting's id is taken for `model` too.

    Returns
    -------
    list of SettingFolder
        All of them when nothing is asked for, which may be none.

    Raises
    ------
    ParamsError
        When nothing fits, naming what there is.
    """
    every = results_of(workspace)

    def fits(folder: SettingFolder) -> bool:
        setting = folder.setting
        models = {None, folder.path.name, setting.agent.model, folder.id}
        return env in {None, setting.env} and strategy in {None, setting.strategy.value} and model in models

    fitting = [folder for folder in every if fits(folder)]
    if fitting or not (env or strategy or model):
        return fitting
    there = "\n".join(f"{each.setting.env} {each.setting.strategy.value} {each.path.name}" for each in every)
    raise ParamsError(
        f"No results of env {env or 'any'}, strategy {strategy or 'any'}, model {model or 'any'}.",
        evidence=f"There are:\n{there}" if there else f"{workspace / 'results'} has no results.",
        next_step="`tautools show` lists them; choose another workspace with --workspace.",
    )


def only_folder(folders: Sequence[SettingFolder]) -> SettingFolder:
    """Return the one folder that fits; `ParamsError` when there is none, or several."""
    if len(folders) == 1:
        return folders[0]
    raise ParamsError(
        "Several settings have results; one must be meant." if folders else "Nothing has been run here.",
        evidence="\n".join(str(each.path) for each in folders),
        next_step="Add --env, --strategy and --model, or give the folder."
        if folders
        else "Run a cell with `tautools run`, or choose another workspace with --workspace.",
    )


def folder_at(path: Path) -> SettingFolder:
    """Return the folder of results at `path`, or around it; `ParamsError` when there is none."""
    for each in (path, *path.parents[:2]):
        folder = read_setting(each)
        if folder is not None:
            return folder
    raise ParamsError(
        f"{path} is not a folder of results.",
        evidence="It holds no setting.json.",
        next_step="`tautools show` lists the folders of a workspace.",
    )


def choose_row(folder: SettingFolder, task_id: str, trial: int | None) -> CommitRow:
    """Return the row of a task, of its first finished trial when none is given; a `ParamsError` names the others."""
    rows = folder.rows()
    row = next((row for row in rows if row.task_id == task_id and trial in {None, row.trial}), None)
    if row is not None:
        return row
    trials = [str(row.trial) for row in rows if row.task_id == task_id]
    tasks = list(dict.fromkeys(row.task_id for row in rows))
    raise unknown_name(
        ParamsError,
        "finished trial" if trials else "finished task",
        str(trial) if trials else task_id,
        trials or tasks,
        of=f"of task {task_id} in {folder.path}" if trials else f"in {folder.path}",
        next_step="Choose one of those, or watch a running one with --follow.",
    )
