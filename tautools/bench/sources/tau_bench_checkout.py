"""Finds tau-bench (v1) and runs its own code privately, with a scripted model in the place of litellm.

Its modules are kept out of `sys.modules`, so two checkouts of one package live side by side. Where its code asks a
model, it runs until it needs an answer that it was not given; it is then left, the answer is fetched, and it runs again
from the start with one answer more. So v1's own code decides what the model is asked and what the user says.
"""

import builtins
import contextlib
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from importlib import metadata, util
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

from tautools.bench.sources.bounds import bounded_eval
from tautools.bench.types import as_bench_error
from tautools.errors import BenchError, NotInstalledError
from tautools.llm.types import Message, Reply, ToolSpec
from tautools.shell import ask_git


class PrivateImport:
    """The modules of one package, loaded from its folder in `root` when they are first asked for.

    `in_place_of` are the modules that they get when they import these names.
    """

    def __init__(self, root: Path, package: str, in_place_of: Mapping[str, ModuleType]) -> None:
        self._root = root
        self._package = package
        self._modules = dict(in_place_of)
        self._builtins = vars(builtins) | {"__import__": self._import, "eval": bounded_eval}
        self._lock = threading.RLock()

    def module(self, name: str) -> ModuleType:
        """Return a module by its full name, or raise `ModuleNotFoundError`."""
        with self._lock:
            return self._modules.get(name) or self._load(name)

    def _load(self, name: str) -> ModuleType:
        above, _, last = name.rpartition(".")
        parent = self.module(above) if above else None
        spec = PathFinder.find_spec(name, getattr(parent, "__path__", []) if parent else [str(self._root)])
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        module = self._modules[name] = util.module_from_spec(spec)
        vars(module)["__builtins__"] = self._builtins
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del self._modules[name]
            raise
        if parent is not None:
            setattr(parent, last, module)
        return module

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the names of `__import__`
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        full = util.resolve_name("." * level + name, str((globals or {}).get("__package__"))) if level else name
        if full not in self._modules and full.partition(".")[0] != self._package:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = self.module(full)
        for each in fromlist or ():
            if not hasattr(module, each) and hasattr(module, "__path__"):
                try:  # `from package import name` may mean a submodule; without one the statement itself complains
                    self.module(f"{full}.{each}")
                except ModuleNotFoundError as error:
                    if error.name != f"{full}.{each}":
                        raise
        return module if fromlist else self.module(full.partition(".")[0])


T = TypeVar("T")


class ModelAsked(BaseException):
    """The benchmark's code needs an answer that it was not given."""

    def __init__(self, messages: Sequence[Message], tools: Sequence[ToolSpec] | None) -> None:
        super().__init__("a model is asked")
        self.messages = list(messages)
        self.tools = tools


class _LitellmMessage(SimpleNamespace):
    """An answer's message as litellm hands it out; v1's verifying user shows its text form to the model."""

    def model_dump(self) -> Message:
        return {name: value for name, value in vars(self).items() if value or name != "tool_calls"}

    def __str__(self) -> str:
        fields = {**vars(self), "function_call": None, "provider_specific_fields": None}
        return f"Message({', '.join(f'{name}={value!r}' for name, value in fields.items())})"


_scripted_replies: ContextVar[Iterator[Reply] | None] = ContextVar("answers", default=None)


def run_with_replies(given: Sequence[Reply], do: Callable[[], T]) -> T:
    """Run the benchmark's code with the answers it is given; raise `ModelAsked` when it wants one more."""
    token = _scripted_replies.set(iter(given))
    try:
        return do()
    finally:
        _scripted_replies.reset(token)


def first_request(ask: Callable[..., Any], *given: Any, **named: Any) -> list[Message]:
    """Return the messages of the first request that the benchmark's code makes when it is called."""
    try:
        run_with_replies([], lambda: ask(*given, **named))
    except ModelAsked as asked:
        return asked.messages
    raise BenchError(
        f"The checkout's {ask.__qualname__} asks no model.",
        next_step="Check that the checkout is complete and unchanged (`git status`).",
    )


def fake_litellm() -> ModuleType:
    """Return a module that gives the benchmark's code what it imports from litellm."""
    module = ModuleType("litellm")
    vars(module).update({"completion": _fake_completion, "provider_list": [], "__getattr__": _error_class})
    return module


def _fake_completion(*_: Any, messages: Sequence[Message], tools: Sequence[ToolSpec] | None = None, **__: Any) -> Any:
    given = _scripted_replies.get()
    if given is None:
        raise BenchError(
            "The benchmark's code asks a model outside of a conversation.",
            next_step="Please report this checkout; the one that tautools knows does not.",
        )
    reply = next(given, None)
    if reply is None:
        raise ModelAsked(messages, tools)
    calls = [call.as_message() for call in reply.tool_calls] or None
    answer = _LitellmMessage(content=reply.text, role="assistant", tool_calls=calls)
    return SimpleNamespace(choices=[SimpleNamespace(message=answer)], _hidden_params={"response_cost": 0.0})


def _error_class(name: str) -> Any:
    """Return what else may be imported from litellm, which are classes of errors that never occur here."""
    if name.startswith("_"):
        raise AttributeError(name)
    return type(name, (Exception,), {})


TAU_BENCH_PACKAGE = "tau_bench"
TAU_BENCH_PATH_VARIABLE = "TAUTOOLS_TAU_BENCH_PATH"
_OTHER_SHAPE = (ImportError, AttributeError, OSError, LookupError, TypeError, ValueError, SyntaxError)
"""Errors that a checkout of another shape, or one that lacks files, ends in."""
_HASHED_FILES = ("*.py", "*.json", "*.md")


def find_tau_bench(path: str | None = None) -> Path:
    """Return the folder that holds the package `tau_bench`: `path`, else where the variable says, else where installed.

    Raises
    ------
    NotInstalledError
        When none is named and none installed.
    BenchError
        When what is named is none.
    """
    named = path or os.environ.get(TAU_BENCH_PATH_VARIABLE)
    if named:
        return _checked_folder(Path(named).expanduser(), "path" if path else TAU_BENCH_PATH_VARIABLE)
    spec = util.find_spec(TAU_BENCH_PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        if (Path(place) / "envs").is_dir():
            return Path(place).resolve().parent
    raise NotInstalledError(
        "tau-bench is not here.",
        evidence=f"No path was given, {TAU_BENCH_PATH_VARIABLE} is not set, "
        f"and no package {TAU_BENCH_PACKAGE} is installed.",
        next_step="Clone https://github.com/sierra-research/tau-bench and name the folder: `--path FOLDER`, or "
        f"`export {TAU_BENCH_PATH_VARIABLE}=FOLDER`.",
    )


def _checked_folder(folder: Path, by: str) -> Path:
    for root in (folder, folder.parent):
        package = root / TAU_BENCH_PACKAGE
        if (package / "envs").is_dir() and folder in {root, package}:
            return root.resolve()
    seen = ", ".join(sorted(each.name for each in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
    raise BenchError(
        f"{folder} is not a checkout of tau-bench.",
        evidence=f"Named by {by}; it has no {TAU_BENCH_PACKAGE}/envs. There: {seen}.",
        next_step="Name the folder that `git clone` made, the one with README.md and tau_bench/ in it.",
    )


class TauBenchCheckout:
    """One tau-bench, in a folder of `root`; its modules are loaded when they are asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.package = root / TAU_BENCH_PACKAGE
        self._modules = PrivateImport(root, TAU_BENCH_PACKAGE, {"litellm": fake_litellm()})

    @functools.cached_property
    def version(self) -> str:
        """The commit, else the installed version; what differs from either has a hash of the files behind it."""
        commit = ask_git(self.root, "rev-parse", "--short=12", "HEAD") if (self.root / ".git").exists() else None
        if commit:
            changed = ask_git(self.root, "status", "--porcelain", "--", TAU_BENCH_PACKAGE)
            return f"{commit}+{self.digest[:8]}" if changed else commit
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed = metadata.distribution(TAU_BENCH_PACKAGE)
            if Path(str(installed.locate_file(TAU_BENCH_PACKAGE))).resolve() == self.package.resolve():
                return f"{installed.version}+{self.digest[:8]}"
        return f"files-{self.digest[:12]}"

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 over names and contents of the package's files."""
        digest = hashlib.sha256()
        files = sorted(path for pattern in _HASHED_FILES for path in self.package.rglob(pattern))
        for path in files:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(self.root).as_posix()} {content}\n".encode())
        return digest.hexdigest()

    def module(self, name: str) -> ModuleType:
        """Return a module of the package, such as `envs.user`."""
        with self.as_expected():
            return self._modules.module(f"{TAU_BENCH_PACKAGE}.{name}")

    def as_expected(self) -> contextlib.AbstractContextManager[None]:
        """Turn what a checkout of another shape raises into an error that says so."""
        problem = f"The tau-bench in {self.root} is not the one that tautools knows."
        next_step = "Check that it is complete (`git status`, `git lfs pull`), or clone it again."
        return as_bench_error(problem, next_step, *_OTHER_SHAPE)
