"""Run the checks: from "a process runs" to "this is the server that was asked for, and it works for tau-bench".

A failed check reports what was seen and what to do. Nothing further is asked of a server that cannot be reached or is
another one. From the identity check on, checks run side by side, because a server's first answers take a second each;
those that load a server (8-10) run alone, last, and only when asked for. A check that does not apply (no process to
look at, no key to test) neither passes nor fails.
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
from tautools.records import Check, Thinking
from tautools.servers.checks.target import ModelList, ask_models, nearest_model, root_of
from tautools.servers.diagnose.causes import diagnose_refusal
from tautools.servers.ports import listeners
from tautools.shell import group_members, process_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tautools.http import Http


_CONNECTIONS = 16
"""Connections by which a server on another node is asked whether it is alone on its port."""


@dataclass(frozen=True, slots=True)
class CheckTarget:
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
    """What was asked for; the check that looks at it is left out when nothing was."""
    concurrency: int = 0
    """Chats at once that it must bear; 0 leaves the checks that load a server out."""


class CheckResult(NamedTuple):
    """What a check found: whether it passed (`None`: does not apply) and what was seen."""

    passed: bool | None
    detail: str


@dataclass(slots=True)
class CheckContext:
    """What is learnt on the way up."""

    target: CheckTarget
    http: Http
    model: str = ""
    models: ModelList | None = None
    version: str = ""
    checks: list[Check] = field(default_factory=list)

    @property
    def endpoint(self) -> Endpoint:
        """The server as the model door knows it."""
        simulated = self.models is not None and self.models.simulated
        return Endpoint(self.target.base_url, self.model, key=self.target.key, simulated=simulated)


_Step: TypeAlias = "tuple[int, str, Callable[[CheckContext], CheckResult]]"


def run_checks(target: CheckTarget, *, http: Http, on_check: Callable[[Check], None] | None = None) -> CheckContext:
    """Try every check and return what was found, in order; nothing is raised for a check that fails.

    Parameters
    ----------
    target : Target
        The address and what is expected there.
    http : Http
        The network's door.
    on_check : callable, optional
        Told each check as it is done, in order.
    """
    from tautools.servers.checks.probes import (
        check_chat,
        check_concurrency,
        check_context_length,
        check_determinism,
        check_thinking,
        check_tool_calls,
    )

    state = CheckContext(target, http, model=target.model)
    working: list[_Step] = [(4, "key", _check_key), (5, "chat", check_chat)]
    if target.thinking is not Thinking.DEFAULT:
        working.append((6, "thinking", check_thinking))
    working.append((7, "tool calls", check_tool_calls))
    loading: list[_Step] = [
        (8, "length", check_context_length),
        (9, "at once", check_concurrency),
        (10, "same twice", check_determinism),
    ]
    stopped_by = _in_turn(state, _IDENTITY_CHECKS, on_check)
    stopped_by = _side_by_side(state, working, on_check, stopped_by)
    if target.concurrency:
        _in_turn(state, loading, on_check, stopped_by)
    return state


def recheck(target: CheckTarget, *, http: Http) -> CheckContext:
    """Try the checks that cost a server nothing, 0 to 4, to see whether it is still the one that was proven."""
    state = CheckContext(target, http, model=target.model)
    _in_turn(state, [*_IDENTITY_CHECKS, (4, "key", _check_key)], None)
    return state


def _in_turn(
    state: CheckContext, steps: Sequence[_Step], on_check: Callable[[Check], None] | None, stopped_by: str = ""
) -> str:
    """Climb one check after the other; return the name of the one that failed, after which none is tried."""
    for step in steps:
        check = _not_tried(step, stopped_by) if stopped_by else _run_check(step, state)
        stopped_by = check.name if check.passed is False else stopped_by
        _record_check(state, check, on_check)
    return stopped_by


def _side_by_side(
    state: CheckContext, steps: Sequence[_Step], on_check: Callable[[Check], None] | None, stopped_by: str
) -> str:
    """Climb all checks at once and tell them in order; return the name of the first that failed."""
    if stopped_by:
        return _in_turn(state, steps, on_check, stopped_by)
    failed = ""
    with ThreadPoolExecutor(max_workers=len(steps)) as pool:
        for check in pool.map(lambda step: _run_check(step, state), steps):
            failed = failed or (check.name if check.passed is False else "")
            _record_check(state, check, on_check)
    return failed


def _record_check(state: CheckContext, check: Check, on_check: Callable[[Check], None] | None) -> None:
    state.checks.append(check)
    if on_check is not None:
        on_check(check)


def _not_tried(step: _Step, stopped_by: str) -> Check:
    return Check(number=step[0], name=step[1], passed=None, detail=f"not tried: `{stopped_by}` failed")


def _run_check(step: _Step, state: CheckContext) -> Check:
    number, name, probe = step
    began = time.perf_counter()
    try:
        found = probe(state)
    except ModelCallError as error:
        found = CheckResult(False, _error_detail(error, state.target))
    took_s = round(time.perf_counter() - began, 4)
    return Check(number=number, name=name, passed=found.passed, detail=found.detail, took_s=took_s)


def _error_detail(error: ModelCallError, target: CheckTarget) -> str:
    """Say what was seen, and what it means where the table of failures knows it."""
    pid, started_at = target.pid, target.pid_started_at
    alive = None if pid is None or started_at is None else process_alive(pid, started_at)
    known = diagnose_refusal(f"{error.problem} {error.evidence}", server_alive=alive)
    means = (known.cause, known.fix) if known is not None else ()
    return " ".join(part for part in (error.problem, error.evidence, *means) if part)


def _check_process(state: CheckContext) -> CheckResult:
    pid, started_at = state.target.pid, state.target.pid_started_at
    if pid is None or started_at is None:
        return CheckResult(None, "no process of ours to look at")
    if process_alive(pid, started_at):
        return CheckResult(True, f"process {pid}")
    return CheckResult(False, f"process {pid} has ended; read the log with `tautools server logs`")


def _check_port(state: CheckContext) -> CheckResult:
    pid, started_at, port = state.target.pid, state.target.pid_started_at, state.target.port
    if pid is None or started_at is None or port is None:
        return CheckResult(None, "no process of ours to look at")
    holders = listeners(port)
    if not holders:
        return CheckResult(False, f"nobody listens on port {port}")
    ours = set(group_members(pid, started_at))
    strangers = [holder for holder in holders if holder not in ours]
    if not strangers:
        return CheckResult(True, f"port {port} is held by this server alone")
    who = ", ".join("another user" if holder is None else f"process {holder}" for holder in strangers)
    twin = "shared with" if len(strangers) < len(holders) else "held by"
    return CheckResult(False, f"port {port} is {twin} {who}; stop this server and start it on another port")


def _check_health(state: CheckContext) -> CheckResult:
    url = f"{root_of(state.target.base_url)}/health"
    answer = state.http.get(url, timeout_s=5.0)
    if answer.status == 200:
        state.version = _server_version(state)
        return CheckResult(True, f"version {state.version}" if state.version else "answers")
    if answer.status in {404, 405} and state.target.pid is None:
        return CheckResult(None, "it has no /health, as hosted gateways often have none")
    return CheckResult(False, f"{url} answers {answer.status}: {answer.text[:200]}")


def _server_version(state: CheckContext) -> str:
    try:
        answer = state.http.get(f"{root_of(state.target.base_url)}/version", timeout_s=5.0)
        return str(answer.json()["version"]) if answer.status == 200 else ""
    except (ModelCallError, ValueError, KeyError, TypeError):
        return ""


def _check_identity(state: CheckContext) -> CheckResult:
    target = state.target
    models = ask_models(target.base_url, key=target.key, http=state.http, timeout_s=10.0)
    state.models = models
    if models.status in {401, 403}:
        what = "the key is not the server's" if target.key else "the server wants a key: give it with --key-env NAME"
        return CheckResult(False, f"{models.status}: {what}")
    if models.status != 200 or not models.names:
        return CheckResult(False, f"/v1/models answers {models.status}: {models.detail}")
    state.model = target.model or models.names[0]
    for name in filter(None, (state.model, target.alias)):
        if name not in models.names:
            near = nearest_model(name, models.names)
            hint = f"; did you mean {near!r}?" if near and name == state.model else ""
            return CheckResult(False, f"it serves {', '.join(models.names)}, not {name!r}{hint}")
    if target.pid is None and (target.alias or target.key) and (other := _other_answer(state, models)):
        return CheckResult(False, f"another server shares its port: {other}; start it again on another port")
    length = models.length_of(state.model)
    if target.max_model_len is not None and length is not None and length != target.max_model_len:
        return CheckResult(False, f"it serves {length} tokens of context, {target.max_model_len} were asked for")
    told = f", {length} tokens of context" if length else ""
    proof = " and this launch's own name" if target.alias else ""
    return CheckResult(True, f"serves {state.model}{proof}{told}")


def _other_answer(state: CheckContext, first: ModelList) -> str:
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


def _check_key(state: CheckContext) -> CheckResult:
    if not state.target.key:
        return CheckResult(None, "no key was given, so none is tested")
    without = ask_models(state.target.base_url, key="", http=state.http)
    wrong = ask_models(state.target.base_url, key=secrets.token_urlsafe(24), http=state.http)
    if without.status in {401, 403} and wrong.status in {401, 403}:
        return CheckResult(True, "refused without a key and with a wrong one")
    which = "without a key" if without.status not in {401, 403} else "with a wrong key"
    return CheckResult(False, f"the server is open: it answers {which}; start it again with a key")


_IDENTITY_CHECKS: tuple[_Step, ...] = (
    (0, "process alive", _check_process),
    (1, "port is ours", _check_port),
    (2, "health", _check_health),
    (3, "identity", _check_identity),
)
"""The checks that say which server it is."""
