"""What a run asks of its servers beyond what they were verified with: sent to them before the run's first request.

A certificate says what was tried. A run that samples otherwise, calls tools, forbids thinking or sends more at a time
asks for more than that, and then the server is sent the same once; the certificate keeps it for the next run.
A server without tool calls serves every role that needs none, and is refused for the others.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tautools.errors import VerifyError
from tautools.llm.types import Endpoint
from tautools.records import Demand, ServerRecord
from tautools.servers.backends import backend_of
from tautools.servers.checks.run import check_demand
from tautools.servers.checks.target import CheckContext, ModelList, target_of
from tautools.servers.checks.tools import TOOL_CALLS
from tautools.servers.registry import Registry
from tautools.servers.server import states_of

_SPEAK_S = 8.0
"""A check that takes long says so this often [s]."""
_LOG = logging.getLogger("tautools.run")


def require_demand(found: Sequence[Endpoint], demand: Demand, *, workspace: Path, role_name: str) -> None:
    """Make sure that the registered servers of a role answer what a run will ask; side by side, each asked once.

    An address that is not registered has no certificate and is taken as it is.

    Raises
    ------
    VerifyError
        When a server gives no tool calls and the role needs them, or does not answer a request as the run sends it.
    """
    registry = Registry(workspace)
    named = [each for each in found if each.name]
    with ThreadPoolExecutor(max_workers=max(1, min(32, len(named)))) as pool:
        list(pool.map(lambda each: _require(each, demand, registry, role_name), named))


def _require(endpoint: Endpoint, demand: Demand, registry: Registry, role_name: str) -> None:
    record = registry.find(endpoint.name)
    if record is None or record.certificate is None:
        return
    certificate = record.certificate
    if demand.tool_calls and (missing := certificate.without.get(TOOL_CALLS)):
        raise VerifyError(
            f"Server {record.name!r} gives no tool calls, which the {role_name} of this run needs.",
            evidence=missing,
            next_step=f"Fix that and run `tautools server verify {record.name}`; act and react need no tool calls.",
        )
    if any(each.covers(demand) for each in certificate.demands):
        return
    models = ModelList(200, {endpoint.model: endpoint.max_model_len}, simulated=endpoint.simulated)
    target = target_of(record, endpoint.key)
    context = CheckContext(target, model=endpoint.model, models=models, without=dict(certificate.without))
    done = check_demand(context, demand, WaitSpeaker(record.name, _LOG.warning))
    if done.passed is False:
        raise _refusal(record, done.detail, registry, role_name)
    if (current := registry.current(record)) is not None and current.certificate is not None:
        kept = current.certificate.model_copy(update={"demands": [*current.certificate.demands, *context.demands]})
        registry.certify(current.model_copy(update={"certificate": kept}))


def _refusal(record: ServerRecord, detail: str, registry: Registry, role_name: str) -> VerifyError:
    (state,) = states_of([record], registry)
    ended = f" It is {state}".rstrip(".") + "." if state.state.final else ""
    advice = backend_of(record).start_again(record) if ended else f"See `tautools server verify {record.name}`."
    return VerifyError(
        f"Server {record.name!r} does not answer what the {role_name} of this run asks.{ended}",
        evidence=detail,
        next_step=f"{state.next_step} Change what the run asks, or how the server is started. {advice}".strip(),
    )


@dataclass(slots=True)
class WaitSpeaker:
    """Says now and then which of a server's checks is waited for, when that takes long."""

    name: str
    tell: Callable[[str], object]
    _next: float = 0.0

    def __call__(self, words: str) -> None:
        """Take what is waited for, as often as it is known."""
        now = time.monotonic()
        self._next = self._next or now + _SPEAK_S
        if now >= self._next:
            self._next = now + _SPEAK_S
            self.tell(f"server {self.name}: being checked, waiting for {words}")
