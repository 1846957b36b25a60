"""The doctor: whether this session can do the work of a site. It looks, and changes nothing."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tautools.params import default_site, load_site, misnamed_params, own_params, workspace_path
from tautools.redaction import redacted
from tautools.session import check_slurm, checks
from tautools.session.findings import DoctorReport, SessionContext

CHECKS = (
    checks.check_python,
    checks.check_dependencies,
    checks.check_workspace,
    checks.check_quota,
    checks.check_scripts,
    checks.check_resources,
    checks.check_cards,
    checks.check_vllm,
    checks.check_hub_cache,
    checks.check_key_files,
    check_slurm.check_slurm,
    check_slurm.check_job,
    checks.check_environment,
    checks.check_pins,
    checks.check_sweeps,
    checks.check_proxies,
    checks.check_ports,
    checks.check_browser,
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
    # Sweeps whose name cannot be used are checked too: the doctor says why.
    own = (*own_params("sweeps", folder), *misnamed_params("sweeps", folder))
    context = SessionContext(
        workspace=folder,
        site=load_site(site or default_site(folder), workspace=folder),
        environ=os.environ if environ is None else environ,
        sweeps=own if sweeps is None else tuple(sweeps),
    )
    hidden = partial(redacted, environ=context.environ)
    findings = (
        dataclasses.replace(each, found=hidden(each.found), next_step=hidden(each.next_step))
        for check in CHECKS
        for each in check(context)
    )
    return DoctorReport(site=context.site.name, workspace=str(folder), findings=tuple(findings))
