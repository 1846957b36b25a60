"""Start a server as a job of Slurm, through the same door as a local one."""

from __future__ import annotations

import getpass
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING

from tautools.errors import ServerError
from tautools.files import ensure_folder, write_atomic
from tautools.records import ServerRecord
from tautools.server.handle import Server
from tautools.server.on_slurm.script import job_argv, job_script
from tautools.server.on_slurm.state import job_of
from tautools.server.registry import Registry, check_name
from tautools.slurm import Slurm

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.params.models import ServerParams, SiteParams

__all__ = ["check_job", "launch_job", "new_record", "refuse_live_job", "script_text"]


def launch_job(
    params: ServerParams, *, workspace: Path, site: SiteParams, name: str | None = None, begin_in_s: int = 0
) -> Server:
    """Submit a server's job and return its handle at once; see `launch`.

    Parameters
    ----------
    params, workspace, site, name
        As of `launch`.
    begin_in_s : int
        The job shall not begin before so many seconds from now.

    Raises
    ------
    ServerError
        When the job of a server of that name still waits or runs.
    SlurmError
        When Slurm does not take the job; nothing is left behind then.
    ParamsError
        When a value cannot stand in a job script.
    """
    check_job(params, workspace=workspace, site=site, name=name)
    start = partial(_submit, params, site, name or params.name, Registry(workspace), begin_in_s=begin_in_s)
    return Server(start(), workspace=workspace, start_again=None if params.port is not None else start)


def check_job(params: ServerParams, *, workspace: Path, site: SiteParams, name: str | None = None) -> float | None:
    """Raise what `launch_job` would raise; return when Slurm thinks that the job would start [s since the epoch]."""
    from tautools.server.local import require_free_name

    require_free_name(name or params.name, Registry(workspace))
    return Slurm().test_only(script_text(params, workspace=workspace, site=site, name=name))


def script_text(params: ServerParams, *, workspace: Path, site: SiteParams, name: str | None = None) -> str:
    """Return the job script of a launch, to read and to submit by hand; nothing is written.

    Raises
    ------
    ParamsError
        When a value cannot stand in a job script.
    """
    registry = Registry(workspace.resolve())
    record = new_record(params, site, check_name(name or params.name), registry)
    return job_script(params, site, record, workspace=registry.workspace)


def refuse_live_job(record: ServerRecord, registry: Registry) -> None:
    """Raise when the job of a registered server waits or runs, unless the server was one of several and has ended.

    Raises
    ------
    ServerError
        With the job and what to do.
    """
    if record.shares_job and registry.exit_code(record) is not None:
        return
    job = job_of(record, None)
    if job is not None and not job.state.ended:
        raise ServerError(
            f"A server named {record.name!r} has a job in this workspace.",
            evidence=f"job {job.job_id} is {job.state.value}",
            next_step=f"Use it, stop it with `tautools server stop {record.name}`, or start under another name.",
        )


def new_record(params: ServerParams, site: SiteParams, name: str, registry: Registry) -> ServerRecord:
    """Return the record of a launch that is to be submitted."""
    alias = f"launch-{secrets.token_hex(8)}"
    return ServerRecord(
        name=name,
        how="slurm",
        engine=params.engine,
        model=params.serves,
        alias=alias,
        base_url="",
        key_file=str(registry.folder.resolve() / f"{name}.key"),
        argv=job_argv(params, site, alias),
        spec=params.model_dump(mode="json"),
        site=site.model_dump(mode="json"),
        started_at=time.time(),
        simulated=params.engine == "simulate",
        owner=getpass.getuser(),
    )


def _submit(
    params: ServerParams, site: SiteParams, name: str, registry: Registry, *, begin_in_s: int = 0
) -> ServerRecord:
    from tautools.server.local import require_free_name

    workspace = registry.workspace.resolve()
    with registry.claim():
        require_free_name(name, registry)
        old = registry.find(name)
        if old is not None:
            registry.remove(old)
        logs, errors = ensure_folder(workspace / "logs"), ensure_folder(workspace / "errors")
        record = new_record(params, site, name, registry)
        registry.new_key(name)
        registry.add(record)
        try:
            script = registry.script_file(name)
            text = job_script(params, site, record, workspace=workspace, begin_in_s=begin_in_s)
            write_atomic(script, text, mode=0o600)
            job_id = Slurm().submit(script.resolve())
        except BaseException:
            registry.remove(record)
            raise
        found = {
            "job_id": job_id,
            "log_out": str(logs / f"{name}_{job_id}.out"),
            "log_err": str(errors / f"{name}_{job_id}.err"),
        }
        record = record.model_copy(update=found)
        registry.add(record)
    return record
