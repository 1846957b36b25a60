"""Several servers as one job of Slurm, on one node: its script, and its submission.

The node's accelerators are asked for once and handed out among the servers, so a customer and its agents start together
or not at all. Each server keeps its name, key, port, logs and record, and is verified, watched and stopped by itself;
the job ends when the last of them has ended.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tautools.servers.accelerators.assignment import cards_needed, job_share_lines
from tautools.servers.backends.base import LaunchRequest
from tautools.servers.backends.slurm import new_job_record, submit
from tautools.servers.backends.slurm_script import environment_lines, render_job, server_lines
from tautools.servers.registry import Registry, check_name

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


def submit_shared_job(places: Sequence[PlannedServer], site: SiteParams, registry: Registry) -> list[ServerRecord]:
    """Submit the job and return the records of its servers; the caller holds the registry's claim."""
    records = _new_records(places, site, registry)
    return submit(records, _script_text(places, records, site, registry), registry)


def shared_job_script(places: Sequence[PlannedServer], *, workspace: Path, site: SiteParams) -> str:
    """Return the script of the job, to read and to submit by hand; nothing is written.

    Raises
    ------
    ParamsError
        When a value cannot stand in a job script.
    """
    registry = Registry(workspace.resolve())
    return _script_text(places, _new_records(places, site, registry), site, registry)


def _new_records(places: Sequence[PlannedServer], site: SiteParams, registry: Registry) -> list[ServerRecord]:
    requests = [LaunchRequest(without_cards(place), site, check_name(place.name)) for place in places]
    return [new_job_record(request, registry, shares_job=True) for request in requests]


def without_cards(place: PlannedServer) -> ServerParams:
    """Return the params of a server whose cards the job hands out: the plan's numbers are those of no node yet."""
    return place.params.model_copy(update={"cards": []})


def _script_text(
    places: Sequence[PlannedServer], records: Sequence[ServerRecord], site: SiteParams, registry: Registry
) -> str:
    workspace = registry.workspace.resolve()
    needed = [cards_needed(place.params, site) for place in places]
    probe, shares = job_share_lines(needed, site, [_log_word(record, workspace, "err") for record in records])
    functions: list[str] = []
    for number, (place, record) in enumerate(zip(places, records, strict=True)):
        # Subshells: what one server loads, exports and ends does not concern the others.
        lines = server_lines(without_cards(place), site, record, workspace, cards=shares[number])
        functions += [f"serve_{number}() (", *lines, ")", ""]
    body = [
        "trap : TERM  # the end of each server is written down too when Slurm ends the job",
        f"cd -- {shlex.quote(str(workspace))} || exit 1",
        f"names=({' '.join(shlex.quote(record.name) for record in records)})",
        f"launches={shlex.quote(str(workspace / 'servers' / 'launches'))}",
        "",
        *functions,
        *([*environment_lines(site), *probe] if probe else []),
        _SUPERVISE,
        "",
        *_start_lines(places, records, workspace),
        _WAIT_FOR_ALL,
    ]
    return render_job(records, body, site, workspace, cards=sum(needed))


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
