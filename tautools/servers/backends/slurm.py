"""Servers as jobs of Slurm: submit them, and estimate when they would start."""

from __future__ import annotations

import getpass
import secrets
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tautools.errors import ServerError, SlurmError
from tautools.files import ensure_folder, write_atomic
from tautools.records import ServerRecord
from tautools.servers.backends.slurm_script import job_argv, job_script
from tautools.servers.registry import Registry, check_name
from tautools.servers.server import Server
from tautools.servers.state import job_of
from tautools.slurm import Slurm
from tautools.slurm.jobs import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tautools.params.models import ServerParams, SiteParams


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
    start = partial(_submit_job, params, site, name or params.name, Registry(workspace), begin_in_s=begin_in_s)
    return Server(start(), workspace=workspace, start_again=None if params.port is not None else start)


def check_job(params: ServerParams, *, workspace: Path, site: SiteParams, name: str | None = None) -> float | None:
    """Raise what `launch_job` would raise; return when Slurm thinks that the job would start [s since the epoch]."""
    from tautools.servers.start import require_free_name

    require_free_name(name or params.name, Registry(workspace))
    return Slurm().test_only(job_script_text(params, workspace=workspace, site=site, name=name))


def job_script_text(params: ServerParams, *, workspace: Path, site: SiteParams, name: str | None = None) -> str:
    """Return the job script of a launch, to read and to submit by hand; nothing is written.

    Raises
    ------
    ParamsError
        When a value cannot stand in a job script.
    """
    registry = Registry(workspace.resolve())
    record = new_job_record(params, site, check_name(name or params.name), registry)
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


def new_job_record(params: ServerParams, site: SiteParams, name: str, registry: Registry) -> ServerRecord:
    """Return the record of a launch that is to be submitted."""
    alias = f"launch-{secrets.token_hex(8)}"
    return ServerRecord(
        name=name,
        backend="slurm",
        engine=params.engine,
        model=params.serves,
        alias=alias,
        base_url="",
        key_file=str(registry.folder.resolve() / f"{name}.key"),
        argv=job_argv(params, site, alias),
        spec=params.model_dump(mode="json"),
        site=site.model_dump(mode="json"),
        started_at=time.time(),
        simulated=params.simulated,
        owner=getpass.getuser(),
    )


def _submit_job(
    params: ServerParams, site: SiteParams, name: str, registry: Registry, *, begin_in_s: int = 0
) -> ServerRecord:
    from tautools.servers.start import require_free_name

    workspace = registry.workspace.resolve()
    with registry.claim():
        require_free_name(name, registry)
        old = registry.find(name)
        if old is not None:
            registry.remove(old)
        logs, errors = ensure_folder(workspace / "logs"), ensure_folder(workspace / "errors")
        record = new_job_record(params, site, name, registry)
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


@dataclass(frozen=True, slots=True)
class StartEstimate:
    """One way to ask for the job."""

    asks: str
    """What is asked for, as the site file would say it."""
    starts_at: float | None = None
    """When Slurm thinks that it would start [s since the epoch]; None when it does not tell or refuses it."""
    refused: str = ""


def estimate_starts(params: ServerParams, site: SiteParams, *, workspace: Path) -> list[StartEstimate]:
    """Return when the job would start as the site asks, first, and with less of one thing; nothing is submitted.

    Cards are not varied: a server needs the ones that it needs.

    Raises
    ------
    ParamsError
        When a value cannot stand in a job script.
    """
    return [_estimate(asks, params, each, workspace) for asks, each in _variants(site)]


def _estimate(asks: str, params: ServerParams, site: SiteParams, workspace: Path) -> StartEstimate:
    text = job_script_text(params, workspace=workspace, site=site, name=params.name)
    try:
        return StartEstimate(asks, Slurm().test_only(text))
    except SlurmError as error:
        return StartEstimate(asks, refused=error.problem)


def _variants(site: SiteParams) -> Iterator[tuple[str, SiteParams]]:
    yield f"as site {site.name} asks", site
    whole_s = parse_duration(site.time_limit or "")
    for share in (2, 4):
        minutes = int((whole_s or 0) / 60 / share)
        if minutes >= 30:
            limit = f"{minutes // 60:02}:{minutes % 60:02}:00"
            yield f"time_limit: {limit}", site.model_copy(update={"time_limit": limit})
    if site.cores is not None and site.cores > 4:
        yield f"cores: {site.cores // 2}", site.model_copy(update={"cores": site.cores // 2})
    if site.memory_gib is not None and site.memory_gib > 8:
        yield f"memory_gib: {site.memory_gib // 2}", site.model_copy(update={"memory_gib": site.memory_gib // 2})
