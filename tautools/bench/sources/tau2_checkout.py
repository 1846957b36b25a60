"""A tau2-bench checkout: where it and its interpreter are, and the program that runs in its environment.

The program is started when it is first asked and again after it has ended; a conversation that had its database there
is then lost to the infrastructure. It ends when this process does, because its input ends.
"""

import contextlib
import itertools
import json
import os
import select
import threading
import time
import tomllib
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from tautools.errors import BenchError
from tautools.shell import Piped, start_piped

TAU2_PATH_VARIABLE = "TAUTOOLS_TAU2_BENCH_PATH"
TAU2_PYTHON_VARIABLE = "TAUTOOLS_TAU2_BENCH_PYTHON"

KNOWN_VERSIONS = SpecifierSet("~=1.0")
"""Versions of the package whose modules are where `tau2_child` looks for them."""


@dataclass(frozen=True, slots=True)
class Tau2Checkout:
    """A tau2-bench checkout that can be tried."""

    path: Path
    python: Path
    version: str
    """Of the package, as its `pyproject.toml` says."""
    python_versions: str
    """Versions of Python that the package asks for; empty when it does not say."""

    @property
    def recipe(self) -> str:
        """How its environment is made."""
        return (
            f"Make the checkout an environment of its own, without its extras: `python3.12 -m venv {self.path}/.venv "
            f"&& {self.path}/.venv/bin/pip install -e {self.path}`; another interpreter is named by --python or "
            f"{TAU2_PYTHON_VARIABLE}."
        )

    def accepts(self, python: str) -> bool:
        """Whether the package runs on a version of Python."""
        try:
            return SpecifierSet(self.python_versions).contains(Version(python), prereleases=True)
        except (InvalidSpecifier, InvalidVersion):
            return True


def find_tau2_checkout(path: str | None = None, python: str | None = None) -> Tau2Checkout:
    """Return the checkout and the interpreter that were named, or that the environment names.

    Parameters
    ----------
    path : str, optional
        The checkout's folder; `TAUTOOLS_TAU2_BENCH_PATH` when not given.
    python : str, optional
        Its interpreter; `TAUTOOLS_TAU2_BENCH_PYTHON`, or else the `.venv` inside the checkout when not given.

    Raises
    ------
    BenchError
        When either is missing, or the checkout is another version.
    """
    named = path or os.environ.get(TAU2_PATH_VARIABLE)
    if not named:
        raise BenchError(
            "The source tau2-bench needs a checkout of tau2-bench.",
            next_step=f"Name its folder with --path, `path:` or {TAU2_PATH_VARIABLE}.",
        )
    folder = Path(named).expanduser().resolve()
    version, python_versions = _read_project(folder)
    interpreter = Path(python or os.environ.get(TAU2_PYTHON_VARIABLE) or folder / ".venv" / "bin" / "python")
    # Not resolved: a virtual environment's interpreter is a link, and is one of it only under its own name.
    interpreter = Path(os.path.abspath(interpreter.expanduser()))  # noqa: PTH100
    checkout = Tau2Checkout(folder, interpreter, version, python_versions)
    if not interpreter.is_file() or not os.access(interpreter, os.X_OK):
        raise BenchError(
            "tau2-bench has no Python to run in.",
            evidence=f"There is no program {interpreter}.",
            next_step=checkout.recipe,
        )
    return checkout


def _read_project(folder: Path) -> tuple[str, str]:
    """Return the version of a checkout and the versions of Python that it asks for."""
    file, package = folder / "pyproject.toml", folder / "src" / "tau2"
    name = version = problem = ""
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        name, version = str(project["name"]), str(project.get("version", ""))
    except (OSError, ValueError, KeyError) as error:
        problem = f"{file}: {type(error).__name__}: {error}"
    if not problem and (name != "tau2" or not (package / "__init__.py").is_file()):
        problem = f"{file} is of {name!r}; the package would be in {package}."
    if problem:
        raise BenchError(
            f"{folder} is not a checkout of tau2-bench.",
            evidence=problem,
            next_step="Name the folder with its pyproject.toml, src/ and data/ by --path.",
        )
    if version not in KNOWN_VERSIONS:
        raise BenchError(
            f"tau2-bench {version} is not a version that tautools knows.",
            evidence=f"{file} says {version}; known: {KNOWN_VERSIONS}.",
            next_step="Check a known version out in another folder; tautools was compared with 1.0.1, commit a2c0247.",
        )
    return version, str(project.get("requires-python", ""))


_KEPT_LINES = 40
_END_S = 2.0
"""Seconds in which the program may end by itself once its input has ended."""


class ProgramEndedError(Exception):
    """The program has ended or was ended; the message completes "The program …"."""


class JsonPipe:
    """One run of a program that answers each line of JSON with one; started as `start_piped` starts it."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        self._process = start_piped(argv, env=env, cwd=cwd)
        self.pid = self._process.pid
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)
        self._unread = b""
        self._stderr: deque[str] = deque(maxlen=_KEPT_LINES)
        kept = (cast("IO[bytes]", self._process.stderr), self._stderr)
        self._listener = threading.Thread(target=_keep_lines, args=kept, name=f"stderr of {self.pid}", daemon=True)
        self._listener.start()
        # Also at the interpreter's end: the input is closed in good order, and the program is waited for.
        self.end = weakref.finalize(self, _end_program, self._process)

    def exchange(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a request and return the answer; after any failure the program is ended.

        Raises
        ------
        ProgramEndedError
            When the program ends, closes its output or does not answer in time.
        """
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
            answer: dict[str, Any] = json.loads(self._line(timeout_s))
        except BaseException as error:  # an interrupt too: the answer still to come must not be taken for another
            self.end()
            if not isinstance(error, OSError | ValueError | EOFError):
                raise
            code = self._process.returncode
            how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
            raise ProgramEndedError(how) from error
        return answer

    def last_lines(self) -> str:
        """Return the last lines of the program's standard error, all of them once it has ended."""
        if self._process.poll() is not None:
            self._listener.join(timeout=1.0)
        return "\n".join(self._stderr)

    def _line(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        parts = [self._unread]
        while b"\n" not in parts[-1]:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ProgramEndedError(f"gave no answer within {timeout_s:g} s and was ended")
            parts.append(os.read(self._answers.fileno(), 1 << 20))
            if not parts[-1]:
                raise EOFError
        line, _, self._unread = b"".join(parts).partition(b"\n")
        return line


def _keep_lines(stream: IO[bytes], lines: deque[str]) -> None:
    with stream:
        for line in stream:
            lines.append(line.decode(errors="replace").rstrip())


def _end_program(process: Piped) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what was not sent cannot be sent any more
                stream.close()
    deadline = time.monotonic() + _END_S
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    if process.poll() is None:
        process.kill()
        process.wait()


ANSWER_S = 120.0
"""Most seconds that an answer may take, so that a tool that never returns is noticed."""
START_S = 900.0
"""The same while the package is imported, which takes long on a cold network disk."""
_PROGRAM = Path(__file__).with_name("tau2_child.py")
_PROGRAM_ENV = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it asks the network when imported otherwise
    "LOGURU_LEVEL": "ERROR",
    "PYTHONIOENCODING": "utf-8",
}
_STARTING = {"hello": "say hello", "open": "import the package"}
_REQUESTS = _STARTING | {
    "envs": "name the envs",
    "splits": "name the splits of an env",
    "domain": "load an env",
    "env_state": "make an environment",
    "call": "call a tool",
    "reward": "score a conversation",
    "changes": "list the changes",
    "expected": "list the changes of the reference",
    "loaded": "look up an entity",
}
_DROPPED_VARIABLES = {"PYTHONPATH", "PYTHONHOME"}
"""They lead to our packages, which are for another Python."""


class CheckoutProcess:
    """The program of one checkout, and the one way to ask it."""

    def __init__(self, checkout: Tau2Checkout) -> None:
        self.checkout = checkout
        self._lock = threading.RLock()
        self._pipe: JsonPipe | None = None
        self._numbers = itertools.count(1)
        self._states: set[int] = set()
        """Numbers of the environments that are in this run of the program."""
        self.dropped: deque[int] = deque()
        """Environments to forget with the next request; a finalizer may append to it."""

    @property
    def pid(self) -> int | None:
        """The program's process, while it runs."""
        return self._pipe.pid if self._pipe is not None and self._pipe.end.alive else None

    def ask(self, do: str, *, state: int | None = None, **what: Any) -> Any:
        """Ask and return the answer, starting the program when it does not run and `state` is None.

        Raises
        ------
        BenchError
            When the package refuses, or the program cannot start, has ended since it made `state` or does not answer.
        """
        with self._lock:
            if state is not None and (self.pid is None or state not in self._states):
                raise BenchError(
                    "The database of this conversation is lost: the program of the tau2-bench checkout has ended.",
                    next_step="Run again: the conversation is pending, and nothing of it was scored.",
                )
            pipe = self._start() if self._pipe is None or self.pid is None else self._pipe
            return self._ask(pipe, do, what if state is None else {"env_state": state, **what})

    def make_state(self, env: str, task: str) -> int:
        """Make an environment in the program, and return its number, which no other run of it has."""
        with self._lock:
            number = next(self._numbers)
            self.ask("env_state", env_state=number, env=env, task=task)
            self._states.add(number)
            return number

    def close(self) -> None:
        """End the program; the next question starts it again."""
        with self._lock:
            if self._pipe is not None:
                self._pipe.end()

    def _start(self) -> JsonPipe:
        checkout = self.checkout
        env = {name: value for name, value in os.environ.items() if name not in _DROPPED_VARIABLES}
        argv = [str(checkout.python), str(_PROGRAM), str(checkout.path)]
        pipe = self._pipe = JsonPipe(argv, env={**env, **_PROGRAM_ENV}, cwd=checkout.path)
        self._states.clear()
        try:
            version = self._ask(pipe, "hello", {})["python"]
            if not checkout.accepts(version):
                raise BenchError(
                    f"tau2-bench {checkout.version} does not run on Python {version}.",
                    evidence=f"{checkout.python} is Python {version}; "
                    f"the checkout asks for {checkout.python_versions}.",
                    next_step=checkout.recipe,
                )
            file, package = self._ask(pipe, "open", {})["file"], checkout.path / "src" / "tau2"
            if Path(file).parent != package.resolve():
                raise BenchError(
                    "Another tau2 than the checkout's is imported.",
                    evidence=f"It is {file}, and not in {package}.",
                    next_step=checkout.recipe,
                )
        except BaseException:
            self.close()
            raise
        return pipe

    def _ask(self, pipe: JsonPipe, do: str, what: dict[str, Any]) -> Any:
        dropped = [self.dropped.popleft() for _ in range(len(self.dropped))]
        self._states.difference_update(dropped)
        try:
            answer = pipe.exchange({"do": do, **what, "drop": dropped}, START_S if do in _STARTING else ANSWER_S)
        except ProgramEndedError as error:
            again = "Run again: what is unfinished is pending and was not scored; its last lines may say why it ended."
            raise BenchError(
                f"The program of the tau2-bench checkout {error} when it was asked to {_REQUESTS[do]}.",
                evidence=pipe.last_lines() or "It wrote nothing to its standard error.",
                next_step=self.checkout.recipe if do in _STARTING else again,
            ) from error
        if "error" in answer:
            raise self._refused(do, str(answer["error"]), str(answer.get("trace", "")).strip())
        return answer["ok"]

    def _refused(self, do: str, error: str, trace: str) -> BenchError:
        if error.startswith(("ModuleNotFoundError", "ImportError")):
            return BenchError(
                f"tau2-bench cannot be imported: {error}",
                evidence=f"{self.checkout.python}\n{trace}",
                next_step=self.checkout.recipe,
            )
        return BenchError(
            f"tau2-bench could not {_REQUESTS[do]}: {error}",
            evidence=trace,
            next_step=f"Check that the checkout {self.checkout.path} is whole (git status); docs/fidelity.md says "
            "which version tautools was compared with.",
        )
