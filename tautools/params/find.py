"""Params by name: a path, then the workspace's own, then the shipped ones; the nearest name for one that is unknown."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from tautools.errors import ParamsError, unknown_name
from tautools.params.paths import shipped

if TYPE_CHECKING:
    from collections.abc import Iterable

_RANGE = re.compile(r"(\d+)-(\d+)")


def split_ids(texts: Iterable[str]) -> list[str]:
    """Return the ids of a list as it is written everywhere, without repeats: `0-2,7` is 0, 1, 2 and 7.

    Raises
    ------
    ValueError
        When a range runs backwards, or nothing is named.
    """
    found: list[str] = []
    for part in (part.strip() for text in texts for part in text.split(",")):
        match = _RANGE.fullmatch(part)
        if match is None:
            found += [part] if part else []
            continue
        first, last = int(match[1]), int(match[2])
        if first > last:
            raise ValueError(f"the range {part} runs backwards")
        found += map(str, range(first, last + 1))
    if not found:
        raise ValueError("the list is empty")
    return list(dict.fromkeys(found))


Kind: TypeAlias = Literal["sites", "servers", "sweeps", "personas"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_SUFFIXES = (".yaml", ".yml")


def list_params(kind: Kind, workspace: Path | None = None) -> list[str]:
    """Return the names of the params of a kind, the workspace's own and the shipped ones, sorted."""
    files = [path for folder in _folders(kind, workspace) for path in _yaml_files(folder)]
    return sorted({path.stem for path in files if _NAME.match(path.stem)})


def own_params(kind: Kind, workspace: Path) -> list[str]:
    """Return the names of the workspace's own params of a kind, sorted; those with an unusable name are left out."""
    return sorted({path.stem for path in _yaml_files(workspace / "params" / kind) if _NAME.match(path.stem)})


def misnamed_params(kind: Kind, workspace: Path | None = None) -> dict[str, ParamsError]:
    """Return the files of a kind whose name cannot be used, such as one with a space, each with the reason."""
    files = [path for folder in _folders(kind, workspace) for path in _yaml_files(folder)]
    return {path.stem: _misnamed(kind, path) for path in files if not _NAME.match(path.stem)}


def default_site(workspace: Path) -> str:
    """Return the workspace's own site when it has exactly one in `params/sites/`, else `local`."""
    own = own_params("sites", workspace)
    return own[0] if len(own) == 1 else "local"


def find_params(kind: Kind, name: str | Path, workspace: Path | None = None) -> Path:
    """Return the file that `name` means.

    Parameters
    ----------
    kind : {"sites", "servers", "sweeps", "personas"}
        What is looked for.
    name : str or Path
        A path to a YAML file (it holds a `/` or ends in `.yaml`), or a bare name.
    workspace : Path, optional
        Its `params/<kind>/<name>.yaml` comes before the shipped one.

    Raises
    ------
    ParamsError
        When there is none; it lists what there is.
    """
    text = str(name)
    if isinstance(name, Path) or "/" in text or text.endswith(_SUFFIXES):
        return _file_at(kind, text)
    for folder in _folders(kind, workspace):
        for path in _yaml_files(folder):
            if unicodedata.normalize("NFC", path.stem) == unicodedata.normalize("NFC", text):
                if _NAME.match(text):
                    return path
                raise _misnamed(kind, path)
    known = list_params(kind, workspace)
    write_one = f"Choose one of these, or write <workspace>/params/{kind}/<name>.yaml."
    error = unknown_name(ParamsError, kind[:-1], text, known, next_step=write_one)
    error.evidence += f"\nSearched: {', '.join(str(folder) for folder in _folders(kind, workspace))}."
    raise error


def _folders(kind: Kind, workspace: Path | None) -> list[Path]:
    """Return the folders that hold params of a kind, in the order in which they are searched."""
    return [*([workspace / "params" / kind] if workspace is not None else []), shipped("params") / kind]


def _yaml_files(folder: Path) -> list[Path]:
    """Return the YAML files of a folder, `.yaml` before `.yml`; hidden files are left out."""
    if not folder.is_dir():
        return []
    files = [path for path in folder.iterdir() if path.suffix in _SUFFIXES and not path.name.startswith(".")]
    return sorted(files, key=lambda path: (_SUFFIXES.index(path.suffix), path.name))


def _misnamed(kind: Kind, path: Path) -> ParamsError:
    stem = unicodedata.normalize("NFC", path.stem)
    odd = "".join(dict.fromkeys(letter for letter in stem if not re.match(r"[A-Za-z0-9._-]", letter)))
    reason = f"it has {odd!r}" if odd else "it begins with a dot or a dash" if stem[:1] in "._-" else "it is too long"
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    better = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("._-")[:100] or "name"
    return ParamsError(
        f"The {kind[:-1]} file {path.name!r} cannot be used by name: {reason}.",
        evidence=f"{path}: names become folders and job names, so they have only A-Z, a-z, 0-9, '.', '_' and '-'.",
        next_step=f"Rename it, for example to {better}{path.suffix}.",
    )


def _file_at(kind: Kind, text: str) -> Path:
    path = Path(text).expanduser() if text.startswith("~/") else Path(text)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):
        is_file = False
    if is_file and path.suffix in _SUFFIXES:
        return path.absolute()
    if is_file:
        raise ParamsError(f"{text!r} is not a YAML file.", next_step="Name a file that ends in .yaml.")
    raise ParamsError(
        f"There is no {kind[:-1]} file {text!r}.",
        evidence=f"Looked at {str(path.absolute())!r}.",
        next_step=f"Correct the path, or give a name: `tautools config list {kind}` shows them.",
    )
