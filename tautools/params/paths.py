"""Folders and paths: the shipped files, the workspace, `~` and environment variables.

Only fields that hold paths or addresses expand: `path`, `few_shot_displays`, `model` and `chat_template` where they
look like a path, `base_url`, the values of `env`, the words of `serve_command` and of `vllm.args`. Shell lines
(`activate`) are left to the shell, and what is sent to a model (`extra_body`) is left alone. Relative paths in a file
count from the workspace, those of a flag from the current folder. A chat template may be given by the bare name of its
file; it is looked for in the workspace, in its `params/templates/` and among the shipped ones. Nothing is made here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tautools.errors import ParamsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tautools.params.yaml import KeyPath


def shipped(kind: Literal["params", "notebooks"]) -> Path:
    """Return the folder of the shipped params or notebooks.

    Raises
    ------
    ParamsError
        When this installation lacks them.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_shipped" / kind, package.parent / kind):
        if folder.is_dir():
            return folder
    raise ParamsError(
        f"This installation of tautools has no shipped {kind}.",
        evidence=f"Looked for {package / '_shipped' / kind} and {package.parent / kind}.",
        next_step="Install it again: `pip install --force-reinstall tautools`, or `pip install -e .` in a clone.",
    )


_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_TEMPLATE_NAME = re.compile(r"[A-Za-z0-9][\w.-]*\.jinja2?")
_UNTOUCHED = {"extra_body", "chat_template_kwargs"}
_NAMES_OR_PATHS = {"model", "chat_template"}
_PATH_FIELDS = {"path", "few_shot_displays", *_NAMES_OR_PATHS}


def looks_like_path(text: str) -> bool:
    """Whether a text names a file or folder, not a model of the Hub or a built-in name."""
    return text.startswith(("/", "./", "../", "~", "$")) or text in {".", ".."}


def expand_text(text: str, *, where: str) -> str:
    """Return `text` with a leading `~` and environment variables replaced.

    Parameters
    ----------
    text : str
        What was written.
    where : str
        Where it was written, for the error.

    Raises
    ------
    ParamsError
        When a variable is not set, or the home of a user is not known.
    """

    def value_of(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise ParamsError(
                f"{where}: the environment variable {name} in {text!r} is not set.",
                next_step=f"Set it (`export {name}=…`) before tautools starts, or write the value out.",
            )
        return os.environ[name]

    expanded = _VARIABLE.sub(value_of, text)
    if not expanded.startswith("~"):
        return expanded
    try:
        return str(Path(expanded).expanduser())
    except RuntimeError as error:
        raise ParamsError(
            f"{where}: the home folder in {text!r} is not known.",
            evidence=str(error),
            next_step="Write the path out.",
        ) from error


def expand_tree(data: Any, *, base: Callable[[KeyPath], Path], where: Callable[[KeyPath], str]) -> Any:
    """Return a copy of `data` in which the fields that hold paths and addresses are expanded.

    Parameters
    ----------
    data
        A tree of mappings, lists and scalars, as read from YAML.
    base : callable
        Returns the folder that a relative path counts from, for the value at a key path.
    where : callable
        Returns where the value at a key path was written.

    Raises
    ------
    ParamsError
        For a variable that is not set, and for a path that must exist and does not.
    """

    def walk(value: Any, path: KeyPath, siblings: dict[str, Any]) -> Any:
        if path and path[-1] in _UNTOUCHED:
            return value
        if isinstance(value, dict):
            return {key: walk(each, (*path, key), value) for key, each in value.items()}
        if isinstance(value, list):
            return [walk(each, (*path, index), siblings) for index, each in enumerate(value)]
        return _expanded(value, path, siblings, base(path), where(path)) if isinstance(value, str) else value

    return walk(data, (), {})


def _expanded(text: str, path: KeyPath, siblings: dict[str, Any], base: Path, where: str) -> str:
    names = [part for part in path if isinstance(part, str)]
    last, is_word = names[-1] if names else "", "serve_command" in names or names[:2] == ["vllm", "args"]
    if (names[:1] == ["env"] and len(names) == 2) or last == "base_url" or (is_word and text.startswith(("~", "$"))):
        return expand_text(text, where=where)
    if is_word or last not in _PATH_FIELDS:
        return text
    if last == "chat_template" and _TEMPLATE_NAME.fullmatch(text):
        return _chat_template(text, base, where)
    if last in _NAMES_OR_PATHS and not looks_like_path(text):
        return text
    # With an address or a hosted provider, `model` is the name that a server elsewhere serves, not a folder here.
    if last == "model" and (siblings.get("base_url") or siblings.get("provider", "openai") != "openai"):
        return expand_text(text, where=where)
    return _existing_path(text, base, where)


def _existing_path(written: str, base: Path, where: str) -> str:
    path = Path(os.path.normpath(base / expand_text(written, where=where)))
    try:
        exists = path.exists()
    except (OSError, ValueError):
        exists = False
    if not exists:
        shown = f"{written!r}, which is {str(path)!r}," if str(path) != written else repr(written)
        raise ParamsError(
            f"{where}: the path {shown} does not exist.",
            evidence=_nearest_folder(path),
            next_step="Correct the path, or make what it names; relative paths in a file count from the workspace.",
        )
    return str(path)


def _chat_template(name: str, base: Path, where: str) -> str:
    """Return the file of a chat template that is given by its bare name: the workspace's own, or a shipped one."""
    folders = [base, base / "params" / "templates", shipped("params") / "templates"]
    found = [folder / name for folder in folders if (folder / name).is_file()]
    if not found:
        raise ParamsError(
            f"{where}: there is no chat template {name!r}.",
            evidence=f"Looked in {', '.join(str(folder) for folder in folders)}.",
            next_step="Put the file there, or write its whole path.",
        )
    return str(found[0].absolute())


def _nearest_folder(path: Path) -> str:
    for parent in path.parents:
        try:
            if parent.is_dir():
                return f"{parent} exists; the rest of the path does not."
        except (OSError, ValueError):
            continue
    return ""


WORKSPACE_VARIABLE = "TAUTOOLS_WORKSPACE"


def workspace_path(given: str | Path | None = None, *, must_exist: bool = False) -> Path:
    """Return the workspace: what was given, else `TAUTOOLS_WORKSPACE`, else the current folder; absolute.

    Parameters
    ----------
    given : str or Path, optional
        What a person asked for; `~` and environment variables expand.
    must_exist : bool
        Whether it is an error that the folder is not there.

    Raises
    ------
    ParamsError
        When a variable in it is not set, it is a file, or it does not exist and must.
    """
    source = "--workspace" if given is not None else WORKSPACE_VARIABLE
    asked = str(given) if given is not None else os.environ.get(WORKSPACE_VARIABLE) or "."
    path = Path(expand_text(asked, where=source)).absolute()
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise ParamsError(
            f"{source}: {asked!r} is not a path.", evidence=str(error), next_step="Name a folder with --workspace."
        ) from error
    if exists and not is_folder:
        raise ParamsError(
            f"{source}: {path} is a file, not a folder.", next_step="Name a folder with --workspace FOLDER."
        )
    if must_exist and not exists:
        raise ParamsError(
            f"{source}: the workspace {path} does not exist.",
            next_step=f"Make it with `tautools init {path}`, or name another with --workspace FOLDER.",
        )
    return path
