"""Opens files and folders and says which format each has; one that is not known is refused with what was seen."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tautools.adopt import tau2_bench, tau_bench
from tautools.adopt.rows import Facts, SourceFile
from tautools.adopt.text import Loose, read_loosely, unzipped
from tautools.errors import ParamsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["read_files"]

_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".eval")
_ZIP = b"PK\x03\x04"
_INSPECT = {"eval", "status", "version"}
_KNOWN = (
    "tau-bench (a list of task_id, reward, info, traj, trial), tau2-bench (info, simulations; one file or a folder), "
    "inspect's logs of tau2 (.eval or .json), num_trials-<n>.json of tautools."
)


def read_files(paths: Sequence[Path]) -> tuple[list[SourceFile], dict[Path, ParamsError]]:
    """Read files, and the result files of folders.

    Parameters
    ----------
    paths : sequence of Path
        Files and folders; a folder stands for the result files in it and below.

    Returns
    -------
    list of SourceFile
        Those that could be read, in the order given, those of a folder by name.
    dict of Path to ParamsError
        Files of folders that were refused, and why.

    Raises
    ------
    ParamsError
        When one of them is not there, a folder holds no such file, or a file that was named itself, or everything in a
        folder, is of no known format.
    """
    read: list[SourceFile] = []
    refused: dict[Path, ParamsError] = {}
    named = {path.resolve() for path in paths}
    for path in dict.fromkeys(each.resolve() for given in paths for each in _files(given)):
        try:
            read.append(_read(path))
        except ParamsError as error:
            if path in named:
                raise
            refused[path] = error
    if not read and refused:
        raise next(iter(refused.values()))
    return read, refused


def _files(given: Path) -> Iterable[Path]:
    if given.is_file():
        return [given]
    if not given.exists() and (matching := sorted(given.parent.glob(given.name))):
        return [each for name in matching for each in _files(name)]
    if not given.is_dir():
        raise ParamsError(f"There is no file {given}.", next_step="Check the path; a folder is read with all below it.")
    found = sorted(path for path in given.rglob("*") if path.name.endswith(_SUFFIXES) and path.is_file())
    # The folder layout of tau2-bench: its simulations are read with the results.json beside them. Our own ledgers are
    # no result files of somebody else.
    kept = [path for path in found if not _belongs_to_another(path)]
    if not kept:
        raise ParamsError(
            f"{given} holds no result files.",
            evidence=f"Looked for {', '.join(_SUFFIXES)}.",
            next_step="Name the files, or the folder in which they lie.",
        )
    return kept


def _belongs_to_another(path: Path) -> bool:
    parent = path.parent
    ours = path.name == "setting.json" or (
        parent.name in {"conversations", "ledger", "calls", "events", "certificates"}
        and (parent.parent / "setting.json").exists()
    )
    return ours or (parent.name == "simulations" and (parent.parent / "results.json").exists())


def _read(path: Path) -> SourceFile:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ParamsError(f"{path} cannot be read.", evidence=str(error), next_step="Check its permissions.") from error
    sha256 = hashlib.sha256(raw).hexdigest()
    if raw.startswith(_ZIP):
        return _inspect(path, sha256)
    data, torn = unzipped(raw)
    loose = read_loosely(data)
    notes = [torn] if torn else []
    value = loose.whole
    if isinstance(value, dict) and value.keys() >= _INSPECT:
        return _inspect(path, sha256)
    if isinstance(value, dict) and tau2_bench.is_results(value):
        return _tau2(path, sha256, value, [*notes, *loose.notes])
    if isinstance(value, list):
        loose = Loose(rows=tuple(value))
    if isinstance(value, dict) and tau_bench.is_rows([value]):
        loose = Loose(rows=(value,))
    if tau_bench.is_rows(loose.rows):
        return _rows(path, sha256, loose.rows, [*notes, *loose.notes])
    if not data.strip() or (isinstance(value, list) and not value):
        return SourceFile(path, sha256, "empty", Facts("", "", ""), (), [*notes, "holds nothing"])
    raise _foreign(path, value if value is not None else loose.rows, [*notes, *loose.notes])


def _rows(path: Path, sha256: str, values: Sequence[Any], notes: list[str]) -> SourceFile:
    rows = [tau_bench.read_row(place, value) for place, value in enumerate(values)]
    envs = Counter(found.env for found in rows if found.env)
    if len(envs) > 1:
        notes.append("rows of several envs: " + ", ".join(f"{count} {env}" for env, count in envs.most_common()))
    form = "tautools" if tau_bench.is_view(values) else "tau-bench"
    return SourceFile(path, sha256, form, tau_bench.row_facts(path, values, rows), rows, notes)


def _tau2(path: Path, sha256: str, value: Mapping[str, Any], notes: list[str]) -> SourceFile:
    facts = tau2_bench.results_facts(value)
    simulations = list(value.get("simulations") or ())
    beside = list(_simulations_beside(path))
    if beside:
        simulations += [each for _, each in beside]
        sha256 = hashlib.sha256(b"".join([sha256.encode(), *(raw for raw, _ in beside)])).hexdigest()
        notes.append(f"with {len(beside)} files of simulations/; the hash is over all")
        facts = replace(
            facts, reward_basis=tau2_bench.results_facts({**value, "simulations": simulations}).reward_basis
        )
    indexed = value.get("simulation_index")
    if isinstance(indexed, list) and len(indexed) != len(simulations):
        notes.append(f"its index names {len(indexed)} simulations, {len(simulations)} are there")
    reference = tau2_bench.references(value)
    rows = [tau2_bench.read_simulation(n, each, facts.env or "", reference) for n, each in enumerate(simulations)]
    return SourceFile(path, sha256, "tau2-bench", facts, rows, notes)


def _simulations_beside(path: Path) -> Iterator[tuple[bytes, Any]]:
    for file in sorted((path.parent / "simulations").glob("*.json")) if path.name == "results.json" else ():
        raw = file.read_bytes()
        try:
            yield raw, json.loads(raw)
        except ValueError:
            yield raw, None


def _inspect(path: Path, sha256: str) -> SourceFile:
    from tautools.adopt.inspect_log import log_facts, open_log, read_sample

    log = open_log(path)
    facts = log_facts(log)
    rows = [read_sample(place, sample, facts.env or "") for place, sample in enumerate(log.samples or ())]
    notes = [] if log.status == "success" else [f"inspect's status of it is {log.status}"]
    return SourceFile(path, sha256, "inspect", facts, rows, notes)


def _foreign(path: Path, value: Any, notes: Sequence[str]) -> ParamsError:
    if isinstance(value, dict) and isinstance(value.get("simulations"), list):
        seen = tau2_bench.why_foreign(value)
    elif isinstance(value, dict):
        seen = f"It is an object with the keys {', '.join(list(value)[:8]) or '(none)'}."
    else:
        first = next((each for each in value if each is not None), None) if isinstance(value, list | tuple) else value
        of = f"objects with the keys {', '.join(list(first)[:8])}" if isinstance(first, dict) else type(first).__name__
        seen = f"It holds {of}." if first is not None else "It is no JSON."
    return ParamsError(
        f"{path} is of a format that is not known.",
        evidence="\n".join([seen, *notes, f"Known: {_KNOWN}"]),
        next_step="Leave it out, or bring it into one of these forms.",
    )
