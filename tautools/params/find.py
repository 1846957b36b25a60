"""Params by name: a path, then the workspace's own, then the shipped ones; the nearest name for one that is unknown."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from tautools.errors import ParamsError
from tautools.params.paths import shipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def nearest(word: str, known: Iterable[str], *, most: int = 1) -> list[str]:
    """Return up to `most` of the known words that `word` may have been meant for, best first."""
    by_plain = {_normalised(each): each for each in known}
    return [by_plain[each] for each in difflib.get_close_matches(_normalised(word), by_plain, n=most, cutoff=0.6)]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean `x`?`, or nothing when no known word is near."""
    found = nearest(word, known)
    return f" Did you mean `{found[0]}`?" if found else ""


def _normalised(word: str) -> str:
    return word[:200].lower().replace("-", "_")


Kind: TypeAlias = Literal["sites", "servers", "sweeps", "personas"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_SUFFIXES = (".yaml", ".yml")


def params_folders(kind: Kind, workspace: Path | None = None) -> list[Path]:
    """Return the folders that hold params of a kind, in the order in which they are searched."""
    own = [workspace / "params" / kind] if workspace is not None else []
    return [*own, shipped("params") / kind]


def list_params(kind: Kind, workspace: Path | None = None) -> list[str]:
    """Return the names of the params of a kind, the workspace's own and the shipped ones, sorted."""
    names = {path.stem for folder in params_folders(kind, workspace) for path in _yaml_files(folder)}
    return sorted(names)


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
    if _NAME.match(text):
        for folder in params_folders(kind, workspace):
            for suffix in _SUFFIXES:
                candidate = folder / f"{text}{suffix}"
                if candidate.is_file():
                    return candidate
    raise _unknown_name(kind, text, workspace)


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


def _unknown_name(kind: Kind, text: str, workspace: Path | None) -> ParamsError:
    known = list_params(kind, workspace)
    searched = ", ".join(str(folder) for folder in params_folders(kind, workspace))
    listed = ", ".join(known) if known else "none"
    return ParamsError(
        f"There is no {kind[:-1]} called {text!r}.{did_you_mean(text, known)}",
        evidence=f"Known {kind}: {listed}.\nSearched: {searched}.",
        next_step=f"Choose one of these, or write <workspace>/params/{kind}/<name>.yaml.",
    )


def _yaml_files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.suffix in _SUFFIXES and _NAME.match(path.stem))
