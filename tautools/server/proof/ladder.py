"""The ladder: from "a process runs" to "this is the server that was asked for, and it works for tau-bench".

A rung that fails is told with what was seen and what to do. Nothing further is asked of a server that cannot be reached
or is another one. From the identity on the rungs are climbed side by side, because a server's first answers take it a
second each; those that load a server (8-10) come alone, last, and only when asked for. A rung that does not apply (no
process to look at, no key to test) is neither passed nor failed.
"""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tautools.errors import ModelCallError
from tautools.llm.types import Endpoint
from tautools.records import Rung, Thinking
from tautools.server.failures.causes import diagnose_refusal
from tautools.server.layout.ports import listeners
from tautools.server.proof.light import Models, ask_models, nearest, root_of
from tautools.shell import group_members, process_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tautools.http import Http

__all__ = ["Climb", "Finding", "Target", "climb", "recheck"]


_CONNECTIONS = 16
"""Connections by which a server on another node is asked whether it is alone on its port."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be proven."""

    base_url: str
    model: str = ""
    """Empty: the first name that the server tells."""
    key: str = field(default="", repr=False)
    alias: str = ""
    max_model_len: int | None = None
    """The context length that was asked for [tokens]."""
    pid: int | None = None
    pid_started_at: float | None = None
    port: int | None = None
    thinking: Thinking = Thinking.DEFAULT
    """What was asked for; the rung that looks at it is left out when nothing was."""
    concurrency: int = 0
    """Chats at once that it must bear; 0 leaves the rungs that load a server out."""


class Finding(NamedTuple):
    """What a rung found: whether it passed (`None`: does not apply) and what was seen."""

    passed: bool | None
    detail: str


@dataclass(slots=True)
class Climb:
    """What is learnt on the way up."""

    target: Target
    http: Http
    model: str = ""
    models: Models | None = None
    version: str = ""
    rungs: list[Rung] = field(default_factory=list)

    @property
    def endpoint(self) -> Endpoint:
        """The server as the model door knows it."""
        simulated = self.models is not None and self.models.simulated
        return Endpoint(self.target.base_url, self.model, key=self.target.key, simulated=simulated)


_Step: TypeAlias = "tuple[int, str, Callable[[Climb], Finding]]"


def climb(target: Target, *, http: Http, on_rung: Callable[[Rung], None] | None = None) -> Climb:
    """Try every rung and return what was found, in order; nothing is raised for a rung that fails.

    Parameters
    ----------
    target : Target
        The address and what is expected there.
    http : Http
        The network's door.
    on_rung : callable, optional
        Told each rung as it is done, in order.
    """
    from tautools.server.proof.conversation import chat, tool_calls
    from tautools.server.proof.endurance import length_limit, many_at_once, same_twice
    from tautools.server.proof.thinking import thinking_state

    state = Climb(target, http, model=target.model)
    working: list[_Step] = [(4, "key", _key), (5, "chat", chat)]
    if target.thinking is not Thinking.DEFAULT:
        working.append((6, "thinking", thinking_state))
    working.append((7, "tool calls", tool_calls))
    loading: list[_Step] = [(8, "length", length_limit), (9, "at once", many_at_once), (10, "same twice", same_twice)]
    stopped_by = _in_turn(state, _FOUND, on_rung)
    stopped_by = _side_by_side(state, working, on_rung, stopped_by)
    if target.concurrency:
        _in_turn(state, loading, on_rung, stopped_by)
    return state


def recheck(target: Target, *, http: Http) -> Climb:
    """Try the rungs that cost a server nothing, 0 to 4, to see whether it is still the one that was proven."""
    state = Climb(target, http, model=target.model)
    _in_turn(state, [*_FOUND, (4, "key", _key)], None)
    return state


def _in_turn(state: Climb, steps: Sequence[_Step], on_rung: Callable[[Rung], None] | None, stopped_by: str = "") -> str:
    """Climb one rung after the other; return the name of the one that failed, after which none is tried."""
    for step in steps:
        rung = _not_tried(step, stopped_by) if stopped_by else _try(step, state)
        stopped_by = rung.name if rung.passed is False else stopped_by
        _tell(state, rung, on_rung)
    return stopped_by


def _side_by_side(state: Climb, steps: Sequence[_Step], on_rung: Callable[[Rung], None] | None, stopped_by: str) -> str:
    """Climb all rungs at once and tell them in order; return the name of the first that failed."""
    if stopped_by:
        return _in_turn(state, steps, on_rung, stopped_by)
    failed = ""
    with ThreadPoolExecutor(max_workers=len(steps)) as pool:
        for rung in pool.map(lambda step: _try(step, state), steps):
            failed = failed or (rung.name if rung.passed is False else "")
            _tell(state, rung, on_rung)
    return failed


def _tell(state: Climb, rung: Rung, on_rung: Callable[[Rung], None] | None) -> None:
    state.rungs.append(rung)
    if on_rung is not None:
        on_rung(rung)


def _not_tried(step: _Step, stopped_by: str) -> Rung:
    return Rung(number=step[0], name=step[1], passed=None, detail=f"not tried: `{stopped_by}` failed")


def _try(step: _Step, state: Climb) -> Rung:
    number, name, probe = step
    began = time.perf_counter()
    try:
        found = probe(state)
    except ModelCallError as error:
        found = Finding(False, _refused(error, state.target))
    took_s = round(time.perf_counter() - began, 4)
    return Rung(number=number, name=name, passed=found.passed, detail=found.detail, took_s=took_s)


def _refused(error: ModelCallError, target: Target) -> str:
    """Say what was seen, and what it means where the table of failures knows it."""
    pid, started_at = target.pid, target.pid_started_at
    alive = None if pid is None or started_at is None else process_alive(pid, started_at)
    known = diagnose_refusal(f"{error.problem} {error.evidence}", server_alive=alive)
    means = (known.cause, known.remedy) if known is not None else ()
    return " ".join(part for part in (error.problem, error.evidence, *means) if part)


def _alive(state: Climb) -> Finding:
    pid, started_at = state.target.pid, state.target.pid_started_at
    if pid is None or started_at is None:
        return Finding(None, "no process of ours to look at")
    if process_alive(pid, started_at):
        return Finding(True, f"process {pid}")
    return Finding(False, f"process {pid} has ended; read the log with `tautools server logs`")


def _port(state: Climb) -> Finding:
    pid, started_at, port = state.target.pid, state.target.pid_started_at, state.target.port
    if pid is None or started_at is None or port is None:
        return Finding(None, "no process of ours to look at")
    holders = listeners(port)
    if not holders:
        return Finding(False, f"nobody listens on port {port}")
    ours = set(group_members(pid, started_at))
    strangers = [holder for holder in holders if holder not in ours]
    if not strangers:
        return Finding(True, f"port {port} is held by this server alone")
    who = ", ".join("another user" if holder is None else f"process {holder}" for holder in strangers)
    twin = "shared with" if len(strangers) < len(holders) else "held by"
    return Finding(False, f"port {port} is {twin} {who}; stop this server and start it on another port")


def _health(state: Climb) -> Finding:
    url = f"{root_of(state.target.base_url)}/health"
    answer = state.http.get(url, timeout_s=5.0)
    if answer.status == 200:
        state.version = _version(state)
        return Finding(True, f"version {state.version}" if state.version else "answers")
    if answer.status in {404, 405} and state.target.pid is None:
        return Finding(None, "it has no /health, as hosted gateways often have none")
    return Finding(False, f"{url} answers {answer.status}: {answer.text[:200]}")


def _version(state: Climb) -> str:
    try:
        answer = state.http.get(f"{root_of(state.target.base_url)}/version", timeout_s=5.0)
        return str(answer.json()["version"]) if answer.status == 200 else ""
    except (ModelCallError, ValueError, KeyError, TypeError):
        return ""


def _identity(state: Climb) -> Finding:
    target = state.target
    models = ask_models(target.base_url, key=target.key, http=state.http, timeout_s=10.0)
    state.models = models
    if models.status in {401, 403}:
        what = "the key is not the server's" if target.key else "the server wants a key: give it with --key-env NAME"
        return Finding(False, f"{models.status}: {what}")
    if models.status != 200 or not models.names:
        return Finding(False, f"/v1/models answers {models.status}: {models.detail}")
    state.model = target.model or models.names[0]
    for name in filter(None, (state.model, target.alias)):
        if name not in models.names:
            near = nearest(name, models.names)
            hint = f"; did you mean {near!r}?" if near and name == state.model else ""
            return Finding(False, f"it serves {', '.join(models.names)}, not {name!r}{hint}")
    if target.pid is None and (target.alias or target.key) and (other := _other_answer(state, models)):
        return Finding(False, f"another server shares its port: {other}; start it again on another port")
    length = models.length_of(state.model)
    if target.max_model_len is not None and length is not None and length != target.max_model_len:
        return Finding(False, f"it serves {length} tokens of context, {target.max_model_len} were asked for")
    told = f", {length} tokens of context" if length else ""
    proof = " and this launch's own name" if target.alias else ""
    return Finding(True, f"serves {state.model}{proof}{told}")


def _other_answer(state: Climb, first: Models) -> str:
    """Return what another server says that shares the port on a node whose listeners cannot be seen from here.

    The kernel shares new connections out among them, and each question opens one: with half of them a twin stays unseen
    once in thousands of climbs. Only an answer counts; a question that a busy server lets time out does not.
    """
    ask = partial(ask_models, state.target.base_url, key=state.target.key, http=state.http, timeout_s=10.0)
    with ThreadPoolExecutor(max_workers=_CONNECTIONS) as pool:
        for models in pool.map(lambda _number: ask(), range(_CONNECTIONS)):
            if models.status in {401, 403}:
                return f"one answer of {_CONNECTIONS} refuses the key"
            if models.status == 200 and models.names != first.names:
                return f"one answer of {_CONNECTIONS} serves {', '.join(models.names) or 'nothing'}"
    return ""


def _key(state: Climb) -> Finding:
    if not state.target.key:
        return Finding(None, "no key was given, so none is tested")
    without = ask_models(state.target.base_url, key="", http=state.http)
    wrong = ask_models(state.target.base_url, key=secrets.token_urlsafe(24), http=state.http)
    if without.status in {401, 403} and wrong.status in {401, 403}:
        return Finding(True, "refused without a key and with a wrong one")
    which = "without a key" if without.status not in {401, 403} else "with a wrong key"
    return Finding(False, f"the server is open: it answers {which}; start it again with a key")


_FOUND: tuple[_Step, ...] = (
    (0, "process alive", _alive),
    (1, "port is ours", _port),
    (2, "health", _health),
    (3, "identity", _identity),
)
"""The rungs that say which server it is."""
