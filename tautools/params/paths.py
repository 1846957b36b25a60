"""Params by name, and the paths in them: shipped files, the workspace, `~` and environment variables.

Only fields that hold paths or addresses expand: `path`, `few_shot_displays`, `model` and `chat_template` where they
look like a path, `base_url`, the values of `env`, the words of `serve_command` and of `vllm.args`. Shell lines
(`activate`) are left to the shell, and what is sent to a model (`extra_body`) is left alone. Relative paths in a file
count from the workspace, those of a flag from the current folder. A chat template may be given by the bare name of its
file; it is looked for in the workspace, in its `params/templates/` and among the shipped ones. Nothing is made here.
"""

import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from tautools.errors import ParamsError, unknown_name
from tautools.params.yaml import KeyPath, OriginKind, ParamsTree

Kind: TypeAlias = Literal["sites", "servers", "sweeps", "personas"]
KINDS: tuple[Kind, ...] = get_args(Kind)

WORKSPACE_VARIABLE = "TAUTOOLS_WORKSPACE"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_SUFFIXES = (".yaml", ".yml")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_TEMPLATE_NAME = re.compile(r"[A-Za-z0-9][\w.-]*\.jinja2?")
_UNTOUCHED = {"extra_body", "chat_template_kwargs"}
_NAMES_OR_PATHS = {"model", "chat_template"}
_PATH_FIELDS = {"path", "few_shot_displays", *_NAMES_OR_PATHS}


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


def list_params(kind: Kind, workspace: Path | None = None) -> list[str]:
    """Return the names of the params of a kind, the workspace's own and the shipped ones, sorted."""
    return sorted({path.stem for path in _files(kind, workspace) if _NAME.match(path.stem)})


def own_params(kind: Kind, workspace: Path) -> list[str]:
    """Return the names of the workspace's own params of a kind, sorted; those with an unusable name are left out."""
    return sorted({path.stem for path in _yaml_files(workspace / "params" / kind) if _NAME.match(path.stem)})


def misnamed_params(kind: Kind, workspace: Path | None = None) -> dict[str, ParamsError]:
    """Return the files of a kind whose name cannot be used, such as one with a space, each with the reason."""
    return {path.stem: _misnamed(kind, path) for path in _files(kind, workspace) if not _NAME.match(path.stem)}


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
    for path in _files(kind, workspace):
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


def _files(kind: Kind, workspace: Path | None) -> list[Path]:
    """Return the files of params of a kind, in the order in which they are searched."""
    return [path for folder in _folders(kind, workspace) for path in _yaml_files(folder)]


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
    if _is_there(path.is_file):
        if path.suffix in _SUFFIXES:
            return path.absolute()
        raise ParamsError(f"{text!r} is not a YAML file.", next_step="Name a file that ends in .yaml.")
    raise ParamsError(
        f"There is no {kind[:-1]} file {text!r}.",
        evidence=f"Looked at {str(path.absolute())!r}.",
        next_step=f"Correct the path, or give a name: `tautools config list {kind}` shows them.",
    )


def _is_there(ask: Callable[[], bool]) -> bool:
    """Whether `path.exists` or the like says so; what cannot be a path at all is not there."""
    try:
        return ask()
    except (OSError, ValueError):
        return False


def looks_like_path(text: str) -> bool:
    """Whether a text names a file or folder, not a model of the Hub or a built-in name."""
    return text.startswith(("/", "./", "../", "~", "$")) or text in {".", ".."}


def expand_text(text: str, *, where: str) -> str:
    """Return `text` with a leading `~` and environment variables replaced; `where` it was written is for the error.

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
    try:
        return str(Path(expanded).expanduser()) if expanded.startswith("~") else expanded
    except RuntimeError as error:
        raise ParamsError(
            f"{where}: the home folder in {text!r} is not known.", evidence=str(error), next_step="Write the path out."
        ) from error


def expand_tree(tree: ParamsTree, workspace: Path | None) -> Any:
    """Return a copy of a tree's data in which the fields that hold paths and addresses are expanded.

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
        if not isinstance(value, str):
            return value
        of_file = workspace if tree.origin(path).kind is not OriginKind.FLAG else None
        return _expanded(value, path, siblings, of_file or Path.cwd(), tree.where(path))

    return walk(tree.data, (), {})


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
    if _is_there(path.exists):
        return str(path)
    shown = f"{written!r}, which is {str(path)!r}," if str(path) != written else repr(written)
    nearest = next((parent for parent in path.parents if _is_there(parent.is_dir)), None)
    raise ParamsError(
        f"{where}: the path {shown} does not exist.",
        evidence=f"{nearest} exists; the rest of the path does not." if nearest else "",
        next_step="Correct the path, or make what it names; relative paths in a file count from the workspace.",
    )


def _chat_template(name: str, base: Path, where: str) -> str:
    """Return the file of a chat template that is given by its bare name: the workspace's own, or a shipped one."""
    folders = [base, base / "params" / "templates", shipped("params") / "templates"]
    for folder in folders:
        if (folder / name).is_file():
            return str((folder / name).absolute())
    raise ParamsError(
        f"{where}: there is no chat template {name!r}.",
        evidence=f"Looked in {', '.join(str(folder) for folder in folders)}.",
        next_step="Put the file there, or write its whole path.",
    )


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
    problem, evidence, next_step = "", "", "Name a folder with --workspace FOLDER."
    try:
        if path.exists() and not path.is_dir():
            problem = f"{path} is a file, not a folder."
        elif must_exist and not path.exists():
            problem = f"the workspace {path} does not exist."
            next_step = f"Make it with `tautools init {path}`, or name another with --workspace FOLDER."
    except (OSError, ValueError) as error:
        problem, evidence = f"{asked!r} is not a path.", str(error)
    if problem:
        raise ParamsError(f"{source}: {problem}", evidence=evidence, next_step=next_step)
    return path
