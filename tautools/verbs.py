"""The verbs of `import tautools as tt`: the same as on the command line, for notebooks and scripts.

Servers, sites and sweeps are given by name or path. The workspace is the folder that everything goes to; it must
exist: the argument, else the variable TAUTOOLS_WORKSPACE, else the current folder.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tautools.errors import ParamsError, unknown_name
from tautools.importers import ImportResult
from tautools.params import RUN_OPTIONS, load_server, load_sweep, resolve_run, workspace_path, workspace_site
from tautools.params.keys import read_key
from tautools.params.models import ServerParams, SiteParams, SweepParams
from tautools.records import Certificate, Check
from tautools.report import ReportPaths
from tautools.run import CellResult
from tautools.servers import Server
from tautools.session import DoctorReport
from tautools.sweep import SweepPlan, SweepResult, SweepStatus

RUN_ARGUMENTS = {option.removeprefix("--").replace("-", "_"): name for name, option in RUN_OPTIONS.items()}
"""The options of `tautools run` as keyword arguments, with the params they set."""
_folder = partial(workspace_path, must_exist=True)


class ServerList(list["Server"]):
    """Several servers; printed with their states now."""

    def __repr__(self) -> str:
        lines = (f"{each.name:<24} {each.state()!s}  {each.record.model} {each.record.base_url}" for each in self)
        return "\n".join(lines) or "No server is registered in this workspace."

    def wait_ready(self, on_check: Callable[[Check], None] | None = None) -> "ServerList":
        """Wait until every server is verified; raises as `Server.wait_ready`."""
        for each in self:
            each.wait_ready(on_check=on_check)
        return self

    def stop(self) -> None:
        """Stop every server."""
        for each in self:
            each.stop()


def launch(
    *names: str | Path | ServerParams,
    workspace: str | Path | None = None,
    site: str | Path | SiteParams | None = None,
    overrides: Sequence[str] = (),
    force: bool = False,
) -> ServerList:
    """Start servers, with all their replicas, and return their handles at once.

    Parameters
    ----------
    *names : str, Path or ServerParams
        Server files by name or path, in the order of their start.
    workspace : str or Path, optional
        Where they are registered and write their logs.
    site : str, Path or SiteParams, optional
        Where they run, such as `sol-gaudi` for Slurm jobs; the workspace's own site by default, else this machine.
    overrides : sequence of str
        `key=value` texts that change every server file, such as `vllm.max_model_len=32768`.
    force : bool
        Start on accelerators that are in use.

    Returns
    -------
    ServerList
        One handle for each server: `wait_ready()`, `verify()`, `tail()`, `stop()`; the list has the first and the last.

    Raises
    ------
    ParamsError
        When a name or a value is wrong; nothing is started then.
    ServerError
        When a server of that name runs already, or the layout does not fit the machine.

    Examples
    --------
    >>> servers = tt.launch("sim-large", "sim-user").wait_ready()  # doctest: +SKIP
    """
    from tautools.servers import launch_all

    folder = _folder(workspace)
    by_name = partial(load_server, workspace=folder, overrides=overrides)
    params = [by_name(name) if isinstance(name, str | Path) else name for name in names]
    chosen = workspace_site(folder, site) if site is None or isinstance(site, str | Path) else site
    return ServerList(launch_all(params, workspace=folder, site=chosen, force=force))


def verify(
    server: str,
    *,
    workspace: str | Path | None = None,
    model: str = "",
    key: str = "",
    concurrency: int = 0,
    on_check: Callable[[Check], None] | None = None,
) -> Certificate:
    """Run the checks on a registered server, or on any server by its address.

    Parameters
    ----------
    server : str
        The name of a registered server, or an address such as `http://gaudi001:8007/v1`.
    workspace : str or Path, optional
        Where the server is registered.
    model, key : str
        For an address: the model that must be served (the first one by default) and the key.
    concurrency : int
        Also check this many chats at once.
    on_check : callable, optional
        Called with each check as it is done; `print` shows them.

    Returns
    -------
    Certificate
        What was checked, and whether it passed: `certificate.passed`.

    Raises
    ------
    ServerError
        When no server of that name is registered.
    ParamsError
        When the address is not an http address.
    """
    from tautools.servers import open_server, verify_target
    from tautools.servers.checks.target import CheckTarget

    if ":" in server or "/" in server:
        key = read_key(key, "`key`")
        return verify_target(CheckTarget(server, model, key=key, concurrency=concurrency), on_check=on_check)
    folder = _folder(workspace)
    return open_server(server, workspace=folder).verify(on_check, concurrency=concurrency)


def servers(workspace: str | Path | None = None) -> ServerList:
    """Return the servers of a workspace; the list prints their states.

    Parameters
    ----------
    workspace : str or Path, optional
        Whose servers.
    """
    from tautools.servers import Registry, Server

    folder = _folder(workspace)
    return ServerList(Server(record, workspace=folder) for record in Registry(folder).list())


def run(
    sweep: str | Path | SweepParams | None = None,
    *,
    workspace: str | Path | None = None,
    cells: str | Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    start_servers: bool = False,
    on_event: Callable[[Any], None] | None = None,
    **options: Any,
) -> CellResult | SweepResult:
    """Run one cell from options, or a sweep; what is finished is not repeated.

    Interrupting is safe: running conversations get a moment to finish, the rest stays pending, and the same call
    continues. A sweep starts the servers that it needs and stops them again.

    Parameters
    ----------
    sweep : str, Path or SweepParams, optional
        A sweep file by name or path; without it one cell is run from `options`.
    workspace : str or Path, optional
        Where results go.
    cells : str or sequence of int, optional
        The sweep's cells to run, such as `"0-3,7"`; all by default.
    overrides : sequence of str
        `key=value` texts as of `--set`.
    start_servers : bool
        For one cell: start the servers that its roles name and that do not run, and stop them at the end.
    on_event : callable, optional
        Called with what happens: a `SweepEvent`, or an `Event` of the cell.
    **options
        For one cell, the options of `tautools run`: `env`, `strategy`, `server`, `model`, `base_url`, `user_server`,
        `user_model`, `num_trials`, `task_ids`, `limit`, `persona`, `concurrency`, `seed` and the others.

    Returns
    -------
    CellResult or SweepResult
        What is done and what is pending; it prints itself.

    Raises
    ------
    ParamsError, BenchError
        When something that was given is wrong; before any model is asked.
    TautoolsError
        When a server does not become ready, or the disk takes no more results.

    Examples
    --------
    >>> tt.run(env="retail", strategy="fc", server="sim-large", user_server="sim-user", limit=2)  # doctest: +SKIP
    >>> tt.run("demo", cells="0-3")  # doctest: +SKIP
    """
    folder = _folder(workspace)
    if sweep is not None:
        if options or start_servers:
            raise ParamsError(
                f"A sweep does not take {', '.join(options) or 'start_servers'}.",
                next_step="Change its values with overrides=['key=value'], or leave the sweep out to run one cell.",
            )
        from tautools.sweep import run_sweep

        return run_sweep(on_event=on_event, **_of_sweep(sweep, folder, cells, overrides))
    return _run_one(folder, overrides, options, start_servers=start_servers, on_event=on_event)


def plan(
    sweep: str | Path | SweepParams,
    *,
    workspace: str | Path | None = None,
    cells: str | Sequence[int] | None = None,
    overrides: Sequence[str] = (),
) -> SweepPlan:
    """Say what a sweep would run and cost; nothing is started and nothing is written.

    Parameters
    ----------
    sweep : str, Path or SweepParams
        A sweep file by name or path.
    workspace : str or Path, optional
        Whose results count as finished.
    cells : str or sequence of int, optional
        Only these cells, such as `"0-3,7"`.
    overrides : sequence of str
        `key=value` texts as of `--set`, such as `tasks.limit=5`.

    Raises
    ------
    ParamsError, BenchError
        When the sweep is not known, or something in it is wrong.
    """
    from tautools.sweep import plan_sweep

    return plan_sweep(**_of_sweep(sweep, _folder(workspace), cells, overrides))


def status(
    sweep: str | Path | SweepParams,
    *,
    workspace: str | Path | None = None,
    cells: str | Sequence[int] | None = None,
    overrides: Sequence[str] = (),
) -> SweepStatus:
    """Say where each cell of a sweep stands, from the ledger; only reads.

    Parameters
    ----------
    sweep, workspace, cells, overrides
        As in `plan`.

    Raises
    ------
    ParamsError, BenchError
        As `plan`.
    """
    from tautools.sweep import sweep_status

    return sweep_status(**_of_sweep(sweep, _folder(workspace), cells, overrides))


def report(
    sweep: str | None = None, *, workspace: str | Path | None = None, out: str | Path | None = None
) -> ReportPaths:
    """Write the reports on scores and latency: HTML pages, Markdown, JSON and figures. No model is asked.

    Parameters
    ----------
    sweep : str, optional
        Name or path of a sweep file; all results of the workspace by default.
    workspace : str or Path, optional
        Whose results.
    out : str or Path, optional
        The folder to write into; `reports/<sweep>/<time>/` of the workspace by default.

    Returns
    -------
    ReportPaths
        The files; `front` is the page to open.

    Raises
    ------
    RecordError
        When there is nothing to report.
    """
    from tautools.report import build_reports

    folder = _folder(workspace)
    return build_reports(workspace=folder, sweep=sweep, out=Path(out).expanduser() if out is not None else None)


def import_results(
    *paths: str | Path,
    workspace: str | Path | None = None,
    dry_run: bool = False,
    comparable: bool = False,
    overrides: Sequence[str] = (),
    **options: Any,
) -> ImportResult:
    """Import results of tau-bench, tau2-bench, inspect or another tautools workspace.

    Parameters
    ----------
    *paths : str or Path
        Files and folders; gzipped, joined and torn files are read as far as possible.
    workspace : str or Path, optional
        Where the results go.
    dry_run : bool
        Only say what would be imported.
    comparable : bool
        Whether the rows join the setting of `tt.run` with the same options; by default they form their own.
    overrides : sequence of str
        `key=value` texts as of `--set`.
    **options
        What the files do not say, as in `run`: `env`, `strategy`, `model`, `user_model`, …

    Returns
    -------
    ImportResult
        What was imported, and why the rest was not; it prints itself.

    Raises
    ------
    ParamsError
        When a file has an unknown format, something is missing or contradicts the file; nothing is written then.
    """
    from tautools.importers import ImportRequest
    from tautools.importers import import_results as import_files

    request = ImportRequest(_folder(workspace), _run_flags(options), overrides, comparable)
    return import_files([Path(path).expanduser() for path in paths], request, dry_run=dry_run)


def show(
    *,
    workspace: str | Path | None = None,
    env: str | None = None,
    strategy: str | None = None,
    model: str | None = None,
    task: str | None = None,
    trial: int | None = None,
    full: bool = False,
) -> None:
    """Print what has been run: the settings, the conversations of one, or one conversation with its expected actions.

    Parameters
    ----------
    workspace : str or Path, optional
        Whose results.
    env, strategy, model : str, optional
        Only settings with these; `model` may be a name, the folder's name or a setting id.
    task : str, optional
        The conversation of this task; the setting must be the only one that fits.
    trial : int, optional
        Its trial, from 0; the first finished one by default.
    full : bool
        Do not shorten prompts and tool results.

    Raises
    ------
    ParamsError
        When nothing fits, or several settings do and a conversation was asked for.
    """
    from tautools.cli.show import show_results
    from tautools.run.folder import choose_folders

    folders = choose_folders(_folder(workspace), env=env, strategy=strategy, model=model)
    narrowed = bool(env or strategy or model)
    show_results(folders, None if task is None else str(task), trial, narrowed=narrowed, full=full)


def doctor(workspace: str | Path | None = None, *, site: str | None = None) -> DoctorReport:
    """Say whether the work of a site can be done here; each problem with what to do. Nothing is changed.

    Parameters
    ----------
    workspace : str or Path, optional
        The workspace; it need not exist.
    site : str, optional
        Name or path of a site; the workspace's own by default, else `local`.

    Raises
    ------
    ParamsError
        When the site is not known.
    """
    from tautools.session import doctor as look

    return look(workspace, site=site)


def _run_one(
    folder: Path, overrides: Sequence[str], options: dict[str, Any], *, start_servers: bool, on_event: Any
) -> CellResult:
    from tautools.run import prepare_cell, run_cell
    from tautools.sweep import SweepCell, serving

    params = resolve_run(_run_flags(options), workspace=folder, overrides=overrides).params
    cell = prepare_cell(params, workspace=folder)
    needed = [SweepCell(0, params, params.env)] if start_servers and cell.pending else []
    with serving(needed, workspace=folder, site=workspace_site(folder), start=bool(needed)):
        return run_cell(cell, on_event=on_event)


def _run_flags(options: dict[str, Any]) -> dict[str, Any]:
    """Return options of `tautools run`, given as keyword arguments, by the params they set."""
    for name in options.keys() - RUN_ARGUMENTS.keys():
        correct = "Correct the name; any other value can be set with overrides=['key=value']."
        raise unknown_name(ParamsError, "option", name, sorted(RUN_ARGUMENTS), next_step=correct)
    return {RUN_ARGUMENTS[name]: value for name, value in options.items()}


def _of_sweep(
    sweep: str | Path | SweepParams, folder: Path, cells: str | Sequence[int] | None, overrides: Sequence[str]
) -> dict[str, Any]:
    """Return what is asked of a sweep as the functions of its room take it."""
    from tautools.sweep import parse_indices

    params = load_sweep(sweep, workspace=folder, overrides=overrides) if isinstance(sweep, str | Path) else sweep
    return {"sweep": params, "workspace": folder, "only": parse_indices(cells) if isinstance(cells, str) else cells}
