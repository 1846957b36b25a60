"""Speaks with the program in the checkout's environment.

It is started when it is first asked and again after it has ended; what it held is gone then, and a conversation that
had its database there is lost to the infrastructure. It ends when this process does, because its input ends. Asking
blocks: answers take milliseconds.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tautools.bench.sources.tau2_bench.pipe import GoneError, JsonPipe
from tautools.errors import BenchError

if TYPE_CHECKING:
    from tautools.bench.sources.tau2_bench.checkout import Checkout

__all__ = ["CheckoutProcess", "WorldNumber"]

ANSWER_S = 120.0
"""Most seconds that an answer may take; a tool that computes for ever is found so."""
START_S = 900.0
"""The same while the package is imported, which takes long on a cold network disk."""
_PROGRAM = Path(__file__).with_name("child.py")
_ENV = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it asks the network when imported otherwise
    "LOGURU_LEVEL": "ERROR",
    "PYTHONIOENCODING": "utf-8",
}
_ASKED_TO = {
    "hello": "say hello",
    "open": "import the package",
    "envs": "name the envs",
    "splits": "name the splits of an env",
    "domain": "load an env",
    "world": "make a world",
    "call": "call a tool",
    "reward": "score a conversation",
    "changes": "tell what was changed",
    "expected": "tell what the reference changes",
    "loaded": "look up an entity",
}
_NOT_ITS_OWN = {"PYTHONPATH", "PYTHONHOME"}
"""Ours lead to packages for another Python."""


class WorldNumber(NamedTuple):
    """One world in one run of the program."""

    run: int
    number: int


class CheckoutProcess:
    """The program of one checkout, and the one way to ask it."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self._argv = [str(checkout.python), str(_PROGRAM), str(checkout.path)]
        self._lock = threading.RLock()
        self._pipe: JsonPipe | None = None
        self._run = 0
        self._dropped: deque[WorldNumber] = deque()

    @property
    def pid(self) -> int | None:
        """The program's process, while it runs."""
        return None if self._pipe is None else self._pipe.pid

    def ask(self, do: str, **what: Any) -> Any:
        """Ask and return the answer, starting the program when it does not run.

        Raises
        ------
        BenchError
            When the package refuses, or the program cannot start, has ended or does not answer.
        """
        with self._lock:
            return self._ask(self._pipe or self._start(), do, what)

    def make_world(self, env: str, task: str) -> WorldNumber:
        """Make a world in the program."""
        with self._lock:
            number = self.ask("world", env=env, task=task)
            return WorldNumber(self._run, number)

    def ask_world(self, do: str, world: WorldNumber, **what: Any) -> Any:
        """Ask about a world.

        Raises
        ------
        BenchError
            As `ask`, and when the program that made the world has ended.
        """
        with self._lock:
            if self._pipe is None or world.run != self._run:
                raise BenchError(
                    "The database of this conversation is lost: the program of the tau2-bench checkout has ended.",
                    next_step="Run again: the conversation is owed, and nothing of it was scored.",
                )
            return self._ask(self._pipe, do, {"world": world.number, **what})

    def drop(self, world: WorldNumber) -> None:
        """Forget a world with the next request; a finalizer may call it."""
        self._dropped.append(world)

    def close(self) -> None:
        """End the program; the next question starts it again."""
        with self._lock:
            if self._pipe is not None:
                self._pipe.end()
                self._pipe = None

    def _start(self) -> JsonPipe:
        self._run += 1
        env = {name: value for name, value in os.environ.items() if name not in _NOT_ITS_OWN}
        self._pipe = JsonPipe(self._argv, env={**env, **_ENV}, cwd=self.checkout.path)
        try:
            self._check_python(self._ask(self._pipe, "hello", {}, START_S)["python"])
            self._check_place(self._ask(self._pipe, "open", {}, START_S)["file"])
        except BaseException:
            self.close()
            raise
        return self._pipe

    def _check_python(self, version: str) -> None:
        if not self.checkout.accepts(version):
            raise BenchError(
                f"tau2-bench {self.checkout.version} does not run on Python {version}.",
                evidence=f"{self.checkout.python} is Python {version}; "
                f"the checkout asks for {self.checkout.python_versions}.",
                next_step=self.checkout.recipe,
            )

    def _check_place(self, file: str) -> None:
        wanted = self.checkout.path / "src" / "tau2"
        if Path(file).parent != wanted.resolve():
            raise BenchError(
                "Another tau2 than the checkout's is imported.",
                evidence=f"It is {file}, and not in {wanted}.",
                next_step=self.checkout.recipe,
            )

    def _ask(self, pipe: JsonPipe, do: str, what: dict[str, Any], timeout_s: float | None = None) -> Any:
        try:
            answer = pipe.exchange({"do": do, **what, "drop": self._forgotten()}, timeout_s or ANSWER_S)
        except BaseException as error:
            self._pipe = None
            if isinstance(error, GoneError):
                raise self._lost(pipe, do, str(error)) from error
            raise
        if "error" in answer:
            raise self._refused(do, answer)
        return answer["ok"]

    def _forgotten(self) -> list[int]:
        worlds = [self._dropped.popleft() for _ in range(len(self._dropped))]
        return [world.number for world in worlds if world.run == self._run]

    def _lost(self, pipe: JsonPipe, do: str, how: str) -> BenchError:
        again = (
            "Run again: what is unfinished is owed, and nothing of it was scored; its last lines may say why it ended."
        )
        return BenchError(
            f"The program of the tau2-bench checkout {how} when it was asked to {_ASKED_TO[do]}.",
            evidence=pipe.last_lines() or "It wrote nothing to its standard error.",
            next_step=self.checkout.recipe if do in {"hello", "open"} else again,
        )

    def _refused(self, do: str, answer: dict[str, Any]) -> BenchError:
        told, trace = str(answer["error"]), str(answer.get("trace", "")).strip()
        if told.startswith(("ModuleNotFoundError", "ImportError")):
            return BenchError(
                f"tau2-bench cannot be imported: {told}",
                evidence=f"{self.checkout.python}\n{trace}",
                next_step=self.checkout.recipe,
            )
        return BenchError(
            f"tau2-bench could not {_ASKED_TO[do]}: {told}",
            evidence=trace,
            next_step=f"Check that the checkout {self.checkout.path} is whole (git status); docs/fidelity.md says "
            "which version tautools was compared with.",
        )
