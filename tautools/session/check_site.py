"""The doctor's look at the site: vLLM, the models of sweeps, proxies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tautools.errors import TautoolsError
from tautools.params import load_server, load_sweep
from tautools.session.findings import Finding, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tautools.params.models import RoleParams, SweepParams
    from tautools.session.surroundings import Surroundings

__all__ = ["check_proxies", "check_roles", "check_vllm"]


def check_vllm(around: Surroundings) -> Iterator[Finding]:
    """Look for the command that starts vLLM at this site."""
    site = around.site
    command = site.serve_command[0] if site.serve_command else "vllm"
    path = around.which(str(Path(command).expanduser()))
    if path:
        yield Finding("vllm", Status.OK, path)
    elif site.device == "none":
        yield Finding(
            "vllm", Status.OK, f"`{command}` is not here; the site's device is none, simulated servers do without"
        )
    elif site.activate or site.modules:
        lines = "; ".join([f"module load {module}" for module in site.modules] + site.activate)
        remedy = f"Jobs run `{lines}` first. To start servers in this session, run it before Jupyter starts."
        yield Finding("vllm", Status.WARN, f"`{command}` is not on PATH in this session", remedy)
    else:
        remedy = f"Install vLLM in an environment of its own and name it in `serve_command` of the site {site.name}."
        yield Finding("vllm", Status.FAIL, f"`{command}` is not on PATH", remedy)


def check_roles(around: Surroundings) -> Iterator[Finding]:
    """Check the sweeps: that they can be read, that their servers are known, that hosted models have a key."""
    for name in around.sweeps:
        try:
            sweep = load_sweep(name, workspace=around.workspace)
        except TautoolsError as error:
            yield Finding(f"sweep {name}", Status.FAIL, error.problem, error.next_step)
            continue
        wrong = [each for role in sweep.roles if (each := _role(role, around)) is not None] + _benchmark(sweep)
        if wrong:
            found, remedy = wrong[0]
            yield Finding(f"sweep {name}", Status.FAIL, found, remedy)
        else:
            yield Finding(f"sweep {name}", Status.OK, "can be read; its models have a server file, an address or a key")


def _benchmark(sweep: SweepParams) -> list[tuple[str, str]]:
    from tautools.bench import open_source

    try:
        open_source(sweep.bench, sweep.source, sweep.path, sweep.python)
    except TautoolsError as error:
        where = "" if sweep.path else " A checkout is named by `path:` in the sweep, or by `--set path=FOLDER`."
        return [(error.problem, f"{error.next_step}{where}")]
    return []


def _role(role: RoleParams, around: Surroundings) -> tuple[str, str] | None:
    if role.api_key_env and not around.environ.get(role.api_key_env):
        return f"the key of {role.model} is missing", f"Set {role.api_key_env} before tautools starts."
    if role.provider != "openai":
        return _hosted(role)
    if role.server is None or role.base_url is not None:
        return None
    try:
        load_server(role.server, workspace=around.workspace)
    except TautoolsError as error:
        return error.problem, error.next_step
    return None


def _hosted(role: RoleParams) -> tuple[str, str] | None:
    from tautools.llm import check_hosted_key

    try:
        check_hosted_key(role.provider, role.model or "")
    except TautoolsError as error:
        return error.problem, error.next_step
    return None


def check_proxies(around: Surroundings) -> Iterator[Finding]:
    """Tell which proxies are set; servers of the site are reached without them."""
    found = {name.lower(): value for name, value in around.environ.items() if name.lower().endswith("_proxy") and value}
    proxies = [f"{name}={value}" for name, value in sorted(found.items())]
    if not proxies:
        yield Finding("proxies", Status.OK, "none set")
        return
    spared = found.get("no_proxy", "")
    if "localhost" in spared or "127.0.0.1" in spared:
        yield Finding("proxies", Status.OK, f"{', '.join(proxies)}; servers are reached without them")
    else:
        remedy = "tautools reaches servers without them; for curl and others: `export no_proxy=localhost,127.0.0.1`."
        yield Finding("proxies", Status.WARN, ", ".join(proxies), remedy)
