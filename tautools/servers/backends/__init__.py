"""Where a server runs: as a process of this machine, as a job of Slurm, or somewhere else, attached by its address.

To add a backend, such as SSH to rented machines, write a class with the methods of `Backend` in a module of this
package and name it in `_BACKENDS`; nothing else asks which backend it is. Each is imported when it is first used. What
can be checked of a launch before any of them starts it is here, too.
"""

from __future__ import annotations

import getpass
import logging
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from tautools.errors import ServerError, TautoolsError
from tautools.records import ServerRecord
from tautools.servers.checks.target import ask_models
from tautools.servers.state import Snapshot, State, answering_state
from tautools.servers.vllm.command import server_argv, server_env
from tautools.servers.vllm.flags import check_flags
from tautools.servers.weights import require_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from tautools.params.models import ServerParams, SiteParams
    from tautools.servers.checks.target import ModelList
    from tautools.servers.placement import LaunchRequest
    from tautools.servers.registry import Registry
    from tautools.slurm.jobs import SlurmJob

_LOG = logging.getLogger(__name__)
_BACKENDS = {"local": "LocalBackend", "slurm": "SlurmBackend"}


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at servers shares: one answer of Slurm for all jobs."""

    registry: Registry
    jobs: Mapping[str, SlurmJob] | None = None
    """What Slurm said of the jobs just now; a backend asks for its own job where this is None."""

    def ask(self, record: ServerRecord) -> tuple[ModelList, Snapshot | None]:
        """Ask the address of a server which models it serves; return its state too when it answers."""
        answer = ask_models(record.base_url, key=self.registry.key(record))
        if answer.status == 0:
            return answer, None
        verifying = self.registry.waits_for(record) if self.registry.activity(record) == "verifying" else None
        return answer, answering_state(record, answer, verifying=verifying)


class Backend(Protocol):
    """Where a server runs, and everything that depends on it."""

    owns: ClassVar[bool] = True
    """Whether the server is ours: stopping it ends it, and it can be started again from its record."""
    by_scheduler: ClassVar[bool] = False
    """Whether a scheduler chooses node and cards, so that neither can be looked at before."""
    ask_every_s: ClassVar[float] = 0.3
    """How often it may be asked whether a server has ended [s]."""
    unfit: ClassVar[Mapping[str, str]] = {}
    """Verbs that make no sense for its servers, with the reason."""

    def check(self, requests: Sequence[LaunchRequest], registry: Registry) -> float | None:
        """Raise what `start` would raise, as far as it can be known; return an estimated start [s since the epoch]."""

    def start(self, requests: Sequence[LaunchRequest], registry: Registry) -> list[ServerRecord]:
        """Start servers, in one job where there are jobs, register them and return their records at once.

        The caller holds the registry's claim.
        """

    def refuse_running(self, record: ServerRecord, registry: Registry) -> None:
        """Raise a ServerError when the server may still run, so that its name is not free."""

    def poll(self, record: ServerRecord, look: Look) -> Snapshot:
        """Return the state of a registered server now."""

    def has_ended(self, record: ServerRecord, registry: Registry) -> bool:
        """Return whether its process or job has ended; its address is not asked, which would be logged there."""
        return False

    def job_state(self, record: ServerRecord) -> str:
        """Return how the scheduler says that it ended, such as `OUT_OF_MEMORY`; empty when it does not say."""
        return ""

    def stop(self, record: ServerRecord, registry: Registry, emit: Callable[[str], None], *, term_s: float) -> None:
        """End the server; return when nothing of it runs. The caller removes it from the registry."""

    def logs(self, record: ServerRecord) -> list[Path]:
        """Return the files that it writes: output first, then errors."""
        return [Path(log) for log in (record.log_out, record.log_err) if log]

    def address(self, record: ServerRecord) -> str:
        """Return the base URL under which this machine reaches it; empty while it is not known."""
        return record.base_url

    def time_left(self, record: ServerRecord) -> float | None:
        """Return how long it may still run [s]; None without a limit."""
        return None

    def start_again(self, record: ServerRecord) -> str:
        """Return, as advice, how a person gets it back."""
        return f"Start it again with `tautools server restart {record.name}`."


class AttachedBackend(Backend):
    """Running servers that somebody else started: known by their address, verified like others, never ended by us."""

    owns = False
    unfit = {  # noqa: RUF012 - the protocol declares it a class variable
        "logs": "its log is where it was started",
        "restart": "it was not started from here",
    }

    def check(self, requests: Sequence[LaunchRequest], registry: Registry) -> NoReturn:
        """Refuse: an attached server is started by somebody else."""
        name = requests[0].name
        raise ServerError(
            f"Server {name!r} is attached, so it cannot be started from here.",
            next_step=f"Start it where it runs, then give its address to `tautools server attach {name}`.",
        )

    start = check

    def refuse_running(self, record: ServerRecord, registry: Registry) -> None:
        """Raise: whether it runs does not matter, its name is taken until it is detached."""
        raise name_taken(record, "is attached in this workspace", record.base_url, "Forget")

    def poll(self, record: ServerRecord, look: Look) -> Snapshot:
        """Ask the address; nothing else of it can be seen."""
        answer, snapshot = look.ask(record)
        detail = f"Its address does not answer: {answer.detail}"
        return snapshot or Snapshot(State.UNKNOWN, detail, next_step=self.start_again(record))

    def stop(self, record: ServerRecord, registry: Registry, emit: Callable[[str], None], *, term_s: float) -> None:
        """Do nothing: the caller forgets it, and its process goes on."""

    def start_again(self, record: ServerRecord) -> str:
        """Return where it must be started, and how it is forgotten here."""
        return (
            f"Start it again where it was started, at {record.base_url}; `tautools server stop {record.name}` forgets "
            "it here."
        )


@cache
def _backend(name: str) -> Backend:
    if name == "attached":
        return AttachedBackend()
    return cast("Backend", getattr(import_module(f"{__name__}.{name}"), _BACKENDS[name])())


def backend_of(record: ServerRecord) -> Backend:
    """Return the backend that a registered server runs on."""
    return _backend(record.backend)


def backend_for(site: SiteParams) -> Backend:
    """Return the backend that starts the servers of a site."""
    return _backend("slurm" if site.uses_slurm else "local")


def require_fit(record: ServerRecord, verb: str) -> None:
    """Raise a ServerError when a verb makes no sense for a server, such as the log of an attached one."""
    backend = backend_of(record)
    if verb in backend.unfit:
        raise ServerError(
            f"`tautools server {verb}` does not fit server {record.name!r}: it is {record.backend}, "
            f"and {backend.unfit[verb]}.",
            evidence=record.base_url,
            next_step=backend.start_again(record) if verb == "restart" else "Read it on the machine that runs it.",
        )


def new_record(request: LaunchRequest, *, port: int | str, **fields: Any) -> ServerRecord:
    """Return the record of a new launch: what the request says, an alias, and the fields that its backend knows."""
    params, alias = request.params, f"launch-{secrets.token_hex(8)}"
    return ServerRecord(
        name=request.name,
        alias=alias,
        argv=server_argv(params, request.site, port=port, alias=alias),
        engine=params.engine,
        model=params.serves,
        spec=params.model_dump(mode="json"),
        site=request.site.model_dump(mode="json"),
        started_at=time.time(),
        simulated=params.simulated,
        owner=getpass.getuser(),
        **fields,
    )


def check_options(params: ServerParams, site: SiteParams, registry: Registry) -> None:
    """Raise a ParamsError when the vLLM that would be started does not take an option.

    A vLLM that cannot be seen from here, such as one that a job activates, is not checked.
    """
    command = params.serve_command or site.serve_command
    if params.simulated or shutil.which(command[0]) is None:
        return
    argv = server_argv(params, site, port=params.port or 0, alias="check")
    check_flags(argv, command=command, env=_own_env(params, site, registry), folder=registry.folder / "flags")


def check_model(params: ServerParams, site: SiteParams, registry: Registry) -> None:
    """Raise when the model that a server of this machine must load is nowhere; errors as `weights.require_weights`."""
    if params.simulated:
        return
    env, command = _own_env(params, site, registry), params.serve_command or site.serve_command
    require_weights(params, command=command, env=env, workspace=registry.workspace.resolve())


def _own_env(params: ServerParams, site: SiteParams, registry: Registry) -> dict[str, str]:
    return server_env(params, site, key="", cache=registry.folder / "cache", inherited=os.environ)


def warn_missing_model(params: ServerParams, site: SiteParams, registry: Registry) -> None:
    """Log when a job's model cannot be found from here; the node may have other folders, so nothing is refused."""
    try:
        check_model(params, site, registry)
    except TautoolsError as error:
        _LOG.warning("Seen from here, the node may have it: %s", error)


def name_taken(record: ServerRecord, what: str, evidence: str, use: str) -> ServerError:
    """Return the error for a name that a registered server has."""
    return ServerError(
        f"A server named {record.name!r} {what}.",
        evidence=evidence,
        next_step=f"{use} it with `tautools server stop {record.name}`, or start this one under another name.",
    )
