"""Run the checks: from "a process runs" to "this is the server that was asked for, and it works for tau-bench".

A failed check reports what was seen and what to do. Nothing further is asked of a server that cannot be reached or is
another one. From the identity check on, checks run in parallel, because a server's first answers take a second each;
those that load a server (8-10) run alone, last, and only when asked for. A check that does not apply (no process to
look at, no key to test) neither passes nor fails.
"""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import tautools
from tautools.errors import ModelCallError
from tautools.params.secrets import HIDDEN, names_a_secret, without_secrets
from tautools.records import Certificate, Check, Thinking
from tautools.servers.checks.target import (
    CheckContext,
    CheckResult,
    CheckTarget,
    ModelList,
    ask_models,
    nearest_model,
    root_of,
)
from tautools.servers.ports import listeners
from tautools.shell import group_members, process_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tautools.http import Http
    from tautools.records import ServerRecord

_CONNECTIONS = 16
"""Connections by which a server on another node is asked whether it is alone on its port."""

_Step: TypeAlias = "tuple[int, str, Callable[[CheckContext], CheckResult]]"


def run_checks(target: CheckTarget, *, http: Http, on_check: Callable[[Check], None] | None = None) -> CheckContext:
    """Run every check and return what was found, in order; a failed check raises nothing.

    Parameters
    ----------
    target : CheckTarget
        The address and what is expected there.
    http : Http
        The network client.
    on_check : callable, optional
        Called with each check as it is done, in order.
    """
    from tautools.servers.checks import probes

    context = CheckContext(target, http, model=target.model)
    working: list[_Step] = [(4, "key", _check_key), (5, "chat", probes.check_chat)]
    if target.thinking is not Thinking.DEFAULT:
        working.append((6, "thinking", probes.check_thinking))
    working.append((7, "tool calls", probes.check_tool_calls))
    loading: list[_Step] = [
        (8, "length", probes.check_context_length),
        (9, "at once", probes.check_concurrency),
        (10, "same twice", probes.check_determinism),
    ]
    failed = _run_in_turn(context, _IDENTITY_CHECKS, on_check)
    failed = _run_in_parallel(context, working, on_check, failed)
    if target.concurrency:
        _run_in_turn(context, loading, on_check, failed)
    return context


def recheck(target: CheckTarget, *, http: Http) -> CheckContext:
    """Run the checks that cost a server nothing, 0 to 4, to see whether it is still the one that was verified."""
    context = CheckContext(target, http, model=target.model)
    _run_in_turn(context, [*_IDENTITY_CHECKS, (4, "key", _check_key)], None)
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
        flag = word.startswith("--") and names_a_secret(name.lstrip("-"))
        if flag and equals:
            shown.append(f"{name}={HIDDEN}")
        elif hide and not word.startswith("--"):
            shown.append(HIDDEN)
        else:
            shown.append(str(without_secrets(word)))
        hide = flag and not equals
    return shown


def _run_in_turn(
    context: CheckContext, steps: Sequence[_Step], on_check: Callable[[Check], None] | None, failed: str = ""
) -> str:
    """Run the checks one after the other, none after one that failed; return that one's name."""
    for step in steps:
        check = _not_tried(step, failed) if failed else _run_check(step, context)
        failed = check.name if check.passed is False else failed
        _record_check(context, check, on_check)
    return failed


def _run_in_parallel(
    context: CheckContext, steps: Sequence[_Step], on_check: Callable[[Check], None] | None, failed: str
) -> str:
    """Run the checks at the same time and report them in order; return the name of the first that failed."""
    if failed:
        return _run_in_turn(context, steps, on_check, failed)
    with ThreadPoolExecutor(max_workers=len(steps)) as pool:
        for check in pool.map(lambda step: _run_check(step, context), steps):
            failed = failed or (check.name if check.passed is False else "")
            _record_check(context, check, on_check)
    return failed


def _record_check(context: CheckContext, check: Check, on_check: Callable[[Check], None] | None) -> None:
    context.checks.append(check)
    if on_check is not None:
        on_check(check)


def _not_tried(step: _Step, failed: str) -> Check:
    return Check(number=step[0], name=step[1], passed=None, detail=f"not tried: `{failed}` failed")


def _run_check(step: _Step, context: CheckContext) -> Check:
    number, name, check = step
    began = time.perf_counter()
    try:
        result = check(context)
    except ModelCallError as error:
        result = CheckResult(False, _error_detail(error, context.target))
    took_s = round(time.perf_counter() - began, 4)
    return Check(number=number, name=name, passed=result.passed, detail=result.detail, took_s=took_s)


def _error_detail(error: ModelCallError, target: CheckTarget) -> str:
    """Return what was seen, and what it means where the table of known failures has it."""
    from tautools.servers.diagnose.causes import diagnose_refusal

    alive = None if target.process is None else process_alive(*target.process)
    known = diagnose_refusal(f"{error.problem} {error.evidence}", server_alive=alive)
    meaning = (known.cause, known.fix) if known is not None else ()
    return " ".join(part for part in (error.problem, error.evidence, *meaning) if part)


def _check_process(context: CheckContext) -> CheckResult:
    process = context.target.process
    if process is None:
        return CheckResult(None, "no process of ours to look at")
    if process_alive(*process):
        return CheckResult(True, f"process {process[0]}")
    return CheckResult(False, f"process {process[0]} has ended; read the log with `tautools server logs`")


def _check_port(context: CheckContext) -> CheckResult:
    process, port = context.target.process, context.target.port
    if process is None or port is None:
        return CheckResult(None, "no process of ours to look at")
    holders = listeners(port)
    if not holders:
        return CheckResult(False, f"nothing listens on port {port}")
    ours = set(group_members(*process))
    strangers = [holder for holder in holders if holder not in ours]
    if not strangers:
        return CheckResult(True, f"port {port} is held by this server alone")
    who = ", ".join("another user" if holder is None else f"process {holder}" for holder in strangers)
    relation = "shared with" if len(strangers) < len(holders) else "held by"
    return CheckResult(False, f"port {port} is {relation} {who}; stop this server and start it on another port")


def _check_health(context: CheckContext) -> CheckResult:
    url = f"{root_of(context.target.base_url)}/health"
    answer = context.http.get(url, timeout_s=5.0)
    if answer.status == 200:
        context.version = _server_version(context)
        return CheckResult(True, f"version {context.version}" if context.version else "answers")
    if answer.status in {404, 405} and context.target.pid is None:
        return CheckResult(None, "it has no /health, as hosted gateways often have none")
    return CheckResult(False, f"{url} answers {answer.status}: {answer.text[:200]}")


def _server_version(context: CheckContext) -> str:
    try:
        answer = context.http.get(f"{root_of(context.target.base_url)}/version", timeout_s=5.0)
        return str(answer.json()["version"]) if answer.status == 200 else ""
    except (ModelCallError, ValueError, KeyError, TypeError):
        return ""


def _check_identity(context: CheckContext) -> CheckResult:
    target = context.target
    models = ask_models(target.base_url, key=target.key, http=context.http, timeout_s=10.0)
    context.models = models
    if models.status != 200 or not models.names:
        return CheckResult(False, _no_list(target, models))
    context.model = target.model or models.names[0]
    for name in filter(None, (context.model, target.alias)):
        if name not in models.names:
            near = nearest_model(name, models.names)
            hint = f"; did you mean {near!r}?" if near and name == context.model else ""
            return CheckResult(False, f"it serves {', '.join(models.names)}, not {name!r}{hint}")
    if target.pid is None and (target.alias or target.key) and (other := _other_answer(context, models)):
        return CheckResult(False, f"another server shares its port: {other}; start it again on another port")
    length = context.max_model_len
    if target.max_model_len is not None and length is not None and length != target.max_model_len:
        return CheckResult(False, f"it serves {length} tokens of context, {target.max_model_len} were asked for")
    context_text = f", {length} tokens of context" if length else ""
    own_name = " and this launch's own name" if target.alias else ""
    return CheckResult(True, f"serves {context.model}{own_name}{context_text}")


def _no_list(target: CheckTarget, models: ModelList) -> str:
    if models.status in {401, 403}:
        what = "the key is not the server's" if target.key else "the server wants a key: give it with --key-env NAME"
        return f"{models.status}: {what}"
    answer = f"answers {models.status}" if models.status else "does not answer"
    return f"/v1/models {answer}: {models.detail}"


def _other_answer(context: CheckContext, first: ModelList) -> str:
    """Return what another server answers that shares the port on a node whose listeners cannot be seen from here.

    The kernel divides new connections among them, and each question opens one: with half of them each, the other server
    stays unseen once in thousands of checks. Only an answer counts; a busy server may let a question time out.
    """
    ask = partial(ask_models, key=context.target.key, http=context.http, timeout_s=10.0)
    with ThreadPoolExecutor(max_workers=_CONNECTIONS) as pool:
        for models in pool.map(ask, [context.target.base_url] * _CONNECTIONS):
            if models.status in {401, 403}:
                return f"one answer of {_CONNECTIONS} refuses the key"
            if models.status == 200 and models.names != first.names:
                return f"one answer of {_CONNECTIONS} serves {', '.join(models.names) or 'nothing'}"
    return ""


def _check_key(context: CheckContext) -> CheckResult:
    if not context.target.key:
        return CheckResult(None, "no key was given, so none is tested")
    wrong_keys = {"without a key": "", "with a wrong key": secrets.token_urlsafe(24)}
    for which, key in wrong_keys.items():
        answer = ask_models(context.target.base_url, key=key, http=context.http)
        if answer.status == 0:
            return CheckResult(False, f"it did not answer a question {which}: {answer.detail}")
        if answer.status not in {401, 403}:
            return CheckResult(False, f"the server is open: it answers {which}; start it again with a key")
    return CheckResult(True, "refused without a key and with a wrong one")


_IDENTITY_CHECKS: tuple[_Step, ...] = (
    (0, "process alive", _check_process),
    (1, "port is ours", _check_port),
    (2, "health", _check_health),
    (3, "identity", _check_identity),
)
"""The checks that say which server it is."""
