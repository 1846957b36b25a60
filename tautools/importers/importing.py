"""Import result files: read them, plan, write through the ledger's own writer, and report what became of each row."""

import contextlib
import hashlib
import json
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tautools
from tautools.bench.sources import IMPORTED_PREFIX
from tautools.errors import ParamsError
from tautools.importers import tau2_bench, tau_bench
from tautools.importers.plan import ImportGroup, ImportPlan, ImportRequest, plan_import
from tautools.importers.rows import RowStatus, SourceFacts, SourceFile, part, read_loosely, unzipped
from tautools.params import RUN_OPTIONS
from tautools.records import Event
from tautools.run.exporters import write_view
from tautools.run.folder import claim_folder
from tautools.run.ledger import ResultsWriter, read_events, read_ledger
from tautools.run.plan import check_writable

_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".eval")
_ZIP = b"PK\x03\x04"
_USUAL = {"bench": "tau2", "user_strategy": "llm", "agent.provider": "openai", "user.provider": "openai"}
"""What a command does not repeat."""
_INSPECT = {"eval", "status", "version"}
_KNOWN_FORMATS = (
    "tau-bench (a list of task_id, reward, info, traj, trial), tau2-bench (info, simulations; one file or a folder), "
    "inspect's logs of tau2 (.eval or .json), num_trials-<n>.json of tautools."
)


def read_files(paths: Sequence[Path]) -> tuple[list[SourceFile], dict[Path, ParamsError]]:
    """Read files, and the result files in folders and below; return those read in the order given, and those refused.

    Raises
    ------
    ParamsError
        When one of them is not there, a folder holds no such file, or a file that was named itself, or everything in a
        folder, is of no known format.
    """
    read: list[SourceFile] = []
    refused: dict[Path, ParamsError] = {}
    named = {path.resolve() for path in paths}
    for path in dict.fromkeys(each.resolve() for given in paths for each in _result_files(given)):
        try:
            read.append(_read_file(path))
        except ParamsError as error:
            if path in named:
                raise
            refused[path] = error
    if not read and refused:
        raise next(iter(refused.values()))
    return read, refused


def _result_files(given: Path) -> Iterable[Path]:
    if given.is_file():
        return [given]
    if not given.exists() and (matching := sorted(given.parent.glob(given.name))):
        return [each for name in matching for each in _result_files(name)]
    if not given.is_dir():
        raise ParamsError(f"There is no file {given}.", next_step="Check the path; a folder is read with all below it.")
    found = sorted(path for path in given.rglob("*") if path.name.endswith(_SUFFIXES) and path.is_file())
    kept = [path for path in found if not _belongs_to_another(path)]
    if not kept:
        raise ParamsError(
            f"{given} holds no result files.",
            evidence=f"Looked for {', '.join(_SUFFIXES)}.",
            next_step="Name the files, or the folder in which they lie.",
        )
    return kept


def _belongs_to_another(path: Path) -> bool:
    """Whether a file is part of a folder of ours, or of tau2-bench's, where it is read with its results.json."""
    folder = path.parent
    ours = folder.name in {"conversations", "ledger", "calls", "events", "certificates"}
    return (
        path.name == "setting.json"
        or (ours and (folder.parent / "setting.json").exists())
        or (folder.name == "simulations" and (folder.parent / "results.json").exists())
    )


def _read_file(path: Path) -> SourceFile:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ParamsError(f"{path} cannot be read.", evidence=str(error), next_step="Check its permissions.") from error
    sha256 = hashlib.sha256(raw).hexdigest()
    data, notes = unzipped(raw)
    value, odd = (None, []) if raw.startswith(_ZIP) else read_loosely(data)
    notes += odd
    if raw.startswith(_ZIP) or (isinstance(value, dict) and value.keys() >= _INSPECT):
        from tautools.importers.inspect_log import read_log

        return read_log(path, sha256)
    if tau2_bench.is_results(value):
        return tau2_bench.read_results(path, sha256, value, notes)
    rows = value if isinstance(value, list) else [value]
    if tau_bench.is_rows(rows):
        return tau_bench.read_rows(path, sha256, rows, notes)
    if not data.strip() or value == []:
        return SourceFile(path, sha256, "empty", SourceFacts(), (), [*notes, "empty"])
    raise _unknown_format(path, value, notes)


def _unknown_format(path: Path, value: Any, notes: Sequence[str]) -> ParamsError:
    first = next((each for each in value if each is not None), None) if isinstance(value, list) else value
    keys = ", ".join(list(first)[:8]) if isinstance(first, dict) else ""
    if isinstance(value, dict) and isinstance(value.get("simulations"), list):
        seen = (
            "It has `simulations` as tau2-bench's files do, but no `info.environment_info`, `info.agent_info` and "
            f"`info.user_info`: which models were used, and how, is not said. Its keys: {keys}."
        )
    elif isinstance(value, dict):
        seen = f"It is an object with the keys {keys or '(none)'}."
    else:
        of = f"objects with the keys {keys}" if isinstance(first, dict) else type(first).__name__
        seen = f"It holds {of}." if first is not None else "It is not JSON."
    return ParamsError(
        f"The format of {path} is not known.",
        evidence="\n".join([seen, *notes, f"Known: {_KNOWN_FORMATS}"]),
        next_step="Leave it out, or convert it to one of these formats.",
    )


@dataclass(frozen=True, slots=True, repr=False)
class ImportResult:
    """What was imported, and why the rest was not; it prints itself."""

    plan: ImportPlan
    dry_run: bool

    @property
    def pending(self) -> int:
        """Planned conversations that are still missing."""
        return self.plan.pending

    def __str__(self) -> str:
        plan = self.plan
        lines = [line for file in plan.statuses for line in _file_lines(plan, file)]
        lines += [f"{path.name}: refused. {error.evidence.splitlines()[0]}" for path, error in plan.refused.items()]
        for group in plan.groups:
            lines += ["", *_group_lines(group, dry_run=self.dry_run)]
        return "\n".join(lines)

    __repr__ = __str__

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON data."""
        plan = self.plan
        return {
            "dry_run": self.dry_run,
            "imported": plan.kept,
            "pending": plan.pending,
            "files": [
                file.origin
                | {
                    "file": str(file.path),
                    "rows": len(file.rows),
                    "statuses": {status.value: count for status, count in statuses.items()},
                    "reasons": dict(plan.reasons[file]),
                    "notes": list(file.notes),
                }
                for file, statuses in plan.statuses.items()
            ],
            "refused": [{"file": str(path), "why": error.evidence} for path, error in plan.refused.items()],
            "settings": [
                {
                    "setting_id": group.setting.id,
                    "setting": group.setting.model_dump(mode="json"),
                    "folder": str(group.folder),
                    "imported": len(group.kept),
                    "there_before": len(group.known),
                    "planned": group.planned,
                    "pending": group.pending,
                    "tasks_unchecked": group.unchecked_reason,
                    "run": _run_line(group),
                }
                for group in plan.groups
            ],
        }


def import_results(paths: Sequence[Path], request: ImportRequest, *, dry_run: bool = False) -> ImportResult:
    """Import files and folders of results of tau-bench, tau2-bench, inspect or tautools.

    Parameters
    ----------
    paths : sequence of Path
        Files and folders.
    request : ImportRequest
        The workspace, flags for what the files do not say, and whether the rows join the setting of runs made here.
    dry_run : bool
        Only say what would be imported.

    Returns
    -------
    ImportResult
        What was kept and why the rest was not; it prints itself.

    Raises
    ------
    ParamsError
        Before anything is written: a file that does not exist or has an unknown format, missing information, or a
        contradiction.
    BenchError, RunError, FilesError
        As in `plan_import` and `write_import`.
    """
    files, refused = read_files(paths)
    plan = plan_import(files, request, refused)
    if not dry_run:
        write_import(plan, request.workspace)
    return ImportResult(plan, dry_run)


def write_import(plan: ImportPlan, workspace: Path) -> None:
    """Write what is kept, the faults, and a num_trials file for each setting; a repeat imports what the disk refused.

    Raises
    ------
    RunError, FilesError
        When the disk does not take it.
    """
    for group in plan.groups:
        check_writable(group.folder.parent)
    for group in plan.groups:
        _write_group(group, workspace)


def _write_group(group: ImportGroup, workspace: Path) -> None:
    origins = [file.origin for file in group.files]
    benchmark = group.domain.ref.location if group.domain else {}
    provenance = {"tautools": tautools.__version__, "imported": origins, "benchmark": benchmark}
    folder = claim_folder(workspace / "results", group.setting, provenance).path
    before = list(read_events(folder))
    with contextlib.closing(ResultsWriter(folder)) as writer:
        for event in _fault_events(group, before):
            writer.event(event)
        for conversation, counts in group.kept.values():
            writer.commit(conversation, counts)
        for event in _file_events(group, before):
            writer.event(event)
    rows = [row for row in read_ledger(folder).values() if row.setting_id == group.setting.id]
    order = list(group.domain.tasks) if group.domain else group.tasks
    write_view(folder, rows, num_trials=group.num_trials, order=order)


def _fault_events(group: ImportGroup, before: Sequence[Event]) -> Iterator[Event]:
    """Yield the lost conversations: reports count them under v1's convention, and they stay pending."""
    origins = [part(event.data, "imported") for event in before if event.kind == "fault"]
    known = {(origin.get("sha256"), origin.get("row")) for origin in origins}
    for file, row in group.lost:
        if (file.sha256, row.index) not in known:
            message = f"{row.status.value}: {row.why}" if row.why else row.status.value
            data = {"fault": "imported", "imported": file.origin | {"row": row.index}}
            yield _make_event(group, "fault", message, data, task_id=row.task_id, trial=row.trial)


def _file_events(group: ImportGroup, before: Sequence[Event]) -> Iterator[Event]:
    recorded = {event.data.get("sha256") for event in before if event.kind == "imported"}
    origins = [conversation.imported for conversation, _ in group.kept.values()]
    for file in group.files:
        kept = sum(origin is not None and origin.sha256 == file.sha256 for origin in origins)
        if kept or file.sha256 not in recorded:
            data = file.origin | {"file": str(file.path), "kept": kept}
            yield _make_event(group, "imported", f"{kept} conversations imported from {file.path.name}", data)


def _make_event(group: ImportGroup, kind: str, message: str, data: dict[str, Any], **row: Any) -> Event:
    return Event(kind=kind, at=time.time(), setting_id=group.setting.id, message=message, data=data, **row)


def _file_lines(plan: ImportPlan, file: SourceFile) -> Iterator[str]:
    statuses, number = plan.statuses[file], len(file.rows)
    rows = ", ".join(f"{statuses[status]} {status.value}" for status in RowStatus if statuses[status])
    unit = ("simulation" if file.format == "tau2-bench" else "row") + ("" if number == 1 else "s")
    yield f"{file.path.name} ({file.format}): {number} {unit}{f': {rows}' if rows else ', nothing to import'}"
    yield from (f"  {note}" for note in file.notes)
    yield from (f"  {count} x {why}" for why, count in plan.reasons[file].most_common(4))


def _group_lines(group: ImportGroup, *, dry_run: bool) -> Iterator[str]:
    setting = group.setting
    marked = " [SIMULATED]" if setting.simulated else ""
    verb = "would be imported" if dry_run else "imported"
    yield (
        f"{setting.env} {setting.strategy.value} {setting.agent.model}{marked}, user {setting.user.model}: "
        f"{len(group.kept)} {verb}, {len(group.known)} there before, {group.pending} pending of {group.planned}"
    )
    if group.changed_tasks:
        yield f"  {group.changed_tasks} of tasks whose reference differs in the installed benchmark"
    if group.unchecked_reason:
        yield f"  Task ids were not checked; pending counts only tasks of these files: {group.unchecked_reason}"
    yield f"  results in {group.folder} (setting {setting.id}, source {setting.source})"
    if group.pending and group.run is not None:
        yield f"  Run the rest: {_run_line(group)}"


def _run_line(group: ImportGroup) -> str | None:
    """Return the command that completes a setting; None for one of our own, whose flags are not known."""
    if group.run is None:
        return None
    source = group.setting.source if group.setting.source.startswith(IMPORTED_PREFIX) else group.flags.get("source")
    flags = {**group.flags, "source": source, "num_trials": group.num_trials}
    words: list[str] = []
    for name, option in RUN_OPTIONS.items():
        value = flags.pop(name, None)
        if isinstance(value, dict):
            words += [word for expert, server in value.items() for word in (option, f"{expert}={server}")]
        elif value is not None and value != _USUAL.get(name):
            words += [option, str(value)]
    changes = [f"{name}={json.dumps(value)}" for name, value in flags.items()]
    words += [word for change in (*changes, *group.overrides) for word in ("--set", change)]
    return shlex.join(["tautools", "run", *words])
