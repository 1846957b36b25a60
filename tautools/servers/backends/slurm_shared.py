"""Several servers as one job of Slurm, on one node: its script, and its submission.

The node's accelerators are asked for once and handed out among the servers, so a customer and its agents start together
or not at all. Each server keeps its name, key, port, logs and record, and is verified, watched and stopped by itself;
the job ends when the last of them has ended.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tautools.files import ensure_folder, write_atomic
from tautools.servers.accelerators.assignment import cards_needed, gres_for, job_share_lines
from tautools.servers.backends.slurm import new_job_record
from tautools.servers.backends.slurm_script import checked_text, environment_lines, log_patterns, server_lines
from tautools.servers.registry import Registry, check_name
from tautools.servers.server import Server
from tautools.slurm import JobScript, Slurm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tautools.params.models import ServerParams, SiteParams
    from tautools.records import ServerRecord
    from tautools.servers.placement import PlannedServer


_SUPERVISE = r"""
set -m  # each server leads a process group of its own
pids=() asked=()

runs() {
  [ -n "${pids[$1]:-}" ] && kill -0 -- "-${pids[$1]}" 2> /dev/null
}

tend() {  # once a second: end the servers for which somebody has left a note
  local i note
  sleep 1
  for i in "${!names[@]}"; do
    note="$launches/${names[$i]}.stop"
    [ -e "$note" ] || continue
    if ! runs "$i"; then rm -f -- "$note"; continue; fi
    asked[$i]=$((${asked[$i]:-0} + 1))
    if [ "${asked[$i]}" -gt 20 ]; then kill -KILL -- "-${pids[$i]}"
    elif [ $((${asked[$i]} % 3)) -eq 1 ]; then kill -TERM -- "-${pids[$i]}"
    fi
  done
}

loaded() {  # whether the next server may start: this one has its weights, or has ended
  grep -qsE 'Loading weights took|Model loading took|Application startup complete|Serving .* on http' "$1" "$2" ||
    [ -e "$launches/../${names[$3]}.json" ] || ! runs "$3"
}
""".strip()

_WAIT_FOR_ALL = r"""
while :; do
  left=0
  for i in "${!pids[@]}"; do if runs "$i"; then left=1; fi; done
  [ "$left" = 1 ] || break
  tend
done
code=0
for i in "${!pids[@]}"; do wait "${pids[$i]}" || code=$?; done
exit "$code"
""".strip()


def launch_shared_job(places: Sequence[PlannedServer], *, workspace: Path, site: SiteParams) -> list[Server]:
    """Submit one job that starts all the planned servers on one node; return their handles at once.

    Parameters
    ----------
    places : sequence of Planned
        The servers with their names and ports, in the order of their start.
    workspace : Path
        Where they are registered.
    site : SiteParams
        What a job asks for; cores and memory count for each server.

    Raises
    ------
    ServerError
        When a server of one of the names still waits or runs.
    SlurmError
        When Slurm does not take the job; nothing is left behind then.
    ParamsError
        When a value cannot stand in a job script.
    """
    check_shared_job(places, workspace=workspace, site=site)
    registry = Registry(workspace)
    with registry.claim():
        for place in places:
            _release_name(place.name, registry)
        records = _new_records(places, site, registry)
        try:
            for record in records:
                registry.new_key(record.name)
                registry.add(record)
            for kind in ("logs", "errors"):
                ensure_folder(workspace / kind)
            script = registry.script_file(records[0].name)
            write_atomic(script, _script_text(places, records, site, registry), mode=0o600)
            job_id = Slurm().submit(script.resolve())
        except BaseException:
            for record in records:
                registry.remove(record)
            raise
        submitted = [_submitted(record, job_id, workspace.resolve()) for record in records]
        for record in submitted:
            registry.add(record)
    return [Server(record, workspace=workspace) for record in submitted]


def check_shared_job(places: Sequence[PlannedServer], *, workspace: Path, site: SiteParams) -> float | None:
    """Raise what `launch_shared_job` would raise; return when Slurm thinks that it would start [s since the epoch]."""
    from tautools.servers.start import require_free_name

    for place in places:
        require_free_name(place.name, Registry(workspace))
    return Slurm().test_only(shared_job_script(places, workspace=workspace, site=site))


def shared_job_script(places: Sequence[PlannedServer], *, workspace: Path, site: SiteParams) -> str:
    """Return the script of the job, to read and to submit by hand; nothing is written.

    Raises
    ------
    ParamsError
        When a value cannot stand in a job script.
    """
    registry = Registry(workspace.resolve())
    return _script_text(places, _new_records(places, site, registry), site, registry)


def _release_name(name: str, registry: Registry) -> None:
    from tautools.servers.start import require_free_name

    require_free_name(name, registry)
    old = registry.find(name)
    if old is not None:
        registry.remove(old)


def _new_records(places: Sequence[PlannedServer], site: SiteParams, registry: Registry) -> list[ServerRecord]:
    records = [new_job_record(without_cards(place), site, check_name(place.name), registry) for place in places]
    return [record.model_copy(update={"shares_job": True}) for record in records]


def without_cards(place: PlannedServer) -> ServerParams:
    """Return the params of a server whose cards the job hands out: the plan's numbers are those of no node yet."""
    return place.params.model_copy(update={"cards": []})


def _submitted(record: ServerRecord, job_id: str, workspace: Path) -> ServerRecord:
    logs = {
        field: str(workspace / kind / f"{record.name}_{job_id}.{end}")
        for field, kind, end in (("log_out", "logs", "out"), ("log_err", "errors", "err"))
    }
    return record.model_copy(update={"job_id": job_id, **logs})


def _with_patterns(record: ServerRecord, workspace: Path) -> ServerRecord:
    out, err = log_patterns(record.name, workspace)
    return record.model_copy(update={"log_out": out, "log_err": err})


def _script_text(
    places: Sequence[PlannedServer], records: Sequence[ServerRecord], site: SiteParams, registry: Registry
) -> str:
    workspace = registry.workspace.resolve()
    needed = [cards_needed(place.params, site) for place in places]
    looked, shares = job_share_lines(needed, site, [_log_word(record, workspace, "err") for record in records])
    if looked:
        looked = [*environment_lines(site), *looked]
    name = "+".join(record.name for record in records)[:64].rstrip("+")
    out, err = log_patterns(name, workspace)
    # Subshells: what one server loads, exports and ends is no matter of the others.
    functions = [
        line
        for number, (place, record) in enumerate(zip(places, records, strict=True))
        for line in [
            f"serve_{number}() (",
            *server_lines(
                without_cards(place), site, _with_patterns(record, workspace), workspace, cards=shares[number]
            ),
            ")",
            "",
        ]
    ]
    count = len(places)
    return checked_text(
        JobScript(
            name=name,
            comment=f"Servers {', '.join(record.name for record in records)} on one node. Submit it by hand in "
            f"{workspace}: mkdir -p logs errors && sbatch FILE",
            output=out,
            error=err,
            account=site.account,
            partition=site.partition,
            qos=site.qos,
            cores=None if site.cores is None else site.cores * count,
            memory_gib=None if site.memory_gib is None else site.memory_gib * count,
            gres=gres_for(site, sum(needed)),
            constraint=site.constraint,
            exclude=site.exclude,
            time_limit=site.time_limit,
            body=[
                "trap : TERM  # the end of each server is written down too when Slurm ends the job",
                f"cd -- {shlex.quote(str(workspace))} || exit 1",
                f"names=({' '.join(shlex.quote(record.name) for record in records)})",
                f"launches={shlex.quote(str(workspace / 'servers' / 'launches'))}",
                "",
                *functions,
                *looked,
                _SUPERVISE,
                "",
                *_start_lines(places, records, workspace),
                _WAIT_FOR_ALL,
            ],
        )
    )


def _log_word(record: ServerRecord, workspace: Path, end: str) -> str:
    """Return the bash word for one of a server's logs."""
    folder = workspace / ("logs" if end == "out" else "errors")
    return f'{shlex.quote(str(folder / record.name))}_"$SLURM_JOB_ID".{end}'


def _start_lines(places: Sequence[PlannedServer], records: Sequence[ServerRecord], workspace: Path) -> list[str]:
    lines = []
    for number, (place, record) in enumerate(zip(places, records, strict=True)):
        logs = [_log_word(record, workspace, end) for end in ("out", "err")]
        lines += [
            f"# {record.name}",
            f'rm -f -- "$launches"/{record.name}.stop',
            f"serve_{number} >> {logs[0]} 2>> {logs[1]} &",
            f"pids[{number}]=$!",
        ]
        if number + 1 < len(places):
            lines += _stagger_lines(number, place.params, logs)
        lines.append("")
    return lines


def _stagger_lines(number: int, params: ServerParams, logs: list[str]) -> list[str]:
    if params.stagger is None:
        return []
    if params.stagger == "loaded":
        return [f"until loaded {logs[0]} {logs[1]} {number}; do tend; done"]
    return [f"for _ in $(seq {round(params.stagger)}); do tend; done"]
