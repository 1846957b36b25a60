"""Run the checks: from "a process runs" to "this is the server that was asked for, and it works for tau-bench".

A failed check reports what was seen and what to do. Nothing further is asked of a server that cannot be reached or is
another one. From the identity check on, checks run in parallel, because a server's first answers take a second each;
those that load a server (8-10) run alone, last, and only when asked for. A check that does not apply (no process to
look at, no key to test) neither passes nor fails.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import tautools
from tautools.errors import ModelCallError
from tautools.http import Http
from tautools.params.secrets import HIDDEN, names_a_secret, without_secrets
from tautools.records import Certificate, Check, Thinking
from tautools.servers.checks.target import (
    CheckContext,
    CheckFailedError,
    CheckTarget,
    ModelList,
    NotApplicableError,
    ask_models,
    nearest_model,
    root_of,
)
from tautools.servers.ports import listeners
from tautools.shell import group_members, process_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tautools.records import ServerRecord

_CONNECTIONS = 16
"""Connections by which a server on another node is asked whether it is alone on its port."""

_Step: TypeAlias = "tuple[int, str, Callable[[CheckContext], str]]"
"""Number, name, and the function, which returns what it saw or raises `CheckFailedError` or `NotApplicableError`."""


def run_checks(target: CheckTarget, *, on_check: Callable[[Check], None] | None = None) -> CheckContext:
    """Run every check and return what was found, in order; a failed check raises nothing.

    Parameters
    ----------
    target : CheckTarget
        The address and what is expected there.
    on_check : callable, optional
        Called with each check as it is done, in order.
    """
    from tautools.servers.checks import probes

    context = CheckContext(target, model=target.model)
    working: list[_Step] = [(4, "key", check_key), (5, "chat", probes.check_chat)]
    if target.thinking is not Thinking.DEFAULT:
        working.append((6, "thinking", probes.check_thinking))
    working.append((7, "tool calls", probes.check_tool_calls))
    loading: list[_Step] = [
        (8, "length", probes.check_context_length),
        (9, "at once", probes.check_concurrency),
        (10, "same twice", probes.check_determinism),
    ]
    _run(context, _IDENTITY_CHECKS, on_check)
    _run(context, working, on_check, parallel=True)
    if target.concurrency:
        _run(context, loading, on_check)
    return context


def recheck(target: CheckTarget) -> CheckContext:
    """Run the checks that cost a server nothing, 0 to 4, to see whether it is still the one that was verified."""
    context = CheckContext(target, model=target.model)
    _run(context, [*_IDENTITY_CHECKS, (4, "key", check_key)])
    return context


def certificate_of(name: str, context: CheckContext, record: ServerRecord | None = None) -> Certificate:
    """Return the certificate of finished checks.

    Parameters
    ----------
    name : str
        What the server is called.
    context : CheckContext
        Every check with its result.
    record : ServerRecord, optional
        Of a server of ours: its flags and variables are written down, without secrets.
    """
    return Certificate(
        server=name,
        base_url=context.target.base_url,
        model=context.model,
        alias=context.target.alias,
        issued_at=time.time(),
        checks=context.checks,
        versions={"tautools": tautools.__version__} | ({"server": context.version} if context.version else {}),
        flags=public_flags(record.argv) if record else [],
        env=without_secrets(record.spec.get("env") or {}) if record else {},
        cards=record.cards if record else {},
        max_model_len=context.max_model_len,
        simulated=context.endpoint.simulated,
    )


def public_flags(argv: Sequence[str]) -> list[str]:
    """Return a command without the values of flags whose name is that of a secret."""
    shown: list[str] = []
    hide = False
    for word in argv:
        name, equals, _ = word.partition("=")
        if not word.startswith("--"):
            shown.append(HIDDEN if hide else str(without_secrets(word)))
            hide = False
        else:
            secret = names_a_secret(name.lstrip("-"))
            shown.append(f"{name}={HIDDEN}" if secret and equals else str(without_secrets(word)))
            hide = secret and not equals
    return shown


def _run(
    context: CheckContext,
    steps: Sequence[_Step],
    on_check: Callable[[Check], None] | None = None,
    *,
    parallel: bool = False,
) -> None:
    """Run the checks in turn or at the same time and report them in order; in turn none runs after one that failed."""
    parallel = parallel and not context.failed
    with ThreadPoolExecutor(max_workers=len(steps)) as pool:
        run = pool.map if parallel else map
        for check in run(lambda step: _run_check(step, context, "" if parallel else context.failed), steps):
            context.checks.append(check)
            if on_check is not None:
                on_check(check)


def _run_check(step: _Step, context: CheckContext, failed: str) -> Check:
    number, name, function = step
    passed: bool | None = True
    began = time.perf_counter()
    try:
        if failed:
            raise NotApplicableError(f"not tried: `{failed}` failed")
        detail = function(context)
    except NotApplicableError as error:
        passed, detail = None, str(error)
    except CheckFailedError as error:
        passed, detail = False, str(error)
    except ModelCallError as error:
        passed, detail = False, _error_detail(error, context.target)
    took_s = round(time.perf_counter() - began, 4)
    return Check(number=number, name=name, passed=passed, detail=detail, took_s=took_s)


def _error_detail(error: ModelCallError, target: CheckTarget) -> str:
    """Return what was seen, and what it means where the table of known failures has it."""
    from tautools.servers.diagnose.causes import diagnose_refusal

    alive = None if target.process is None else process_alive(*target.process)
    known = diagnose_refusal(f"{error.problem} {error.evidence}", server_alive=alive)
    meaning = (known.cause, known.fix) if known is not None else ()
    return " ".join(filter(None, (error.problem, error.evidence, *meaning)))


def _own_process(context: CheckContext) -> tuple[int, float]:
    if context.target.process is None:
        raise NotApplicableError("no process of ours to look at")
    return context.target.process


def _check_process(context: CheckContext) -> str:
    pid, started_at = _own_process(context)
    if not process_alive(pid, started_at):
        raise CheckFailedError(f"process {pid} has ended; read the log with `tautools server logs`")
    return f"process {pid}"


def _check_port(context: CheckContext) -> str:
    process, port = _own_process(context), urlsplit(context.target.base_url).port
    holders = listeners(port) if port is not None else []
    if not holders:
        raise CheckFailedError(f"nothing listens on port {port}")
    ours = set(group_members(*process))
    if strangers := [holder for holder in holders if holder not in ours]:
        who = ", ".join("another user" if holder is None else f"process {holder}" for holder in strangers)
        relation = "shared with" if len(strangers) < len(holders) else "held by"
        raise CheckFailedError(f"port {port} is {relation} {who}; stop this server and start it on another port")
    return f"port {port} is held by this server alone"


def _check_health(context: CheckContext) -> str:
    root = root_of(context.target.base_url)
    answer = Http().get(f"{root}/health", timeout_s=5.0)
    if answer.status in {404, 405} and context.target.process is None:
        raise NotApplicableError("it has no /health, as hosted gateways often have none")
    if answer.status != 200:
        raise CheckFailedError(f"{root}/health answers {answer.status}: {answer.text[:200]}")
    with contextlib.suppress(ModelCallError, ValueError, KeyError, TypeError):
        version = Http().get(f"{root}/version", timeout_s=5.0)
        context.version = str(version.json()["version"]) if version.status == 200 else ""
    return f"version {context.version}" if context.version else "answers"


def _check_identity(context: CheckContext) -> str:
    target = context.target
    context.models = models = ask_models(target.base_url, key=target.key, timeout_s=10.0)
    if models.status in {401, 403}:
        what = "the key is not the server's" if target.key else "the server wants a key: give it with --key-env NAME"
        raise CheckFailedError(f"{models.status}: {what}")
    if models.status != 200 or not models.names:
        answer = f"answers {models.status}" if models.status else "does not answer"
        raise CheckFailedError(f"/v1/models {answer}: {models.detail}")
    context.model = target.model or models.names[0]
    for name in filter(None, (context.model, target.alias)):
        if name not in models.names:
            near = nearest_model(name, models.names)
            hint = f"; did you mean {near!r}?" if near and name == context.model else ""
            raise CheckFailedError(f"it serves {', '.join(models.names)}, not {name!r}{hint}")
    if target.process is None and (target.alias or target.key):
        _require_one_server(context, models)
    length = context.max_model_len
    if target.max_model_len is not None and length is not None and length != target.max_model_len:
        raise CheckFailedError(f"it serves {length} tokens of context, {target.max_model_len} were asked for")
    own_name = " and this launch's own name" if target.alias else ""
    return f"serves {context.model}{own_name}" + (f", {length} tokens of context" if length else "")


def _require_one_server(context: CheckContext, first: ModelList) -> None:
    """Fail when another server shares the port on a node whose listeners cannot be seen from here.

    The kernel divides new connections among them, and each question opens one: with half of them each, the other server
    stays unseen once in thousands of checks. Only an answer counts; a busy server may let a question time out.
    """
    ask = partial(ask_models, key=context.target.key, timeout_s=10.0)
    with ThreadPoolExecutor(max_workers=_CONNECTIONS) as pool:
        answers = list(pool.map(ask, [context.target.base_url] * _CONNECTIONS))
    others = ["refuses the key" for models in answers if models.status in {401, 403}]
    names = [models.names for models in answers if models.status == 200 and models.names != first.names]
    if others := others + [f"serves {', '.join(each) or 'nothing'}" for each in names]:
        raise CheckFailedError(
            f"another server shares its port: one answer of {_CONNECTIONS} {others[0]}; start it again on another port"
        )


def check_key(context: CheckContext) -> str:
    """Check 4: the server refuses a request without its key and one with a wrong key."""
    if not context.target.key:
        raise NotApplicableError("no key was given, so none is tested")
    for which, key in {"without a key": "", "with a wrong key": secrets.token_urlsafe(24)}.items():
        answer = ask_models(context.target.base_url, key=key)
        if answer.status == 0:
            raise CheckFailedError(f"it did not answer a question {which}: {answer.detail}")
        if answer.status not in {401, 403}:
            raise CheckFailedError(f"the server is open: it answers {which}; start it again with a key")
    return "refused without a key and with a wrong one"


_IDENTITY_CHECKS: tuple[_Step, ...] = (
    (0, "process alive", _check_process),
    (1, "port is ours", _check_port),
    (2, "health", _check_health),
    (3, "identity", _check_identity),
)
"""The checks that say which server it is."""
