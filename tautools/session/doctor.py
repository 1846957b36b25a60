"""The doctor: whether this session can do the work of a site. It looks, and changes nothing."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from tautools.params import default_site, load_site, misnamed_params, own_params, workspace_path
from tautools.session.check_machine import (
    check_browser,
    check_cards,
    check_dependencies,
    check_hub_cache,
    check_machine,
    check_pins,
    check_python,
    check_workspace,
)
from tautools.session.check_site import (
    check_environment,
    check_folders,
    check_key_files,
    check_ports,
    check_proxies,
    check_quota,
    check_roles,
    check_scripts,
    check_vllm,
)
from tautools.session.check_slurm import check_job, check_slurm
from tautools.session.findings import DoctorFinding, DoctorReport, SessionContext

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


CHECKS = (
    check_python,
    check_dependencies,
    check_workspace,
    check_folders,
    check_quota,
    check_scripts,
    check_machine,
    check_cards,
    check_vllm,
    check_hub_cache,
    check_key_files,
    check_slurm,
    check_job,
    check_environment,
    check_pins,
    check_roles,
    check_proxies,
    check_ports,
    check_browser,
)
"""Every check, in the order in which it is printed. Each takes the context and yields findings."""


def doctor(
    workspace: str | Path | None = None,
    *,
    site: str | None = None,
    sweeps: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> DoctorReport:
    """Say whether the work of a site can be done here; each problem with what to do.

    Parameters
    ----------
    workspace : str or Path, optional
        The workspace; it need not exist.
    site : str, optional
        Name or path of a site. By default the only one in the workspace's `params/sites/`, else `local`.
    sweeps : sequence of str, optional
        Sweeps whose models are checked; by default the workspace's own.
    environ : mapping, optional
        Environment variables to look at; this process's by default.

    Raises
    ------
    ParamsError
        When the site is not known.
    """
    folder = workspace_path(workspace)
    context = SessionContext(
        workspace=folder,
        site=load_site(site or default_site(folder), workspace=folder),
        environ=os.environ if environ is None else environ,
        sweeps=tuple(sweeps) if sweeps is not None else _own_sweeps(folder),
    )
    findings = tuple(_redacted(finding, context) for check in CHECKS for finding in check(context))
    return DoctorReport(site=context.site.name, workspace=str(folder), findings=findings)


def _own_sweeps(folder: Path) -> tuple[str, ...]:
    """Return the workspace's sweeps, also those whose name cannot be used: the doctor says why."""
    return (*own_params("sweeps", folder), *misnamed_params("sweeps", folder))


def _redacted(finding: DoctorFinding, context: SessionContext) -> DoctorFinding:
    return dataclasses.replace(finding, found=context.hide(finding.found), next_step=context.hide(finding.next_step))
